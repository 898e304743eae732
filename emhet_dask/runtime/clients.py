"""Where work runs: one word, an address or a YAML file becomes a `distributed.Client`."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.system import MEMORY_LIMIT, memory_limit

from emhet_dask.errors import EmhetError, InputError, need
from emhet_dask.runtime.jobs import start_jobs
from emhet_dask.runtime.memory import format_bytes, parse_bytes

__all__ = ["FORMS", "Resources", "connect", "resources", "worker_memory_bytes"]

FORMS = (
    "local, local:N (N processes), tcp://HOST:PORT, tls://HOST:PORT, scheduler-file:PATH, or a "
    "YAML file with class, options and jobs or adapt"
)
# Port 0: any free one. Without an address Dask serves its pages on 8787 of every interface, and
# warns when a second run finds that taken.
LOOPBACK = "127.0.0.1:0"
BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Dask's nanny leaves these in the environment of this process.
NANNY_VARIABLES = ("PYTHONHASHSEED", "MALLOC_TRIM_THRESHOLD_")
CONNECT_SECONDS = 10
FIRST_WORKER_SECONDS = 60


@contextmanager
def connect(
    spec: str | os.PathLike[str] | Client = "local",
    *,
    memory_limit: str | int | None = None,
    tls: bool = False,
) -> Iterator[Client]:
    """Start or find the workers that a specification names, and end what was started.

    Parameters
    ----------
    spec : str, path or distributed.Client
        ``local`` (threads of this process, one per core), ``local:N`` (N processes of one thread),
        ``tcp://…`` or ``tls://…``, ``scheduler-file:PATH``, or a YAML file with ``class`` (of
        dask-jobqueue), ``options`` (its arguments) and ``jobs: N`` or ``adapt: {minimum_jobs: A,
        maximum_jobs: B}``. A client is used as it is and never closed. ``local:N`` from a script
        needs the usual ``if __name__ == "__main__":``, since processes import it again.
    memory_limit : str or int, optional
        Memory of one worker, for the workers that this function starts itself.
    tls : bool
        Require encryption. Between threads of one process nothing is sent.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        When the specification is none of these, its file is wrong, nobody answers at the address,
        or `memory_limit` or `tls` cannot be had there.
    """
    limit = None if memory_limit is None else parse_bytes(memory_limit)
    with ExitStack() as stack:
        stack.enter_context(_one_blas_thread())
        if isinstance(spec, Client):
            _own_workers_only(limit, "the given Client")
            _encrypted(_address_of(spec), tls=tls, what="the given Client")
            yield spec
        else:
            yield _open(os.fspath(spec), stack, limit=limit, tls=tls)


def _open(spec: str, stack: ExitStack, *, limit: int | None, tls: bool) -> Client:
    if spec == "local":
        return _client_of(_start_threads(_fitting(limit)), stack)
    if found := re.fullmatch(r"local:([1-9]\d*)", spec):
        return _client_of(_start_processes(int(found[1]), _fitting(limit), tls=tls), stack)
    if spec == "runner":
        raise InputError(
            "--cluster runner: not available; inside an allocation start 'dask scheduler "
            "--scheduler-file FILE' and 'dask worker --scheduler-file FILE', then use "
            "scheduler-file:FILE"
        )
    if spec.endswith((".yaml", ".yml")):
        _own_workers_only(limit, f"options: memory in {spec}")
        defaults: dict[str, Any] = {"scheduler_options": {"dashboard_address": LOOPBACK}}
        if tls:
            defaults |= {"protocol": "tls://", "security": _temporary_certificates()}
        return _client_of(start_jobs(Path(spec), defaults=defaults), stack, wait=False)
    if re.match(r"(tcp|tls)://|scheduler-file:", spec):
        _own_workers_only(limit, f"the workers of {spec}")
        return _client_at(spec, stack, tls=tls)
    raise InputError(f"--cluster: got {spec!r}, expected {FORMS}")


# --- what this machine starts itself --------------------------------------------------------------


def _start_threads(limit: int | None) -> SpecCluster:
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


def _start_processes(workers: int, limit: int | None, *, tls: bool) -> SpecCluster:
    """Start a scheduler in this process, and worker processes of one thread each."""
    security = _temporary_certificates() if tls else None
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
    environment = {
        **dask.config.get("distributed.nanny.pre-spawn-environ"),
        **dict.fromkeys(BLAS_VARIABLES, "1"),
    }
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": common},
            workers={i: {"cls": Nanny, "options": worker} for i in range(workers)},
            security=security,
            silence_logs=logging.WARNING,
        )


def _temporary_certificates() -> Security:
    """Make certificates that live in memory, for workers that this process starts."""
    need("cryptography", extra="hpc", purpose="--tls")
    return Security.temporary()


def _fitting(limit: int | None) -> int | None:
    if limit is not None and limit > MEMORY_LIMIT:
        raise InputError(
            f"--memory-limit: got {format_bytes(limit)}, but this machine has "
            f"{format_bytes(MEMORY_LIMIT)}"
        )
    return limit


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread per task, in libraries loaded now and later, and in new processes.

    With one per core in each of as many tasks, cores would be shared between their square; and
    the last bits of a product would depend on the machine.
    """
    # Each of these brings a BLAS, which can be told only once it is loaded.
    import numpy as np  # noqa: F401, PLC0415
    import scipy.linalg  # noqa: F401, PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    before = {name: os.environ.get(name) for name in (*BLAS_VARIABLES, *NANNY_VARIABLES)}
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# --- what runs elsewhere --------------------------------------------------------------------------


def _client_at(spec: str, stack: ExitStack, *, tls: bool) -> Client:
    address = spec
    if spec.startswith("scheduler-file:"):
        address = _address_in(Path(spec.removeprefix("scheduler-file:")))
    _encrypted(address, tls=tls, what=f"--cluster {spec}")
    _somebody_answers(address, spec)
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except Exception as error:  # a foreign server's bytes are read as lengths, with any outcome
        raise InputError(
            f"--cluster {spec}: what answers at {address} is not a Dask scheduler that this "
            f"version understands ({error})"
        ) from error
    stack.enter_context(_quietly_closed(client))
    stack.enter_context(client.as_current())
    return _with_workers(client, spec)


def _somebody_answers(address: str, spec: str) -> None:
    """Knock before a Client does: it would try again and again, and complain at length."""
    found = re.fullmatch(r"(tcp|tls)://(\[[\da-fA-F:]+\]|[^\s/:\[\]]+):(\d{1,5})/?", address)
    if found is None:
        raise InputError(f"--cluster {spec}: got {address!r}, expected tcp:// or tls://HOST:PORT")
    if found[1] == "tls" and Security().get_connection_args("client").get("ssl_context") is None:
        raise InputError(
            f"--cluster {spec}: no certificates to show there; expected ca-file, client.cert and "
            "client.key under distributed.comm.tls in Dask's configuration"
        )
    try:
        socket.create_connection((found[2].strip("[]"), int(found[3])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--cluster {spec}: nobody answers at {address} ({error})") from error


def _address_in(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["address"])
    except OSError as error:
        raise InputError(f"--cluster scheduler-file:{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--cluster scheduler-file:{path}: not a scheduler file of Dask (JSON with an address)"
        ) from error


def _address_of(client: Client) -> str:
    return "" if client.scheduler is None else str(client.scheduler.address)


def _encrypted(address: str, *, tls: bool, what: str) -> None:
    if tls and not address.startswith(("tls://", "inproc://")):
        raise InputError(f"--tls: {what} is not encrypted ({address}); expected tls://HOST:PORT")


def _own_workers_only(limit: int | None, owner: str) -> None:
    if limit is not None:
        raise InputError(
            f"--memory-limit: the memory of a worker is decided by {owner}; leave the option out"
        )


# --- clients --------------------------------------------------------------------------------------


def _client_of(cluster: SpecCluster, stack: ExitStack, *, wait: bool = True) -> Client:
    stack.enter_context(_quietly_closed(cluster))
    client = Client(cluster)
    stack.enter_context(_quietly_closed(client))
    stack.enter_context(client.as_current())
    # A failing task's traceback is raised where its result is asked for; once is enough.
    stack.enter_context(_only_critical("distributed.worker"))
    # Jobs may wait in their queue for hours, and tasks can wait for them.
    return _with_workers(client, "local") if wait else client


def _with_workers(client: Client, spec: str) -> Client:
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
    except TimeoutError as error:
        raise InputError(
            f"--cluster {spec}: the scheduler has had no workers for {FIRST_WORKER_SECONDS} s"
        ) from error
    return client


@contextmanager
def _quietly_closed(thing: Any) -> Iterator[None]:
    """Close at the end, without the log of connections that end with it."""
    try:
        yield
    finally:
        with (
            # Dask gives the second a level of its own.
            _only_critical("distributed", "distributed.client"),
            suppress(OSError, TimeoutError),
        ):
            thing.close()


@contextmanager
def _only_critical(*names: str) -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class Resources:
    """What a client's workers have.

    Attributes
    ----------
    workers, threads : int
        How many in all.
    threads_per_worker : int
        Of the worker with most.
    memory_bytes_per_worker : int
        Of the worker with least.
    """

    workers: int
    threads: int
    threads_per_worker: int
    memory_bytes_per_worker: int


def resources(client: Client) -> Resources:
    """Ask what the workers have, now.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    Resources

    Raises
    ------
    EmhetError
        When there is no worker.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise EmhetError(f"the scheduler at {_address_of(client)} has no workers")
    memory = {address: info["memory_limit"] for address, info in workers.items()}
    if not all(memory.values()):
        # A worker without a limit has its share of its machine.
        machine = client.run(memory_limit)
        sharing = Counter(info["host"] for info in workers.values())
        memory = {
            address: memory[address] or machine[address] // sharing[info["host"]]
            for address, info in workers.items()
            if address in machine
        }
    threads = [info["nthreads"] for info in workers.values()]
    return Resources(len(workers), sum(threads), max(threads), min(memory.values()))


def worker_memory_bytes(client: Client) -> int:
    """Return the memory of the worker that has least, in bytes; see `resources`."""
    return resources(client).memory_bytes_per_worker
