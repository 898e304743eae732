import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import dask
import psutil
import pytest
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Status, get_client
from distributed.system import MEMORY_LIMIT
from threadpoolctl import threadpool_info

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime.clients import connect, resources
from emhet_dask.runtime.local import COLLECTED_SECONDS
from tests.runtime.loopback import loopback_cluster

BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def listening():
    """Addresses on which this process and its children wait for connections."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def refusal(spec, **options):
    with pytest.raises(InputError) as refused, connect(spec, **options):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- threads of this process ----------------------------------------------------------------------


def test_local_is_this_process_with_a_thread_per_core():
    with connect() as client:
        have = resources(client)
        assert (have.workers, have.threads) == (1, CPU_COUNT)
        assert have.threads == have.threads_per_worker
        assert have.memory_bytes_per_worker == MEMORY_LIMIT
        assert client.submit(os.getpid).result() == os.getpid()
        assert dask.delayed(sum)([1, 2]).compute() == 3
        assert listening() <= {"127.0.0.1"}


def test_blas_has_one_thread_while_connected_and_what_it_had_afterwards():
    def blas_threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    environment, threads = dict(os.environ), blas_threads()
    with connect() as client:
        assert client.submit(blas_threads, pure=False).result() == {1}
        assert {os.environ[name] for name in BLAS} == {"1"}
    assert blas_threads() == threads
    assert dict(os.environ) == environment


def test_a_limit_for_threads_is_what_plans_keep_to_and_makes_nobody_spill_or_pause():
    with connect(memory_limit="150MB") as client:
        assert resources(client).memory_bytes_per_worker == 150 * 10**6
        block = client.submit(lambda: bytes(200 * 10**6), pure=False)
        assert len(block.result()) == 200 * 10**6  # more than the limit is held, and work goes on
        assert client.submit(sum, [1, 2]).result() == 3
        worker = next(iter(client.scheduler_info(n_workers=-1)["workers"].values()))
        assert worker["metrics"]["spilled_bytes"]["disk"] == 0
        assert worker["status"] == "running"


def test_a_failing_task_is_raised_once_and_logged_never(capfd):
    def fail():
        raise InputError("b.mrc: truncated")

    with connect() as client, pytest.raises(InputError, match=r"b\.mrc: truncated"):
        client.submit(fail).result()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("distributed.worker").level == logging.NOTSET


def test_dask_stays_quiet_where_somebody_else_has_set_up_logging_before_it(monkeypatch, caplog):
    # Dask then takes no handler of its own, and leaves all it says to that of the root.
    dasks = logging.getLogger("distributed")
    monkeypatch.setattr(dasks, "handlers", [])
    monkeypatch.setattr(dasks, "propagate", True)
    caplog.set_level(logging.INFO)
    with connect() as client:
        assert client.submit(sum, [1, 2]).result() == 3
    assert [record.getMessage() for record in caplog.records] == []
    assert dasks.level == logging.INFO


def test_threads_hear_of_one_another_at_once():
    with connect("local") as client:
        scheduler = client.cluster.scheduler
        (worker,) = client.cluster.workers.values()
        streams = [
            client.scheduler_comm,
            worker.batched_stream,
            scheduler.client_comms[client.id],
            scheduler.stream_comms[worker.address],
        ]
        assert {stream.interval for stream in streams} == {COLLECTED_SECONDS}
        assert client.submit(sum, (1, 2)).result() == 3


def test_threads_need_no_encryption():
    with connect(tls=True) as client:
        assert client.scheduler.address.startswith("inproc://")


def test_two_at_once_do_not_get_in_each_others_way():
    with connect() as one, connect() as two:
        assert one.submit(sum, [1, 2]).result() == two.submit(sum, [1, 2]).result() == 3


# --- processes ------------------------------------------------------------------------------------


def without_dasks_own(environment):
    return {name: value for name, value in environment.items() if "DASK" not in name}


def test_processes_have_one_thread_a_share_of_the_memory_and_leave_nothing(capfd):
    environment = without_dasks_own(os.environ)
    with connect("local:2") as client:
        have = resources(client)
        assert (have.workers, have.threads, have.threads_per_worker) == (2, 2, 1)
        assert have.memory_bytes_per_worker == MEMORY_LIMIT // 2
        assert listening() == {"127.0.0.1"}

        def facts():
            import numpy as np  # noqa: F401
            import threadpoolctl

            blas = {p["num_threads"] for p in threadpoolctl.threadpool_info()}
            return os.getpid(), blas, os.environ["OMP_NUM_THREADS"]

        found = client.run(facts)
        workers = [psutil.Process(pid) for pid, _, _ in found.values()]
        assert os.getpid() not in {process.pid for process in workers}
        assert all((blas, omp) == ({1}, "1") for _, blas, omp in found.values())

        def fail():
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            client.submit(fail).result()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert without_dasks_own(os.environ) == environment
    assert capfd.readouterr() == ("", "")


def interrupted(folder, signal_number, *, group):
    """Signal a script at work; return those of its children that outlive it, and its stderr."""
    script = folder / "script.py"
    script.write_text(LONG_WORK)
    with subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        assert run.stdout.readline() == b"ready\n"
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 2
        (os.killpg if group else os.kill)(run.pid, signal_number)
        errors = run.stderr.read().decode()
    return psutil.wait_procs(children, timeout=30)[1], errors


LONG_WORK = """
import time
from emhet_dask.runtime.clients import connect
from emhet_dask.runtime.progress import Progress

def main():
    with connect("local:2") as client:
        client.submit(sum, [1]).result()
        print("ready", flush=True)
        list(Progress().map(client, time.sleep, [0.1] * 10_000, label="sleep"))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_workers_end_when_their_client_is_killed(tmp_path):
    left, _ = interrupted(tmp_path, signal.SIGKILL, group=False)
    assert left == []


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_without_complaint(tmp_path):
    left, errors = interrupted(tmp_path, signal.SIGINT, group=True)
    assert left == []
    assert errors.count("Traceback") == 1, errors  # that of the KeyboardInterrupt
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not errors.partition("Traceback")[0].strip()


@pytest.mark.slow
def test_traffic_between_processes_can_be_encrypted():
    pytest.importorskip("cryptography", reason="certificates are made with cryptography")
    with connect("local:1", tls=True) as client:
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3


def test_what_encryption_needs_is_said_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    said = refusal("local:2", tls=True)
    assert said.startswith("--tls needs the package 'cryptography'")


# --- schedulers that run already ------------------------------------------------------------------


@pytest.fixture(scope="module")
def running():
    """A scheduler on TCP with one worker that has no memory limit."""
    with loopback_cluster(1, memory_limit=0) as cluster:
        yield cluster


def test_an_address_is_connected_to_and_left_running(running):
    for _ in range(2):
        with connect(running.scheduler_address) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_a_worker_without_a_limit_has_its_machine(running):
    with connect(running.scheduler_address) as client:
        assert resources(client).memory_bytes_per_worker == MEMORY_LIMIT


def test_a_scheduler_file_is_followed(running, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": running.scheduler_address}))
    with connect(f"scheduler-file:{file}") as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_given_client_is_used_and_not_closed(running):
    with Client(running) as given:
        with connect(given) as client:
            assert client is given
        assert given.submit(sum, [1, 2]).result() == 3


def test_a_scheduler_without_workers_is_said_to_have_none(monkeypatch):
    monkeypatch.setattr("emhet_dask.runtime.clients.FIRST_WORKER_SECONDS", 1)
    with loopback_cluster(0) as cluster:
        said = refusal(cluster.scheduler_address)
        assert "has had no workers for 1 s" in said
        with Client(cluster) as client, pytest.raises(EmhetError, match="has no workers"):
            resources(client)


@contextlib.contextmanager
def a_web_server():
    """Something that answers, but is no scheduler; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_what_is_no_scheduler_is_called_so():
    with a_web_server() as port:
        assert "is not a Dask scheduler" in refusal(f"tcp://127.0.0.1:{port}")


# --- specifications that cannot be used -----------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["locl", "", "local:", "local:0", "local:-1", "local:two", "127.0.0.1:8786", "slurm"]
)
def test_an_unknown_specification_is_answered_with_those_known(spec):
    said = refusal(spec)
    assert said.startswith(
        f"--cluster: got {spec!r}, expected local, local:N (N processes), tcp://"
    )
    assert "YAML file with class, options and jobs or adapt" in said


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("runner", {}, "this is no task of a job step (SLURM_JOB_ID is not set)"),
        ("tcp://127.0.0.1:1", {}, "nobody answers at tcp://127.0.0.1:1"),
        ("tcp://127.0.0.1", {}, "expected tcp:// or tls://HOST:PORT"),
        ("tcp://", {}, "expected tcp:// or tls://HOST:PORT"),
        ("tls://127.0.0.1:1", {}, "no certificates to show there"),
        ("tcp://127.0.0.1:1", {"tls": True}, "--tls: --cluster tcp://127.0.0.1:1 is not encrypted"),
        ("tcp://127.0.0.1:1", {"memory_limit": "1GB"}, "--memory-limit: the memory of a worker"),
        ("x.yaml", {"memory_limit": "1GB"}, "decided by options: memory in x.yaml"),
        ("scheduler-file:none.json", {}, "No such file"),
        ("local", {"memory_limit": "much"}, "--memory-limit: got 'much'"),
        ("local", {"memory_limit": "9000TB"}, "but this machine has"),
        ("local:2", {"memory_limit": "9000TB"}, "but this machine has"),
    ],
)
def test_what_cannot_be_had_is_said_with_the_option(spec, options, said, tmp_path, monkeypatch):
    monkeypatch.setenv("EMHET_TLS_DIR", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert said in refusal(spec, **options)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": ', "address: tcp://x"])
def test_a_file_that_is_no_scheduler_file_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    assert "not a scheduler file" in refusal(f"scheduler-file:{tmp_path / 's.json'}")


def test_options_for_own_workers_are_refused_with_a_given_client(running):
    with Client(running) as given:
        assert "--memory-limit" in refusal(given, memory_limit="1GB")
        assert "is not encrypted" in refusal(given, tls=True)


def test_connecting_makes_the_client_the_default_and_gives_the_former_back(running):
    with Client(running) as outer:
        with connect() as inner:
            assert get_client() is inner
        assert get_client() is outer


def test_dask_computes_without_a_client_afterwards_whoever_was_closed_first(running):
    earlier = Client(running)
    later = Client(running)
    earlier.close()
    later.close()
    assert dask.config.get("scheduler") == "dask.distributed"  # and there is none
    with connect():
        pass
    assert dask.config.get("scheduler", None) is None
    assert dask.delayed(sum)([1, 2]).compute() == 3


def test_a_worker_that_never_hears_of_the_end_is_ended(monkeypatch):
    ended = []

    async def deaf(self, *_, **__):
        process = self.process.process
        while process.is_alive():  # as where it is just being started again
            await asyncio.sleep(0.05)
        ended.append(process.exitcode)
        self.status = Status.closed

    monkeypatch.setattr("emhet_dask.runtime.clients.CLOSE_SECONDS", 3)
    with connect("local:1") as client:
        monkeypatch.setattr(Nanny, "close", deaf)
        monkeypatch.setattr(Nanny, "_on_worker_exit_sync", lambda *_: None)
        assert client.submit(sum, [1, 2]).result() == 3
    assert ended == [-signal.SIGKILL]
