"""Sending work to a client and waiting for it: counts, cancellation, errors in words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from dask.base import unpack_collections
from distributed import Client, Future, as_completed
from distributed.diagnostics.progressbar import ProgressBar
from distributed.scheduler import KilledWorker, NoWorkerError

from emhet_dask.errors import EmhetError

if TYPE_CHECKING:
    from emhet_dask.runtime.progress import Task

__all__ = ["compute", "map_items"]

COUNT_INTERVAL = "500ms"
# Enough for a hundred workers that have yet to come (an adaptive cluster grows by what waits),
# little enough that 10^5 items never lie on the scheduler at once.
IN_FLIGHT_AT_LEAST = 128
IN_FLIGHT_PER_THREAD = 4
# In order, results may have to wait for an earlier one; so many windows of them, and no more.
WINDOWS_WAITING = 4
RECOUNT_EVERY = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


def compute(
    client: Client, collections: Sequence[Any], *, task: Task, label: str
) -> tuple[Any, ...]:
    """Compute collections together; see `emhet_dask.runtime.Progress.compute`."""
    lazy, repack = unpack_collections(*collections)
    if not lazy:
        return tuple(collections)
    with warnings.catch_warnings():
        # Who hands over an array in memory cannot load it with Dask, as the warning advises.
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)
        futures = client.compute(lazy)
    with (
        _words_for_errors(label),
        _let_go(client, futures),
        _counted(client, futures, task),
    ):
        results = client.gather(futures)
    return tuple(repack(results))


def map_items(
    client: Client,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    label: str,
    batch: int,
    ordered: bool,
) -> Iterator[Result]:
    """Apply a function to items; see `emhet_dask.runtime.Progress.map`."""
    batches = enumerate(_batched(items, batch))
    numbers: dict[Future, int] = {}
    waiting: dict[int, list[Result]] = {}
    name = f"{label.replace(' ', '-')}-{uuid.uuid4().hex}"
    arrived = as_completed(loop=client.loop, with_results=True)
    following = 0

    def send(at_most: int) -> None:
        for number, chunk in itertools.islice(batches, max(0, at_most)):
            future = client.submit(_each, function, chunk, key=f"{name}-{number}", pure=False)
            numbers[future] = number
            arrived.add(future)

    with _words_for_errors(label), _let_go(client, numbers):
        window = _window(client)
        send(window)
        for count, (future, results) in enumerate(arrived, start=1):
            if isinstance(results, BaseException):
                raise results
            waiting[numbers.pop(future)] = results
            if not ordered:
                yield from waiting.popitem()[1]
            while following in waiting:
                yield from waiting.pop(following)
                following += 1
            if count % RECOUNT_EVERY == 0:
                window = _window(client)
            send(min(window, WINDOWS_WAITING * window - len(waiting)) - len(numbers))


def _each(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


def _window(client: Client) -> int:
    return max(IN_FLIGHT_AT_LEAST, IN_FLIGHT_PER_THREAD * sum(client.nthreads().values()))


@contextmanager
def _let_go(client: Client, futures: Iterable[Future]) -> Iterator[None]:
    """Leave no work behind when the block is left by an error, Ctrl-C, or by a reader who stops."""
    try:
        yield
    finally:
        left = [future for future in futures if not future.done()]
        if left:
            # A scheduler that is gone has no work left either.
            with suppress(OSError, RuntimeError, concurrent.futures.TimeoutError):
                client.cancel(left)
        for future in futures:  # an error's traceback may hold on to them
            future.release()


@contextmanager
def _words_for_errors(label: str) -> Iterator[None]:
    try:
        yield
    except KilledWorker as error:
        raise EmhetError(
            f"{label}: {error.allowed_failures + 1} workers in turn died at the same piece of work,"
            " most likely for lack of memory: give a worker more (--memory-limit, or fewer of them "
            "with --cluster local:N)"
        ) from error
    except NoWorkerError as error:
        raise EmhetError(
            f"{label}: all workers died, and none came back for {error.timeout:.0f} s; the same "
            "command again goes on from what is finished"
        ) from error
    except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
        raise EmhetError(
            f"{label}: the scheduler was lost, or the work cancelled there; the same command again "
            "goes on from what is finished"
        ) from error


# --- counting tasks -------------------------------------------------------------------------------


class _Counter(ProgressBar):
    """Tells a `Task` how many tasks the scheduler has finished."""

    def __init__(self, futures: Sequence[Future], task: Task, address: str) -> None:
        super().__init__(futures, scheduler=address, interval=COUNT_INTERVAL)
        self._task = task

    def _draw_bar(self, **response: Any) -> None:
        done = response["all"] - response["remaining"]
        self._task.set(done=done, total=response["all"])


@contextmanager
def _counted(client: Client, futures: Sequence[Future], task: Task) -> Iterator[None]:
    """Count finished tasks while the block waits; a computation is none the worse without."""
    loop: Any = client.loop
    scheduler: Any = client.scheduler
    counter = _Counter(futures, task, scheduler.address)
    listening = asyncio.run_coroutine_threadsafe(_listen(counter), loop.asyncio_loop)
    try:
        yield
    finally:
        listening.cancel()


async def _listen(counter: _Counter) -> None:
    # A scheduler may refuse what is sent as code, or vanish.
    with suppress(Exception):
        await counter.listen()
