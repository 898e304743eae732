"""The lowest path between two places of a landscape, and points of the data along it.

Of all paths over neighbouring bins, that whose highest point is lowest; among these, the one with
the least ``sum of exp(F) ds``, that of maximum flux (Berkowitz, Morgan, McCammon and Northrup
1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra, minimum_spanning_tree

from emhet_dask.analysis.basins import neighbours_of
from emhet_dask.analysis.binned import BLOCK_ROWS
from emhet_dask.analysis.free_energy import FreeEnergy
from emhet_dask.errors import InputError

__all__ = ["EnergyPath", "lowest_path", "nearest_bin", "points_along"]

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]

# As wide as a kernel at most, which is three bins; bins of a histogram are as wide themselves.
_SMOOTH_BINS = {"kernel": 3.0, "histogram": 1.0}
# A smoothed path may be higher than the bins it came from by no more than this, in kT.
_TOLERANCE = 0.05
_PER_BIN = 4


@dataclass(frozen=True)
class EnergyPath:
    """A path over a landscape, from its start to its end.

    Attributes
    ----------
    bins : ndarray of int, shape (step,)
        Flat bins that the lowest path goes over.
    points : ndarray, shape (point, axis)
        Of the smoothed path, at equal arc length.
    length : ndarray, shape (point,)
        Arc length up to each point, in units of the components.
    free_energy, error : ndarray, shape (point,)
        Of the landscape there, in kT above its deepest bin; interpolated between bins.
    """

    bins: Integers
    points: Array
    length: Array
    free_energy: Array
    error: Array

    def at(self, n_points: int) -> Array:
        """Return other points (point, axis) at equal arc length, both ends among them."""
        wanted = np.linspace(0, self.length[-1], n_points)
        return np.column_stack(
            [np.interp(wanted, self.length, self.points[:, k]) for k in range(self.points.shape[1])]
        )


def lowest_path(energy: FreeEnergy, start: int, end: int, *, n_points: int = 200) -> EnergyPath:
    """Return the lowest path between two bins, smoothed.

    The path over bins is smoothed along its length by up to the width of a kernel, and less where
    that would take it more than 0.05 kT above the highest of its bins.

    Parameters
    ----------
    energy : FreeEnergy
    start, end : int
        Flat bins that have values, such as the minima of basins.
    n_points : int
        Points at equal arc length.

    Returns
    -------
    EnergyPath

    Raises
    ------
    InputError
        When bins with values do not join start and end, or they are the same bin.
    """
    if start == end:
        raise InputError("a path has two ends; both of them are at the same place of the landscape")
    bins = _lowest_bins(energy, start, end)
    line = energy.grid.positions(bins)
    highest = float(energy.free_energy.ravel()[bins].max())
    sigma = _SMOOTH_BINS[energy.method]
    points = _resampled(line, n_points)
    while sigma > 0.25:
        smooth = _smoothed(line, sigma * _PER_BIN, n_points)
        values = _interpolated(energy, energy.free_energy.ravel()[None], smooth)[0]
        if np.isfinite(values).all() and values.max() <= highest + _TOLERANCE:
            points = smooth
            break
        sigma /= 1.5
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(steps)])
    value, error = _profile(energy, points)
    return EnergyPath(bins, points, length, value, error)


def nearest_bin(energy: FreeEnergy, position: npt.ArrayLike) -> int:
    """Return the flat bin with a value that is nearest to a position (axis,), in bins.

    Of bins as near as another, the earlier in row-major order.
    """
    defined = np.flatnonzero(energy.defined)
    away = (energy.grid.positions(defined) - np.asarray(position)) / energy.grid.widths
    return int(defined[np.argmin((away**2).sum(axis=1))])


def points_along(
    positions: npt.ArrayLike,
    plane: Any,
    features: Any,
    *,
    scale: npt.ArrayLike,
    n_near: int = 50,
) -> Integers:
    """Choose a point of the data for each position: near it, and typical of what is near it.

    Of the `n_near` points that are nearest in the plane, or fewer where these would be more than
    one `scale` away, the one whose features are nearest to their mean. The nearest alone would
    differ from its neighbours on the path in everything that the plane does not show.

    Parameters
    ----------
    positions : array (position, axis)
    plane : array (point, axis)
        Of all points; read block by block.
    features : array (point, feature)
        Such as latents; only rows of near points are read.
    scale : array (axis,)
        Distances along the axes are divided by this, such as the width of the kernel.
    n_near : int

    Returns
    -------
    ndarray of int, shape (position,)
        Rows; a row may be chosen twice.
    """
    unit = np.asarray(scale, dtype=np.float64)
    wanted = np.asarray(positions, dtype=np.float64) / unit
    n_near = min(n_near, len(plane))
    best = np.full((len(wanted), n_near), math.inf)
    rows = np.full((len(wanted), n_near), -1, dtype=np.intp)
    for start in range(0, len(plane), BLOCK_ROWS):
        block = np.asarray(plane[start : start + BLOCK_ROWS], dtype=np.float64) / unit
        for number, position in enumerate(wanted):
            away = ((block - position) ** 2).sum(axis=1)
            some = np.flatnonzero(away <= best[number, -1])
            distances = np.concatenate([best[number], away[some]])
            candidates = np.concatenate([rows[number], some + start])
            # Equal distances: the earlier row, whatever the blocks.
            first = np.lexsort((candidates, distances))[:n_near]
            best[number], rows[number] = distances[first], candidates[first]
    chosen = np.empty(len(wanted), dtype=np.intp)
    for number in range(len(wanted)):
        near = np.sort(rows[number][best[number] <= max(1.0, best[number, 0])])
        values = np.asarray(features[near], dtype=np.float64)
        typical = ((values - values.mean(axis=0)) ** 2).sum(axis=1)
        chosen[number] = near[np.argmin(typical)]
    return chosen


# On the grid --------------------------------------------------------------------------------------


def _lowest_bins(energy: FreeEnergy, start: int, end: int) -> Integers:
    """Return the flat bins of the path with the lowest highest point, then most flux."""
    values = energy.free_energy.ravel()
    one, two, distance = _steps(energy)
    n = values.size
    # A minimum spanning tree holds, between any two bins, the path with the lowest highest step.
    # Ranks from 1, because a weight of 0 is no edge.
    _, heights = np.unique(np.maximum(values[one], values[two]), return_inverse=True)
    tree = minimum_spanning_tree(csr_array((heights + 1, (one, two)), shape=(n, n)))
    _, before = breadth_first_order(tree, start, directed=False, return_predecessors=True)
    if before[end] < 0:
        raise InputError(
            "no path: the landscape has no values between these ends; take others, or --path none"
        )
    highest = values[_chain(before, start, end)].max()
    low = (values[one] <= highest) & (values[two] <= highest)
    cost = distance * (np.exp(values[one] - highest) + np.exp(values[two] - highest)) / 2
    graph = csr_array((cost[low], (one[low], two[low])), shape=(n, n))
    found = dijkstra(graph, directed=False, indices=[start], return_predecessors=True)
    return _chain(found[1][0], start, end)


def _steps(energy: FreeEnergy) -> tuple[Integers, Integers, Array]:
    """Return both bins of every step between bins with values, and its length."""
    shape = energy.grid.shape
    flat, defined = np.arange(math.prod(shape)).reshape(shape), energy.defined
    ones, twos, distances = [], [], []
    for here, there in neighbours_of(shape):
        both = defined[here] & defined[there]
        ones.append(flat[here][both])
        twos.append(flat[there][both])
        moved = [a.start != b.start or a.stop != b.stop for a, b in zip(here, there, strict=True)]
        step = float(np.linalg.norm(energy.grid.widths * moved))
        distances.append(np.full(len(ones[-1]), step))
    return np.concatenate(ones), np.concatenate(twos), np.concatenate(distances)


def _chain(before: npt.ArrayLike, start: int, end: int) -> Integers:
    before = np.asarray(before)
    found = [end]
    while found[-1] != start:
        found.append(int(before[found[-1]]))
    return np.array(found[::-1], dtype=np.intp)


def _resampled(line: Array, n_points: int) -> Array:
    """Return points at equal arc length along a line of points."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    wanted = np.linspace(0, along[-1], n_points)
    return np.column_stack([np.interp(wanted, along, column) for column in line.T])


def _smoothed(line: Array, sigma: float, n_points: int) -> Array:
    """Return a smoother line with the same ends, at equal arc length."""
    fine = _resampled(line, _PER_BIN * len(line))
    # Mirrored through its ends, which therefore stay where they are.
    reach = min(math.ceil(4 * sigma), len(fine) - 1)
    before = 2 * fine[0] - fine[reach:0:-1]
    after = 2 * fine[-1] - fine[-2 : -2 - reach : -1]
    longer = np.concatenate([before, fine, after])
    smooth = gaussian_filter1d(longer, sigma, axis=0, truncate=reach / sigma)
    smooth = smooth[reach : reach + len(fine)]
    smooth[0], smooth[-1] = fine[0], fine[-1]
    return _resampled(smooth, n_points)


def _profile(energy: FreeEnergy, points: Array) -> tuple[Array, Array]:
    """Return free energy and its bootstrap error at points."""
    value = _interpolated(energy, energy.free_energy.ravel()[None], points)[0]
    defined = energy.defined.ravel()
    reference = np.cumsum(defined)[energy.deepest] - 1
    error = np.empty((len(energy.replicates), len(points)))
    for number, replicate in enumerate(energy.replicates):
        full = np.full((1, defined.size), np.nan)
        full[0, defined] = replicate - replicate[reference]
        error[number] = _interpolated(energy, full, points)[0]
    return value, error.std(axis=0, ddof=1)


def _interpolated(energy: FreeEnergy, values: Array, points: Array) -> Array:
    """Interpolate linearly between the middles of bins that have values.

    Parameters
    ----------
    values : array (set, bin)
    points : array (point, axis)

    Returns
    -------
    ndarray, shape (set, point)
        NaN where none of the bins around has a value.
    """
    grid = energy.grid
    origin = np.array([centres[0] for centres in grid.centres])
    most = np.array(grid.shape) - 1
    place = np.clip((points - origin) / grid.widths, 0, most)
    below = np.minimum(np.floor(place).astype(np.intp), np.maximum(most - 1, 0))
    part = place - below
    total = np.zeros((len(values), len(points)))
    share = np.zeros(len(points))
    defined = energy.defined.ravel()
    for corner in np.ndindex(*(2,) * len(grid.shape)):
        at = np.ravel_multi_index(tuple(np.minimum(below + corner, most).T), grid.shape)
        weight = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1) * defined[at]
        there = weight > 0
        share += weight
        total[:, there] += weight[there] * values[:, at[there]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(share > 0, total / share, np.nan)
