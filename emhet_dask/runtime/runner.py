"""Inside one allocation: every rank runs the same command line, and one of them does the work.

Rank 0 serves as scheduler, rank 1 is the client, all others serve as workers. Those that serve
never come back from `take_part`: they exit with status 0 when the client has ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler
from distributed.system import MEMORY_LIMIT

from emhet_dask.errors import InputError, need
from emhet_dask.runtime.certificates import kept_certificates
from emhet_dask.runtime.local import LOOPBACK, fitting, scheduler_settings, worker_settings
from emhet_dask.runtime.logs import only_critical
from emhet_dask.runtime.memory import parse_bytes

__all__ = ["scheduler_address", "take_part"]

# Set by mpirun and mpiexec of Open MPI, MPICH and Intel MPI for each rank; not by srun.
MPI_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS")
LEAST_RANKS = 3
# Dask gives some of its loggers a level of their own.
LOGGERS = ("distributed", *(f"distributed.{n}" for n in ("core", "nanny", "scheduler", "worker")))
SCHEDULER_RANK = 0
CLIENT_RANK = 1
SCHEDULER_SECONDS = 300
POLL_SECONDS = 0.2
# Network to listen on, such as ib0, where the one that Dask finds is not the one to use.
INTERFACE_VARIABLE = "EMHET_INTERFACE"

_address: str | None = None


def scheduler_address() -> str | None:
    """Return the scheduler that this process is the client of; None outside `take_part`."""
    return _address


@contextmanager
def take_part(*, memory_limit: str | int | None = None, tls: bool = False) -> Iterator[None]:
    """Take this rank's part; only the client enters the block, and its end ends all other ranks.

    Parameters
    ----------
    memory_limit : str or int, optional
        Memory of one worker; default: its share of the allocation.
    tls : bool
        Encrypt the traffic, with the certificates that are kept.

    Raises
    ------
    InputError
        When this process is no rank of an allocation, or there are fewer than three.
    SystemExit
        On ranks that served, when the client has ended.
    """
    global _address  # noqa: PLW0603 - a process has one rank
    if _address is not None:
        yield
        return
    limit = None if memory_limit is None else fitting(parse_bytes(memory_limit))
    with dask.config.set(_settings(tls=tls)):
        rank = _find_rank()
        _enough(rank.of)
        common = {
            "protocol": "tls://" if tls else "tcp://",
            "interface": os.environ.get(INTERFACE_VARIABLE),
            "dashboard": False,
            "dashboard_address": LOOPBACK,
        }
        if rank.number != CLIENT_RANK:
            _serve(rank, common, limit)
            sys.exit()
        _address = _address_in(rank.file)
        try:
            yield
        finally:
            _end(_address)
            rank.file.unlink(missing_ok=True)
            _address = None


def _serve(rank: _Rank, common: Mapping[str, Any], limit: int | None) -> None:
    _be_silent()
    # When the client fails, srun ends the others before they can by themselves; the status that
    # counts is the client's.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if rank.number == SCHEDULER_RANK:
        for left in rank.earlier:
            left.unlink(missing_ok=True)
        asyncio.run(_serve_as_scheduler(rank.file, common))
    else:
        asyncio.run(_serve_as_worker(_address_in(rank.file), {**common, **_worker(limit)}))


def _settings(*, tls: bool) -> dict[str, Any]:
    settings = {
        **worker_settings(),
        **scheduler_settings(),
        "distributed.worker.preload": ["emhet_dask.runtime.worker"],
    }
    if tls:
        path = kept_certificates().get_tls_config_for_role("client")["ca_file"]
        settings |= {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": path,
            **{
                f"distributed.comm.tls.{role}.{part}": path
                for role in ("client", "scheduler", "worker")
                for part in ("cert", "key")
            },
        }
    return settings


# --- ranks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rank:
    """Which of how many ranks this process is, and where all of them look for the scheduler."""

    number: int
    of: int
    file: Path
    earlier: tuple[Path, ...] = ()  # of attempts whose node failed


def _find_rank() -> _Rank:
    if any(name in os.environ for name in MPI_VARIABLES):
        mpi = need("mpi4py.MPI", extra="mpi", purpose="--cluster runner under mpirun")
        world = mpi.COMM_WORLD
        # All ranks agree on a name that no earlier run has used.
        file = world.bcast(_scheduler_file(uuid.uuid4().hex), root=0)
        return _Rank(world.Get_rank(), world.Get_size(), file)
    missing = [name for name in SLURM_VARIABLES if name not in os.environ]
    if missing:
        raise InputError(
            f"--cluster runner: this is no task of a job step ({missing[0]} is not set); expected "
            "'srun emhet …' inside an allocation, or 'mpirun emhet …'"
        )
    # A job that was requeued keeps its number, and may find the file of the attempt before.
    step = f"{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    attempts = range(int(os.environ.get("SLURM_RESTART_COUNT", "0")) + 1)
    *earlier, file = [_scheduler_file(f"{step}-{attempt}") for attempt in attempts]
    number, of = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    return _Rank(number, of, file, tuple(earlier))


def _scheduler_file(name: str) -> Path:
    return Path.cwd() / f".emhet-scheduler-{name}.json"


def _address_in(file: Path) -> str:
    """Wait for the scheduler to say where it is."""
    until = time.monotonic() + SCHEDULER_SECONDS
    while time.monotonic() < until:
        with suppress(OSError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(POLL_SECONDS)
    raise InputError(
        f"--cluster runner: no scheduler within {SCHEDULER_SECONDS} s; expected {file}, in a "
        "folder that all nodes share"
    )


# --- parts ----------------------------------------------------------------------------------------


async def _serve_as_scheduler(file: Path, common: Mapping[str, Any]) -> None:
    async with Scheduler(**common) as scheduler:
        written = file.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps({"address": scheduler.address}))
        written.replace(file)  # nobody reads half of it
        try:
            await scheduler.finished()
        finally:  # also of a job that is stopped, whose client may have no time for it
            file.unlink(missing_ok=True)


async def _serve_as_worker(address: str, options: Mapping[str, Any]) -> None:
    async with Nanny(address, **options) as nanny:
        await nanny.finished()


def _end(address: str) -> None:
    """Shut the scheduler down, and with it the workers; their ranks exit."""
    with (
        only_critical("distributed", "distributed.client", "distributed.core"),
        suppress(OSError, TimeoutError),
        Client(address, timeout=10, set_as_default=False) as last,
    ):
        last.shutdown()


# --- what a worker has ----------------------------------------------------------------------------


def _enough(ranks: int) -> None:
    if ranks < LEAST_RANKS:
        raise InputError(
            f"--cluster runner: got {ranks} tasks, expected at least {LEAST_RANKS}: a scheduler, "
            "the command itself, and a worker"
        )


def _worker(limit: int | None) -> dict[str, Any]:
    here = _ranks_here()
    return {
        "nthreads": _threads(here),
        "memory_limit": limit or _memory_here() // here,
        "silence_logs": logging.CRITICAL,
    }


def _ranks_here() -> int:
    """Return how many ranks share this machine."""
    for name in MPI_VARIABLES:
        if name in os.environ:
            return int(os.environ[name])
    # Such as 3(x2),1: three tasks on each of two machines, one on another.
    counts: list[int] = []
    for number, times in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
    ):
        counts += [int(number)] * int(times or 1)
    return counts[min(int(os.environ.get("SLURM_NODEID", "0")), len(counts) - 1)]


def _memory_here() -> int:
    """Return the memory of the allocation on this machine, in bytes."""
    of_slurm = int(os.environ.get("SLURM_MEM_PER_NODE", "0")) << 20
    if per_core := int(os.environ.get("SLURM_MEM_PER_CPU", "0")) << 20:
        of_slurm = per_core * int(os.environ.get("SLURM_CPUS_PER_TASK", "1")) * _ranks_here()
    return min(of_slurm, MEMORY_LIMIT) if of_slurm else MEMORY_LIMIT


def _threads(ranks_here: int) -> int:
    if not any(name in os.environ for name in MPI_VARIABLES):
        return int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    bound = (os.cpu_count() or 1) > CPU_COUNT
    return CPU_COUNT if bound else max(1, CPU_COUNT // ranks_here)


def _be_silent() -> None:
    """Leave the log to the client, whose errors say what there is to say."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
