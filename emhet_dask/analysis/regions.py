"""Points inside a polygon."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from emhet_dask.analysis.binned import BLOCK_ROWS

__all__ = ["inside_polygon"]


def inside_polygon(points: Any, polygon: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which points lie inside a polygon.

    A point is inside when a ray from it crosses the outline an odd number of times, so that where
    an outline crosses itself, what it goes around twice is outside. Of points on the outline, those
    on a left or lower edge are inside, so that polygons that share an edge share no point.

    Parameters
    ----------
    points : array (point, 2)
        Read block by block; not finite is outside.
    polygon : array (vertex, 2)
        In order; the last is joined to the first. At least three.

    Returns
    -------
    ndarray of bool, shape (point,)

    Examples
    --------
    >>> inside_polygon(np.array([[0.5, 0.5], [2.0, 0.5]]), [[0, 0], [1, 0], [1, 1], [0, 1]])
    array([ True, False])
    """
    vertices = np.asarray(polygon, dtype=np.float64)
    found = np.empty(len(points), dtype=bool)
    for start in range(0, len(points), BLOCK_ROWS):
        block = np.asarray(points[start : start + BLOCK_ROWS], dtype=np.float64)
        found[start : start + BLOCK_ROWS] = _inside(block[:, 0], block[:, 1], vertices)
    return found


def _inside(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], vertices: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    odd = np.zeros(len(x), dtype=bool)
    for one, two in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        # From its lower end, so that both polygons at an edge compute the same crossing.
        (x1, y1), (x2, y2) = (one, two) if one[1] <= two[1] else (two, one)
        if y1 == y2:
            continue
        beside = np.flatnonzero((y1 <= y) & (y < y2))
        crossing = x1 + (y[beside] - y1) * ((x2 - x1) / (y2 - y1))
        odd[beside] ^= x[beside] < crossing
    return odd
