"""Kill work before its so many-th change of a folder: what the scripts ``killed_….py`` share.

Tests start those scripts in a process of their own, since they fork; they find this file by its
folder on `sys.path`.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

KILLED = 9
_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}


def killed_before_change(number: int, folder: Path, work: Callable[[], object]) -> int:
    """Do work in a child that dies, as of SIGKILL, before that change; return its exit status.

    0 where the work ended before so many changes, `KILLED` where the child died.
    """

    def doomed() -> None:
        _die_before_change(number, folder)
        work()

    status = in_child(doomed)
    assert status in {0, KILLED}, status
    return status


def survive(folder: Path, work: Callable[[Path], object], *, stride: int) -> int:
    """Kill work before every so many-th change and do it again; return how often it was killed.

    ``work(out)`` fills a folder. It is begun in an empty one, then in a copy of ``folder/earlier``,
    and ends each time with the files of ``folder/undisturbed``.
    """
    out, expected = folder / "out", _files(folder / "undisturbed")
    killed = 0
    for earlier in (None, folder / "earlier"):
        kills = 0
        while True:
            shutil.rmtree(out, ignore_errors=True)
            if earlier is not None:
                shutil.copytree(earlier, out)
            status = killed_before_change(kills * stride, out, lambda: work(out))
            if status != 0:
                assert in_child(lambda: work(out)) == 0, kills
            found = _files(out)
            left = {name for name, data in found.items() if data != expected.get(name)}
            assert not left, (kills, left)
            assert set(found) == set(expected), kills
            if status == 0:
                break
            kills += 1
        killed += kills
    return killed


def _files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix != ".partial"  # what a kill cut short; nobody reads it
    }


def in_child(work: Callable[[], object]) -> int:
    """Do work in a child; return its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            traceback.print_exception(error)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _die_before_change(number: int, folder: Path) -> None:
    seen = 0
    inside = os.fspath(folder)

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if event == "open":
            changes = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changes = event in _CHANGES
        if not changes or inside not in str(args[0]):
            return
        if seen == number:
            os._exit(KILLED)
        seen += 1

    sys.addaudithook(hook)
