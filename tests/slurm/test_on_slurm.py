"""Commands on a real Slurm: in one job that brings everything, and with jobs for workers."""

import json
import re

import numpy as np
import pytest
import zarr

from emhet_dask import ingest, simulate_assembly
from tests.slurm.jobs import SBATCH, ended, queued, run, submit, wait_until, write_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "maps"
    simulate_assembly(output=folder, n=12, box=16, quiet=True)
    return folder


def submitted(slurm, folder, *command, tasks=4):
    """Run a command in a job of run.sbatch; return its status and its log."""
    script = [SBATCH, *command] if command[0] == "emhet" else [f"--wrap={' '.join(command)}"]
    job = submit(script, slurm, folder, f"--ntasks={tasks}", "--time=5")
    return ended(job, slurm, folder)


def test_a_job_that_brings_everything_gives_what_one_process_gives(slurm, tmp_path, maps):
    status, log = submitted(
        slurm, tmp_path, "emhet", "ingest", maps, "-o", "slurm.zarr", "--cluster", "runner", "-q"
    )
    # Once, by the rank that did the work; those that served had nothing to say.
    assert (status, log) == (0, "slurm.zarr: 12 volumes of 16³ at 3 Å\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "slurm.zarr"]
    ingest([maps], output=tmp_path / "here.zarr", quiet=True)
    there, here = (zarr.open_group(tmp_path / name) for name in ("slurm.zarr", "here.zarr"))
    assert there.attrs["fingerprint"] == here.attrs["fingerprint"]
    np.testing.assert_array_equal(there["volumes"][:], here["volumes"][:])


def test_what_is_wrong_is_said_once_and_nothing_is_written(slurm, tmp_path):
    status, log = submitted(
        slurm, tmp_path, "emhet", "ingest", "no", "-o", "e.zarr", "--cluster", "runner"
    )
    assert status == 2
    assert log.count("emhet: no: no such file or folder") == 1
    assert "Traceback" not in log
    assert not (tmp_path / "e.zarr").exists()


@pytest.mark.parametrize(
    ("tasks", "command", "said"),
    [
        (2, ("srun",), "got 2 tasks, expected at least 3"),
        (4, (), "this is no task of a job step"),
    ],
)
def test_ranks_that_cannot_be_are_refused(slurm, tmp_path, tasks, command, said):
    line = (*command, "emhet", "cluster", "check", "runner")
    if not command:
        line = ("exec", *line)
    status, log = submitted(slurm, tmp_path, *line, tasks=tasks)
    assert status == 2
    assert said in log


def test_jobs_are_checked_encrypted_and_ended(slurm, tmp_path):
    keys = tmp_path / "keys"
    command = ["emhet", "cluster", "check", write_cluster(tmp_path), "--tls", "--json"]
    done = run(
        [*command, "--workers=2", "--wait=60"], slurm | {"EMHET_TLS_DIR": str(keys)}, tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert len(found["workers"]) == 2
    assert {each["node"] for each in found["workers"]} <= {"n1", "n2"}
    for worker in found["workers"]:
        assert worker["address"].startswith("tls://")
        assert (worker["threads"], worker["blas_threads"], worker["spills"]) == (1, 1, False)
        assert 1.9e9 < worker["memory_bytes"] <= 2e9  # as dask-jobqueue rounds it
    (key,) = keys.iterdir()
    assert key.stat().st_mode & 0o777 == 0o600
    secret = re.search(r"KEY-----\n(\S+)", key.read_text())[1]
    logs = list((tmp_path / "logs").iterdir())
    assert logs
    assert all(secret not in log.read_text() for log in logs)
    assert secret not in done.stdout + done.stderr
    wait_until(lambda: queued(slurm, tmp_path) == [])
