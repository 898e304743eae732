"""Options of ``emhet align``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run, source_ensemble

__all__ = ["Align", "reference"]


def reference() -> kinds.Kind:
    """Make the kind 'first, best, number of a volume, or a map', kept as text."""

    def parse(given: Any) -> str:
        if isinstance(given, bool) or not isinstance(given, int | str | os.PathLike):
            raise TypeError(given)
        spelled = str(given)
        if not spelled or (isinstance(given, int) and given < 0):
            raise ValueError(given)
        return spelled

    return kinds.Kind(
        parse,
        "first, best, the number of a volume, or an MRC file",
        "str or int",
        ("first", "best"),
        is_path=True,
    )


@dataclass(frozen=True, kw_only=True)
class Align(Run):
    """Bring every map of an ensemble into one frame: rotation, shift and, if asked, hand."""

    summary = "Rotate and shift every map onto one of them, or onto a reference map."
    examples = (
        "emhet align ENS.zarr --to first -o aligned.zarr",
        "emhet align ENS.zarr --to best --hand -o aligned.zarr",
        "emhet align ENS.zarr --to reference.mrc --resolution 12 -o aligned.zarr",
    )

    ensemble: Any = source_ensemble()
    to: str = option(
        help=(
            "What to fit to: first (the first volume), best (the most typical volume), the number "
            "of a volume, or an MRC file of the same extent."
        ),
        kind=reference(),
    )
    output: str = option(
        help="The store to make; its name ends in .zarr by custom.",
        kind=kinds.path(expected="a path such as aligned.zarr", url=True),
        flags=("-o",),
    )
    hand: bool = option(
        False,
        help="Try the mirror image of each map too, and take it where it is clearly better.",
        kind=kinds.flag(),
    )
    resolution: float | None = option(
        None,
        help="Finest detail that the fit compares, in Å; default: 1/24 of the width of the box.",
        kind=kinds.number(minimum=1e-3),
    )
