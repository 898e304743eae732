"""Moving a stage's finished files to their places so that a kill at any point can be made good.

What is to be moved is written into the record first. Every move is a rename, done at most once: a
second run reads the list and does what is left of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "STAGING",
    "StageFiles",
    "clear",
    "files_of",
    "finish",
    "plan",
    "write_json",
]

STAGING = ".staging"
REPLACED = f"{STAGING}/replaced"
STORE = "results.zarr"
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
# Up to this size a file is one that a person may have edited (a notebook, a table, a script), and
# its hash tells.
EDITABLE_BYTES = 1 << 20

# Path relative to the folder → SHA-256 of a small file, None for others; directories that move as a
# whole end in "/".
StageFiles = Mapping[str, str | None]


def files_of(workspace: Path) -> dict[str, str | None]:
    """List what a stage has made, in the units in which it will be moved.

    Parameters
    ----------
    workspace : Path
        Laid out as the folder itself. Every group in ``results.zarr``, and every other ``*.zarr``,
        is one unit; otherwise every file is.

    Returns
    -------
    dict
        Unit → SHA-256 or None; see `StageFiles`.
    """
    found: dict[str, str | None] = {}
    for path in sorted(workspace.iterdir()):
        if path.name == STORE:
            found.update((f"{STORE}/{group.name}/", None) for group in _folders_in(path))
        elif path.is_dir() and path.suffix == ".zarr":
            found[f"{path.name}/"] = None
        else:
            files = [path] if not path.is_dir() else sorted(path.rglob("*"))
            for file in files:
                if not file.is_dir():
                    found[file.relative_to(workspace).as_posix()] = _hash_if_small(file)
    return found


def _folders_in(path: Path) -> Iterator[Path]:
    return (child for child in sorted(path.iterdir()) if child.is_dir())


def _hash_if_small(path: Path) -> str | None:
    if path.stat().st_size > EDITABLE_BYTES:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plan(
    root: Path,
    *,
    workspace: str,
    new: StageFiles,
    old: StageFiles,
    kept: tuple[str, str] | None = None,
    outdated_folders: Iterable[str] = (),
) -> dict[str, Any]:
    """Say which moves put new files into the place of old ones.

    Parameters
    ----------
    root : Path
        The results folder.
    workspace : str
        Where the new files are, relative to the folder.
    new, old : mapping
        Units to move in, and units that go.
    kept : (str, str), optional
        A folder among the old, and the name under which it stays.
    outdated_folders : iterable of str
        Kept folders that go too.

    Returns
    -------
    dict
        For `finish`; can be written as JSON.
    """
    aside: dict[str, str] = {}
    for folder in outdated_folders:
        if (root / folder).is_dir():
            aside[folder] = f"{REPLACED}/{folder}"
    if kept is not None and (root / kept[0]).is_dir():
        aside[kept[0]] = kept[1]
    leaving = () if kept is None else (f"{kept[0]}/",)
    for unit, digest in old.items():
        if not unit.startswith(leaving):
            edited = digest is not None and _edited(root, unit, digest)
            _set_aside(root, unit, aside, edited=edited)
    for unit in new:  # a person's own file may be in the way
        if not unit.startswith(leaving):
            for parent in list(PurePosixPath(unit).parents)[:-1]:
                if not (root / parent).is_dir():
                    _set_aside(root, parent.as_posix(), aside, edited=True)
            _set_aside(root, unit, aside, edited=not unit.endswith("/"))
    return {"workspace": workspace, "aside": list(aside.items()), "units": list(new)}


def _set_aside(root: Path, unit: str, aside: dict[str, str], *, edited: bool) -> None:
    name = unit.rstrip("/")
    if name in aside or not os.path.lexists(root / name):
        return
    aside[name] = _free_name(root, name, set(aside.values())) if edited else f"{REPLACED}/{name}"


def _edited(root: Path, unit: str, digest: str) -> bool:
    path = root / unit
    return path.is_file() and _hash_if_small(path) != digest


def _free_name(root: Path, name: str, taken: set[str]) -> str:
    path = PurePosixPath(name)
    number = 1
    while True:
        ending = "_edited" if number == 1 else f"_edited_{number}"
        free = path.with_name(f"{path.stem}{ending}{path.suffix}").as_posix()
        if free not in taken and not os.path.lexists(root / free):
            return free
        number += 1


def finish(root: Path, moves: Mapping[str, Any]) -> None:
    """Do what is left of the moves.

    Parameters
    ----------
    root : Path
    moves : mapping
        As made by `plan`.
    """
    for source, target in moves["aside"]:
        # No target existed when the moves were planned: where one does, this move is done, and
        # what is at the source now is new.
        if not os.path.lexists(root / target):
            _rename(root / source, root / target)
    for unit in moves["units"]:
        name = unit.rstrip("/")
        if name.startswith(f"{STORE}/") and not (root / STORE / "zarr.json").exists():
            (root / STORE).mkdir(exist_ok=True)
            write_json(root / STORE / "zarr.json", GROUP)
        _rename(root / moves["workspace"] / name, root / name)
    for source, _ in moves["aside"]:
        _remove_if_empty(root, (root / source).parent)


def _rename(source: Path, target: Path) -> None:
    if os.path.lexists(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _remove_if_empty(root: Path, folder: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def clear(path: Path) -> None:
    """Remove a folder with all in it, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)


def write_json(path: Path, value: Any) -> None:
    """Write a file so that it is there as a whole or not at all, also after a loss of power."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
