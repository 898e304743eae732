"""Workers that are killed or hang, in every stage: the run goes on to the same bits."""

import json
import os
import signal

import dask
import pytest

from emhet_dask.runtime.local import scheduler_settings, start_processes, start_threads
from tests.faults.endings import assert_same, emhet, end, start, wait_until, written

pytestmark = pytest.mark.slow

# Those with work for the workers.
STAGES = {
    "ingest": {"ingest or decode"},
    "landscape": {"mask", "matrix", "pca", "clusters"},
    "similarity": {"mask", "matrix", "pairs", "tree", "clusters"},
    "blocks": {"matrix", "thresholds", "occupied", "voxel_pairs", "blocks"},
    "decode": {"ingest or decode"},
    "map": {"read_outs", "scores"},
}


@pytest.mark.parametrize("name", STAGES)
def test_a_worker_killed_in_each_stage(name, command, undisturbed, tmp_path):
    ended = end(emhet(*command(name, tmp_path / name, "--cluster", "local:2")))
    assert ended.status == 0, ended.err
    assert set(json.loads(ended.out.splitlines()[-1])) >= STAGES[name]
    assert "Traceback" not in ended.err
    assert "distributed" not in ended.err
    assert ended.left == []
    assert_same(tmp_path / name, undisturbed / name)


def test_a_worker_that_hangs_is_started_again(command, undisturbed, tmp_path):
    words = command("decode", tmp_path / "decode", "--cluster", "local:2")
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s"}  # its least
    ended = end(emhet(*words, strike="SIGSTOP", times=1, **patience))
    assert ended.status == 0, ended.err
    assert json.loads(ended.out.splitlines()[-1]) == ["ingest or decode"]
    assert "Traceback" not in ended.err
    assert ended.left == []
    assert_same(tmp_path / "decode", undisturbed / "decode")


def test_silent_workers_are_given_up_sooner_than_by_dask_but_never_threads():
    assert scheduler_settings() == {"distributed.scheduler.worker-ttl": "2 minutes"}
    with start_threads(None) as threads, start_processes(1, None, tls=False) as processes:
        assert threads.scheduler.worker_ttl is None
        assert processes.scheduler.worker_ttl == 120
        assert processes.scheduler.no_workers_timeout == 300


def test_a_worker_that_is_away_for_long_comes_back():
    """Dask would close for good who is away 15 s after it was lost, for whatever reason."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        start_processes(1, None, tls=False) as cluster,
    ):
        first = cluster.workers[0].pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: cluster.workers[0].pid not in (first, None), seconds=20)
        wait_until(lambda: len(cluster.scheduler.workers) == 1, seconds=20)


# What is started by hand, for --cluster scheduler-file:PATH.
SCHEDULER = ["-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
WORKER = ["-m", "distributed.cli.dask_worker", "--no-dashboard", "--nthreads", "1"]


def test_the_scheduler_killed(command, undisturbed, tmp_path):
    file = tmp_path / "scheduler.json"
    known = ["--scheduler-file", file]
    scheduler = start(*SCHEDULER, *known, "--host", "127.0.0.1")
    worker = start(*WORKER, *known, "--death-timeout", "2", "--local-directory", tmp_path)
    out = tmp_path / "decode"
    words = command("decode", out)
    running = emhet(
        *words, "--cluster", f"scheduler-file:{file}", times=0, SECONDS_PER_VOLUME="0.1"
    )
    try:
        wait_until((out / "ingest_record" / "c").exists)
        scheduler.kill()
        ended = end(running)
    finally:
        gone = [end(scheduler), end(worker, patience=20)]
    assert ended.status == 2
    assert (
        ended.err.strip()
        .splitlines()[-1]
        .endswith("the same command again goes on from what is finished")
    )
    assert "Traceback" not in ended.err
    assert [each.left for each in [ended, *gone]] == [[], [], []]
    finish(words, out, undisturbed / "decode")


def test_the_command_killed(command, undisturbed, tmp_path):
    out = tmp_path / "decode"
    words = command("decode", out)
    running = emhet(*words, "--cluster", "local:2", times=0, SECONDS_PER_VOLUME="0.1")
    wait_until((out / "ingest_record" / "c").exists)
    running.kill()
    assert end(running).left == []  # workers end by themselves
    finish(words, out, undisturbed / "decode")


def test_the_command_killed_among_its_pairs(command, undisturbed, tmp_path):
    out = tmp_path / "similarity"
    words = command("similarity", out, "--cluster", "local:2")
    killed = end(emhet(*words, times=0, KILLED_AFTER="pairs-"), patience=20)
    assert (killed.status, killed.left) == (-signal.SIGKILL, [])
    before = written(out)
    blocks = [name for name in before if "/block_histogram/c/" in name]
    assert 0 < len(blocks) < 21
    ended = end(emhet(*words, times=0))
    assert ended.status == 0, ended.err
    plans = json.loads((out / "run.json").read_text())["stages"]["pairs"]["plans"]
    assert {each["stage"]: each["tasks"] for each in plans}["pairs"] == 21 - len(blocks)
    after = written(out)
    kept = [name for name in before if not name.startswith(".staging")]
    assert kept
    assert [name for name in kept if after[name] != before[name]] == []
    assert_same(out, undisturbed / "similarity")


def finish(words, out, undisturbed):
    """The same command again, elsewhere: nothing that is finished is done again."""
    before = written(out)
    finished = [f"volumes/c/{path.name}/0/0/0" for path in (out / "ingest_record/c").iterdir()]
    assert finished
    ended = end(emhet(*words, "--cluster", "local", times=0))
    assert ended.status == 0, ended.err
    after = written(out)
    assert [name for name in finished if after[name] != before[name]] == []
    assert_same(out, undisturbed)
