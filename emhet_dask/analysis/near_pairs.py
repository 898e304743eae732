"""Pairs of voxels that are too near to one another to say anything.

Noise that is low-passed like a map makes neighbouring voxels truly dependent; an edge between them
tells nothing of parts that come and go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from emhet_dask.errors import InputError

__all__ = ["NearPairs", "near_pairs"]

# Whole numbers up to this are exact in float32.
_EXACT = 1 << 24
_PIECE_ROWS = 64

Which = slice | NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Which pairs of voxels are near to one another; a voxel is near to itself.

    Attributes
    ----------
    coordinates : array of int32 (voxel, axis)
        Positions in the box, in voxels.
    least_distance : float
        In voxels; pairs at most so far apart are near.
    """

    coordinates: NDArray[np.int32]
    least_distance: float

    @cached_property
    def count(self) -> int:
        """Return the number of near pairs, each once, none of a voxel and itself."""
        if self.least_distance <= 0:
            return 0
        tree = cKDTree(self.coordinates.astype(np.float64))
        # Squares are whole numbers: what lies between two of them is on the safe side of both.
        ordered = int(tree.count_neighbors(tree, np.sqrt(self._limit + 0.5)))
        return (ordered - len(self.coordinates)) // 2

    def exclude(self, values: NDArray[np.float32], voxels: Which, others: Which) -> None:
        """Write NaN where a pair of a tile is near; NaN is on neither side of any critical count.

        Squared distances are one product: of ``(x, y, z, |a|², 1)`` and
        ``(−2x, −2y, −2z, 1, |b|²)``, whole numbers that float32 holds.

        Parameters
        ----------
        values : array of float32 (voxel, other)
            Changed in place.
        voxels, others : slice or array of int
        """
        if self.least_distance <= 0:
            return
        a, b = self.coordinates[voxels], self.coordinates[others]
        if not len(a) or not len(b) or _gap(a, b) > self._limit:
            return
        lowest = np.minimum(a.min(axis=0), b.min(axis=0))
        a, b = (a - lowest).astype(np.int64), (b - lowest).astype(np.int64)
        a_squared, b_squared = (a * a).sum(axis=1), (b * b).sum(axis=1)
        # |a|² + |b|² + 2 |a·b| bounds all sums on the way.
        exact = 2 * (a_squared.max() + b_squared.max()) < _EXACT
        dtype: Any = np.float32 if exact else np.float64
        left: NDArray[Any] = np.column_stack([a, a_squared, np.ones_like(a_squared)]).astype(dtype)
        right: NDArray[Any] = np.column_stack([-2 * b, np.ones_like(b_squared), b_squared])
        right = np.ascontiguousarray(right.T, dtype=dtype)
        for start in range(0, len(left), _PIECE_ROWS):
            rows = slice(start, start + _PIECE_ROWS)
            values[rows][left[rows] @ right <= self._limit] = np.nan

    @property
    def _limit(self) -> int:
        """Return the largest whole number whose root is at most the distance."""
        limit = int(self.least_distance**2) + 1
        return limit if np.sqrt(limit) <= self.least_distance else limit - 1


def near_pairs(
    coordinates: ArrayLike | None, least_distance: float, n_voxels: int
) -> NearPairs | None:
    """Take coordinates and a distance; None where no pair is to be left out.

    Parameters
    ----------
    coordinates : array of int (voxel, axis), optional
    least_distance : float
    n_voxels : int

    Raises
    ------
    InputError
        When the distance is negative or not finite, is above 0 without coordinates, or there are
        more or fewer coordinates than voxels, or fractions among them.
    """
    if not (np.isfinite(least_distance) and least_distance >= 0):
        raise InputError(f"least_distance is {least_distance}; it must be 0 or more voxels")
    if least_distance == 0:
        return None
    if coordinates is None:
        raise InputError(f"least_distance is {least_distance}, which needs coordinates of voxels")
    places = np.asarray(coordinates)
    if places.ndim != 2 or len(places) != n_voxels or places.dtype.kind not in "iu":
        raise InputError(
            f"coordinates: found {places.dtype} of shape {places.shape}; whole numbers "
            f"({n_voxels}, 3) are needed"
        )
    return NearPairs(places.astype(np.int32), float(least_distance))


def _gap(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Return the squared distance between two bounding boxes."""
    apart = np.maximum(a.min(axis=0) - b.max(axis=0), b.min(axis=0) - a.max(axis=0))
    return int((np.maximum(apart, 0).astype(np.int64) ** 2).sum())
