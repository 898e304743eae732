"""One run at a time in a folder, on this machine or on any that shares it, or in a bucket."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.urls import words_for_url

__all__ = ["FolderLock", "ObjectLock"]

NAME = ".lock"
# A run on another machine shows that it is alive by counting on in its lock file. A pause may be a
# long call that keeps Python from switching threads, or a slow network folder.
BEAT_SECONDS = 15.0
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 2.0
# Between making the file and writing into it.
UNWRITTEN_SECONDS = 1.0
# Longer than anyone takes from looking at an abandoned lock to replacing it.
SETTLE_SECONDS = 0.5


class _Lock:
    """Exclusive use of a place, kept in a small text there that tells who has it.

    A lock whose process is gone is taken over: at once where that process ran on this machine,
    otherwise when it has given no sign of life for two minutes. How the text is kept is for
    subclasses to say.

    Parameters
    ----------
    where : str
        For messages.
    command : str
        What the run does, for the message to others.
    say : callable, optional
        Told, in one sentence, when there is reason to wait.
    """

    def __init__(
        self, where: str, *, command: str, say: Callable[[str], None] | None = None
    ) -> None:
        self._where = where
        self._say = say
        self._owner: dict[str, Any] = {
            "command": command,
            "host": platform.node(),
            "processes": _process_namespace(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        InputError
            When another run has it.
        """
        while not self._create():
            found = self._read()
            if found is None:
                continue  # given back just now
            owner = _parsed(found)
            if not owner and self._changes(found, UNWRITTEN_SECONDS):
                continue
            if owner and self._is_alive(owner, found):
                raise InputError(self._taken(owner))
            if self._take_over(found):
                break
        self._sweep()
        self._heart = threading.Thread(target=self._beat, name="emhet-lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not ours."""
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        if self._is_ours():
            self._remove()

    def check(self) -> None:
        """Make sure that nobody took the folder for abandoned and went on in it.

        Raises
        ------
        EmhetError
            When somebody did.
        """
        if not self._is_ours():
            raise EmhetError(
                f"{self._where}: another run took over this folder, since this one gave no sign "
                "of life for a while; nothing more is written"
            )

    def _create(self) -> bool:
        """Write the text where there is none; tell whether that was so."""
        raise NotImplementedError

    def _read(self) -> str | None:
        """Return the text, or None where there is none."""
        raise NotImplementedError

    def _rewrite(self, text: str) -> None:
        """Write another text of the same length in the place of our own."""
        raise NotImplementedError

    def _replace(self, found: str) -> bool:
        """Put our text in the place of another; False where that is another one by now."""
        raise NotImplementedError

    def _remove(self) -> None:
        """Remove our text."""
        raise NotImplementedError

    def _sweep(self) -> None:
        """Remove what others left that tried to take over."""

    def _text(self, beat: int) -> str:
        # Of one length, so that overwriting in place leaves nothing behind.
        return json.dumps({**self._owner, "beat": f"{beat:012d}"})

    def _is_ours(self) -> bool:
        return _parsed(self._read() or "").get("token") == self._owner["token"]

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            beat += 1
            # A full disk, or a network folder or bucket that is away for a moment, is no reason to
            # stop.
            with suppress(OSError, InputError):
                if not self._is_ours():
                    return
                self._rewrite(self._text(beat))

    def _is_alive(self, owner: dict[str, Any], found: str) -> bool:
        if (owner["host"], owner["processes"]) == (self._owner["host"], self._owner["processes"]):
            with suppress(psutil.Error):
                process = psutil.Process(owner["pid"])
                # Process numbers come round again; the time of birth tells them apart. One that
                # ended is still listed until its parent asks how.
                born = abs(process.create_time() - owner["started"]) < 1
                return born and process.status() != psutil.STATUS_ZOMBIE
            return False
        if self._say is not None:
            self._say(
                f"{self._where}: a run on {owner['host']} had this folder; waiting up to "
                f"{PATIENCE_SECONDS:.0f} s to see whether it is alive"
            )
        return self._changes(found, PATIENCE_SECONDS)

    def _changes(self, found: str, seconds: float) -> bool:
        """Tell whether somebody writes to the lock."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))
            now = self._read()
            if now is None:
                return False
            if now != found and _parsed(now):
                return True
        return False

    def _take_over(self, found: str) -> bool:
        """Put our own lock in the place of an abandoned one; False where another run was faster.

        The text is replaced, never removed, so that nobody finds the folder free in between. Of
        several that do so at once the last has it, and all look after a while who that is.
        """
        if not self._replace(found):
            return False
        time.sleep(SETTLE_SECONDS)
        return self._is_ours()

    def _taken(self, owner: dict[str, Any]) -> str:
        return (
            f"{self._where}: another run ({owner['command']}, process {owner['pid']} on "
            f"{owner['host']}) is writing there; wait until it ends, or choose another -o"
        )


class FolderLock(_Lock):
    """Exclusive use of a folder, kept in a file in it.

    Parameters
    ----------
    folder : Path
        Must exist.
    command, say
        As of every lock.
    """

    def __init__(
        self, folder: Path, *, command: str, say: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(str(folder), command=command, say=say)
        self._path = folder / NAME

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(self._text(0))
        return True

    def _read(self) -> str | None:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return None

    def _rewrite(self, text: str) -> None:
        with self._path.open("r+") as file:
            file.write(text)

    def _replace(self, found: str) -> bool:
        ours = self._path.with_name(f"{NAME}-{self._owner['token']}")
        ours.write_text(self._text(0))
        if self._read() != found:
            ours.unlink(missing_ok=True)
            return False
        with suppress(FileNotFoundError):  # one that has won clears away what others left
            ours.replace(self._path)
        return True

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for left in self._path.parent.glob(f"{NAME}-*"):
            left.unlink(missing_ok=True)


class ObjectLock(_Lock):
    """Exclusive use of a prefix of an object store, kept in an object that is made only if absent.

    Parameters
    ----------
    files : fsspec file system
    root : str
        Prefix, as that file system names it.
    where, command, say
        As of every lock.
    """

    def __init__(
        self,
        files: Any,
        root: str,
        *,
        where: str,
        command: str,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(where, command=command, say=say)
        self._files = files
        self._object = f"{root}/{NAME}"

    def _create(self) -> bool:
        try:
            with words_for_url(self._where):
                self._files.pipe_file(self._object, self._text(0).encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def _read(self) -> str | None:
        try:
            with words_for_url(self._where):
                return str(self._files.cat_file(self._object).decode())
        except FileNotFoundError:
            return None

    def _rewrite(self, text: str) -> None:
        with words_for_url(self._where):
            self._files.pipe_file(self._object, text.encode())

    def _replace(self, found: str) -> bool:
        if self._read() != found:
            return False
        self._rewrite(self._text(0))
        return True

    def _remove(self) -> None:
        with suppress(FileNotFoundError), words_for_url(self._where):
            self._files.rm_file(self._object)


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    expected = {"host", "processes", "pid", "started", "token", "command"}
    return found if isinstance(found, dict) and expected <= set(found) else {}


def _process_namespace() -> str:
    """Tell containers of one host name apart, whose process numbers mean different processes."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path
    except OSError:
        return ""
