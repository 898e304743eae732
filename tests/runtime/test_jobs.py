"""Job queues without a queue: a class with the manners of dask-jobqueue that starts threads."""

import signal
import sys
from types import ModuleType

import pytest
from distributed import Scheduler, SpecCluster, Worker

from emhet_dask.errors import InputError
from emhet_dask.runtime.clients import connect


@pytest.fixture
def queue(monkeypatch):
    """Stand in for dask_jobqueue; returns the clusters that were made, with their options."""
    made = []

    class SLURMCluster(SpecCluster):
        def __init__(self, cores, memory, scheduler_options=None, **options):
            if "surprise" in options:
                raise TypeError("unexpected keyword argument 'surprise'")
            self.asked = {"cores": cores, "memory": memory, **options}
            self.scheduler_options = scheduler_options
            worker = {"protocol": "inproc://", "nthreads": 1, "memory_limit": memory}
            worker |= {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
            super().__init__(
                scheduler={
                    "cls": Scheduler,
                    "options": {
                        "protocol": "inproc://",
                        "dashboard": False,
                        **scheduler_options,
                    },
                },
                worker={"cls": Worker, "options": worker},
            )
            made.append(self)

        def adapt(self, minimum_jobs, maximum_jobs):
            self.bounds = (minimum_jobs, maximum_jobs)
            return super().adapt(minimum=minimum_jobs, maximum=maximum_jobs)

    module = ModuleType("dask_jobqueue")
    module.SLURMCluster = SLURMCluster
    monkeypatch.setitem(sys.modules, "dask_jobqueue", module)
    return made


def described(folder, text):
    path = folder / "slurm.yaml"
    path.write_text(text)
    return path


OPTIONS = "class: SLURMCluster\noptions: {cores: 1, memory: 1GB, queue: debug}\n"


@pytest.mark.parametrize(
    ("number", "bounds"),
    [("jobs: 2", (2, 2)), ("adapt: {minimum_jobs: 1, maximum_jobs: 3}", (1, 3))],
)
def test_jobs_are_started_with_the_options_and_kept_up(queue, tmp_path, number, bounds):
    with connect(described(tmp_path, OPTIONS + number)) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    (cluster,) = queue
    assert cluster.asked.items() >= {"cores": 1, "memory": "1GB", "queue": "debug"}.items()
    assert cluster.bounds == bounds
    assert cluster.scheduler_options == {"dashboard_address": "127.0.0.1:0"}
    assert cluster.status.name == "closed"


def test_workers_have_one_blas_thread_do_not_spill_and_keep_their_pages_to_themselves(
    queue, tmp_path
):
    text = "class: SLURMCluster\njobs: 1\noptions:\n  cores: 1\n  memory: 1GB\n"
    text += "  job_script_prologue: [module load python]\n  worker_extra_args: [--lifetime, 50m]\n"
    with connect(described(tmp_path, text)):
        asked = queue[0].asked
    assert asked["worker_extra_args"] == [
        "--lifetime",
        "50m",
        "--dashboard-address",
        "127.0.0.1:0",
    ]
    *ours, last = asked["job_script_prologue"]
    assert last == "module load python"
    assert "export OMP_NUM_THREADS=1" in ours
    assert "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False" in ours


def test_a_task_may_lose_many_workers_to_their_wall_time(queue, tmp_path):
    with connect(described(tmp_path, OPTIONS + "jobs: 1")):
        assert queue[0].scheduler.allowed_failures == 10


def test_the_scheduler_is_where_the_file_says(queue, tmp_path):
    text = "class: SLURMCluster\njobs: 1\noptions:\n  cores: 1\n  memory: 1GB\n"
    text += "  scheduler_options: {port: 0, dashboard_address: '127.0.0.1:0'}\n"
    with connect(described(tmp_path, text)):
        assert queue[0].scheduler_options == {"port": 0, "dashboard_address": "127.0.0.1:0"}


def test_ctrl_c_stays_ours_when_the_queues_package_takes_it_over(tmp_path, monkeypatch):
    (tmp_path / "dask_jobqueue.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
        "def SLURMCluster(**options): raise ValueError('no cores')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dask_jobqueue", raising=False)
    before = signal.getsignal(signal.SIGINT)
    with (
        pytest.raises(InputError, match="no cores"),
        connect(described(tmp_path, OPTIONS + "jobs: 1")),
    ):
        pass
    sys.modules.pop("dask_jobqueue")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class: SLURMCluster\noptions: {cores: 1}\njobs: 1", "SLURMCluster refuses its options"),
        (
            "class: SLURMCluster\noptions: {cores: 1, memory: 1GB, surprise: 2}\njobs: 1",
            "SLURMCluster refuses its options: unexpected keyword argument 'surprise'",
        ),
        ("class: [", "not YAML"),
        ("", "expected the keys class, options, and jobs or adapt"),
        ("- a", "expected the keys class, options, and jobs or adapt"),
        ("jobs: 2", "expected the keys class, options, and jobs or adapt"),
        (OPTIONS + "jobs: 2\nworkers: 3", "unknown key 'workers'"),
        (
            "class: LocalCluster\njobs: 2",
            "class is 'LocalCluster'; expected one of HTCondorCluster",
        ),
        ("class: os.system\njobs: 2", "class is 'os.system'"),
        ("class: SLURMCluster\noptions: 3\njobs: 2", "options is 3"),
        (OPTIONS, "expected either jobs: N or adapt"),
        (OPTIONS + "jobs: 2\nadapt: {}", "expected either jobs: N or adapt"),
        (OPTIONS + "jobs: 0", "jobs is 0; expected a whole number"),
        (OPTIONS + "jobs: yes", "jobs is True; expected a whole number"),
        (OPTIONS + "adapt: {minimum_jobs: 2, maximum_jobs: 1}", "A at most B"),
        (OPTIONS + "adapt: {minimum_jobs: 2}", "expected {minimum_jobs: A, maximum_jobs: B}"),
        (OPTIONS + "adapt: 3", "adapt is 3"),
        ("class: !!python/object/apply:os.getpid []\njobs: 1", "not YAML"),
    ],
)
def test_a_faulty_file_is_answered_with_what_is_wrong_in_it(queue, tmp_path, text, said):
    path = described(tmp_path, text)
    with pytest.raises(InputError) as refused, connect(path):
        pass
    assert str(refused.value).startswith(f"--cluster {path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with (
        pytest.raises(InputError, match=r"--cluster .*none\.yaml: No such file"),
        connect(tmp_path / "none.yaml"),
    ):
        pass


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with (
        pytest.raises(InputError, match=r"needs the package 'dask_jobqueue'.*emhet-dask\[hpc\]"),
        connect(described(tmp_path, OPTIONS + "jobs: 1")),
    ):
        pass
