import json
import math

import dask
import pytest
from distributed import Client

from emhet_dask import cluster_check
from emhet_dask.errors import InputError
from emhet_dask.runtime import probes
from emhet_dask.runtime.blas import OneBlasThread
from emhet_dask.workflows import cluster_check as checking
from tests.runtime.loopback import loopback_cluster


@pytest.fixture(scope="module")
def two():
    """Two workers of this process, without limit, that spill."""
    with (
        # What the tests before this one left in the memory of this process is not theirs.
        dask.config.set({"distributed.worker.memory.pause": False}),
        loopback_cluster(2, memory_limit="3GiB") as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_a_sound_cluster_is_fit_for_work_and_nothing_is_left(tmp_path, two):
    fitness = cluster_check(two, folder=tmp_path, workers=2, quiet=True)
    assert not fitness.failed
    said = fitness.describe()
    assert said.endswith("fit for work")
    assert "2 workers on 1 node" in said
    assert "3.00 GiB" in said
    assert "2 workers spill to disk" in said
    assert list(tmp_path.iterdir()) == []
    rates = fitness.facts["rates_bytes_per_second"]
    assert all(rate > 0 for rate in rates.values())


def test_threads_of_this_process_send_nothing():
    rates = cluster_check("local", quiet=True).facts["rates_bytes_per_second"]
    assert rates["client_to_worker"] is rates["worker_to_worker"] is None


def test_json_holds_what_the_table_says(tmp_path, two):
    found = json.loads(cluster_check(two, folder=tmp_path, json=True, quiet=True).describe())
    assert [worker["threads"] for worker in found["workers"]] == [1, 1]
    assert found["folder"] == str(tmp_path)
    assert found["problems"] == []


def test_a_folder_that_a_worker_does_not_see_is_a_problem(tmp_path, two, monkeypatch):
    hidden = sorted(two.scheduler_info(n_workers=-1)["workers"])[0]
    see = checking.see_folder

    def blind(client, folder):
        return see(client, folder) | {hidden: "it does not see the folder (No such file)"}

    monkeypatch.setattr(checking, "see_folder", blind)
    fitness = cluster_check(two, folder=tmp_path, quiet=True)
    assert fitness.failed
    (problem,) = fitness.problems
    assert f"{tmp_path} is not shared with 1 of 2 workers" in problem
    assert "fit for work" not in fitness.describe()


def test_each_side_must_read_what_the_other_wrote(tmp_path, two):
    assert set(probes.see_folder(two, tmp_path).values()) == {None}
    path = tmp_path / "ours"
    assert "does not see" in probes._read_and_answer(str(path), "mark")[0]
    path.write_text("of another folder")
    assert "something else" in probes._read_and_answer(str(path), "mark")[0]
    assert "not seen here" in probes._reads(tmp_path / "theirs", "mark")


def facts(**changes):
    sound = {
        "node": "n1",
        "threads": 4,
        "cores": 4,
        "memory_bytes": 4 << 30,
        "blas_threads": 1,
        "blas_threads_before": 1,
        "spills": False,
        "clock_skew_seconds": 0.0,
        "versions": {"python": "3.12.1", "numpy": "2.0.0"},
    }
    return sound | changes


FAST = {"disk_write": 1e9, "client_to_worker": math.inf, "worker_to_worker": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threads": 8}, "8 threads on 4 cores"),
        ({"blas_threads_before": 4}, "began with 4 BLAS threads for each of 4 threads on 4 cores"),
        ({"memory_bytes": None}, "no memory limit"),
        ({"memory_bytes": 500 << 20}, "500.00 MiB; most plans need 1.00 GiB"),
        ({"spills": True}, "spill to disk"),
        ({"clock_skew_seconds": 90.0}, "clocks differ by 90 s"),
    ],
)
def test_what_may_be_meant_so_is_a_warning(changes, said):
    assert list(checking._warnings({"a": facts()}, FAST)) == []
    (warning,) = checking._warnings({"a": facts(), "b": facts(**changes)}, FAST)
    assert said in warning


def test_a_slow_disk_is_a_warning():
    (warning,) = checking._warnings({"a": facts()}, FAST | {"disk_write": 2 << 20})
    assert warning == "disk write: only 2.00 MiB/s"


def test_blas_threads_beyond_the_cores_are_a_problem():
    assert list(checking._thread_problems({"a": facts()})) == []
    (problem,) = checking._thread_problems({"a": facts(blas_threads=4)})
    assert "1 workers have 4 threads × 4 BLAS threads on 4 cores; set OMP_NUM_THREADS=1" in problem


def test_versions_that_differ_are_a_problem(monkeypatch):
    monkeypatch.setattr(checking, "PACKAGES", ("numpy",))
    here = {"python": "3.12.1", "numpy": "2.0.0"}
    old = facts(versions={"python": "3.12.1", "numpy": "1.26.4"})
    assert list(checking._version_problems({"a": facts()}, here)) == []
    (problem,) = checking._version_problems({"a": facts(), "b": old}, here)
    assert problem.startswith("numpy is 2.0.0 here, but 1.26.4 on 1 workers")


def test_a_plugin_keeps_blas_to_one_thread_and_remembers_what_it_was(two):
    two.register_plugin(OneBlasThread())
    found = probes.ask_workers(two)
    assert [each["blas_threads"] for each in found.values()] == [1, 1]
    assert all(each["blas_threads_before"] >= 1 for each in found.values())


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--folder .*: no such folder"):
        cluster_check("local", folder=tmp_path / "none")


def test_workers_that_do_not_come_are_counted(tmp_path, two):
    with pytest.raises(InputError, match="--workers: 2 of 3 came within 1 s"):
        cluster_check(two, folder=tmp_path, workers=3, wait=1, quiet=True)


def test_a_worker_that_takes_no_tasks_is_named(tmp_path, two, monkeypatch):
    def never(self, timeout=None):
        assert timeout is not None, "a check must not wait for ever"
        raise TimeoutError

    monkeypatch.setattr("distributed.Future.result", never)
    with pytest.raises(InputError, match=r"tcp://.* takes no tasks .* memory is nearly full"):
        cluster_check(two, folder=tmp_path, quiet=True)
