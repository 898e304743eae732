"""Jobs of the Slurm that tests run on: described, submitted, waited for."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SBATCH = Path(__file__).parents[2] / "deploy" / "slurm" / "run.sbatch"
# What run.sbatch would have changed for this Slurm.
SITE = ["--partition=debug", "--cpus-per-task=1", "--mem-per-cpu=1500M"]
_WORKERS = """\
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


def write_cluster(folder: Path) -> Path:
    """Write a file for ``--cluster``: two jobs, of a worker each."""
    path = folder / "slurm.yaml"
    path.write_text(_WORKERS.format(folder=folder))
    return path


def run(
    command: Sequence[Any], slurm: Mapping[str, str], folder: Path, *, timeout: float = 90
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with Slurm within reach."""
    return subprocess.run(
        list(map(str, command)),
        check=False,
        env=slurm,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def submit(script: Sequence[Any], slurm: Mapping[str, str], folder: Path, *options: str) -> str:
    """Submit a script; return the number of the job, whose log is ``log`` in the folder."""
    log = f"--output={folder / 'log'}"
    asked = run(["sbatch", *SITE, *options, log, "--parsable", *script], slurm, folder)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def facts(job: str, slurm: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return what Slurm knows of a job."""
    shown = run(["scontrol", "show", "job", job], slurm, folder).stdout
    return dict(re.findall(r"(\w+)=(\S*)", shown))


def change(job: str, slurm: Mapping[str, str], folder: Path, **to: object) -> None:
    """Change what was asked for a job."""
    words = [f"{name}={value}" for name, value in to.items()]
    run(["scontrol", "update", f"jobid={job}", *words], slurm, folder).check_returncode()


def wait_until(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.3)  # sbatch --wait looks up every half minute


def ended(job: str, slurm: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Wait for the end of a job; return its status and its log."""
    over = {"COMPLETED", "FAILED"}
    wait_until(lambda: facts(job, slurm, folder).get("JobState") in over, seconds=180)
    status = int(facts(job, slurm, folder)["ExitCode"].partition(":")[0])
    return status, (folder / "log").read_text()


def queued(slurm: Mapping[str, str], folder: Path, *states: str) -> list[str]:
    """Return the numbers of all jobs, or of those in certain states."""
    words = ["squeue", "-h", "-o", "%i", *(["-t", ",".join(states)] if states else [])]
    return run(words, slurm, folder).stdout.split()
