"""Results at a URL: made in a folder of this machine, published stage by stage.

An object store has no rename, so that nothing there can be moved into place. What tells finished
stages is one object, ``run.json``, which is replaced as a whole: new objects come first, then a
stage is withdrawn from it before one of its objects is replaced or removed, and a stage is named in
it when the last of its objects is there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emhet_dask.errors import InputError
from emhet_dask.runtime import moves
from emhet_dask.runtime.lock import NAME as LOCK_NAME
from emhet_dask.runtime.lock import ObjectLock
from emhet_dask.runtime.provenance import digest
from emhet_dask.runtime.record import RUN_FILE
from emhet_dask.urls import check_url, words_for_url

__all__ = ["STAGING_VARIABLE", "Published"]

# Where workers share no folder with the client's temporary one, this names one that they do.
STAGING_VARIABLE = "EMHET_STAGING"
_MANIFEST = "published.json"
# Objects that are being written: those that no stage owns, when a run was killed meanwhile.
_UNDER_WAY = "publishing"

Entry = dict[str, Any]


class Published:
    """Results at a URL while a command works on them; see `Published.open`.

    Attributes
    ----------
    folder : Path
        The copy that stages are built in, as in any results folder.
    url : str
    """

    def __init__(self, url: str, files: Any, root: str, base: Path) -> None:
        self.url = url
        self.folder = base / "results"
        self._files = files
        self._root = root
        self._manifest_path = base / _MANIFEST
        self._manifest: dict[str, list[int]] = {}
        self._entry: Entry | None = None

    @classmethod
    @contextmanager
    def open(
        cls, url: str, *, command: str, say: Callable[[str], None]
    ) -> Iterator[tuple[Published, ObjectLock]]:
        """Take the place, and bring what is finished there into the folder.

        Parameters
        ----------
        url : str
        command : str
            What the run does, for others who want the place.
        say : callable
            Told what takes long.

        Yields
        ------
        published : Published
        lock : ObjectLock
            Held until the block ends.

        Raises
        ------
        InputError
            When the URL holds credentials, cannot be reached or written to, or holds other things,
            or another run works there.
        """
        import fsspec  # noqa: PLC0415 - object stores only

        check_url(url)
        with words_for_url(url):
            files, root = fsspec.core.url_to_fs(url.rstrip("/"), use_listings_cache=False)
            lock = ObjectLock(files, root, where=url, command=command, say=say)
            try:
                lock.acquire()
            except FileNotFoundError as error:
                raise InputError(f"{url}: there is no such bucket") from error
        try:
            base = _base(url)
            found = cls(url, files, root, base)
            try:
                with words_for_url(url):
                    found._fetch(say)
                yield found, lock
            finally:
                if found._is_published():
                    shutil.rmtree(base, ignore_errors=True)
        finally:
            with words_for_url(url):
                lock.release()

    def publish(self) -> None:
        """Bring the place to the state of the folder; killed anywhere, no half stage is seen.

        Raises
        ------
        InputError
            When it cannot be reached or written to.
        """
        with words_for_url(self.url):
            self._publish()

    def _publish(self) -> None:
        now = _listed(self.folder)
        entry = json.loads((self.folder / RUN_FILE).read_text(encoding="utf-8"))
        known = self._manifest
        new = [name for name in now if name not in known]
        other = [name for name, stamp in now.items() if known.get(name, stamp) != stamp]
        gone = [name for name in known if name not in now]
        before = {**entry, "stages": {}, "kept": {}} if self._entry is None else self._entry
        if new:  # nobody looks at these yet
            self._say({**before, _UNDER_WAY: new}, known)
            self._put(new)
        if other or gone:
            there = {name: stamp for name, stamp in known.items() if name not in other}
            there |= {name: now[name] for name in new}
            left = _left(before, entry, replaced=other)
            self._say({**left, _UNDER_WAY: [*new, *other, *gone]}, there)
            self._put(other)
            self._remove(gone)
        if entry != self._entry:
            self._say(entry, now)

    def _put(self, names: list[str]) -> None:
        for name in names:
            self._files.put_file(str(self.folder / name), f"{self._root}/{name}")

    def _say(self, entry: Entry, manifest: dict[str, list[int]]) -> None:
        """Replace ``run.json`` there, and note here what is known to be there."""
        # Whichever of the two is there after a kill, these objects are.
        known = [digest(each) for each in (self._entry, entry)]
        moves.write_json(self._manifest_path, {"entries": known, "files": manifest})
        self._entry, self._manifest = entry, manifest
        text = json.dumps(entry, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        self._files.pipe_file(f"{self._root}/{RUN_FILE}", text.encode())

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._files.rm_file(f"{self._root}/{name}")

    def _is_published(self) -> bool:
        """Tell whether the folder has nothing that is not there, nor anything to go on from."""
        if (self.folder / moves.STAGING).exists():
            return False
        run = self.folder / RUN_FILE
        if not run.exists():
            return True
        entry = json.loads(run.read_text(encoding="utf-8"))
        return entry == self._entry and _listed(self.folder) == self._manifest

    # --- what is there already ---

    def _fetch(self, say: Callable[[str], None]) -> None:
        objects = self._list()
        if RUN_FILE not in objects:
            if objects:
                raise InputError(
                    f"-o: {self.url} is not empty and holds no results (no {RUN_FILE}); choose "
                    "another -o"
                )
            moves.clear(self.folder)
            self.folder.mkdir(parents=True)
            return
        entry = json.loads(self._files.cat_file(f"{self._root}/{RUN_FILE}"))
        self._entry = entry
        if self._is_known_here(entry):
            return
        self._drop_leftovers(entry, objects)
        moves.clear(self.folder)
        self.folder.mkdir(parents=True)
        wanted = [name for name in objects if _is_owned(name, entry)]
        if wanted:
            say(f"{self.url}: {len(wanted):,} objects of finished stages are copied here")
        for name in wanted:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{name}", str(target))
        bare = {key: value for key, value in entry.items() if key != _UNDER_WAY}
        moves.write_json(self.folder / RUN_FILE, bare)
        self._manifest = _listed(self.folder)

    def _is_known_here(self, entry: Entry) -> bool:
        """Tell whether the folder is what a killed run on this machine made, with nothing since."""
        try:
            noted = json.loads(self._manifest_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if digest(entry) not in noted["entries"] or not (self.folder / RUN_FILE).exists():
            return False
        self._manifest = noted["files"]
        return True

    def _drop_leftovers(self, entry: Entry, objects: list[str]) -> None:
        """Remove what a run that was killed while it published had written of a stage."""
        under_way = set(entry.get(_UNDER_WAY, ()))
        self._remove([n for n in objects if n in under_way and not _is_owned(n, entry)])

    def _list(self) -> list[str]:
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return []
        names = (str(name).removeprefix(self._root).lstrip("/") for name in found)
        return sorted(name for name in names if name and name != LOCK_NAME)


def _base(url: str) -> Path:
    """Return the folder of this machine, of this user alone, that belongs to a URL."""
    shared = os.environ.get(STAGING_VARIABLE)
    name = f"emhet-{os.getuid()}-{digest(url)[:16]}"
    base = Path(shared or tempfile.gettempdir()).absolute() / name
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = base.stat().st_uid
    except OSError as error:
        raise InputError(f"{STAGING_VARIABLE}: {base} cannot be made: {error.strerror}") from error
    if owner != os.getuid():
        raise InputError(f"{base}: belongs to another user; name a folder in {STAGING_VARIABLE}")
    return base


def _listed(folder: Path) -> dict[str, list[int]]:
    """Return size and time of every file that is to be published."""
    found = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != moves.STAGING)
        for name in sorted(names):
            path = Path(parent) / name
            inside = path.relative_to(folder).as_posix()
            if inside not in {LOCK_NAME, RUN_FILE} and not inside.startswith(f".{RUN_FILE}"):
                status = path.stat()
                found[inside] = [status.st_size, status.st_mtime_ns]
    return found


def _left(before: Entry, after: Entry, *, replaced: list[str]) -> Entry:
    """Return a record of what is whole while objects of earlier stages are replaced and removed."""
    stages = {name: s for name, s in after["stages"].items() if before["stages"].get(name) == s}
    kept = {
        folder: made
        for folder, made in after["kept"].items()
        if not any(name.startswith(f"{folder}/") for name in replaced)
    }
    return {**after, "stages": stages, "kept": kept}


def _is_owned(name: str, entry: Entry) -> bool:
    """Tell whether an object belongs to a finished stage, or to an earlier version of one."""
    units = {unit for stage in entry["stages"].values() for unit in stage["files"]}
    units |= {f"{folder}/" for folder in entry["kept"]}
    if f"{moves.STORE}/zarr.json" == name:
        return True
    parts = name.split("/")
    return name in units or any("/".join(parts[:n]) + "/" in units for n in range(1, len(parts)))
