"""Workers that this machine starts itself: threads of this process, or processes."""

from __future__ import annotations

import logging
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from distributed import Nanny, Scheduler, SpecCluster, Worker
from distributed.system import MEMORY_LIMIT

from emhet_dask.errors import InputError
from emhet_dask.runtime.blas import BLAS_VARIABLES
from emhet_dask.runtime.certificates import temporary_certificates
from emhet_dask.runtime.memory import format_bytes

__all__ = ["LOOPBACK", "fitting", "start_processes", "start_threads", "worker_settings"]

# Port 0: any free one. Without an address Dask serves its pages on 8787 of every interface, and
# warns when a second run finds that taken.
LOOPBACK = "127.0.0.1:0"


def start_threads(limit: int | None) -> SpecCluster:
    """Start a scheduler and one worker in this process; nothing is copied between its threads."""
    common = {"protocol": "inproc://", "dashboard": False, "dashboard_address": LOOPBACK}
    worker = {**common, "nthreads": CPU_COUNT, "memory_limit": limit or MEMORY_LIMIT}
    # The limit is for plans to keep to: a worker that is this very process cannot be restarted,
    # and must neither pause nor spill because of what the rest of the process holds.
    settings = {f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")}
    # Nobody sees the profile of a worker without a dashboard.
    settings["distributed.worker.profile.enabled"] = False
    with dask.config.set(settings):
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": common},
            workers={0: {"cls": Worker, "options": worker}},
            silence_logs=logging.WARNING,
        )


def start_processes(workers: int, limit: int | None, *, tls: bool) -> SpecCluster:
    """Start a scheduler in this process, and worker processes of one thread each."""
    security = temporary_certificates() if tls else None
    common = {
        "protocol": "tls://" if tls else "tcp://",
        "host": "127.0.0.1",
        "dashboard": False,
        "dashboard_address": LOOPBACK,
        "security": security,
    }
    worker = {
        **common,
        "nthreads": 1,
        "memory_limit": limit or MEMORY_LIMIT // workers,
        "silence_logs": logging.CRITICAL,
        "preload": "emhet_dask.runtime.worker",
    }
    with dask.config.set(worker_settings()):
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": common},
            workers={i: {"cls": Nanny, "options": worker} for i in range(workers)},
            security=security,
            silence_logs=logging.WARNING,
        )


def worker_settings() -> dict[str, Any]:
    """Return Dask's configuration of workers in processes: one BLAS thread, and no spilling.

    Plans keep within the memory of a worker; what lies on its disk would only hide that one does
    not. A worker that comes near its limit pauses, and one that is over it is started again.
    """
    return {
        "distributed.nanny.pre-spawn-environ": {
            **dask.config.get("distributed.nanny.pre-spawn-environ"),
            **dict.fromkeys(BLAS_VARIABLES, "1"),
        },
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }


def fitting(limit: int | None) -> int | None:
    """Return a limit that this machine can grant.

    Raises
    ------
    InputError
        When it is more than the machine has.
    """
    if limit is not None and limit > MEMORY_LIMIT:
        raise InputError(
            f"--memory-limit: got {format_bytes(limit)}, but this machine has "
            f"{format_bytes(MEMORY_LIMIT)}"
        )
    return limit
