"""What a rank makes of its surroundings; whole runs are in tests/slurm."""

import pytest

from emhet_dask.errors import InputError
from emhet_dask.runtime import runner


@pytest.fixture(autouse=True)
def no_allocation(monkeypatch):
    for name in (*runner.SLURM_VARIABLES, *runner.MPI_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("tasks", "node", "here"),
    [("1", 0, 1), ("3(x2),1", 0, 3), ("3(x2),1", 1, 3), ("3(x2),1", 2, 1)],
)
def test_ranks_that_share_a_machine_are_counted(monkeypatch, tasks, node, here):
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks)
    monkeypatch.setenv("SLURM_NODEID", str(node))
    assert runner._ranks_here() == here


def test_a_worker_has_its_share_of_the_allocation(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "4")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    worker = runner._worker(None)
    assert worker["memory_limit"] == 512 << 20
    assert worker["nthreads"] == 3
    assert runner._worker(200 << 20)["memory_limit"] == 200 << 20


def test_a_job_that_queued_again_looks_for_a_new_scheduler(monkeypatch):
    for name, value in zip(runner.SLURM_VARIABLES, ("7", "0", "1", "4"), strict=True):
        monkeypatch.setenv(name, value)
    first = runner._find_rank()
    assert (first.number, first.of) == (1, 4)
    assert first.earlier == ()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = runner._find_rank()
    assert again.file != first.file
    assert again.earlier == (first.file,)


def test_a_scheduler_that_does_not_come_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "SCHEDULER_SECONDS", 0.1)
    with pytest.raises(InputError, match="in a folder that all nodes share"):
        runner._address_in(tmp_path / "none.json")


def test_outside_an_allocation_it_says_what_to_type():
    with pytest.raises(InputError, match="expected 'srun emhet"), runner.take_part():
        pass
