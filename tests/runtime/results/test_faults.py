"""Full disks, interrupts and kills lose nothing that is finished."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime.record import read_run
from emhet_dask.runtime.results import ResultsFolder
from tests.runtime.results.folder import FILES


def test_a_full_disk_is_said_in_words_and_the_run_can_go_on(folder):
    def full(workspace):
        raise OSError(errno.ENOSPC, "No space left on device")

    mask = ("mask", {"threshold": 1}, folder.builder("mask", {"mask.mrc": "1"}))
    with pytest.raises(EmhetError, match=r"pca: no space left for .*out; make some"):
        folder.run_stages(mask, ("pca", {}, full))
    assert folder.run() == ["pca", "clusters", "report"]


def test_a_disk_that_fills_up_while_files_are_moved_loses_nothing(folder, monkeypatch):
    folder.run()
    replace = Path.replace
    moved = []

    def fills_up(source, target):
        moved.append(target)
        if len(moved) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fills_up)
        with pytest.raises(EmhetError, match="clusters: no space left"):
            folder.run(clusters=3)
    assert folder.run(clusters=3) == ["report"]
    assert folder.files() == sorted([*FILES, "clusters_ward_2/labels.csv"])


def shards(folder, *, stop_after=None, resumable=True, key=1):
    """Run a stage of five shards that skips those it finds; return those it wrote."""
    written = []

    def build(workspace):
        target = workspace / "results.zarr" / "matrix"
        target.mkdir(parents=True, exist_ok=True)
        (target / "c.0.partial").write_text("cut short")
        for number in range(5):
            if not (target / f"{number}").exists():
                if len(written) == stop_after:
                    raise KeyboardInterrupt
                (target / f"{number}").write_text(f"{number}")
                written.append(number)

    with folder.open() as results:
        results.stage("matrix", parameters={"key": key}, build=build, resumable=resumable)
    return written


def test_a_long_stage_goes_on_inside_where_it_was_stopped(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=1)
    assert read_run(folder.path).stages == {}
    assert shards(folder) == [3, 4]
    assert folder.files() == [
        *(f"results.zarr/matrix/{n}" for n in range(5)),
        "results.zarr/zarr.json",
        "run.json",
    ]


def test_an_attempt_with_other_parameters_is_not_gone_on_from(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    assert shards(folder, key=2) == [0, 1, 2, 3, 4]
    assert not (folder.path / ".staging").exists()


def test_a_mistake_in_between_does_not_cost_the_attempt(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    with pytest.raises(InputError), folder.open():
        raise InputError("--linkage: got 'wart'")
    assert shards(folder) == [2, 3, 4]


def test_a_stage_that_is_not_resumable_begins_with_nothing(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2, resumable=False)
    assert not folder.path.exists()
    assert shards(folder, resumable=False) == [0, 1, 2, 3, 4]


KILLED_RUNS = Path(__file__).parents[1] / "killed_runs.py"


def kill_everywhere(tmp_path, scenario, *, stride):
    done = subprocess.run(
        [sys.executable, "-W", "error", KILLED_RUNS, tmp_path, scenario, str(stride)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("scenario", ["first", "recut", "overwrite"])
def test_a_kill_loses_nothing_finished_and_leaves_no_mixture(tmp_path, scenario):
    assert kill_everywhere(tmp_path, scenario, stride=7) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["first", "recut", "overwrite"])
def test_a_kill_before_any_change_of_the_disk_loses_nothing(tmp_path, scenario):
    assert kill_everywhere(tmp_path, scenario, stride=1) >= 45


def test_a_run_killed_by_the_queue_is_gone_on_with(tmp_path):
    code = f"""
import sys, time
from emhet_dask.runtime.results import ResultsFolder

def build(workspace):
    (workspace / "mask.mrc").write_text("half")
    print("building", flush=True)
    time.sleep(60)

with ResultsFolder.open({str(tmp_path / "out")!r}, command="x", inputs={{}}) as results:
    results.stage("mask", parameters={{}}, build=build)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"building\n"
        run.send_signal(signal.SIGKILL)
    assert (tmp_path / "out" / ".lock").exists()

    def build(workspace):
        assert list(workspace.iterdir()) == []
        (workspace / "mask.mrc").write_text("whole")

    started = time.monotonic()
    with ResultsFolder.open(tmp_path / "out", command="x", inputs={}) as results:
        results.stage("mask", parameters={}, build=build)
    assert time.monotonic() - started < 20
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mask.mrc", "run.json"]
    assert (tmp_path / "out" / "mask.mrc").read_text() == "whole"
