"""Basins of a landscape and the saddle points between them.

Each bin drains into its lowest neighbour, corners included, so that every bin belongs to one local
minimum. Two minima are as deep apart as the lowest pass between them; a minimum whose own depth is
not clearly above its bootstrap error is taken into the basin that its pass leads to. This is
persistence of dimension 0 (Edelsbrunner, Letscher and Zomorodian 2002) on the graph of minima,
which has the same passes as the grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.analysis.binned import BLOCK_ROWS
from emhet_dask.analysis.free_energy import FreeEnergy

__all__ = ["Basins", "find_basins", "neighbours_of", "watershed"]

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Basins:
    """Basins, numbered from 0, the one with most particles first.

    Attributes
    ----------
    labels : ndarray of int, shape of the grid
        Basin of each bin; -1 where the landscape has no value, and in shallow parts that nothing
        joins to the rest.
    table : pandas.DataFrame
        A row per basin: ``basin``, its ``points`` (weight), their ``share`` of all points, the
        flat ``bin`` of its minimum and where it is (``x1``, ``x2``, …), ``free_energy`` and
        ``error`` of the minimum, ``depth`` up to the lowest pass to a deeper basin and
        ``depth_error``. The deepest has none (NaN), that of a part apart is a lower bound.
    saddles : pandas.DataFrame
        A row per pair of basins with a common border: ``basin_a``, ``basin_b``, flat ``bin`` of
        the lowest point of the border, ``x1``, …, ``free_energy``, ``error``, and the height above
        either minimum: ``barrier_from_a``, ``barrier_error_a``, ``barrier_from_b``, ….
    """

    labels: npt.NDArray[np.int32]
    table: pd.DataFrame
    saddles: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of basins."""
        return len(self.table)

    def of_points(self, energy: FreeEnergy, points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the basin of each point (point, axis); -1 where the landscape has no value."""
        flat = np.append(self.labels.ravel(), np.int32(-1))
        points = np.asanyarray(points)
        found = np.empty(len(points), dtype=np.int32)
        for start in range(0, len(points), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            found[block] = flat[energy.grid.bins_of(points[block])]
        return found


def find_basins(energy: FreeEnergy, *, min_depth: float = 0.5, n_sigma: float = 3.0) -> Basins:
    """Find basins that are deeper than chance and than a least depth.

    Parameters
    ----------
    energy : FreeEnergy
    min_depth : float
        In kT.
    n_sigma : float
        Times the bootstrap standard error of the depth itself, that is, of the difference between
        pass and minimum.

    Returns
    -------
    Basins
        One at least. A part of the landscape that no bins with values join to the rest is a basin
        where its minimum is so far below the highest point; otherwise it belongs to none.
    """
    values = energy.free_energy
    drains = watershed(values)
    minima, of_bin = np.unique(drains[drains >= 0], return_inverse=True)
    regions = np.full(drains.shape, -1, dtype=np.intp)
    regions[drains >= 0] = of_bin
    passes = _passes(values, regions)
    merged, depths = _persist(energy, minima, passes, min_depth=min_depth, n_sigma=n_sigma)
    kept = np.array(sorted(depths), dtype=np.intp)
    there = regions >= 0
    weights = np.bincount(
        merged[regions[there]], energy.weight[there], minlength=len(minima)
    ).astype(np.float64)
    order = kept[np.lexsort((kept, -weights[kept]))]
    number = np.full(len(minima) + 1, -1, dtype=np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    labels = number[np.append(merged, len(minima))[regions]]
    table = _table(energy, minima[order], weights[order], [depths[region] for region in order])
    return Basins(labels, table, _saddles(energy, labels, minima[order]))


def watershed(values: npt.ArrayLike) -> Integers:
    """Return the flat bin of the local minimum that each bin drains into.

    Parameters
    ----------
    values : array, any number of axes
        NaN where there is no value. Of equal values the earlier in row-major order is lower.

    Returns
    -------
    ndarray of int, same shape
        -1 where there is no value.

    Examples
    --------
    >>> watershed([[1.0, 3.0, 2.0]])
    array([[0, 0, 2]])
    """
    values = np.asarray(values, dtype=np.float64)
    rank = _ranks(values)
    lowest = np.arange(values.size)
    lowest_rank = rank.ravel().copy()
    for here, there in neighbours_of(values.shape):
        for one, two in ((here, there), (there, here)):
            # Views of the same grid, shifted: each bin looks at one neighbour.
            target = lowest.reshape(values.shape)[one]
            best = lowest_rank.reshape(values.shape)[one]
            closer = rank[two] < best
            target[closer] = np.arange(values.size).reshape(values.shape)[two][closer]
            best[closer] = rank[two][closer]
    while not np.array_equal(further := lowest[lowest], lowest):
        lowest = further
    found = lowest.reshape(values.shape)
    return np.where(np.isnan(values), -1, found)


def neighbours_of(
    shape: tuple[int, ...],
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield pairs of views of a grid in which each bin stands beside one neighbour.

    Each pair of neighbouring bins, corners included, comes up once.
    """
    for step in itertools.product((-1, 0, 1), repeat=len(shape)):
        if step <= (0,) * len(shape):
            continue
        here = tuple(slice(max(-k, 0), n - max(k, 0)) for k, n in zip(step, shape, strict=True))
        there = tuple(slice(max(k, 0), n - max(-k, 0)) for k, n in zip(step, shape, strict=True))
        yield here, there


def _ranks(values: Array) -> Integers:
    """Return the place of each bin in ascending order; bins without a value come last."""
    ranks = np.empty(values.size, dtype=np.intp)
    ranks[np.argsort(values.ravel(), kind="stable")] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _passes(values: Array, regions: Integers) -> pd.DataFrame:
    """Return the lowest bin of the border of each pair of regions: ``a``, ``b``, ``bin``.

    The lowest first. The bin of a step over the border is its higher one.
    """
    ranks = _ranks(values).ravel()
    flat, of = np.arange(values.size).reshape(values.shape), regions.ravel()
    found = []
    for here, there in neighbours_of(values.shape):
        one, two = flat[here].ravel(), flat[there].ravel()
        border = (of[one] != of[two]) & (of[one] >= 0) & (of[two] >= 0)
        one, two = one[border], two[border]
        higher = np.where(ranks[one] > ranks[two], one, two)
        pair = np.sort(np.column_stack([of[one], of[two]]), axis=1)
        found.append(np.column_stack([pair, higher, ranks[higher]]))
    table = pd.DataFrame(np.concatenate(found), columns=["a", "b", "bin", "rank"])
    lowest = table.sort_values(["rank", "a", "b"], kind="stable").drop_duplicates(["a", "b"])
    return lowest[["a", "b", "bin"]].reset_index(drop=True)


def _persist(
    energy: FreeEnergy,
    minima: Integers,
    passes: pd.DataFrame,
    *,
    min_depth: float,
    n_sigma: float,
) -> tuple[Integers, dict[int, tuple[float, float]]]:
    """Join regions over their passes, the lowest first.

    Returns
    -------
    merged : ndarray of int
        Region whose minimum is that of the basin of each region; without a depth, it is none.
    depths : dict of int to (float, float)
        Depth and its error of each region that is a basin.
    """
    values = energy.free_energy.ravel()
    ranks = _ranks(energy.free_energy).ravel()
    component = np.arange(len(minima))  # the region with the deepest minimum, as in union-find
    into = np.arange(len(minima))  # the region that a shallow one drains into
    depths: dict[int, tuple[float, float]] = {}

    def root_of(links: Integers, region: int) -> int:
        while links[region] != region:
            links[region] = links[links[region]]
            region = int(links[region])
        return region

    for a, b, at in passes.itertuples(index=False):
        roots = root_of(component, a), root_of(component, b)
        if roots[0] == roots[1]:
            continue
        deep, shallow = sorted(roots, key=lambda region: int(ranks[minima[region]]))
        beyond = b if roots[0] == shallow else a
        depth = float(values[at] - values[minima[shallow]])
        error = _spread(energy, at, minima[shallow])
        component[shallow] = deep
        if depth > 0 and depth >= max(min_depth, n_sigma * error):
            depths[shallow] = (depth, error)
        else:
            # What it drains into is on the other side of the pass, not the deepest of that side.
            into[shallow] = root_of(into, beyond)
    # What nothing joins to the rest is as deep as the landscape is high, at least.
    highest = float(np.nanmax(values))
    errors = energy.error.ravel()
    for region in np.flatnonzero(component == np.arange(len(minima))).tolist():
        depth, error = highest - float(values[minima[region]]), float(errors[minima[region]])
        if minima[region] == energy.deepest:
            depths[region] = (math.nan, math.nan)
        elif depth >= max(min_depth, n_sigma * error):
            depths[region] = (depth, error)
    merged = np.array([root_of(into, region) for region in range(len(minima))], dtype=np.intp)
    return merged, depths


def _spread(energy: FreeEnergy, at: int, reference: int) -> float:
    return float(energy.differences([at], [reference]).std(ddof=1))


def _table(
    energy: FreeEnergy, minima: Integers, weights: Array, depths: list[tuple[float, float]]
) -> pd.DataFrame:
    values, errors = energy.free_energy.ravel(), energy.error.ravel()
    positions = energy.grid.positions(minima)
    total = float(energy.weight.sum())
    table = pd.DataFrame(
        {
            "basin": np.arange(len(minima)),
            "points": weights,
            "share": weights / total,
            "bin": minima,
            **{f"x{axis + 1}": positions[:, axis] for axis in range(positions.shape[1])},
            "free_energy": values[minima],
            "error": errors[minima],
        }
    )
    table["depth"] = [depth for depth, _ in depths]
    table["depth_error"] = [error for _, error in depths]
    return table


def _saddles(energy: FreeEnergy, labels: npt.NDArray[np.int32], minima: Integers) -> pd.DataFrame:
    passes = _passes(energy.free_energy, labels.astype(np.intp))
    passes = passes.sort_values(["a", "b"], kind="stable").reset_index(drop=True)
    at = passes["bin"].to_numpy(dtype=np.intp)
    values, errors = energy.free_energy.ravel(), energy.error.ravel()
    positions = energy.grid.positions(at)
    table = pd.DataFrame(
        {
            "basin_a": passes["a"].astype(np.int64),
            "basin_b": passes["b"].astype(np.int64),
            "bin": at,
            **{f"x{axis + 1}": positions[:, axis] for axis in range(positions.shape[1])},
            "free_energy": values[at],
            "error": errors[at],
        }
    )
    for side in ("a", "b"):
        below = minima[passes[side].to_numpy(dtype=np.intp)]
        table[f"barrier_from_{side}"] = values[at] - values[below]
        spread = energy.differences(at, below).std(axis=0, ddof=1)
        table[f"barrier_error_{side}"] = spread
    return table
