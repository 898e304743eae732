"""Workers that this machine starts itself: threads of this process, or processes."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, cast

import dask.config
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.system import MEMORY_LIMIT

from emhet_dask.errors import InputError
from emhet_dask.runtime.blas import BLAS_VARIABLES
from emhet_dask.runtime.certificates import temporary_certificates
from emhet_dask.runtime.memory import format_bytes

__all__ = [
    "LOOPBACK",
    "fitting",
    "scheduler_settings",
    "send_at_once",
    "start_processes",
    "start_threads",
    "worker_settings",
]

# Port 0: any free one. Without an address Dask serves its pages on 8787 of every interface, and
# warns when a second run finds that taken.
LOOPBACK = "127.0.0.1:0"
# A worker that gives no sign of life for so long is started again. More than any step of ours keeps
# Python from switching threads; Dask's own default is 5 minutes.
SILENT_WORKER = "2 minutes"
DASKS_SILENT_WORKER = "5 minutes"
# What is said within one process is collected for so long.
COLLECTED_SECONDS = 2e-4
# As long as a worker takes to start again, where that comes to nothing on any of them.
NO_WORKERS = "5 minutes"


def start_threads(limit: int | None) -> SpecCluster:
    """Start a scheduler and one worker in this process; nothing is copied between its threads."""
    common = {"protocol": "inproc://", "dashboard": False, "dashboard_address": LOOPBACK}
    worker = {**common, "nthreads": CPU_COUNT, "memory_limit": limit or MEMORY_LIMIT}
    # The limit is for plans to keep to: a worker that is this very process cannot be restarted,
    # and must neither pause nor spill because of what the rest of the process holds.
    settings: dict[str, Any] = {
        f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")
    }
    # It cannot hang alone, but is silent while the machine sleeps.
    settings["distributed.scheduler.worker-ttl"] = None
    # Nobody sees the profile of a worker without a dashboard.
    settings["distributed.worker.profile.enabled"] = False
    with dask.config.set(settings):
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": common},
            workers={0: {"cls": Worker, "options": worker}},
            silence_logs=logging.WARNING,
        )


def send_at_once(cluster: SpecCluster, client: Client) -> None:
    """Let client, scheduler and worker of one process hear of one another without delay.

    Dask collects what they say for up to 10 ms, to send it over a network in fewer pieces. Here
    there is none, and passes of a few milliseconds would take three times as long.
    """
    scheduler: Any = cluster.scheduler
    # Where another version of Dask has other names for them, passes take longer, and no more.
    with suppress(AttributeError):
        streams = [
            cast("Any", client).scheduler_comm,
            *scheduler.stream_comms.values(),
            *scheduler.client_comms.values(),
            *(worker.batched_stream for worker in cluster.workers.values()),
        ]
        for stream in streams:
            stream.interval = COLLECTED_SECONDS


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
    settings = {
        **worker_settings(),
        **scheduler_settings(),
        "distributed.scheduler.no-workers-timeout": NO_WORKERS,
    }
    with dask.config.set(settings):
        return _KeptProcesses(
            scheduler={"cls": Scheduler, "options": common},
            workers={i: {"cls": Nanny, "options": worker} for i in range(workers)},
            security=security,
            silence_logs=logging.WARNING,
        )


class _KeptProcesses(SpecCluster):
    """Processes that are started again by whoever started them, however long that takes.

    Dask would close those for good that are away 15 s after they were lost, be it a second time or
    still: a run whose workers all went that way would wait for ever.
    """

    def _update_worker_status(self, op: str, msg: Any) -> None:
        super(SpecCluster, self)._update_worker_status(op, msg)


def scheduler_settings() -> dict[str, Any]:
    """Return Dask's configuration of a scheduler of ours: when it gives up a silent worker.

    What a user has configured stays.
    """
    ttl = "distributed.scheduler.worker-ttl"
    return {ttl: SILENT_WORKER} if dask.config.get(ttl) == DASKS_SILENT_WORKER else {}


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
