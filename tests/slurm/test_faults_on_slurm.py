"""Jobs that Slurm ends while they work, as at their wall time: what is left goes on elsewhere."""

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from emhet_dask import ingest, simulate_assembly

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
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
jobs: 2
"""


def jobs(slurm):
    listed = ["squeue", "-h", "-t", "running", "-o", "%i"]
    return subprocess.run(
        listed, check=True, env=slurm, capture_output=True, text=True
    ).stdout.split()


def wait_until(condition, seconds):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.1)


def test_jobs_of_workers_cancelled_while_they_work(slurm, tmp_path):
    maps = tmp_path / "maps"
    simulate_assembly(output=maps, n=700, box=64, quiet=True)
    (tmp_path / "slurm.yaml").write_text(JOBS.format(folder=tmp_path))
    out = tmp_path / "out.zarr"
    words = ["emhet", "ingest", maps, "-o", out, "--cluster", "slurm.yaml"]
    running = subprocess.Popen(
        list(map(str, words)),
        env=slurm,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        shards = Path(out, "volumes", "c")
        wait_until(lambda: shards.exists() and any(shards.rglob("*")), 90)
        subprocess.run(["scancel", *jobs(slurm)], check=True, env=slurm)
        said, errors = running.communicate(timeout=150)
    finally:
        running.kill()
    assert running.returncode == 0, errors
    assert "Traceback" not in errors
    assert "700 volumes" in said
    ingest([maps], output=tmp_path / "here.zarr", quiet=True)
    there, here = (zarr.open_group(path) for path in (out, tmp_path / "here.zarr"))
    assert there.attrs["fingerprint"] == here.attrs["fingerprint"]
    np.testing.assert_array_equal(there["volumes"][:], here["volumes"][:])
    wait_until(lambda: jobs(slurm) == [], 60)
