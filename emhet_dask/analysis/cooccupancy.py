"""Which voxels are occupied in the same volumes, more or less often than chance allows.

Of every pair of voxels the volumes in which both are occupied are counted, exactly, in tiles (a
band of voxels against a band of voxels) that are used and forgotten. With the margins, that is the
whole contingency table, and a comparison with a critical count
(`emhet_dask.analysis.hypergeometric`) is the test.

Occupancy is kept as bits: N volumes of M voxels are N M / 8 bytes, which many tasks can share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import as_matrix, compute_all, row_bands
from emhet_dask.analysis.hypergeometric import (
    Tail,
    benjamini_hochberg_of_counts,
    bonferroni,
    critical_counts,
    fewest_volumes,
    log_p_values,
)
from emhet_dask.analysis.neighbours import best_of_columns, best_of_rows, merge_best
from emhet_dask.errors import InputError

__all__ = [
    "Association",
    "Correction",
    "Edges",
    "Packed",
    "Read",
    "Summary",
    "associations",
    "contingency_tiles",
    "count_occupied",
    "count_together",
    "kept_voxels",
    "occupancy",
    "pack",
    "phi_coefficient",
    "significant_edges",
    "task_bytes",
]

Bits = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Compute = Callable[..., tuple[Any, ...]]
Tile = tuple[slice, slice]
Correction = Literal["bonferroni", "benjamini-hochberg", "none"]

# Called with voxels and bytes; gives their bits (voxel, byte).
Read = Callable[[slice, slice], Bits]

SIDE = 2048
# Bytes of a strip, 2,048 volumes: both counts of `_PAIRED` stay below 4,096.
_STRIP_BYTES = 256
_PAIRED = np.float32(4096)
# A product of so many voxels and as many others stays in the cache until it is taken apart.
_TILE = 512
_PIECE_ROWS = 64
# float32 holds all whole numbers up to this.
_MOST_VOLUMES = 1 << 24
# A table of critical counts for fewer distinct margins serves all tiles; of more, each tile makes
# that of its own voxels.
_MOST_MARGINS = 2048
_BINS_PER_DECADE = 64
# What tiles leave behind until it is merged.
_BATCH_BYTES = 256 << 20
_TAILS: tuple[Tail, Tail] = ("positive", "negative")


# Occupancy ----------------------------------------------------------------------------------------


def occupancy(array: Any, thresholds: ArrayLike) -> da.Array:
    """Tell where the density is above the threshold of its volume.

    Parameters
    ----------
    array : array (volume, voxel)
    thresholds : float or array (volume,)

    Returns
    -------
    dask.array of bool (volume, voxel)

    Raises
    ------
    InputError
        When a threshold is not finite, or there are more or fewer than volumes.
    """
    matrix = as_matrix(array)
    values = np.asarray(thresholds, dtype=np.float64)
    if values.shape not in ((), (matrix.shape[0],)):
        raise InputError(
            f"thresholds: found an array of shape {values.shape}; one number, or one for each of "
            f"the {matrix.shape[0]} volumes, is needed"
        )
    if not np.isfinite(values).all():
        raise InputError("thresholds: some are NaN or infinite; they must be finite numbers")
    # One number too is compared in float64: NumPy would round it to the matrix's float32.
    column = np.broadcast_to(values[..., None], (matrix.shape[0], 1))
    return matrix > da.from_array(column, chunks=(matrix.chunks[0], 1), name=False)


def count_occupied(occupied: Any, *, compute: Compute = dask.compute) -> Int64:
    """Count the volumes in which each voxel is occupied.

    Parameters
    ----------
    occupied : array (volume, voxel)
        Not 0 where occupied; streamed once.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray of int64 (voxel,)
    """
    count = dask.delayed(_count_band, pure=False)
    parts = [count(band.part) for band in row_bands(as_matrix(occupied))]
    return np.asarray(sum(compute_all(compute, parts)))


def kept_voxels(
    margins: ArrayLike, n_volumes: int, *, least_fraction: float = 0.01
) -> NDArray[np.intp]:
    """Choose the voxels that are worth comparing: sometimes occupied, and not always.

    Parameters
    ----------
    margins : array of int (voxel,)
        From `count_occupied`.
    n_volumes : int
    least_fraction : float
        Occupied in more than this share of the volumes.

    Returns
    -------
    ndarray of int (kept,)
        Rising.

    Raises
    ------
    InputError
        When none is left.
    """
    counts = np.asarray(margins)
    often = counts > least_fraction * n_volumes
    kept = np.flatnonzero(often & (counts < n_volumes))
    if not len(kept):
        found = (
            f"{np.count_nonzero(often)} in all {n_volumes} volumes"
            if often.any()
            else f"none in more than {least_fraction:.3g} of the {n_volumes} volumes"
        )
        raise InputError(
            f"the threshold leaves no voxel that is occupied in some volumes and not in others: "
            f"{found}; a {'higher' if often.any() else 'lower'} threshold is needed"
        )
    return kept


@dataclass(frozen=True, eq=False)
class Packed:
    """Occupancy as bits, along the volumes of each voxel.

    Attributes
    ----------
    bits : array of uint8 (voxel, byte)
        Bands of volumes, each filled up with zeros to whole bytes.
    n_volumes : int
    margins : array of int64 (voxel,)
        Volumes in which each voxel is occupied.
    """

    bits: Bits
    n_volumes: int
    margins: Int64

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels."""
        return len(self.bits)

    def __call__(self, voxels: slice, octets: slice) -> Bits:
        """Return bits of some voxels and bytes; what `Association.counts` reads."""
        return self.bits[voxels, octets]


def pack(
    occupied: Any, *, voxels: NDArray[np.intp] | None = None, compute: Compute = dask.compute
) -> Packed:
    """Pack the occupancy of (some) voxels, in one reading.

    Parameters
    ----------
    occupied : array (volume, voxel)
        Not 0 where occupied.
    voxels : array of int, optional
        Those to take, as `kept_voxels` gives them; by default all.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    Packed
        Its memory, volumes × voxels / 8 bytes, is taken twice for a moment.

    Raises
    ------
    InputError
        When there are more than 2²⁴ volumes.
    """
    matrix = as_matrix(occupied)
    if matrix.shape[0] > _MOST_VOLUMES:
        raise InputError(f"{matrix.shape[0]} volumes are too many; at most {_MOST_VOLUMES} can be")
    chosen = None if voxels is None else dask.delayed(np.asarray(voxels), pure=False)
    taken = dask.delayed(_pack_band, pure=False)
    parts = [taken(band.part, chosen) for band in row_bands(matrix)]
    bits = np.concatenate(compute_all(compute, parts), axis=1)
    return Packed(bits, matrix.shape[0], _count_bits(bits))


def _count_band(band: NDArray[Any]) -> Int64:
    return np.asarray(np.count_nonzero(band, axis=0), dtype=np.int64)


def _pack_band(band: NDArray[Any], voxels: NDArray[np.intp] | None) -> Bits:
    chosen = band if voxels is None else band[:, voxels]
    return np.packbits(np.ascontiguousarray((chosen != 0).T), axis=1)


def _count_bits(bits: Bits) -> Int64:
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))


# Counts -------------------------------------------------------------------------------------------


def count_together(read: Read, voxels: slice, others: slice, *, n_bytes: int) -> Float32:
    """Count the volumes in which both voxels of each pair are occupied.

    A float32 holds 24 bits, and a strip of 2,048 volumes needs 12: the product of one voxel and
    4,096 times another with a third holds both counts, for the price of one.

    Parameters
    ----------
    read : callable
        ``read(voxels, bytes)`` gives bits (voxel, byte).
    voxels, others : slice
        Two bands; the same band twice is a block on the diagonal.
    n_bytes : int
        Of each voxel.

    Returns
    -------
    ndarray of float32 (voxel, other)
        Whole numbers, exactly.
    """
    counts = np.zeros((_length(voxels), _length(others)), dtype=np.float32)
    same = voxels == others
    for start in range(0, n_bytes, _STRIP_BYTES):
        octets = slice(start, min(start + _STRIP_BYTES, n_bytes))
        left = _unpack(read(voxels, octets))
        _add_counts(counts, left, left if same else _unpack(read(others, octets)), upper=same)
    if same:
        for row in range(0, len(counts), _TILE):
            rows, after = slice(row, row + _TILE), slice(row + _TILE, None)
            counts[after, rows] = counts[rows, after].T
    return counts


def _unpack(bits: Bits) -> Float32:
    return np.unpackbits(bits, axis=1).astype(np.float32)


def _add_counts(counts: Float32, left: Float32, right: Float32, *, upper: bool) -> None:
    """Add the products of a strip, tile by tile; of a block on the diagonal, upper tiles alone."""
    for row in range(0, len(left), _TILE):
        rows = left[row : row + _TILE]
        half = (len(rows) + 1) // 2
        paired = rows[:half].copy()
        paired[: len(rows) - half] += _PAIRED * rows[half:]
        for column in range(row if upper else 0, len(right), _TILE):
            low = paired @ right[column : column + _TILE].T
            high = low * (1 / _PAIRED)
            np.floor(high, out=high)
            tile = counts[row : row + _TILE, column : column + _TILE]
            tile[half:] += high[: len(rows) - half]
            high *= _PAIRED
            low -= high
            tile[:half] += low


def contingency_tiles(
    packed: Packed, *, side: int = SIDE
) -> Iterator[tuple[slice, slice, Float32]]:
    """Count all pairs, tile by tile of the upper triangle; no more than one tile is kept.

    Parameters
    ----------
    packed : Packed
    side : int
        Voxels in a band.

    Yields
    ------
    voxels, others : slice
    counts : ndarray of float32 (voxel, other)
        ``n11``; with the margins *a* and *b*, ``n10 = a − n11``, ``n01 = b − n11`` and
        ``n00 = N − a − b + n11``. Both halves of a tile on the diagonal.
    """
    for voxels, others in _tiles(packed.n_voxels, side):
        yield voxels, others, count_together(packed, voxels, others, n_bytes=packed.bits.shape[1])


# Significance -------------------------------------------------------------------------------------


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
        if len(distinct) <= _MOST_MARGINS:
            for tail in _TAILS:
                self._tables[tail] = self._table(distinct, distinct, tail)

    def critical(
        self, voxels: slice, others: slice, tail: Tail
    ) -> tuple[Float32, NDArray[np.intp], NDArray[np.intp]]:
        """Return a table of critical counts, and where in it the voxels and the others are.

        Parameters
        ----------
        voxels, others : slice
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

    def counts(self, read: Read, voxels: slice, others: slice, *, n_bytes: int) -> Float32:
        """Count a tile; see `count_together`."""
        return count_together(read, voxels, others, n_bytes=n_bytes)

    def edges(self, counts: Float32, voxels: slice, others: slice) -> Edges:
        """Find the significant pairs of a tile, each once.

        Parameters
        ----------
        counts : array of float32 (voxel, other)
            From `counts`.
        voxels, others : slice

        Returns
        -------
        Edges
            In a tile on the diagonal, those with ``voxel < other``.
        """
        parts = []
        for tail in _TAILS:
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


# All pairs ----------------------------------------------------------------------------------------


def associations(
    occupied: Any,
    *,
    positive_p: float = 0.01,
    negative_p: float = 0.05,
    correction: Correction = "bonferroni",
    min_enrichment: float = 1.0,
    n_neighbours: int = 32,
    side: int = SIDE,
    compute: Compute = dask.compute,
) -> xr.Dataset:
    """Find, for every voxel, those that are occupied together with it, or without it.

    One task for each pair of bands of voxels, from the bits of these two alone; `task_bytes` says
    what it needs, beside the bits of all, which are held once.

    Parameters
    ----------
    occupied : Packed or array (volume, voxel)
        Voxels that are neither always nor never occupied (`kept_voxels`).
    positive_p, negative_p : float
        Chance of any false edge (Bonferroni), or share of false ones (Benjamini–Hochberg), over
        all pairs, in each tail.
    correction : {"bonferroni", "benjamini-hochberg", "none"}
        The second counts all p-values first, and so takes another pass over all pairs.
    min_enrichment : float
        See `Association`.
    n_neighbours : int
        Strongest edges of each voxel to keep.
    side : int
        Voxels in a band; the answer is the same with any.
    compute : callable
        Like `dask.compute`; called for the bits and for every batch of tiles.

    Returns
    -------
    xarray.Dataset
        ``neighbour`` (tail, voxel, rank), strongest first, -1: none; ``phi`` (tail, voxel, rank),
        NaN: none; ``degree`` (tail, voxel), all edges, kept or not; ``margin`` (voxel,); ``alpha``
        (tail,), the level of one test; tails are ``positive`` and ``negative``. Attributes
        ``n_volumes``, ``n_pairs``, and ``fewest_volumes``, without which no pair can be found.

    Raises
    ------
    InputError
        When there are fewer volumes than can ever reach significance, or as `Association` does.
    """
    packed = occupied if isinstance(occupied, Packed) else pack(occupied, compute=compute)
    n_pairs = packed.n_voxels * (packed.n_voxels - 1) // 2
    levels: dict[Tail, float] = {"positive": positive_p, "negative": negative_p}
    if correction not in ("bonferroni", "benjamini-hochberg", "none"):
        raise InputError(
            f"correction {correction!r} is unknown; it must be bonferroni, benjamini-hochberg or "
            "none"
        )
    if correction == "bonferroni":
        levels = {tail: bonferroni(level, n_pairs) for tail, level in levels.items()}
    needed = _check_volumes(packed.n_volumes, min(levels.values()), n_pairs)
    if correction == "benjamini-hochberg":
        levels = _false_discovery_levels(packed, levels, n_pairs, side, compute)
    tests = Association(
        packed.margins, packed.n_volumes, levels["positive"], levels["negative"], min_enrichment
    )
    n_best = max(1, min(n_neighbours, packed.n_voxels - 1))
    tiles = _tiles(packed.n_voxels, side)
    strongest = _Strongest(packed.n_voxels, n_best)
    batch = max(16, _BATCH_BYTES // (32 * side * n_best))
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        strongest.merge(part, _map_tiles(_summarise_tile, packed, part, compute, tests, n_best))
    return xr.Dataset(
        {
            "neighbour": (("tail", "voxel", "rank"), strongest.index),
            "phi": (("tail", "voxel", "rank"), strongest.phi),
            "degree": (("tail", "voxel"), strongest.degree),
            "margin": ("voxel", packed.margins),
            "alpha": ("tail", [levels[tail] for tail in _TAILS]),
        },
        coords={"tail": list(_TAILS)},
        attrs={"n_volumes": packed.n_volumes, "n_pairs": n_pairs, "fewest_volumes": needed},
    )


def task_bytes(n_volumes: int, *, side: int = SIDE, n_margins: int = _MOST_MARGINS) -> int:
    """Return the memory that the task of one tile needs beside the bits of all voxels.

    Counts and strengths of the tile, a strip of either band, the bits of both, tables of critical
    counts, and pieces.

    Parameters
    ----------
    n_volumes, side : int
    n_margins : int
        Distinct margins of a band.
    """
    strip = side * min(n_volumes, 8 * _STRIP_BYTES)
    tables = 3 * min(n_margins, side, n_volumes) ** 2
    return 4 * (2 * side * side + 2 * strip + tables) + 2 * side * (n_volumes // 8) + (32 << 20)


class _Strongest:
    """The strongest edges of all voxels, so far."""

    def __init__(self, n_voxels: int, n_best: int) -> None:
        self.index = np.full((2, n_voxels, n_best), -1, dtype=np.int32)
        self.phi = np.full((2, n_voxels, n_best), np.nan, dtype=np.float32)
        self.degree = np.zeros((2, n_voxels), dtype=np.int64)

    def merge(self, tiles: list[Tile], found: tuple[tuple[Summary, Summary], ...]) -> None:
        """Take in what some tiles left; the order of tiles makes no difference."""
        for tail, sign in enumerate((np.float32(1), np.float32(-1))):
            parts: dict[tuple[int, int], list[tuple[NDArray[np.int32], Float32]]] = {}
            for (voxels, others), summaries in zip(tiles, found, strict=True):
                one = summaries[tail]
                self.degree[tail, voxels] += one.degree
                parts.setdefault(_ends(voxels), []).append((one.neighbour, one.phi))
                if voxels != others:
                    self.degree[tail, others] += one.other_degree
                    parts.setdefault(_ends(others), []).append((one.other_neighbour, one.other_phi))
            for ends, candidates in parts.items():
                band = slice(*ends)
                candidates.append((self.index[tail, band], self.phi[tail, band]))
                index, phi = (
                    np.concatenate(each, axis=1) for each in zip(*candidates, strict=True)
                )
                best, value = merge_best(index, sign * phi, self.index.shape[2])
                self.index[tail, band], self.phi[tail, band] = best, sign * value


def _summarise_tile(
    bits: tuple[Bits, Bits], tile: Tile, tests: Association, n_best: int
) -> tuple[Summary, Summary]:
    return tests.summarise(_count_tile(bits, tile), *tile, n_best)


def _histogram_of_tile(
    bits: tuple[Bits, Bits],
    tile: Tile,
    tests: Association,
    edges: dict[Tail, NDArray[np.float64]],
) -> list[Int64]:
    """Count p-values up to each edge and above the one before, for both tails."""
    found = tests.edges(_count_tile(bits, tile), *tile)
    counts = []
    for tail in _TAILS:
        chosen = found.phi > 0 if tail == "positive" else found.phi < 0
        i, j = found.voxel[chosen], found.other[chosen]
        log_p = log_p_values(
            found.n_both[chosen], tests.margins[i], tests.margins[j], tests.n_volumes, tail=tail
        )
        place = np.searchsorted(edges[tail], log_p)
        counts.append(np.bincount(place, minlength=len(edges[tail]) + 1)[: len(edges[tail])])
    return counts


def _count_tile(bits: tuple[Bits, Bits], tile: Tile) -> Float32:
    def read(span: slice, octets: slice) -> Bits:
        return bits[tile.index(span)][:, octets]

    return count_together(read, *tile, n_bytes=bits[0].shape[1])


def _false_discovery_levels(
    packed: Packed,
    rates: dict[Tail, float],
    n_pairs: int,
    side: int,
    compute: Compute,
) -> dict[Tail, float]:
    """Find the levels of Benjamini and Hochberg from a histogram of all p-values below the rate.

    No level is below Bonferroni's; where nothing is significant, that one finds nothing either.
    """
    tests = Association(packed.margins, packed.n_volumes, rates["positive"], rates["negative"])
    count = 2 + int(_BINS_PER_DECADE * np.log10(max(n_pairs, 1)))
    edges = {
        tail: np.linspace(np.log(bonferroni(rate, n_pairs)), np.log(rate), count)
        for tail, rate in rates.items()
    }
    tiles = _tiles(packed.n_voxels, side)
    found = _map_tiles(_histogram_of_tile, packed, tiles, compute, tests, edges)
    levels: dict[Tail, float] = {}
    for number, (tail, rate) in enumerate(rates.items()):
        total = sum(counts[number] for counts in found)
        level = benjamini_hochberg_of_counts(total, edges[tail], rate, n_tests=n_pairs)
        levels[tail] = max(float(np.exp(level)), bonferroni(rate, n_pairs))
    return levels


def _map_tiles(
    work: Callable[..., Any],
    packed: Packed,
    tiles: list[Tile],
    compute: Compute,
    *arguments: Any,
) -> tuple[Any, ...]:
    """Compute something of each tile, from the bits of its own two bands."""
    task = dask.delayed(work, pure=False)
    shared = [dask.delayed(each, pure=False, traverse=False) for each in arguments]
    spans = {_ends(span): span for tile in tiles for span in tile}
    bits = {ends: dask.delayed(packed.bits[span], pure=False) for ends, span in spans.items()}
    tasks = [task((bits[_ends(a)], bits[_ends(b)]), (a, b), *shared) for a, b in tiles]
    return compute_all(compute, tasks)


def _tiles(n_voxels: int, side: int) -> list[Tile]:
    bands = [slice(start, min(start + side, n_voxels)) for start in range(0, n_voxels, side)]
    return [(bands[i], bands[j]) for i in range(len(bands)) for j in range(i, len(bands))]


def _ends(span: slice) -> tuple[int, int]:
    return span.start, span.stop


def _length(span: slice) -> int:
    return int(span.stop - span.start)


def _check_volumes(n_volumes: int, alpha: float, n_pairs: int) -> int:
    needed = fewest_volumes(alpha)
    if n_volumes < needed:
        raise InputError(
            f"{n_volumes} volumes are too few for any of {n_pairs} pairs of voxels to be "
            f"significant at {alpha:.2g} each; {needed} or more are needed"
        )
    return needed
