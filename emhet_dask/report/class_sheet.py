"""The class maps of a job as slices on one sheet, the largest class first."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from emhet_dask.report.convergence import class_colour
from emhet_dask.report.sheets import slice_sheet

__all__ = ["class_sheet"]

_MOST = 30
_BARELY = 1e-6


def class_sheet(
    maps: Mapping[int, npt.NDArray[np.floating]],
    *,
    classes: pd.DataFrame,
    voxel_size_angstrom: float,
    job: str,
    note: str = "",
) -> Figure:
    """Draw three orthogonal slices of every class map, sorted by class distribution.

    Parameters
    ----------
    maps : mapping of int to array (z, y, x)
        Class number to map, all of one shape.
    classes : DataFrame
        ``class``, ``distribution`` and ``resolution_A`` of the iteration.
    voxel_size_angstrom : float
    job : str
    note : str
        Added below the sheet.
    """
    shown = classes[classes["class"].isin(list(maps))]
    shown = shown.sort_values("distribution", ascending=False, kind="stable").head(_MOST)
    numbers = [int(number) for number in shown["class"]]
    titles = [
        f"class {number} · {share:.1%}" + ("" if np.isnan(resolution) else f" · {resolution:.1f} Å")
        for number, share, resolution in zip(
            numbers, shown["distribution"], shown["resolution_A"], strict=True
        )
    ]
    # What stands out in any class, so that the sheet is not mostly solvent.
    highest = functools.reduce(np.maximum, (maps[number] for number in numbers))
    limit = 0.5 * float(np.percentile(highest, 99.9))
    # All of it is shown, but slices pass through the middle of the largest class.
    weight = np.float32(_BARELY) * (highest > limit) + (maps[numbers[0]] > limit)
    title = f"{job}: class maps, the largest first"
    if len(shown) < len(maps):
        title = f"{job}: the {len(shown)} largest of {len(maps)} class maps"
    return slice_sheet(
        [maps[number] for number in numbers],
        titles=titles,
        colours=[class_colour(number) for number in numbers],
        voxel_size_angstrom=voxel_size_angstrom,
        mask=weight if limit > 0 else None,
        title=title,
        note=note,
    )
