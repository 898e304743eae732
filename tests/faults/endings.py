"""What commands leave behind: their arrays, files that should not be there, processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

MRC_HEADER_BYTES = 1024  # has a date
# Say when and where they were made.
OF_THE_RUN = {
    "run.json",
    "report.html",
    "explore.ipynb",
    "open.cxc",
    "map.json",
    "evidence.json",
    "verdicts.json",
}
TEMPORARY = re.compile(r"\.partial$|^\.lock|^\.staging$|\.lock$|\.new$")
CHECKOUT = Path(__file__).parents[2]
STRUCK = Path(__file__).with_name("struck.py")


def contents(folder):
    """Return the bytes of all arrays, maps, tables and lists under a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in OF_THE_RUN | {"zarr.json"}:
            start = MRC_HEADER_BYTES if path.suffix == ".mrc" else 0
            found[path.relative_to(folder).as_posix()] = path.read_bytes()[start:]
    return found


def assert_same(folder, undisturbed):
    """The same files with the same arrays, and nothing temporary."""
    found, expected = contents(folder), contents(undisturbed)
    assert set(found) == set(expected), sorted(set(found) ^ set(expected))
    other = [name for name, data in found.items() if data != expected[name]]
    assert other == [], other
    assert temporary(folder) == [], temporary(folder)


def temporary(folder):
    return [str(path) for path in folder.rglob("*") if TEMPORARY.search(path.name)]


def written(folder):
    """Return when each shard, band, block and map of a folder was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and ("/c/" in path.as_posix() or path.suffix == ".mrc")
    }


@dataclass(frozen=True)
class Ended:
    """How a command ended, and which of its processes did not."""

    status: int
    out: str
    err: str
    left: list[psutil.Process]


def start(*command, **environment):
    """Start a command in a session of its own, with its modules cut small."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process, *, seconds=120, patience=5):
    """Wait for a command; end its processes that stay for longer, and tell of them."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        left = of_session(process.pid)
        until = time.monotonic() + patience
        while left and time.monotonic() < until:
            time.sleep(0.1)
            left = of_session(process.pid)
        for each in left:
            each.kill()
    return Ended(process.returncode, out, err, left)


def of_session(number):
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def emhet(*command, strike="SIGKILL", times=-1, **environment):
    """Start a command whose workers are struck; see struck.py. Times 0: they are not."""
    return start(STRUCK, strike, times, *command, **environment)


def wait_until(condition, *, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
