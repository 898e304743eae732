"""Where work runs: one word, an address or a YAML file becomes a `distributed.Client`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Security, SpecCluster, default_client
from distributed.system import memory_limit

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime.blas import OneBlasThread, one_blas_thread
from emhet_dask.runtime.certificates import certificate_path, kept_certificates, known_certificates
from emhet_dask.runtime.jobs import start_jobs
from emhet_dask.runtime.local import (
    LOOPBACK,
    fitting,
    send_at_once,
    start_processes,
    start_threads,
)
from emhet_dask.runtime.logs import only_critical, only_warnings
from emhet_dask.runtime.memory import parse_bytes
from emhet_dask.runtime.runner import scheduler_address, take_part
from emhet_dask.urls import redact

__all__ = ["FORMS", "Resources", "connect", "resources"]

FORMS = (
    "local, local:N (N processes), tcp://HOST:PORT, tls://HOST:PORT, scheduler-file:PATH, runner "
    "(inside an allocation), or a YAML file with class, options and jobs or adapt"
)
CONNECT_SECONDS = 10
CLOSE_SECONDS = 15
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
        ``tcp://…`` or ``tls://…``, ``scheduler-file:PATH``, ``runner``, or a YAML file with
        ``class`` (of dask-jobqueue), ``options`` (its arguments) and ``jobs: N`` or ``adapt:
        {minimum_jobs: A, maximum_jobs: B}``. A client is used as it is and never closed. Scripts
        with ``local:N`` or ``runner`` need the usual ``if __name__ == "__main__":``, since
        processes import them again. With ``runner`` all ranks of a job step call this, before
        anything else, and only one enters the block: see `emhet_dask.runtime.runner`.
    memory_limit : str or int, optional
        Memory of one worker, for the workers that this function starts itself.
    tls : bool
        Require encryption. Between threads of one process nothing is sent; processes of this
        machine have certificates that live in memory, all others those that are kept
        (`emhet_dask.runtime.certificates`).

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
        stack.enter_context(one_blas_thread())
        # Its `silence_logs` is of its own handler, which it does without where another library has
        # set up logging before it is imported (cryoDRGN does).
        stack.enter_context(only_warnings("distributed"))
        # Of a connection that broke, which whoever waits for a result is told anyway.
        stack.enter_context(only_critical("asyncio"))
        stack.enter_context(_default_given_back())
        if isinstance(spec, Client):
            _own_workers_only(limit, "the given Client")
            _encrypted(_address_of(spec), tls=tls, what="the given Client")
            yield spec
        else:
            yield _open(os.fspath(spec), stack, limit=limit, tls=tls)


def _open(spec: str, stack: ExitStack, *, limit: int | None, tls: bool) -> Client:
    if spec == "local":
        cluster = start_threads(fitting(limit))
        client = _client_of(cluster, stack)
        send_at_once(cluster, client)
        return client
    if found := re.fullmatch(r"local:([1-9]\d*)", spec):
        return _client_of(start_processes(int(found[1]), fitting(limit), tls=tls), stack)
    if spec == "runner":
        stack.enter_context(take_part(memory_limit=limit, tls=tls))
        return _client_at(str(scheduler_address()), stack, tls=tls)
    if spec.endswith((".yaml", ".yml")):
        _own_workers_only(limit, f"options: memory in {spec}")
        defaults: dict[str, Any] = {"scheduler_options": {"dashboard_address": LOOPBACK}}
        if tls:
            defaults |= {"protocol": "tls://", "security": kept_certificates()}
        return _client_of(start_jobs(Path(spec), defaults=defaults), stack, wait=False)
    if redact(spec) != spec:
        raise InputError(
            f"--cluster: got {redact(spec)} with a user, password or query, which has no use; "
            "expected tcp://HOST:PORT or tls://HOST:PORT"
        )
    if re.match(r"(tcp|tls)://|scheduler-file:", spec):
        _own_workers_only(limit, f"the workers of {spec}")
        return _client_at(spec, stack, tls=tls)
    raise InputError(f"--cluster: got {spec!r}, expected {FORMS}")


# --- what runs elsewhere --------------------------------------------------------------------------


def _client_at(spec: str, stack: ExitStack, *, tls: bool) -> Client:
    address = spec
    if spec.startswith("scheduler-file:"):
        address = _address_in(Path(spec.removeprefix("scheduler-file:")))
    _encrypted(address, tls=tls, what=f"--cluster {spec}")
    _host_and_port(address, spec)
    security = _certificates_for(spec) if address.startswith("tls://") else None
    _somebody_answers(address, spec)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, security=security)
    except Exception as error:  # a foreign server's bytes are read as lengths, with any outcome
        raise InputError(
            f"--cluster {spec}: what answers at {address} is not a Dask scheduler that this "
            f"version understands ({error})"
        ) from error
    stack.enter_context(_quietly_closed(client))
    stack.enter_context(client.as_current())
    _with_workers(client, spec)
    _tell_blas(client, spec)
    return client


def _host_and_port(address: str, spec: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:tcp|tls)://(\[[\da-fA-F:]+\]|[^\s/:\[\]]+):(\d{1,5})/?", address)
    if found is None:
        raise InputError(f"--cluster {spec}: got {address!r}, expected tcp:// or tls://HOST:PORT")
    return found[1].strip("[]"), int(found[2])


def _certificates_for(spec: str) -> Security:
    security = known_certificates()
    if security is None:
        raise InputError(
            f"--cluster {spec}: no certificates to show there; expected them in "
            f"{certificate_path()}, or under distributed.comm.tls in Dask's configuration"
        )
    return security


def _somebody_answers(address: str, spec: str) -> None:
    """Knock before a Client does: it would try again and again, and complain at length."""
    host, port = _host_and_port(address, spec)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--cluster {spec}: nobody answers at {address} ({error})") from error


def _tell_blas(client: Client, spec: str) -> None:
    try:
        client.register_plugin(OneBlasThread())
    except Exception as error:  # whatever comes of unpickling there
        raise InputError(
            f"--cluster {spec}: its workers cannot import emhet_dask as it is here; expected the "
            f"same version in their environment ({' '.join(str(error).split())})"
        ) from error


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
    # A failing task's traceback is raised where its result is asked for; once is enough. And what
    # a worker that died was doing is of no use to anybody.
    stack.enter_context(only_critical("distributed.worker", "distributed.scheduler"))
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
def _default_given_back() -> Iterator[None]:
    """Let Dask compute as before; of clients that overlap, the last leaves it asking for one."""
    try:
        yield
    finally:
        try:
            default_client()
        except ValueError:
            if dask.config.get("scheduler", None) == "dask.distributed":
                dask.config.set(scheduler=None)


@contextmanager
def _quietly_closed(thing: Any) -> Iterator[None]:
    """Close at the end, without the log of connections that end with it."""
    try:
        yield
    finally:
        with (
            # Dask gives the second a level of its own.
            only_critical("distributed", "distributed.client"),
            suppress(OSError, TimeoutError),
        ):
            if isinstance(thing, SpecCluster):
                _close_cluster(thing)
            else:
                thing.close()


def _close_cluster(cluster: SpecCluster) -> None:
    """Close a cluster; a worker that is just starting again may never hear of it, and is ended."""
    timer = threading.Timer(CLOSE_SECONDS, _end_processes, [cluster])
    timer.start()
    try:
        cluster.close(timeout=3 * CLOSE_SECONDS)
    finally:
        timer.cancel()


def _end_processes(cluster: SpecCluster) -> None:
    for worker in list(cluster.workers.values()):
        process = getattr(worker, "pid", None)
        if process is not None and process != os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)


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
