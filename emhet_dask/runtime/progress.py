"""What a person sees of work in progress: a line on a terminal, a few lines in a log, or nothing.

A `Progress` is handed to whatever takes long. It says nothing of work that ends within two seconds,
and tells a listener (a service, for instance) about all of it.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from dask.utils import format_bytes

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Progress", "State", "Task"]

PATIENCE_SECONDS = 2.0
TERMINAL_SECONDS = 0.2
LOG_TICK_SECONDS = 1.0
LOG_LINE_SECONDS = 10.0
BAR_WIDTH = 24
# A rate over less says nothing.
SHORTEST_SECONDS = 1e-3

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class State:
    """How far a piece of work is.

    Attributes
    ----------
    label : str
        What is being done, e.g. ``"ingest"``.
    note : str
        More, such as ``"pass 3"``; may be empty.
    done : int
        Units done in this pass.
    total : int or None
        Units of this pass; None where nobody knows.
    unit : str
        ``"volumes"``, ``"tasks"``, …
    all_done : int
        Units done in all passes, without those that were done before this run.
    all_bytes : int
        Bytes read or written in all passes, where reported.
    seconds, pass_seconds : float
        Since the work, and this pass of it, began.
    done_before : int
        Units of this pass that an earlier run had done.
    ended : bool
        True in the last state of the work, whether it came to its end or failed.
    """

    label: str
    note: str
    done: int
    total: int | None
    unit: str
    all_done: int
    all_bytes: int
    seconds: float
    pass_seconds: float
    done_before: int
    ended: bool = False

    @property
    def fraction(self) -> float | None:
        """Part of this pass that is done, 0 to 1; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate for the rest of this pass; None where there is nothing to judge by."""
        worked = self.done - self.done_before
        if not self.total or worked <= 0:
            return None
        return max(0, self.total - self.done) * self.pass_seconds / worked


class Task:
    """One piece of work whose progress is reported; made by `Progress.task`."""

    def __init__(self, label: str, total: int | None, unit: str, done: int) -> None:
        self._label, self._unit, self._note = label, unit, ""
        self._total, self._done, self._done_before = total, done, done
        self._earlier_passes = 0
        self._bytes = 0
        self._began = self._pass_began = time.monotonic()
        self._lock = threading.Lock()

    def update(self, n: int = 1, *, bytes: int = 0) -> None:  # noqa: A002 - reads as it is meant
        """Count `n` more units, and so many bytes read or written."""
        with self._lock:
            self._done += n
            self._bytes += bytes

    def set(self, *, done: int, total: int | None) -> None:
        """State how many units of this pass are done, of how many."""
        with self._lock:
            self._done, self._total = done, total

    def next_pass(self, note: str) -> None:
        """Begin again at 0, for work that goes over its data several times."""
        with self._lock:
            self._earlier_passes += self._done - self._done_before
            self._note, self._done, self._total, self._done_before = note, 0, None, 0
            self._pass_began = time.monotonic()

    def state(self, *, ended: bool = False) -> State:
        """Return how far it is."""
        now = time.monotonic()
        with self._lock:
            return State(
                self._label,
                self._note,
                self._done,
                self._total,
                self._unit,
                self._earlier_passes + self._done - self._done_before,
                self._bytes,
                now - self._began,
                now - self._pass_began,
                self._done_before,
                ended,
            )


class Progress:
    """Reports work in progress to a person and to a listener.

    Parameters
    ----------
    quiet : bool
        Write nothing.
    stream : text file, optional
        Where to write; default: standard error.
    listener : callable, optional
        Called with a `State` when work begins and ends and about once a second between, whatever
        `quiet` says; from another thread, so it must not raise and not take long.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        listener: Callable[[State], None] | None = None,
    ) -> None:
        self._display = None if quiet else _display(sys.stderr if stream is None else stream)
        self._listener = listener
        self._open: list[Task] = []
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ticker: threading.Thread | None = None

    @contextmanager
    def task(
        self, label: str, *, total: int | None = None, unit: str = "", done: int = 0
    ) -> Iterator[Task]:
        """Report a piece of work for as long as the block takes; blocks may be nested.

        Parameters
        ----------
        label : str
        total : int, optional
            Units to be done, those of an earlier run included.
        unit : str
            Plural, e.g. ``"volumes"``.
        done : int
            Units that an earlier run has done.

        Yields
        ------
        Task
        """
        task = Task(label, total, unit, done)
        self._begin(task)
        failed = True
        try:
            yield task
            failed = False
        finally:
            self._end(task, failed=failed)

    def say(self, text: str) -> None:
        """Write one line, such as ``"mask: done before"``."""
        with self._lock:
            if self._display is not None:
                self._display.line(text)

    def compute(self, client: Client, collections: Sequence[Any], *, label: str) -> tuple[Any, ...]:
        """Compute Dask collections together on a client, with progress.

        Parameters
        ----------
        client : distributed.Client
        collections : sequence
            Arrays, datasets, delayed values; anything else passes through.
        label : str

        Returns
        -------
        tuple
            Results in the same order.

        Raises
        ------
        EmhetError
            When workers died again and again, or the scheduler was lost. What a task raises comes
            through as it is.
        """
        with self.computing(client, label=label) as compute:
            return compute(*collections)

    @contextmanager
    def computing(self, client: Client, *, label: str) -> Iterator[Callable[..., tuple[Any, ...]]]:
        """Report an iterative computation: every call of what this yields is one pass.

        Parameters
        ----------
        client : distributed.Client
        label : str

        Yields
        ------
        callable
            ``compute(*collections) -> tuple``, to inject in place of `dask.compute`; raises as
            `compute` does.
        """
        from emhet_dask.runtime import submit  # noqa: PLC0415 - distributed takes a second

        with self.task(label, unit="tasks") as task:
            passes = 0

            def compute(*collections: Any, **_: Any) -> tuple[Any, ...]:
                nonlocal passes
                passes += 1
                if passes > 1:
                    task.next_pass(f"pass {passes}")
                return submit.compute(client, collections, task=task, label=label)

            yield compute

    def map(
        self,
        client: Client,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        label: str,
        unit: str = "tasks",
        total: int | None = None,
        done: int = 0,
        batch: int = 1,
        ordered: bool = True,
        bytes_of: Callable[[Result], int] | None = None,
    ) -> Iterator[Result]:
        """Apply a function to many items on the workers; a bounded number is under way at a time.

        Parameters
        ----------
        client : distributed.Client
        function : callable
            One item in, a small result out; it runs again where a worker dies.
        items : iterable
        label, unit, total, done
            As for `task`; the total of a sequence is known.
        batch : int
            Items per task, for items that take less than some 10 ms.
        ordered : bool
            Yield in the order of the items; otherwise as they come.
        bytes_of : callable, optional
            Bytes that a result stands for, to report a rate.

        Yields
        ------
        Result of each item.

        Raises
        ------
        EmhetError
            As for `compute`.
        """
        from emhet_dask.runtime import submit  # noqa: PLC0415 - distributed takes a second

        if total is None and isinstance(items, Sequence):
            total = len(items) + done
        with self.task(label, total=total, unit=unit, done=done) as task:
            for result in submit.map_items(
                client, function, items, label=label, batch=batch, ordered=ordered
            ):
                task.update(1, bytes=0 if bytes_of is None else bytes_of(result))
                yield result

    # --- the thread that draws ---

    def _begin(self, task: Task) -> None:
        with self._lock:
            self._open.append(task)
            if self._listener is not None:
                self._listener(task.state())
            if self._ticker is None and (self._display is not None or self._listener is not None):
                self._wake.clear()
                self._ticker = threading.Thread(
                    target=self._tick, name="emhet-progress", daemon=True
                )
                self._ticker.start()

    def _end(self, task: Task, *, failed: bool) -> None:
        ticker = None
        with self._lock:
            self._open.remove(task)
            state = task.state(ended=True)
            if self._display is not None:
                self._display.end(state, failed=failed)
            if self._listener is not None:
                self._listener(state)
            if not self._open:
                ticker, self._ticker = self._ticker, None
                self._wake.set()
        if ticker is not None:
            ticker.join()

    def _tick(self) -> None:
        told = 0.0
        interval = LOG_TICK_SECONDS if self._display is None else self._display.interval
        while not self._wake.wait(interval):
            with self._lock:
                if not self._open:
                    return
                state = self._open[-1].state()
                if self._display is not None:
                    self._display.draw(state)
                if self._listener is not None and time.monotonic() - told >= LOG_TICK_SECONDS:
                    told = time.monotonic()
                    self._listener(state)


def _display(stream: TextIO) -> _Terminal | _Log:
    return _Terminal(stream) if stream.isatty() else _Log(stream)


class _Terminal:
    """One line that is drawn again and again."""

    interval = TERMINAL_SECONDS

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = False

    def draw(self, state: State) -> None:
        if state.seconds < PATIENCE_SECONDS:
            return
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._write(f"\r{_running(state, bar=True)[:width]}\x1b[K")
        self._drawn = True

    def line(self, text: str) -> None:
        self._write(f"{self._clear()}{text}\n")

    def end(self, state: State, *, failed: bool) -> None:
        if state.seconds >= PATIENCE_SECONDS:
            self.line(_ended(state, failed=failed))

    def _clear(self) -> str:
        clear, self._drawn = ("\r\x1b[K" if self._drawn else ""), False
        return clear

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Log:
    """A line now and then: at the start, every tenth but not more than each 10 s, at the end."""

    interval = LOG_TICK_SECONDS

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._work = ("", "")
        self._tenth = 0
        self._last = 0.0

    def draw(self, state: State) -> None:
        if state.seconds < PATIENCE_SECONDS:
            return
        tenth = int(10 * (state.fraction or 0.0))
        work = (state.label, state.note)
        waited = time.monotonic() - self._last >= LOG_LINE_SECONDS
        if waited and (work != self._work or tenth > self._tenth):
            self._work, self._tenth, self._last = work, tenth, time.monotonic()
            self.line(_running(state, bar=False))

    def line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self, state: State, *, failed: bool) -> None:
        if state.seconds >= PATIENCE_SECONDS:
            self.line(_ended(state, failed=failed))


# --- words ----------------------------------------------------------------------------------------


def _running(state: State, *, bar: bool) -> str:
    parts = [f"{state.label}{', ' * bool(state.note)}{state.note}:"]
    if state.fraction is not None:
        if bar:
            filled = int(BAR_WIDTH * state.fraction)
            parts.append(f"[{'=' * filled}{' ' * (BAR_WIDTH - filled)}]")
        parts.append(
            f"{state.fraction:.0%}, {state.done:,} of {state.total:,} {state.unit}".rstrip()
        )
    elif state.done:
        parts.append(f"{state.done:,} {state.unit}".rstrip())
    text = " ".join(parts)
    facts = [duration(state.seconds), *_rates(state)]
    if state.seconds_left is not None and state.fraction != 1:
        facts.append(f"about {duration(state.seconds_left)} left")
    return f"{text} ({', '.join(facts)})"


def _ended(state: State, *, failed: bool) -> str:
    done = f"{state.all_done:,} {state.unit} in " if state.all_done else ""
    rates = ", ".join(_rates(state))
    return (
        f"{state.label}: {'stopped after ' if failed else ''}{done}{duration(state.seconds)}"
        f"{f' ({rates})' if rates else ''}"
    )


def _rates(state: State) -> list[str]:
    rates: list[str] = []
    if state.seconds < SHORTEST_SECONDS:
        return rates
    if state.all_done:
        rates.append(f"{_short(state.all_done / state.seconds)}/s")
    if state.all_bytes:
        rates.append(f"{format_bytes(int(state.all_bytes / state.seconds))}/s")
    return rates


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def duration(seconds: float) -> str:
    """Return a duration for people: ``"12 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
