"""Options of ``emhet select`` and ``emhet export``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Quiet, Run

__all__ = ["Export", "Select"]


@dataclass(frozen=True, kw_only=True)
class Select(Quiet):
    """Write the volumes or particles of chosen states, basins or blocks, or of a region."""

    summary = "Write the particles (STAR, .pkl) or volumes (.txt, .csv) of states, basins, blocks."
    examples = (
        "emhet select landscape --clusters 0,3 -o particles.star",
        "emhet select landscape --clusters 2 -o ind.pkl",
        "emhet select landscape --clusters 0-4 -o volumes.csv",
        "emhet select blocks --block 3 --present -o with_3.star",
        "emhet select blocks --block 3 --min 0.8 -o most_of_3.csv",
        "emhet select blocks --state 0,2 -o ind.pkl",
        "emhet select occupancy --block uL2 --absent -o without_uL2.star",
        "emhet select full --basin 0 -o basin_0.star",
        "emhet select full --region region.json -o ind.pkl",
    )

    results: str = option(
        help="Folder of a landscape, of a map of particles, of blocks or of an occupancy.",
        kind=kinds.path(expected="a results folder", url=True),
        argument=True,
    )
    clusters: tuple[int, ...] | None = option(
        None, help="States of a landscape, such as 0,3 or 0-4.", kind=kinds.numbers(), flags=("-c",)
    )
    basin: tuple[int, ...] | None = option(
        None, help="Basins of a map of particles, such as 0 or 0,2.", kind=kinds.numbers()
    )
    region: str | None = option(
        None,
        help=(
            "Polygon over two components: region.json as landscape.html saves it, or a .csv with "
            "the columns pc1,pc2."
        ),
        kind=kinds.path(expected="a .json or .csv file"),
    )
    block: str | None = option(
        None,
        help="A block by its number, from 1, or a part of an occupancy by its name.",
        kind=kinds.label(expected="a number or a name"),
    )
    state: tuple[int, ...] | None = option(
        None,
        help="Combinations of blocks or parts, such as 0,2, as numbered in the table of states.",
        kind=kinds.numbers(),
    )
    present: bool = option(
        False,
        help="Of --block: volumes in which it is present; so without any other choice.",
        kind=kinds.flag(),
    )
    absent: bool = option(
        False, help="Of --block: volumes in which it is not present.", kind=kinds.flag()
    )
    min: float | None = option(
        None,
        help=(
            "Of --block: volumes in which it is occupied so far at least, such as 0.8; of parts "
            "that were measured without references, in sums of density as in occupancy.csv."
        ),
        kind=kinds.number(minimum=0),
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
        help="A store, or the folder of a landscape.", kind=kinds.path(url=True), argument=True
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
