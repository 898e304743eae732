"""Structural blocks: groups of voxels that come and go together, and what is said of them.

Communities in the graph of associations are parts of blocks. Those whose occupancy rises and falls
together, beyond what the noise of either explains, are one block; those that are smaller than the
background is long, or whose density hardly changes, are none; and voxels in none of them join the
block that enough of their associations are with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import (
    distance_transform_edt,
    find_objects,
    generate_binary_structure,
    label,
)
from scipy.spatial.distance import squareform

__all__ = [
    "alike",
    "ball_voxels",
    "density_contrast",
    "expand_blocks",
    "halves_of",
    "inscribed_radius",
    "largest_first",
    "merge_communities",
    "merge_inseparable",
    "pieces_of",
]

Labels = NDArray[np.int64]

# Correlation of two occupancies, free of most of their noise, from which they are of one block.
# Halves of a community share some noise, for which 0.05 is left.
_ALIKE = 0.9
# Reliability below which an occupancy is noise, and like nothing.
_UNRELIABLE = 0.2
# Part of a block below which a piece of it is not counted.
_PIECE = 0.05


def halves_of(labels: Labels, *, seed: int = 0) -> Labels:
    """Split each community into two halves at random: groups 2 c and 2 c + 1 of community c.

    Parameters
    ----------
    labels : array of int (voxel,)
        From 0; -1: none.
    seed : int

    Returns
    -------
    array of int (voxel,)
    """
    side = np.random.default_rng([seed, 2]).permutation(len(labels)) % 2
    return np.asarray(np.where(labels >= 0, 2 * labels + side, -1), dtype=np.int64)


def alike(halves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the occupancies of communities, corrected for their noise.

    The correlation of two occupancies over the volumes, divided by the root of the product of their
    reliabilities (Spearman 1904), each of which is that of two half communities, stepped up to the
    whole (Spearman 1910, Brown 1910).

    Parameters
    ----------
    halves : array (volume, 2 × community)
        Occupancy of the halves of each community, as `halves_of` numbers them.

    Returns
    -------
    array (community, community)
        1 on the diagonal; 0 for a community whose occupancy is constant or noise.
    """
    first, second = halves[:, ::2], halves[:, 1::2]
    whole = np.nan_to_num((first + second) / 2)
    n = whole.shape[1]
    half = np.array([_correlation(first[:, c], second[:, c]) for c in range(n)])
    reliability = np.clip(2 * half / (1 + np.maximum(half, -0.99)), 0, 1)
    known = (reliability >= _UNRELIABLE) & (np.ptp(whole, axis=0) > 0)
    found = np.eye(n)
    if known.sum() > 1:
        values = np.corrcoef(whole[:, known], rowvar=False)
        values /= np.sqrt(np.outer(reliability[known], reliability[known]))
        found[np.ix_(known, known)] = np.clip(values, -1, 1)
    np.fill_diagonal(found, 1.0)
    return found


def merge_communities(labels: Labels, likeness: NDArray[np.float64]) -> Labels:
    """Make one block of communities that come and go together (average linkage).

    Parameters
    ----------
    labels : array of int (voxel,)
    likeness : array (community, community)
        From `alike`.

    Returns
    -------
    array of int (voxel,)
        From 0, the largest first; -1 as before.
    """
    if len(likeness) < 2:
        return labels
    distance = squareform(1 - likeness, checks=False)
    merged = fcluster(linkage(distance, "average"), 1 - _ALIKE, criterion="distance")
    return largest_first(np.where(labels >= 0, merged[labels], -1))


def merge_inseparable(labels: Labels, present: NDArray[np.bool_], *, tolerance: float) -> Labels:
    """Make one block of groups that are always present together (average linkage).

    Parameters
    ----------
    labels : array of int (voxel,)
        From 0; -1: none.
    present : array of bool (volume, group)
    tolerance : float
        Share of the volumes that have either of two groups in which the other may be missing.

    Returns
    -------
    array of int (voxel,)
        From 0, the largest first; -1 as before. Groups that are always or never present are left
        alone, since nothing is known of them.
    """
    counts = present.astype(np.float64).T @ present
    size = counts.diagonal()
    if len(size) < 2:
        return labels
    known = (size > 0) & (size < len(present))
    # Share of a's volumes that lack b.
    alone = (size[:, None] - counts) / np.maximum(size, 1)[:, None]
    distance = np.where(known[:, None] & known, np.maximum(alone, alone.T), 1.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    merged = fcluster(tree, tolerance, criterion="distance")
    return largest_first(np.where(labels >= 0, merged[labels], -1))


def largest_first(labels: Labels, *, least: int = 1) -> Labels:
    """Renumber groups from 0 by falling size, and drop those of fewer voxels than `least`.

    Groups of one size are in the order of their first voxel.
    """
    values, first, sizes = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    order = order[sizes[order] >= least]
    place = np.full(int(values.max(initial=-1)) + 2, -1, dtype=np.int64)
    place[values[order]] = np.arange(len(order))
    return place[labels]


def ball_voxels(radius: float) -> int:
    """Return how many voxels a ball of so many voxels' radius has.

    Correlated background makes patches of this size; a block must be larger.
    """
    return int(np.ceil(4 / 3 * np.pi * radius**3))


def inscribed_radius(coordinates: NDArray[np.integer[Any]]) -> float:
    """Return the radius in voxels of the largest ball inside some voxels.

    Where two parts touch, voxels that only both together bring above the threshold make a sheet of
    their own, which is large but thin.

    Parameters
    ----------
    coordinates : array of int (voxel, axis)

    Returns
    -------
    float
        Distance from its centre to the nearest voxel outside: 1 for sheets of one or two voxels.
    """
    low = coordinates.min(axis=0) - 1
    inside = np.zeros(coordinates.max(axis=0) + 2 - low, dtype=bool)
    inside[tuple((coordinates - low).T)] = True
    return float(distance_transform_edt(inside).max())


def density_contrast(
    density: NDArray[np.float64], present: NDArray[np.bool_], *, level: float
) -> NDArray[np.float64]:
    """Return how much denser each block is where it is present, in units of the threshold.

    A rim that flickers around the threshold, because amplitudes differ from map to map, comes and
    goes together too; its density hardly changes.

    Parameters
    ----------
    density : array (volume, block)
        Mean density, on one scale of amplitude.
    present : array of bool (volume, block)
    level : float
        Threshold, on the same scale.

    Returns
    -------
    array (block,)
        Difference of the means over volumes with and without; 0 where either is missing. Infinite
        for a threshold of 0, which is no unit.
    """
    n_with = present.sum(axis=0)
    n_without = len(present) - n_with
    total = density.sum(axis=0)
    inside = (density * present).sum(axis=0)
    difference = inside / np.maximum(n_with, 1) - (total - inside) / np.maximum(n_without, 1)
    contrast = difference / abs(level) if level else np.copysign(np.inf, difference)
    return np.where((n_with > 0) & (n_without > 0), contrast, 0.0)


def expand_blocks(labels: Labels, links: xr.Dataset, *, least_fraction: float) -> Labels:
    """Let voxels of no block join one.

    Parameters
    ----------
    labels : array of int (voxel,)
        Of the kept voxels; -1: none.
    links : xarray.Dataset
        From `emhet_dask.analysis.expansion.linked_fractions`: ``tested``, ``linked`` and ``phi``
        (voxel, block), with the voxels as coordinates.
    least_fraction : float
        A voxel joins when it is significantly associated with this share of a block's voxels,
        beyond the reach of the background. Of several such blocks, it joins the one with which it
        is associated most.

    Returns
    -------
    array of int (voxel,)
    """
    tested = links["tested"].values
    share = np.divide(links["linked"].values, tested, out=np.zeros(tested.shape), where=tested > 0)
    strength = np.where(share >= least_fraction, np.nan_to_num(links["phi"].values), -np.inf)
    best = strength.argmax(axis=1) if strength.shape[1] else np.zeros(len(strength), dtype=int)
    joins = np.isfinite(strength[np.arange(len(strength)), best])
    found = labels.copy()
    found[links["voxel"].values[joins]] = links["block"].values[best[joins]]
    return found


def pieces_of(labels: NDArray[Any]) -> pd.DataFrame:
    """Count the connected pieces of each block in space.

    Parameters
    ----------
    labels : array of int (z, y, x)
        0: none; blocks from 1.

    Returns
    -------
    pandas.DataFrame
        ``block``, ``voxels``, ``pieces`` and ``piece_voxels`` (such as ``4246;3790``): pieces of a
        twentieth of the block or more, voxels that touch at a corner being connected.
    """
    corners = generate_binary_structure(3, 3)
    rows = []
    places: list[Any] = find_objects(labels)
    for block, place in enumerate(places, start=1):
        if place is None:  # a number that no voxel has
            continue
        pieces, _ = label(labels[place] == block, structure=corners)
        sizes = np.sort(np.bincount(pieces.reshape(-1))[1:])[::-1]
        counted = sizes[sizes >= _PIECE * sizes.sum()]
        rows.append((block, int(sizes.sum()), len(counted), ";".join(map(str, counted))))
    return pd.DataFrame(rows, columns=["block", "voxels", "pieces", "piece_voxels"])


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if not (np.ptp(a) > 0 and np.ptp(b) > 0):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
