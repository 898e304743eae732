"""What a worker says of itself, and how fast its network and its disk are.

Functions that run on workers are sent as code, so that a worker on which emhet_dask is missing or
old can say so.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
from distributed import Client, Future

from emhet_dask.errors import InputError

__all__ = ["ask_workers", "disk_rate", "network_rates", "see_folder"]

BLOCK_BYTES = 16 << 20
DISK_BYTES = 32 << 20
ANSWER_SECONDS = 60
PACKAGES = ("dask", "distributed", "numpy", "zarr", "emhet-dask")


def ask_workers(client: Client) -> dict[str, dict[str, Any]]:
    """Ask every worker what it is.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    dict of address to facts
        ``host``, ``node``, ``threads``, ``cores``, ``memory_bytes`` (None without limit),
        ``blas_threads``, ``blas_threads_before``, ``spills``, ``versions``, and
        ``clock_skew_seconds`` against this machine, as far as it is certain.
    """
    began = time.time()
    found = _on_workers(client, _facts, PACKAGES)
    ended = time.time()
    for facts in found.values():
        now = facts.pop("time")
        facts["clock_skew_seconds"] = max(began - now, now - ended, 0.0)
    return found


def see_folder(client: Client, folder: Path) -> dict[str, str | None]:
    """Try whether each worker sees what this process writes in a folder, and the other way round.

    Parameters
    ----------
    client : distributed.Client
    folder : Path
        Exists; nothing is left in it.

    Returns
    -------
    dict of address to str or None
        What is wrong, or None.

    Raises
    ------
    OSError
        When this process cannot write there.
    """
    mark = uuid.uuid4().hex
    ours = folder / f".emhet-check-{mark}"
    theirs: list[Path] = []
    try:
        ours.write_text(mark)
        answers = _on_workers(client, _read_and_answer, str(ours), mark)
        found: dict[str, str | None] = {}
        for address, (problem, name) in answers.items():
            answer = folder / str(name)
            theirs.append(answer)
            found[address] = problem or _reads(answer, mark)
        return found
    finally:
        for path in (ours, *theirs):
            path.unlink(missing_ok=True)


def network_rates(client: Client, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    """Measure how fast blocks go from here to a worker, and from one worker to another.

    Parameters
    ----------
    client : distributed.Client
    pairs : sequence of (address, address)
        The first gets a block from here; the second fetches it from there.

    Returns
    -------
    list of (float, float)
        Bytes per second for each pair; NaN where both are the same worker.

    Raises
    ------
    InputError
        When a worker does not answer for a minute.
    """
    # Random, so that no compression makes it fast.
    block = np.random.default_rng(0).bytes(BLOCK_BYTES)
    rates = []
    for first, second in pairs:
        began = time.perf_counter()
        held = client.scatter(block, workers=[first], hash=False)
        sent = time.perf_counter()
        _answer(client.submit(len, held, workers=[first], pure=False), first)
        idle = time.perf_counter()
        _answer(client.submit(len, held, workers=[second], pure=False), second)
        # Without what a task costs that has its block already.
        fetching = time.perf_counter() - idle - (idle - sent)
        between = float("nan") if first == second else BLOCK_BYTES / max(fetching, 1e-3)
        rates.append((BLOCK_BYTES / (sent - began), between))
    return rates


def disk_rate(client: Client, address: str, folder: Path) -> tuple[float, float]:
    """Measure how fast a worker writes to a folder, down to the disk, and reads from it.

    Parameters
    ----------
    client : distributed.Client
    address : str
        The worker.
    folder : Path

    Returns
    -------
    (float, float)
        Bytes per second, written and read. What was just written may be read from memory.

    Raises
    ------
    OSError
        When the worker cannot write there.
    """
    with _as_code():
        found = client.run(_write_and_read, str(folder), DISK_BYTES, workers=[address])
    write, read = found[address]
    return write, read


# --- from here ------------------------------------------------------------------------------------


def _answer(future: Future, address: str) -> None:
    try:
        future.result(timeout=ANSWER_SECONDS)
    except TimeoutError:
        raise InputError(
            f"the worker {address} takes no tasks for {ANSWER_SECONDS} s; it is busy, or has "
            "paused because its memory is nearly full"
        ) from None


def _on_workers(client: Client, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    with _as_code():
        return dict(client.run(function, *arguments))


@contextmanager
def _as_code() -> Iterator[None]:
    """Let the functions of this module travel as code instead of by their names."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _reads(path: Path, mark: str) -> str | None:
    with suppress(OSError):
        if path.read_text() == mark:
            return None
    return "what it writes in the folder is not seen here"


# --- there: these stand alone ---------------------------------------------------------------------


def _facts(packages: Sequence[str], dask_worker: Any) -> Mapping[str, Any]:
    import importlib.metadata  # noqa: PLC0415
    import platform  # noqa: PLC0415
    import socket  # noqa: PLC0415

    import psutil  # noqa: PLC0415
    from threadpoolctl import threadpool_info  # noqa: PLC0415

    now = time.time()
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    blas = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    told = dask_worker.plugins.get("emhet-one-blas-thread")
    manager = dask_worker.memory_manager
    return {
        "time": now,
        "host": socket.gethostname(),
        # Several nodes of one machine have the same hostname.
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "threads": dask_worker.state.nthreads,
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": manager.memory_limit,
        "blas_threads": blas,
        "blas_threads_before": blas if told is None else told.before,
        "spills": bool(manager.memory_spill_fraction or manager.memory_target_fraction),
        "versions": versions,
    }


def _read_and_answer(path: str, mark: str) -> tuple[str | None, str]:
    import socket  # noqa: PLC0415

    answer = f".emhet-check-{mark}-{socket.gethostname()}-{uuid.uuid4().hex}"
    try:
        if Path(path).read_text() != mark:
            return "it reads something else in the folder than was written here", answer
    except OSError as error:
        return f"it does not see the folder ({error.strerror})", answer
    try:
        Path(path).with_name(answer).write_text(mark)
    except OSError as error:
        return f"it cannot write to the folder ({error.strerror})", answer
    return None, answer


def _write_and_read(folder: str, size: int) -> tuple[float, float]:
    path = Path(folder) / f".emhet-check-{uuid.uuid4().hex}"
    block = np.random.default_rng(0).bytes(size)
    try:
        began = time.perf_counter()
        with path.open("wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        written = time.perf_counter()
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.read()
        return size / (written - began), size / (time.perf_counter() - written)
    finally:
        path.unlink(missing_ok=True)
