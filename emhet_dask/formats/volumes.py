"""Volumes that were found but not yet read, and how they are named and ordered."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from emhet_dask.formats.mrc import MapHeader

__all__ = ["VolumeSource", "is_map_name", "name_volumes", "natural_key", "trailing_number"]

_MAP_FILE = re.compile(r"(?P<stem>.+?)\.(mrcs?|map|ccp4)(\.gz|\.bz2)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """One volume, not yet read.

    Attributes
    ----------
    header : MapHeader
        Of its file.
    index : int
        Which volume of the file, from 0.
    name : str
        Shortest path suffix that is unique among the volumes found, without extension; members of
        a stack have ``_00012`` behind it.
    weight : float or None
        Particles that it stands for (for a RELION job without ``_data.star``, their share).
    """

    header: MapHeader
    index: int
    name: str
    weight: float | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.header.path)


def natural_key(text: str) -> list[str | int]:
    """Return a sort key that has ``vol_9`` before ``vol_10``."""
    # Every second piece is a number, so that equal positions compare equal kinds.
    pieces = re.split(r"([0-9]+)", text)
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)]


def trailing_number(name: str) -> int | None:
    """Return the number at the end of a volume's name, which other programs key on, or None."""
    match = re.search(r"([0-9]+)$", name)
    return int(match[1]) if match else None


def is_map_name(path: str) -> bool:
    """Whether a file name ends as maps do, compressed or not."""
    return _MAP_FILE.fullmatch(os.path.basename(path)) is not None  # noqa: PTH119


def name_volumes(found: Iterable[tuple[MapHeader, float | None]]) -> list[VolumeSource]:
    """Give every volume the shortest path suffix, without extension, that no other one ends in."""
    volumes: list[VolumeSource] = []
    paths: list[tuple[str, ...]] = []
    for header, weight in found:
        path = Path(os.path.abspath(header.path))  # noqa: PTH100
        match = _MAP_FILE.fullmatch(path.name)
        stem = match["stem"] if match else path.name
        for index in range(header.n_volumes):
            member = stem if header.n_volumes == 1 else f"{stem}_{index:05d}"
            volumes.append(VolumeSource(header, index, member, weight))
            paths.append((*path.parent.parts, member))
    names = _shortest_suffixes(paths)
    taken = Counter(names)
    return [
        replace(volume, name=name if taken[name] == 1 else _with_extension(volume, name))
        for volume, name in zip(volumes, names, strict=True)
    ]


def _shortest_suffixes(paths: list[tuple[str, ...]]) -> list[str]:
    """Return the shortest unique suffix of each path; the whole path where two are equal."""
    names = [""] * len(paths)
    open_paths = list(range(len(paths)))
    length = 1
    while open_paths:
        groups: dict[tuple[str, ...], list[int]] = {}
        for index in open_paths:
            groups.setdefault(paths[index][-length:], []).append(index)
        open_paths = []
        for suffix, members in groups.items():
            exhausted = len(suffix) < length or len({paths[index] for index in members}) == 1
            if len(members) == 1 or exhausted:
                for index in members:
                    names[index] = "/".join(suffix)
            else:
                open_paths += members
        length += 1
    return names


def _with_extension(volume: VolumeSource, name: str) -> str:
    """Tell ``x.mrc`` from ``x.map`` in one folder, at the price of keeping the extension."""
    suffix = "" if volume.header.n_volumes == 1 else f"_{volume.index:05d}"
    return "/".join([*name.split("/")[:-1], volume.path.name]) + suffix
