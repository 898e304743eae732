"""Options of ``emhet select`` and ``emhet export``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Quiet, Run

__all__ = ["Export", "Select"]


@dataclass(frozen=True, kw_only=True)
class Select(Quiet):
    """Write the volumes or particles of chosen states."""

    summary = "Write the particles (STAR, .pkl) or volumes (.txt, .csv) of chosen states."
    examples = (
        "emhet select landscape --clusters 0,3 -o particles.star",
        "emhet select landscape --clusters 2 -o ind.pkl",
        "emhet select landscape --clusters 0-4 -o volumes.csv",
    )

    results: str = option(
        help="Folder of a landscape.", kind=kinds.path(expected="a results folder"), argument=True
    )
    clusters: tuple[int, ...] = option(
        help="States, such as 0,3 or 0-4.", kind=kinds.numbers(), flags=("-c",)
    )
    output: str = option(
        help="File to write: .star or .cs, .pkl (cryoDRGN indices), .txt (names) or .csv.",
        kind=kinds.path(expected="a file ending in .star, .cs, .pkl, .txt or .csv"),
        flags=("-o",),
    )
    particles: str | None = option(
        None,
        help="STAR file of the particles, where the ensemble was made without it or it has moved.",
        kind=kinds.path(expected="a STAR file"),
    )
    exclude_outliers: bool = option(False, help="Leave outlier volumes out.", kind=kinds.flag())
    overwrite: bool = option(False, help="Replace the file.", kind=kinds.flag())


@dataclass(frozen=True, kw_only=True)
class Export(Run):
    """Write volumes back to MRC files."""

    summary = "Write volumes back to MRC files; of a landscape, a folder per state."
    examples = (
        "emhet export ensemble.zarr -o maps",
        "emhet export landscape -o maps --clusters 0,2",
    )

    source: str = option(
        help="A store, or the folder of a landscape.", kind=kinds.path(), argument=True
    )
    output: str = option(
        help="Folder for the maps.", kind=kinds.path(expected="a folder"), flags=("-o",)
    )
    volumes: tuple[int, ...] | None = option(
        None, help="Volumes, such as 0,3 or 0-99; default: all.", kind=kinds.numbers()
    )
    clusters: tuple[int, ...] | None = option(
        None, help="States of a landscape; default: all.", kind=kinds.numbers(), flags=("-c",)
    )
