"""Even bins over one to three axes, and sums over them of any number of points, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from emhet_dask.errors import InputError

__all__ = ["BLOCK_ROWS", "Blocks", "Grid", "grid_counts", "marginals"]

Array = npt.NDArray[np.float64]
Compute = Callable[..., tuple[Any, ...]]

# Blocks are cut by the data alone, so that sums are the same wherever and however often they run.
BLOCK_ROWS = 1 << 18
_FEWEST_POINTS = 20


@dataclass(frozen=True)
class Grid:
    """Even bins along two or three axes.

    Attributes
    ----------
    edges : tuple of ndarray
        Ends of the bins of each axis, ascending, in units of the components.
    """

    edges: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of bins along each axis."""
        return tuple(len(edges) - 1 for edges in self.edges)

    @property
    def centres(self) -> tuple[Array, ...]:
        """Return the middle of the bins of each axis."""
        return tuple((edges[1:] + edges[:-1]) / 2 for edges in self.edges)

    @property
    def widths(self) -> Array:
        """Return the width of a bin along each axis."""
        return np.array([(edges[-1] - edges[0]) / (len(edges) - 1) for edges in self.edges])

    def bins_of(self, points: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """Return the flat bin of each point (point, axis); -1 beyond the grid."""
        points = np.asarray(points, dtype=np.float64)
        found = np.zeros(len(points), dtype=np.intp)
        inside = np.ones(len(points), dtype=bool)
        for axis, (edges, width, n) in enumerate(
            zip(self.edges, self.widths, self.shape, strict=True)
        ):
            along = np.floor((points[:, axis] - edges[0]) / width)
            # The last bin has both of its ends.
            along[points[:, axis] == edges[-1]] = n - 1
            inside &= (along >= 0) & (along < n)
            found = found * n + np.where(inside, along, 0).astype(np.intp)
        found[~inside] = -1
        return found

    def positions(self, bins: npt.ArrayLike) -> Array:
        """Return the middles (bin, axis) of flat bins."""
        index = np.unravel_index(np.asarray(bins, dtype=np.intp), self.shape)
        return np.column_stack([c[i] for c, i in zip(self.centres, index, strict=True)])


def grid_counts(
    points: Any,
    grid: Grid,
    *,
    weights: npt.ArrayLike | None = None,
    compute: Compute = dask.compute,
) -> tuple[Array, Array, int]:
    """Sum weights, and squares of weights, over the bins of a grid.

    Parameters
    ----------
    points : array (point, axis), NumPy or Dask
    grid : Grid
    weights : array (point,), optional
    compute : callable

    Returns
    -------
    weight, squared : ndarray, shape of the grid
    n_inside : int
        Points within the grid.
    """
    blocks = Blocks.of(points, weights, compute)
    n_bins = math.prod(grid.shape)

    def of_block(block: Array, given: Array | None) -> tuple[Array, Array, int]:
        bins = grid.bins_of(block)
        inside = bins >= 0
        if given is None:
            counts = np.bincount(bins[inside], minlength=n_bins).astype(np.float64)
            return counts, counts, int(inside.sum())
        sums = [
            np.bincount(bins[inside], given[inside] ** k, n_bins).astype(np.float64) for k in (1, 2)
        ]
        return sums[0], sums[1], int(inside.sum())

    weight, squared = np.zeros(n_bins), np.zeros(n_bins)
    n_inside = 0
    for one, two, n in blocks.each(of_block):
        weight += one
        squared += two
        n_inside += n
    return weight.reshape(grid.shape), squared.reshape(grid.shape), n_inside


@dataclass(frozen=True)
class Blocks:
    """Points and weights, block by block.

    Attributes
    ----------
    points : array (point, axis), NumPy or Dask
    weights : ndarray, shape (point,), or None
    compute : callable
        With the signature of `dask.compute`.
    """

    points: Any
    weights: Array | None
    compute: Compute

    @classmethod
    def of(cls, points: Any, weights: npt.ArrayLike | None, compute: Compute) -> Blocks:
        """Check points and weights, and cut them."""
        if isinstance(points, da.Array):
            points = points.rechunk((BLOCK_ROWS, points.shape[1]))
        if points.ndim != 2 or points.shape[1] not in {1, 2, 3}:
            raise InputError(
                f"a landscape is over one to three components; got an array {points.shape}"
            )
        if points.shape[0] < _FEWEST_POINTS:
            raise InputError(
                f"a landscape needs {_FEWEST_POINTS} points at least; got {points.shape[0]}"
            )
        given = None if weights is None else np.asarray(weights, dtype=np.float64)
        if given is not None and not (
            given.shape == (points.shape[0],)
            and np.isfinite(given).all()
            and (given >= 0).all()
            and given.any()
        ):
            raise InputError(
                f"weights of a landscape: expected {points.shape[0]} numbers that are finite and "
                "not negative, not all of them 0"
            )
        return cls(points, given, compute)

    @property
    def n_points(self) -> int:
        """Return the number of points."""
        return int(self.points.shape[0])

    @property
    def n_axes(self) -> int:
        """Return the number of axes."""
        return int(self.points.shape[1])

    @property
    def n_effective(self) -> float:
        """Return how many points of equal weight would be as good: ``(sum w)² / sum w²``."""
        if self.weights is None:
            return float(self.n_points)
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def each(self, function: Callable[[Array, Array | None], Any]) -> Iterator[Any]:
        """Yield what a function returns of each block, in their order."""
        starts = range(0, self.n_points, BLOCK_ROWS)
        given = [
            None if self.weights is None else self.weights[start : start + BLOCK_ROWS]
            for start in starts
        ]
        if isinstance(self.points, da.Array):
            delayed = dask.delayed(function, pure=False)
            blocks = self.points.to_delayed()[:, 0]
            tasks = [delayed(block, some) for block, some in zip(blocks, given, strict=True)]
            yield from self.compute(*tasks)
            return
        for start, some in zip(starts, given, strict=True):
            yield function(np.asarray(self.points[start : start + BLOCK_ROWS]), some)


def marginals(blocks: Blocks, low: Array, high: Array, *, n_bins: int) -> list[Array]:
    """Count points along each axis alone."""
    lines = [Grid((np.linspace(a, b, n_bins + 1),)) for a, b in zip(low, high, strict=True)]

    def counted(block: Array, given: Array | None) -> Array:
        rows = []
        for axis, line in enumerate(lines):
            bins = line.bins_of(block[:, axis : axis + 1])
            inside = bins >= 0
            rows.append(np.bincount(bins[inside], None if given is None else given[inside], n_bins))
        return np.array(rows, dtype=np.float64)

    total = np.zeros((blocks.n_axes, n_bins))
    for counts in blocks.each(counted):
        total += counts
    return list(total)
