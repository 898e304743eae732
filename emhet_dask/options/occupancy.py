"""Options of ``emhet occupancy``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run, source_ensemble

__all__ = ["Occupancy"]


@dataclass(frozen=True, kw_only=True)
class Occupancy(Run):
    """Measure how much of each given part is there in each volume, and which parts need which."""

    summary = "Occupancy of given parts in each volume, and the relations between the parts."
    examples = (
        "emhet occupancy ENS.zarr --masks masks -o occupancy",
        "emhet occupancy ENS.zarr --masks masks --references parts -o occupancy",
        "emhet occupancy ENS.zarr --masks masks --references parts -o occupancy --format maven",
        "emhet occupancy ENS.zarr --masks masks --references parts -o occupancy --cut 0.4",
    )

    ensemble: Any = source_ensemble()
    masks: str = option(
        help=(
            "Folder with a mask from 0 to 1 for each part, NAME.mrc or Mask_NAME.mrc; emhet mask "
            "makes them from maps."
        ),
        kind=kinds.path(expected="a folder"),
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    references: str | None = option(
        None,
        help=(
            "Folder with a map of each part on its own, NAME.mrc, by whose sum occupancies are "
            "divided; without it they are plain sums, the larger the part the larger."
        ),
        kind=kinds.path(expected="a folder"),
    )
    cut: float | None = option(
        None,
        help=(
            "Occupancy above which a part is present; default: between its two modes, without "
            "which it counts as present throughout (or missing, below 0.2 of its reference)."
        ),
        kind=kinds.number(),
    )
    format: str = option(
        "csv",
        help="maven: also write occupancies.csv as MAVEn does, by the number that ends each name.",
        kind=kinds.choice("csv", "maven"),
    )
