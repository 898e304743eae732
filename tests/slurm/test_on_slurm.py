"""Commands on a real Slurm: in one job that brings everything, and with jobs for workers."""

import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from emhet_dask import ingest, simulate_assembly

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SBATCH = Path(__file__).parents[2] / "deploy" / "slurm" / "run.sbatch"
JOB = ["--partition=debug", "--cpus-per-task=1", "--mem-per-cpu=1500M", "--time=5"]
JOBS = """
class: SLURMCluster
options:
  queue: debug
  cores: 1
  processes: 1
  memory: 2GB
  walltime: "00:10:00"
  interface: lo
  local_directory: {folder}
  log_directory: {folder}/logs
  worker_extra_args: ["--lifetime", "9m", "--lifetime-stagger", "30s"]
jobs: 2
"""


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "maps"
    simulate_assembly(output=folder, n=12, box=16, quiet=True)
    return folder


def run(command, slurm, folder, timeout=90):
    return subprocess.run(
        list(map(str, command)),
        check=False,
        env=slurm,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def submitted(slurm, folder, *command, tasks=4):
    """Run a command in a job of run.sbatch; return its status and its log."""
    log = folder / "log"
    script = [SBATCH, *command] if command[0] == "emhet" else [f"--wrap={' '.join(command)}"]
    options = [*JOB, f"--ntasks={tasks}", f"--output={log}", "--parsable"]
    job = run(["sbatch", *options, *script], slurm, folder).stdout.strip()
    until = time.monotonic() + 90
    state = ""
    while time.monotonic() < until and not re.search(r"JobState=(COMPLETED|FAILED)", state):
        time.sleep(0.3)  # sbatch --wait looks up every half minute
        state = run(["scontrol", "show", "job", job], slurm, folder).stdout
    return int(re.search(r"ExitCode=(\d+):", state)[1]), log.read_text()


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
    (tmp_path / "slurm.yaml").write_text(JOBS.format(folder=tmp_path))
    keys = tmp_path / "keys"
    command = ["emhet", "cluster", "check", "slurm.yaml", "--workers=2", "--tls", "--json"]
    done = run([*command, "--wait=60"], slurm | {"EMHET_TLS_DIR": str(keys)}, tmp_path)
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
    until = time.monotonic() + 30
    while run(["squeue", "-h"], slurm, tmp_path).stdout and time.monotonic() < until:
        time.sleep(0.5)
    assert run(["squeue", "-h"], slurm, tmp_path).stdout == ""
