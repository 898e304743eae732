"""The sheet of one cluster: slices of the maps that are in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from emhet_dask.report.names import shortened
from emhet_dask.report.palette import state_colour
from emhet_dask.report.sheets import slice_sheet
from emhet_dask.report.style import counted

__all__ = ["member_sheet"]

_LARGEST_SHEET = 24
_MOST_LETTERS = 38


def member_sheet(
    maps: Sequence[npt.ArrayLike] | npt.NDArray[np.floating],
    *,
    names: Sequence[str],
    cluster: int,
    voxel_size_angstrom: float,
    mask: npt.ArrayLike | None = None,
    noun: str = "cluster",
    same_grey: bool = True,
    order: str = "",
    most: int = _LARGEST_SHEET,
) -> Figure:
    """Draw three orthogonal slices of the maps of one cluster.

    Parameters
    ----------
    maps : sequence of arrays (z, y, x)
        The members, in the order in which they are drawn; only the first `most` are asked for.
    names : sequence of str
        Of all members.
    cluster : int
        Its number, which gives it its colour.
    voxel_size_angstrom : float
    mask : array (z, y, x), optional
        Slices pass through its centre of mass, and what is shown is cropped to it.
    noun : str
        What a group is called.
    same_grey : bool
        Give all maps the same grey values, or else each its own.
    order : str
        How the members are ordered, such as ``"nearest to their mean first"``; said where not all
        are drawn.
    most : int
        At most so many members; the others are counted below the sheet.
    """
    shown = min(len(names), most)
    rest = len(names) - shown
    title = f"{noun.capitalize()} {cluster}: {counted(len(names), 'map')}"
    note = ""
    if rest:
        title = f"{noun.capitalize()} {cluster}: {shown} of {len(names):,} maps"
        note = f"{counted(rest, 'further map')} not drawn{f' ({order})' if order else ''}."
    return slice_sheet(
        [maps[k] for k in range(shown)],
        titles=shortened(list(names)[:shown], most=_MOST_LETTERS),
        colours=[state_colour(cluster)] * shown,
        voxel_size_angstrom=voxel_size_angstrom,
        mask=mask,
        title=title,
        note=note,
        same_grey=same_grey,
    )
