import json
import subprocess
import sys
import threading
import time

import psutil
import pytest

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime import lock as lock_module
from emhet_dask.runtime.lock import FolderLock


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock_module, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(lock_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(lock_module, "UNWRITTEN_SECONDS", 0.1)
    monkeypatch.setattr(lock_module, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def other_machine(tmp_path):
    """Write a lock file as a run on another machine does; returns a function that beats once."""
    beats = iter(range(10**6))

    def beat():
        owner = {"command": "emhet landscape", "host": "node17", "processes": "pid:[1]", "pid": 1}
        owner |= {"started": 1.0, "token": "other", "beat": f"{next(beats):012d}"}
        (tmp_path / ".lock").write_text(json.dumps(owner))

    beat()
    return beat


def held(folder, **options):
    lock = FolderLock(folder, command="emhet test", **options)
    lock.acquire()
    return lock


def test_the_second_is_told_who_has_the_folder_and_gets_it_when_that_one_is_done(tmp_path):
    code = (
        "import sys, pathlib; from emhet_dask.runtime.lock import FolderLock;"
        f"lock = FolderLock(pathlib.Path({str(tmp_path)!r}), command='emhet landscape');"
        "lock.acquire(); print('held', flush=True); sys.stdin.read(); lock.release()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=rf"emhet landscape, process {first.pid} on \S+\)"):
            held(tmp_path)
        first.stdin.close()
        first.wait()
    held(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_does_not_keep_the_folder(tmp_path):
    code = (
        "import os, pathlib; from emhet_dask.runtime.lock import FolderLock;"
        f"FolderLock(pathlib.Path({str(tmp_path)!r}), command='x').acquire(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (tmp_path / ".lock").exists()
    held(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_that_nobody_waited_for_does_not_keep_the_folder(tmp_path):
    code = (
        "import os, pathlib; from emhet_dask.runtime.lock import FolderLock;"
        f"FolderLock(pathlib.Path({str(tmp_path)!r}), command='x').acquire(); os._exit(9)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as killed:
        while psutil.Process(killed.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        held(tmp_path).release()


def test_a_process_that_only_has_the_number_of_the_dead_one_is_not_it(tmp_path):
    lock = held(tmp_path)
    owner = json.loads((tmp_path / ".lock").read_text())
    lock.release()
    (tmp_path / ".lock").write_text(json.dumps({**owner, "started": owner["started"] - 100}))
    held(tmp_path).release()


@pytest.mark.parametrize("left", ["", '{"pid": 1, "ho', "[]"])
def test_a_run_killed_while_it_wrote_its_lock_does_not_keep_the_folder(quick, tmp_path, left):
    (tmp_path / ".lock").write_text(left)
    held(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_just_being_written_is_respected(quick, tmp_path, other_machine):
    (tmp_path / ".lock").write_text("")
    stop = threading.Event()

    def live():
        while not stop.wait(0.04):
            other_machine()

    other = threading.Thread(target=live)
    other.start()
    try:
        with pytest.raises(InputError, match="process 1 on node17"):
            held(tmp_path)
    finally:
        stop.set()
        other.join()


def test_a_run_on_another_machine_keeps_the_folder_while_it_gives_signs_of_life(
    quick, tmp_path, other_machine
):
    said = []
    beat = threading.Timer(0.2, other_machine)
    beat.start()
    with pytest.raises(InputError, match="process 1 on node17"):
        held(tmp_path, say=said.append)
    beat.join()
    assert "node17" in said[0]
    started = time.monotonic()
    lock = held(tmp_path)  # no sign for all of the patience
    assert time.monotonic() - started >= 0.5
    lock.check()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_taken_for_dead_writes_nothing_more(quick, tmp_path, other_machine):
    (tmp_path / ".lock").unlink()
    lock = held(tmp_path)
    other_machine()
    with pytest.raises(EmhetError, match="another run took over"):
        lock.check()
    time.sleep(0.2)  # several beats
    lock.release()
    assert json.loads((tmp_path / ".lock").read_text())["token"] == "other"


def test_a_living_run_beats(quick, tmp_path):
    lock = held(tmp_path)
    before = (tmp_path / ".lock").read_text()
    deadline = time.monotonic() + 10
    while (now := (tmp_path / ".lock").read_text()) == before or not now:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()


def test_many_at_once_take_an_abandoned_lock_and_one_gets_it(tmp_path):
    (tmp_path / ".lock").write_text(
        json.dumps(
            {
                "command": "x",
                "host": lock_module.platform.node(),
                "processes": lock_module._process_namespace(),
                "pid": 2**22 + 1,
                "started": 1.0,
                "token": "dead",
            }
        )
    )
    outcomes = []
    together = threading.Barrier(8)

    def contend():
        lock = FolderLock(tmp_path, command="x")
        together.wait()
        try:
            lock.acquire()
            outcomes.append(lock)
        except InputError:
            pass

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    outcomes[0].check()
    outcomes[0].release()
    assert list(tmp_path.iterdir()) == []
