"""From the associations of voxels to blocks, their occupancy and density in each volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from emhet_dask.analysis.association import Association
from emhet_dask.analysis.binarised import Occupied
from emhet_dask.analysis.blocks import (
    alike,
    ball_voxels,
    density_contrast,
    expand_blocks,
    halves_of,
    inscribed_radius,
    largest_first,
    merge_communities,
    merge_inseparable,
)
from emhet_dask.analysis.communities import communities
from emhet_dask.analysis.expansion import linked_fractions
from emhet_dask.analysis.group_sums import group_sums
from emhet_dask.analysis.near_pairs import NearPairs
from emhet_dask.analysis.relations import presence

__all__ = ["BlocksFound", "Densities", "search_blocks"]

Compute = Callable[..., tuple[Any, ...]]

# Communities of fewer voxels are not looked at.
_COUNTED = 6
# Of the threshold; amplitudes that differ by 5% make 0.05, a subunit 1 or 2.
_LEAST_CONTRAST = 0.25


@dataclass(frozen=True, eq=False)
class Densities:
    """The densities that blocks are looked for in.

    Attributes
    ----------
    matrix : array (volume, column)
    columns : array of int (voxel,)
        Column of each of the voxels whose associations are known.
    coordinates : array of int (voxel, axis)
        Their positions in the box.
    thresholds : array (volume,)
        Density above which a voxel is occupied, on the scale of the matrix.
    factors : array (volume,)
        Amplitudes, so that ``thresholds / factors`` is one level for all, or nearly.
    """

    matrix: Any
    columns: NDArray[np.int64]
    coordinates: NDArray[np.int32]
    thresholds: NDArray[np.float64]
    factors: NDArray[np.float64]

    @property
    def level(self) -> float:
        """Return the threshold on the common scale of amplitude."""
        return float(np.median(self.thresholds / self.factors))

    def sums(self, labels: NDArray[np.int64], *, compute: Compute) -> xr.Dataset:
        """Measure groups of voxels, numbered from 0, in each volume; see `group_sums`."""
        groups = np.full(self.matrix.shape[1], -1, dtype=np.int64)
        groups[self.columns] = labels
        return group_sums(
            self.matrix,
            groups,
            n_groups=int(labels.max(initial=-1)) + 1,
            thresholds=self.thresholds,
            factors=self.factors,
            compute=compute,
        )


@dataclass(frozen=True, eq=False)
class BlocksFound:
    """Blocks among the voxels whose associations are known.

    Attributes
    ----------
    labels : array of int64 (voxel,)
        From 0, the largest first; -1: none.
    core : array of bool (voxel,)
        Voxels that were in a block before others joined.
    occupancy, density : array (volume, block)
        Share of the block's voxels that is occupied; their mean density on the common scale.
    present : array of bool (volume, block)
    cuts : array (block,)
        Densities above which the block is present.
    contrast : array (block,)
        See `emhet_dask.analysis.blocks.density_contrast`.
    phi : array (block,)
        Mean of the strongest associations inside.
    stability : pandas.DataFrame
        See `emhet_dask.analysis.communities.Communities`.
    resolution : float
    min_voxels : int
        Voxels that a block has at least.
    dropped : dict
        Groups that are no blocks, by reason: ``small``, ``thin``, ``flickering``.
    """

    labels: NDArray[np.int64]
    core: NDArray[np.bool_]
    occupancy: NDArray[np.float64]
    density: NDArray[np.float64]
    present: NDArray[np.bool_]
    cuts: NDArray[np.float64]
    contrast: NDArray[np.float64]
    phi: NDArray[np.float64]
    stability: pd.DataFrame
    resolution: float
    min_voxels: int
    dropped: dict[str, int]

    @property
    def n_blocks(self) -> int:
        """Return the number of blocks."""
        return self.occupancy.shape[1]


class _Steady(NamedTuple):
    """Blocks whose density changes, in each volume."""

    labels: NDArray[np.int64]
    occupancy: NDArray[np.float64]
    density: NDArray[np.float64]
    present: NDArray[np.bool_]
    cuts: NDArray[np.float64]
    contrast: NDArray[np.float64]
    dropped: int  # the number of the others


def search_blocks(
    edges: xr.Dataset,
    densities: Densities,
    *,
    occupied: Occupied,
    tests: Association,
    near: NearPairs | None = None,
    min_voxels: int | None = None,
    expand_fraction: float = 0.25,
    tolerance: float = 0.05,
    seed: int = 0,
    compute: Compute = dask.compute,
) -> BlocksFound:
    """Group voxels into blocks.

    Parameters
    ----------
    edges : xarray.Dataset
        From `associations`, of pairs beyond the reach of the background.
    densities : Densities
    occupied : Packed or alike
        Bits of the voxels.
    tests : Association
        That the edges were found by.
    near : NearPairs, optional
        Pairs that count for nothing.
    min_voxels : int, optional
        Smaller groups are no blocks of their own; their voxels may join one. By default those that
        are smaller than a ball with the reach of the background for radius, and those in which one
        of half that radius does not fit.
    expand_fraction : float
        See `expand_blocks`.
    tolerance : float
        See `emhet_dask.analysis.blocks.merge_inseparable`.
    seed : int
    compute : callable
        Like `dask.compute`; called for the two passes over the matrix and the pairs of voxels of
        no block with those of blocks.

    Returns
    -------
    BlocksFound
    """
    positive = edges.sel(tail="positive")
    neighbour, phi = positive["neighbour"].values, positive["phi"].values
    found = communities(neighbour, phi, seed=seed)
    parts = largest_first(found.labels, least=_COUNTED)
    groups = _merged(parts, densities, tolerance=tolerance, seed=seed, compute=compute)
    reach = 0.0 if near is None else near.least_distance
    least = ball_voxels(reach) if min_voxels is None else min_voxels
    core = largest_first(groups, least=least)
    small = int(groups.max(initial=-1) - core.max(initial=-1))
    thin = 0
    if min_voxels is None:
        core, thin = _thick_enough(core, densities.coordinates, reach / 2)
    labels = core
    members, rest = np.flatnonzero(core >= 0), np.flatnonzero(core < 0)
    if len(members) and len(rest):
        links = linked_fractions(
            occupied, tests, rest, members, core[members], near=near, compute=compute
        )
        labels = expand_blocks(core, links, least_fraction=expand_fraction)
    steady = _steady_blocks(labels, densities, compute)
    labels = steady.labels
    return BlocksFound(
        labels=labels,
        core=(core >= 0) & (labels >= 0),
        occupancy=steady.occupancy,
        density=steady.density,
        present=steady.present,
        cuts=steady.cuts,
        contrast=steady.contrast,
        phi=_inside(neighbour, phi, labels, steady.occupancy.shape[1]),
        stability=found.stability,
        resolution=found.resolution,
        min_voxels=least,
        dropped={"small": small, "thin": thin, "flickering": steady.dropped},
    )


def _merged(
    parts: NDArray[np.int64],
    densities: Densities,
    *,
    tolerance: float,
    seed: int,
    compute: Compute,
) -> NDArray[np.int64]:
    """Put together communities that come and go together, from one pass over the matrix."""
    sums = densities.sums(halves_of(parts, seed=seed), compute=compute)
    halves, sizes = sums["occupancy"].values, sums["voxels"].values
    if halves.shape[1] % 2:  # the last community has no voxel in its second half
        halves = np.concatenate([halves, halves[:, -1:]], axis=1)
        sizes = np.append(sizes, 0)
    groups = merge_communities(parts, alike(halves))
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2:
        return groups
    # Of each half the group that it is in now; voxels of a community are in one group.
    group = np.zeros(len(sizes) // 2, dtype=np.int64)
    group[parts[parts >= 0]] = groups[parts >= 0]
    member = np.zeros((len(sizes), n_groups))
    member[np.arange(len(sizes)), np.repeat(group, 2)] = sizes
    occupancy = np.nan_to_num(halves) @ member / member.sum(axis=0)
    return merge_inseparable(groups, presence(occupancy)[0], tolerance=tolerance)


def _thick_enough(
    labels: NDArray[np.int64], coordinates: NDArray[np.int32], least: float
) -> tuple[NDArray[np.int64], int]:
    """Drop groups into which no ball of so many voxels' radius fits; return how many they were."""
    thin = [
        group
        for group in range(int(labels.max(initial=-1)) + 1)
        if inscribed_radius(coordinates[labels == group]) < least
    ]
    return largest_first(np.where(np.isin(labels, thin), -1, labels)), len(thin)


def _steady_blocks(labels: NDArray[np.int64], densities: Densities, compute: Compute) -> _Steady:
    """Drop blocks whose density hardly changes; number the others by their size."""
    labels = largest_first(labels)
    sums = densities.sums(labels, compute=compute)
    occupancy, density = sums["occupancy"].values, sums["density"].values
    present, cuts = presence(occupancy)
    contrast = density_contrast(density, present, level=densities.level)
    kept = contrast >= _LEAST_CONTRAST
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    return _Steady(
        np.append(number, -1)[labels],
        occupancy[:, kept],
        density[:, kept],
        present[:, kept],
        cuts[kept],
        contrast[kept],
        int(np.count_nonzero(~kept)),
    )


def _inside(
    neighbour: NDArray[np.int32],
    phi: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_blocks: int,
) -> NDArray[np.float64]:
    """Return the mean phi of the kept edges whose both ends are in one block."""
    own = np.where((neighbour >= 0) & (labels[neighbour] == labels[:, None]), labels[:, None], -1)
    chosen = own >= 0
    total = np.bincount(own[chosen], weights=phi[chosen], minlength=n_blocks)
    number = np.bincount(own[chosen], minlength=n_blocks)
    return np.divide(total, number, out=np.full(n_blocks, np.nan), where=number > 0)
