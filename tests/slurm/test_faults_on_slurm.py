"""Jobs that Slurm ends while they work, as at their wall time: what is left goes on elsewhere."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import emhet_dask
from emhet_dask import ingest, simulate_assembly
from tests.fake_run import write_run
from tests.faults.endings import CHECKOUT, STRUCK, assert_same, written
from tests.faults.pieces import make_small
from tests.faults.slow import SECONDS
from tests.slurm.jobs import (
    SBATCH,
    change,
    ended,
    facts,
    queued,
    run,
    submit,
    wait_until,
    write_cluster,
)

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_jobs_of_workers_cancelled_while_they_work(slurm, tmp_path):
    maps = tmp_path / "maps"
    simulate_assembly(output=maps, n=700, box=64, quiet=True)
    out = tmp_path / "out.zarr"
    words = ["emhet", "ingest", maps, "-o", out, "--cluster", write_cluster(tmp_path)]
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
        wait_until(lambda: shards.exists() and any(shards.rglob("*")))
        run(["scancel", *queued(slurm, tmp_path, "running")], slurm, tmp_path).check_returncode()
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
    wait_until(lambda: queued(slurm, tmp_path) == [])


def test_a_job_whose_time_is_up_queues_again_and_goes_on(slurm, tmp_path, monkeypatch):
    latents = np.random.default_rng(0).standard_normal((96, 2)).astype(np.float32)
    workdir = write_run(tmp_path / "run", latents)
    out = tmp_path / "decode"
    # The first time, two workers would need 96 s for 24 shards. Strikes 0: nobody is struck.
    words = [sys.executable, STRUCK, "SIGKILL", "0", "decode", workdir, "3", "-n", "96"]
    line = shlex.join(map(str, [*words, "-o", out, "--cluster", "runner", "-q"]))
    command = f'{SECONDS}=$(("${{SLURM_RESTART_COUNT:-0}}" ? 0 : 2)) exec {line}'
    job = submit(
        [SBATCH, "bash", "-c", command],
        slurm | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        tmp_path,
        "--ntasks=4",
        "--time=10",
        "--signal=B:USR1@25",  # in run.sbatch two minutes, of hours
    )
    wait_until((out / "ingest_record" / "c").exists, seconds=240)
    # The end, in whole minutes, comes in 30 to 90 s, in which so many shards cannot be finished.
    hours, minutes, seconds = map(int, facts(job, slurm, tmp_path)["RunTime"].split(":"))
    limit = -(-(3600 * hours + 60 * minutes + seconds + 30) // 60)
    change(job, slurm, tmp_path, TimeLimit=limit)
    wait_until(lambda: facts(job, slurm, tmp_path)["Restarts"] == "1")
    wait_until(lambda: facts(job, slurm, tmp_path)["JobState"] == "PENDING")
    finished = [f"volumes/c/{path.name}/0/0/0" for path in (out / "ingest_record/c").iterdir()]
    assert 0 < len(finished) < 24
    before = written(out)
    # What Slurm would do two minutes later; and time enough, however busy this machine is.
    change(job, slurm, tmp_path, StartTime="now", TimeLimit=10)
    status, log = ended(job, slurm, tmp_path)
    assert status == 0, log
    assert facts(job, slurm, tmp_path)["Restarts"] == "1"
    assert log.count("time is nearly up: queueing again") == 1
    assert f"continued: {4 * len(finished)} volumes were there before" in log
    assert "Traceback" not in log
    after = written(out)
    assert [name for name in finished if after[name] != before[name]] == []

    make_small(monkeypatch.setattr)
    here = str(tmp_path / "here")
    emhet_dask.decode(str(workdir), 3, n=96, output=here, quiet=True)
    assert_same(out, Path(here))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "log", "decode", "here"}
