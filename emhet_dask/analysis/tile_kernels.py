"""What is left of a tile of pairs when its counts are forgotten: edges, or p-values counted.

Several pairs of levels (settings) share the counts of one tile. What tiles leave is the same
wherever they are computed; `emhet_dask.analysis.cooccupancy` keeps it in memory,
`emhet_dask.ensemble.edges` in a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.association import TAILS, Association
from emhet_dask.analysis.binarised import BitRows
from emhet_dask.analysis.contingency import Voxels, count_together
from emhet_dask.analysis.hypergeometric import (
    benjamini_hochberg_of_counts,
    bonferroni,
    log_p_values,
)
from emhet_dask.analysis.near_pairs import NearPairs
from emhet_dask.analysis.neighbours import merge_best

__all__ = ["EdgeKernel", "LevelKernel", "Strongest", "TileEdges", "count_far"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_BINS_PER_DECADE = 64
_SIGNS = (np.float32(1), np.float32(-1))  # of the tails


class Strongest(NamedTuple):
    """The strongest edges of some voxels, and the number of all."""

    neighbour: Int32  # (setting, tail, voxel, rank); -1: none
    phi: Float32  # (setting, tail, voxel, rank); NaN: none
    degree: Int64  # (setting, tail, voxel)


class TileEdges(NamedTuple):
    """What is kept of a tile; on the diagonal, the others are none."""

    voxels: Strongest
    others: Strongest


def count_far(read: BitRows, voxels: Voxels, others: Voxels, near: NearPairs | None) -> Float32:
    """Count a tile, as `count_together` does, with NaN for pairs that are near.

    Parameters
    ----------
    read : Packed or stored bits
    voxels, others : slice or array of int
    near : NearPairs, optional
    """
    counts = count_together(read, voxels, others, n_bytes=read.n_bytes)
    if near is not None:
        near.exclude(counts, voxels, others)
    return counts


@dataclass(frozen=True, eq=False)
class EdgeKernel:
    """The tests of all pairs, at one or several pairs of levels.

    Attributes
    ----------
    settings : tuple of Association
        Of the same voxels.
    n_best : int
        Edges of each voxel to keep, in each tail.
    n_pairs : int
        Pairs that are tested.
    fewest_volumes : int
        Without which no pair can be found.
    near : NearPairs, optional
        Pairs that are not tested.
    """

    settings: tuple[Association, ...]
    n_best: int
    n_pairs: int
    fewest_volumes: int
    near: NearPairs | None = None

    @property
    def n_volumes(self) -> int:
        """Return the number of volumes."""
        return self.settings[0].n_volumes

    @property
    def margins(self) -> Int64:
        """Return the number of volumes in which each voxel is occupied."""
        return self.settings[0].margins

    @property
    def alpha(self) -> Float64:
        """Return the levels (setting, tail) of one test."""
        return np.array([[each.positive_alpha, each.negative_alpha] for each in self.settings])

    def tile(self, read: BitRows, voxels: slice, others: slice) -> TileEdges:
        """Compute what is kept of a tile.

        Parameters
        ----------
        read : Packed or stored bits
        voxels, others : slice
            Two bands; the same band twice is a tile on the diagonal.
        """
        counts = count_far(read, voxels, others, self.near)
        found = [each.summarise(counts, voxels, others, self.n_best) for each in self.settings]

        def gathered(which: slice) -> Strongest:
            return Strongest(
                *(
                    np.stack([np.stack([each[at] for each in tails]) for tails in found])
                    for at in range(6)[which]
                )
            )

        return TileEdges(gathered(slice(0, 3)), gathered(slice(3, 6)))

    def merge(self, neighbour: Int32, phi: Float32) -> tuple[Int32, Float32]:
        """Choose the strongest among the edges that several tiles found.

        Parameters
        ----------
        neighbour, phi : arrays (setting, tail, voxel, candidate)
            In any order: of equal edges the one to the lower voxel comes first.

        Returns
        -------
        neighbour, phi : arrays (setting, tail, voxel, rank)
        """
        shape = (*neighbour.shape[:3], self.n_best)
        best, strength = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
        for setting in range(shape[0]):
            for tail, sign in enumerate(_SIGNS):
                index, value = neighbour[setting, tail], sign * phi[setting, tail]
                at, merged = merge_best(index, value, self.n_best)
                best[setting, tail], strength[setting, tail] = at, sign * merged
        return best, strength


@dataclass(frozen=True, eq=False)
class LevelKernel:
    """P-values below the rates, counted: what Benjamini and Hochberg's levels follow from.

    Attributes
    ----------
    rates : array of float (setting, tail)
        Shares of false ones.
    tests : Association
        At the largest of the rates.
    n_pairs : int
        Pairs that are tested.
    near : NearPairs, optional
        Pairs that are not tested.
    """

    rates: Float64
    tests: Association
    n_pairs: int
    near: NearPairs | None = None

    @property
    def edges(self) -> Float64:
        """Return upper edges of bins, logarithms of p-values, (setting, tail, bin)."""
        count = 2 + int(_BINS_PER_DECADE * np.log10(max(self.n_pairs, 1)))
        lowest = np.log(self.rates / max(self.n_pairs, 1))
        return np.moveaxis(np.linspace(lowest, np.log(self.rates), count), 0, -1)

    def tile(self, read: BitRows, voxels: slice, others: slice) -> Int64:
        """Count p-values up to each edge and above the one before.

        Parameters and tile as of `EdgeKernel.tile`.

        Returns
        -------
        ndarray of int64 (setting, tail, bin)
        """
        found = self.tests.edges(count_far(read, voxels, others, self.near), voxels, others)
        edges = self.edges
        counts = np.zeros(edges.shape, dtype=np.int64)
        for number, tail in enumerate(TAILS):
            chosen = found.phi > 0 if tail == "positive" else found.phi < 0
            i, j, both = found.voxel[chosen], found.other[chosen], found.n_both[chosen]
            margins, n_volumes = self.tests.margins, self.tests.n_volumes
            log_p = log_p_values(both, margins[i], margins[j], n_volumes, tail=tail)
            for setting, each in enumerate(edges[:, number]):
                place = np.searchsorted(each, log_p)
                counts[setting, number] = np.bincount(place, minlength=len(each) + 1)[:-1]
        return counts

    def levels(self, counts: Int64) -> list[tuple[float, float]]:
        """Find the levels of each setting; none is below Bonferroni's.

        Parameters
        ----------
        counts : array of int (setting, tail, bin)
            The sum over all tiles.
        """
        found = np.empty(self.rates.shape)
        for at in np.ndindex(*found.shape):
            rate = float(self.rates[at])
            level = benjamini_hochberg_of_counts(
                counts[at], self.edges[at], rate, n_tests=self.n_pairs
            )
            found[at] = max(float(np.exp(level)), bonferroni(rate, self.n_pairs))
        return [(float(positive), float(negative)) for positive, negative in found]
