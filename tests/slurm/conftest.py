"""A real Slurm for the tests of this folder: the one that is up, or one that is started here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "local-slurm"


def pytest_configure(config):
    config.addinivalue_line("markers", "slurm: needs a real Slurm; skips with the reason")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Environment in which sbatch and srun reach a Slurm with two nodes, partition debug.

    One at a time on a machine, where several processes run tests.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with (shared / "slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _started()


def _started():
    binaries = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # Of a Slurm job that these tests may run in themselves.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | binaries
    if os.geteuid() != 0 and shutil.which("slurmctld", path="/usr/sbin:/sbin") is None:
        pytest.skip("Slurm is not installed, and who runs the tests cannot install it")
    folder = Path(tempfile.mkdtemp(prefix="emhet-slurm-", dir="/tmp"))
    try:
        started = subprocess.run(
            [SCRIPT, "up", folder],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=400,
        )
        if started.returncode:
            pytest.skip(f"no Slurm can be started here: {started.stderr.strip()[-300:]}")
        name, _, value = started.stdout.strip().removeprefix("export ").partition("=")
        yield environment | {name: value}
    finally:
        subprocess.run([SCRIPT, "down", folder], check=False, env=environment, timeout=120)
        shutil.rmtree(folder, ignore_errors=True)
