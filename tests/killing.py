"""Kill work before its so many-th change of a folder: what the scripts ``killed_….py`` share.

Tests start those scripts in a process of their own, since they fork; they find this file by its
folder on `sys.path`.
"""

from __future__ import annotations

import os
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
