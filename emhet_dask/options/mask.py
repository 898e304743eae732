"""Options of ``emhet mask``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run

__all__ = ["Mask"]


@dataclass(frozen=True, kw_only=True)
class Mask(Run):
    """Make a mask from each map: cut at a threshold, extend, give a soft edge."""

    summary = "Make masks from maps, as relion_mask_create does, in Å."
    examples = (
        "emhet mask parts/*.mrc -o masks",
        "emhet mask parts -o masks --threshold 0.02 --extend 4 --soft-edge 6",
        "emhet mask consensus.mrc -o masks --largest 1",
    )

    maps: tuple[str, ...] = option(
        help="Maps, or folders or patterns of them.",
        kind=kinds.path(expected="maps"),
        argument=True,
        many=True,
    )
    output: str = option(
        help="Folder for the masks, NAME.mrc each.",
        kind=kinds.path(expected="a folder"),
        flags=("-o",),
    )
    threshold: float | None = option(
        None,
        help=(
            "Density from which a voxel is inside; default: half of the map's 99.99th percentile."
        ),
        kind=kinds.number(),
    )
    extend: float = option(
        0.0, help="Grow the mask by so many Å in all directions.", kind=kinds.number(minimum=0)
    )
    soft_edge: float = option(
        0.0,
        help="Width in Å over which it falls from 1 to 0 outside of that, as a raised cosine.",
        kind=kinds.number(minimum=0),
    )
    largest: int | None = option(
        None,
        help="Keep only so many connected pieces, the largest, of what is above the threshold.",
        kind=kinds.whole(minimum=1),
    )
    apix: float | None = option(
        None,
        help="Voxel size in Å, where the headers do not say it.",
        kind=kinds.number(minimum=1e-3),
    )
