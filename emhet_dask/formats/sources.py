"""What a user may name as input, turned into a list of volumes with names and weights."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np

from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats import cryodrgn
from emhet_dask.formats.grid import Grid, check_uniform
from emhet_dask.formats.mrc import MapHeader, read_header
from emhet_dask.formats.relion import JobFolder, is_job_folder
from emhet_dask.formats.volumes import (
    VolumeSource,
    is_map_name,
    name_volumes,
    natural_key,
    trailing_number,
)

__all__ = [
    "Grid",
    "VolumeSource",
    "assign_particles",
    "check_uniform",
    "find_volumes",
    "natural_key",
    "trailing_number",
]

_EXPECTED = "files ending in .mrc, .map or .ccp4 (also .gz, .bz2)"
# Labels of the subunits, which emhet simulate writes beside the maps.
_SIMULATED_BLOCKS = "truth_blocks.mrc"
_LIST_ENDINGS = (".txt", ".lst")
# Opening files waits for the disk more than for Python, on a parallel file system much more.
_HEADER_THREADS = 8
# What a thread is given at once: to hand over a file costs more than to open one on a disk at hand.
_MOST_HEADERS = 512


@dataclass(frozen=True, slots=True)
class _MapFile:
    """A file to open, and the weight of what it holds."""

    path: str
    weight: float | None = None


@overload
def find_volumes(
    sources: Sequence[str | Path] | str | Path, *, on_error: Literal["stop"] = "stop"
) -> list[VolumeSource]: ...


@overload
def find_volumes(
    sources: Sequence[str | Path] | str | Path, *, on_error: Literal["skip"]
) -> tuple[list[VolumeSource], list[str]]: ...


def find_volumes(
    sources: Sequence[str | Path] | str | Path, *, on_error: str = "stop"
) -> list[VolumeSource] | tuple[list[VolumeSource], list[str]]:
    """Find the volumes that a user means, and read the header of every file.

    A source is a folder of maps; a glob; a text list (``.txt``, ``.lst``) of paths relative to it;
    a cryoDRGN volume folder (its ``vol_N.mrc``, with weights from the ``labels.pkl`` beside them);
    a RELION job folder (class maps of its last iteration, weights from the class distribution); or
    a map, which may be a stack of cubes. Files of a folder or glob come in natural order of their
    names (``vol_9`` before ``vol_10``), and so do files named one by one in the plain alphabetical
    order of a shell's glob; lists keep their own order. A file that is named twice counts once.

    Parameters
    ----------
    sources : sequence of str or Path
        One or more of the above.
    on_error : {"stop", "skip"}
        Whether one faulty file stops it all, or is left out and reported.

    Returns
    -------
    list of VolumeSource
        Their paths are absolute. With ``on_error="skip"`` a tuple of that and the list of
        problems, one sentence each.

    Raises
    ------
    InputError
        When a source does not exist or holds no map; when files are faulty (all of them are named
        in one message); and, when skipping, if nothing is left.
    """
    if isinstance(sources, (str, Path)):
        sources = [sources]
    files: list[_MapFile] = []
    problems: list[str] = []
    for source in _in_natural_order([os.fspath(source) for source in sources]):
        try:
            files += _expand(source, problems)
        except InputError as error:
            problems.append(str(error))
    unique: dict[str, _MapFile] = {}
    for file in files:
        unique.setdefault(os.path.abspath(file.path), file)  # noqa: PTH100
    wanted = list(unique.values())
    size = min(_MOST_HEADERS, -(-len(wanted) // _HEADER_THREADS)) or 1
    parts = [wanted[at : at + size] for at in range(0, len(wanted), size)]
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        answers = list(itertools.chain.from_iterable(pool.map(_headers_or_problems, parts)))
    problems += [answer for answer in answers if isinstance(answer, str)]
    found = [answer for answer in answers if not isinstance(answer, str)]
    if problems and (on_error == "stop" or not found):
        raise InputError(join_problems(problems, what="inputs cannot be used"))
    if not found:
        raise InputError(f"no map given; expected folders, globs, lists or {_EXPECTED}")
    volumes = name_volumes(found)
    return volumes if on_error == "stop" else (volumes, problems)


def assign_particles(
    volumes: Sequence[VolumeSource], *, labels_path: str | Path | None = None
) -> np.ndarray | None:
    """Say which volume each particle belongs to, from cryoDRGN's k-means labels.

    Parameters
    ----------
    volumes : sequence of VolumeSource
        The maps ``vol_N.mrc`` of one cryoDRGN folder.
    labels_path : str or Path, optional
        ``labels.pkl``; by default the one that `find_volumes` took the weights from.

    Returns
    -------
    ndarray or None
        int64, per particle its row in ``volumes``, -1 where its volume is not among them; None
        when no path is given and the volumes were not found as one folder with a ``labels.pkl``.

    Raises
    ------
    InputError
        When the labels cannot be read, or do not fit the volumes.
    """
    folders = {volume.path.parent for volume in volumes}
    numbers = [cryodrgn.volume_number(volume.path.name) for volume in volumes]
    known = [number for number in numbers if number is not None]
    fits = len(folders) == 1 and len(set(known)) == len(volumes)
    folder = min(folders)
    if labels_path is None:
        weighted = fits and all(volume.weight is not None for volume in volumes)
        labels_path = cryodrgn.find_labels(folder) if weighted else None
        if labels_path is None:
            return None
    elif not fits:
        raise InputError(
            f"{labels_path}: labels go with the maps of one cryoDRGN folder, vol_000.mrc and so "
            f"on; the {len(volumes)} volumes here are from {len(folders)} folders, "
            f"{len(set(known))} of them with such names"
        )
    labels = cryodrgn.read_labels(labels_path)
    return cryodrgn.match_labels(labels, known, folder=folder, path=labels_path)


def _in_natural_order(sources: list[str]) -> list[str]:
    """Sort runs of map files that come in alphabetical order, as a shell's glob gives them."""
    ordered: list[str] = []
    for are_maps, group in itertools.groupby(sources, key=is_map_name):
        run = list(group)
        ordered += sorted(run, key=natural_key) if are_maps and run == sorted(run) else run
    return ordered


def _expand(source: str, problems: list[str]) -> list[_MapFile]:
    """Turn one source into files; faults of single files go to ``problems``."""
    if os.path.isdir(source):  # noqa: PTH112
        return _from_folder(source)
    if os.path.exists(source):  # noqa: PTH110
        if source.lower().endswith(_LIST_ENDINGS):
            return _from_list(source, problems)
        if is_map_name(source):
            return [_MapFile(source)]
        raise InputError(f"{source}: not a map; expected {_EXPECTED}, a folder or a .txt list")
    if glob.has_magic(source):
        return _from_glob(source, problems)
    raise InputError(f"{source}: no such file or folder")


def _from_folder(folder: str) -> list[_MapFile]:
    try:
        names = sorted(os.listdir(folder), key=natural_key)  # noqa: PTH208
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    if is_job_folder(folder):
        return _from_job(folder)
    numbers = {name: cryodrgn.volume_number(name) for name in names}
    decoded = sorted((number, name) for name, number in numbers.items() if number is not None)
    # cryoDRGN's analyze_landscape leaves vol_mean.mrc among the volumes it was made from.
    if decoded and (cryodrgn.find_labels(folder) or "vol_mean.mrc" in names):
        return _from_cryodrgn(folder, decoded)
    maps = [
        _MapFile(os.path.join(folder, name))  # noqa: PTH118
        for name in names
        if is_map_name(name) and name != _SIMULATED_BLOCKS
    ]
    if not maps:
        hint = (
            "; it is a cryoDRGN run, whose maps are in folders such as analyze.20/kmeans500"
            if "config.yaml" in names
            else ""
        )
        raise InputError(f"no map in {folder}: expected {_EXPECTED}{hint}")
    return maps


def _from_job(folder: str) -> list[_MapFile]:
    job = JobFolder.open(folder)
    weights = job.class_weights() or {}
    return [_MapFile(str(path), weights.get(number)) for number, path in job.class_maps().items()]


def _from_cryodrgn(folder: str, decoded: list[tuple[int, str]]) -> list[_MapFile]:
    paths = [os.path.join(folder, name) for _, name in decoded]  # noqa: PTH118
    labels_path = cryodrgn.find_labels(folder)
    if labels_path is None:
        return [_MapFile(path) for path in paths]
    labels = cryodrgn.read_labels(labels_path)
    numbers = [number for number, _ in decoded]
    rows = cryodrgn.match_labels(labels, numbers, folder=folder, path=labels_path)
    counts = np.bincount(rows[rows >= 0], minlength=len(paths))
    return [_MapFile(path, float(count)) for path, count in zip(paths, counts, strict=True)]


def _from_glob(pattern: str, problems: list[str]) -> list[_MapFile]:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207
    usable = [match for match in matches if os.path.isdir(match) or is_map_name(match)]  # noqa: PTH112
    if not usable:
        found = f"the {len(matches)} files that it matches are no maps" if matches else "no match"
        raise InputError(f"{pattern}: {found}; expected {_EXPECTED}")
    files: list[_MapFile] = []
    for match in usable:
        files += _expand(match, problems)
    return files


def _from_list(path: str, problems: list[str]) -> list[_MapFile]:
    """Read a list of maps; relative entries stay inside the list's folder, links followed."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{path}: cannot be read as a list of paths ({reason})") from None
    root = Path(path).resolve().parent
    files: list[_MapFile] = []
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        where = f"{path}: line {number}"
        try:
            absolute = os.path.isabs(entry)  # noqa: PTH117
            if not absolute and not (root / entry).resolve().is_relative_to(root):
                problems.append(
                    f"{where}: {entry} leads out of the list's folder; write its absolute path"
                )
            elif not (root / entry).is_file():
                problems.append(f"{where}: {entry}: no such file")
            elif not is_map_name(entry):
                problems.append(f"{where}: {entry}: not a map; expected {_EXPECTED}")
            else:
                files.append(_MapFile(entry if absolute else str(Path(path).parent / entry)))
        except (OSError, ValueError, RuntimeError):  # a name too long, a NUL, links in a circle
            problems.append(f"{where}: {entry!r:.60}: not a path")
    if not files and not problems:
        raise InputError(f"{path}: lists no map; expected one path a line")
    return files


def _headers_or_problems(
    files: Sequence[_MapFile],
) -> list[tuple[MapHeader, float | None] | str]:
    return [_header_or_problem(file) for file in files]


def _header_or_problem(file: _MapFile) -> tuple[MapHeader, float | None] | str:
    try:
        header = read_header(file.path, as_stack=True)
    except InputError as error:
        return str(error)
    if not header.is_cubic:
        nz, ny, nx = header.shape
        images = "; it looks like a stack of images" if ny == nx else ""
        return f"{file.path}: {nx} × {ny} × {nz} voxels; a density map has to be a cube{images}"
    # Workers may have another working directory.
    return replace(header, path=os.path.abspath(file.path)), file.weight  # noqa: PTH100
