"""Which pairs of voxels are significantly associated: counts against critical counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.binarised import Packed
from emhet_dask.analysis.contingency import SIDE, Tile, Voxels, contingency_tiles
from emhet_dask.analysis.hypergeometric import Tail, critical_counts
from emhet_dask.analysis.neighbours import best_of_columns, best_of_rows
from emhet_dask.errors import InputError

__all__ = [
    "MOST_MARGINS",
    "TAILS",
    "Association",
    "Edges",
    "Summary",
    "phi_coefficient",
    "significant_edges",
]

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_PIECE_ROWS = 64
# A table of critical counts for fewer distinct margins serves all tiles; of more, each tile makes
# that of its own voxels.
MOST_MARGINS = 2048
TAILS: tuple[Tail, Tail] = ("positive", "negative")


def phi_coefficient(
    n_both: ArrayLike, margins_a: ArrayLike, margins_b: ArrayLike, n_volumes: int
) -> NDArray[np.float64]:
    """Pearson's correlation of two binary variables, ``(N n11 − a b) / √(a (N − a) b (N − b))``.

    Parameters
    ----------
    n_both, margins_a, margins_b : arrays of int
        Broadcast against one another.
    n_volumes : int

    Returns
    -------
    ndarray of float64
        NaN where a voxel is never or always occupied; the same bits with a and b exchanged.
    """
    a, b = np.asarray(margins_a, dtype=np.float64), np.asarray(margins_b, dtype=np.float64)
    spread = np.sqrt(a * (n_volumes - a)) * np.sqrt(b * (n_volumes - b))
    shared = n_volumes * np.asarray(n_both, dtype=np.float64) - a * b
    return np.divide(shared, spread, out=np.full_like(spread + shared, np.nan), where=spread > 0)


class Edges(NamedTuple):
    """Pairs of voxels that are significantly associated, in rising order of voxel, then other."""

    voxel: NDArray[np.int32]
    other: NDArray[np.int32]
    n_both: NDArray[np.int32]
    phi: Float32  # above 0: together; below 0: apart


class Summary(NamedTuple):
    """What is kept of a tile, for one tail: the strongest edges and the number of all."""

    neighbour: NDArray[np.int32]  # (voxel, rank), among the others; -1: none
    phi: Float32  # (voxel, rank)
    degree: Int64  # (voxel,)
    other_neighbour: NDArray[np.int32]  # (other, rank), among the voxels
    other_phi: Float32
    other_degree: Int64


@dataclass(frozen=True, eq=False)
class Association:
    """The tests of all pairs, as arithmetic on one tile.

    Attributes
    ----------
    margins : array of int64 (voxel,)
    n_volumes : int
    positive_alpha, negative_alpha : float
        Level of one test in each tail.
    min_enrichment : float
        A positive edge needs so many times the expected count ``a b / N``, a negative one at most
        the inverse of it; 1 asks for nothing.
    """

    margins: Int64
    n_volumes: int
    positive_alpha: float
    negative_alpha: float
    min_enrichment: float = 1.0
    _tables: dict[Tail, Float32] = field(default_factory=dict, init=False, repr=False)
    _place: NDArray[np.intp] = field(init=False, repr=False)  # of each voxel in the tables

    def __post_init__(self) -> None:
        if not self.min_enrichment >= 1:
            raise InputError(
                f"min_enrichment is {self.min_enrichment}; it must be 1 (no condition) or more"
            )
        distinct, place = np.unique(self.margins, return_inverse=True)
        object.__setattr__(self, "_place", place)
        if len(distinct) <= MOST_MARGINS:
            for tail in TAILS:
                self._tables[tail] = self._table(distinct, distinct, tail)

    def critical(
        self, voxels: Voxels, others: Voxels, tail: Tail
    ) -> tuple[Float32, NDArray[np.intp], NDArray[np.intp]]:
        """Return a table of critical counts, and where in it the voxels and the others are.

        Parameters
        ----------
        voxels, others : slice or array of int
        tail : {"positive", "negative"}

        Returns
        -------
        table : array of float32
            Whole numbers; `min_enrichment` is in them.
        row, column : arrays of int (voxel,), (other,)
        """
        if tail in self._tables:
            return self._tables[tail], self._place[voxels], self._place[others]
        a, row = np.unique(self.margins[voxels], return_inverse=True)
        b, column = np.unique(self.margins[others], return_inverse=True)
        return self._table(a, b, tail), row, column

    def edges(self, counts: Float32, voxels: slice, others: slice) -> Edges:
        """Find the significant pairs of a tile, each once.

        Parameters
        ----------
        counts : array of float32 (voxel, other)
            From `count_together`; NaN for pairs that are not tested.
        voxels, others : slice

        Returns
        -------
        Edges
            In a tile on the diagonal, those with ``voxel < other``.
        """
        parts = []
        for tail in TAILS:
            for rows, row, column in self._significant(counts, voxels, others, tail):
                both = counts[rows][row, column]
                i, j = row + rows.start + voxels.start, column + others.start
                once = i < j  # all of them, but on the diagonal
                i, j, both = i[once], j[once], both[once]
                parts.append((i, j, both, self._phi(both, i, j)))
        i, j, both, phi = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((j, i))
        return Edges(
            i[order].astype(np.int32),
            j[order].astype(np.int32),
            both[order].astype(np.int32),
            phi[order],
        )

    def summarise(
        self, counts: Float32, voxels: slice, others: slice, n_best: int
    ) -> tuple[Summary, Summary]:
        """Keep the strongest edges of each voxel, and count all, for both tails.

        Parameters
        ----------
        counts : array of float32 (voxel, other)
            NaN for pairs that are not tested.
        voxels, others : slice
        n_best : int
            Edges of each voxel to keep.

        Returns
        -------
        positive, negative : Summary
            Of equal edges the one to the lower voxel comes first.
        """
        strength = np.empty_like(counts)
        return (
            self._summarise(counts, (voxels, others), n_best, "positive", strength),
            self._summarise(counts, (voxels, others), n_best, "negative", strength),
        )

    def _summarise(
        self,
        counts: Float32,
        tile: Tile,
        n_best: int,
        tail: Tail,
        strength: Float32,
    ) -> Summary:
        voxels, others = tile
        sign = np.float32(1 if tail == "positive" else -1)
        strength.fill(-np.inf)
        degree = np.zeros(len(counts), dtype=np.int64)
        other_degree = np.zeros(counts.shape[1], dtype=np.int64)
        for rows, row, column in self._significant(counts, voxels, others, tail):
            both = counts[rows][row, column]
            i, j = row + rows.start + voxels.start, column + others.start
            strength[rows][row, column] = sign * self._phi(both, i, j)
            degree[rows] = np.bincount(row, minlength=len(degree[rows]))
            other_degree += np.bincount(column, minlength=len(other_degree))
        index, value = _best(strength, n_best, others, degree, of_columns=False)
        if voxels == others:
            other_index, other_value, other_degree = index[:0], value[:0], other_degree[:0]
        else:
            other_index, other_value = _best(
                strength, n_best, voxels, other_degree, of_columns=True
            )
        return Summary(index, sign * value, degree, other_index, sign * other_value, other_degree)

    def _significant(
        self, counts: Float32, voxels: slice, others: slice, tail: Tail
    ) -> Iterator[tuple[slice, NDArray[np.intp], NDArray[np.intp]]]:
        """Yield, by pieces, rows of the tile and where in them the significant pairs are."""
        table, of_row, of_column = self.critical(voxels, others, tail)
        compare = np.greater_equal if tail == "positive" else np.less_equal
        for start in range(0, len(counts), _PIECE_ROWS):
            rows = slice(start, min(start + _PIECE_ROWS, len(counts)))
            found = compare(counts[rows], np.take(table[of_row[rows]], of_column, axis=1))
            if voxels == others:
                found[np.arange(len(found)), np.arange(rows.start, rows.stop)] = False
            row, column = np.divmod(np.flatnonzero(found), found.shape[1])
            yield rows, row, column

    def _phi(self, both: Float32, i: NDArray[np.intp], j: NDArray[np.intp]) -> Float32:
        phi = phi_coefficient(both, self.margins[i], self.margins[j], self.n_volumes)
        return phi.astype(np.float32)

    def _table(self, a: Int64, b: Int64, tail: Tail) -> Float32:
        positive = tail == "positive"
        alpha = self.positive_alpha if positive else self.negative_alpha
        counts = critical_counts(a, b, self.n_volumes, alpha=alpha, tail=tail)
        table = counts.astype(np.float32)
        if self.min_enrichment > 1:
            for row, margin in enumerate(a):  # row by row: float64 of the whole is not needed
                expected = margin * b / self.n_volumes
                if positive:
                    np.maximum(table[row], np.ceil(expected * self.min_enrichment), out=table[row])
                else:
                    limit = np.floor(expected / self.min_enrichment)
                    np.minimum(table[row], limit, out=table[row])
        return table


def significant_edges(
    packed: Packed,
    *,
    positive_alpha: float,
    negative_alpha: float,
    min_enrichment: float = 1.0,
    side: int = SIDE,
) -> Iterator[Edges]:
    """Test all pairs, tile by tile, in this thread.

    Parameters
    ----------
    packed : Packed
    positive_alpha, negative_alpha : float
        Level of one test; see `emhet_dask.analysis.hypergeometric.bonferroni`.
    min_enrichment : float
        See `Association`.
    side : int
        Voxels in a band.

    Yields
    ------
    Edges
        Of one tile.
    """
    tests = Association(
        packed.margins, packed.n_volumes, positive_alpha, negative_alpha, min_enrichment
    )
    for voxels, others, counts in contingency_tiles(packed, side=side):
        yield tests.edges(counts, voxels, others)


def _best(
    strength: Float32, n_best: int, named: slice, degree: Int64, *, of_columns: bool
) -> tuple[NDArray[np.int32], Float32]:
    """Find the largest of each row (column), but in a tile that has none."""
    if not degree.any():
        shape = (len(degree), n_best)
        return np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan, dtype=np.float32)
    if of_columns:
        return best_of_columns(strength, n_best, first_row=named.start)
    return best_of_rows(strength, n_best, first_column=named.start)
