"""The best of many values: nearest maps of each map, and a histogram of all pairs, block by block.

Values come in blocks (row, other row). The best of each row are found in every block and then
merged; ties go to the lower index, so that any cut into blocks gives the same neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bins", "best_of_columns", "best_of_rows", "count_values", "merge_best"]

Float32 = NDArray[np.float32]

# Rows (or columns) that are searched at a time: a copy of them stays in the cache.
_PIECE = 256
# Rows that are counted at a time.
_PIECE_ROWS = 64
# Groups of values for each of the best that is wanted; see `_bounds`.
_GROUPS_PER_BEST = 8


@dataclass(frozen=True)
class Bins:
    """Equal bins of a histogram; `lower` is a whole number of widths from 0.

    Attributes
    ----------
    lower, upper : float
        Ends of the first and of the last bin.
    count : int
    """

    lower: float
    upper: float
    count: int

    @property
    def edges(self) -> NDArray[np.float64]:
        """Return the ends (bin + 1,) of all bins."""
        return np.linspace(self.lower, self.upper, self.count + 1)


def best_of_rows(
    values: Float32, n_best: int, *, first_column: int = 0
) -> tuple[NDArray[np.int32], Float32]:
    """Find the largest values of each row.

    Parameters
    ----------
    values : array of float32 (row, column)
        Not NaN; minus infinity is never among the best.
    n_best : int
    first_column : int
        What the first column is called.

    Returns
    -------
    index : array of int32 (row, n_best)
        Columns, best first and the lower one first among equals; -1 where there are no more.
    value : array of float32 (row, n_best)
        NaN where there are no more.
    """
    index = np.full((len(values), n_best), -1, dtype=np.int32)
    value = np.full((len(values), n_best), np.nan, dtype=np.float32)
    for start in range(0, len(values), _PIECE):
        piece = np.ascontiguousarray(values[start : start + _PIECE])
        found = _candidates(piece, _bounds(piece, n_best)[:, None])
        row, column = np.divmod(found, piece.shape[1])
        rows = slice(start, start + len(piece))
        _rank(row, column + first_column, piece.reshape(-1)[found], index[rows], value[rows])
    return index, value


def best_of_columns(
    values: Float32, n_best: int, *, first_row: int = 0
) -> tuple[NDArray[np.int32], Float32]:
    """Find the largest values of each column; `best_of_rows` of the transpose, in less time.

    Parameters
    ----------
    values : array of float32 (row, column)
    n_best : int
    first_row : int
        What the first row is called.

    Returns
    -------
    index, value : arrays (column, n_best)
    """
    n_columns = values.shape[1]
    index = np.full((n_columns, n_best), -1, dtype=np.int32)
    value = np.full((n_columns, n_best), np.nan, dtype=np.float32)
    for start in range(0, n_columns, _PIECE):
        piece = np.ascontiguousarray(values[:, start : start + _PIECE])
        found = _candidates(piece, _bounds(piece, n_best, of_columns=True))
        row, column = np.divmod(found, piece.shape[1])
        columns = slice(start, start + piece.shape[1])
        _rank(column, row + first_row, piece.reshape(-1)[found], index[columns], value[columns])
    return index, value


def merge_best(
    index: NDArray[np.int32], value: Float32, n_best: int
) -> tuple[NDArray[np.int32], Float32]:
    """Choose the largest among the best of several blocks.

    Parameters
    ----------
    index : array of int32 (row, candidate)
        -1 where there is none.
    value : array of float32 (row, candidate)
    n_best : int

    Returns
    -------
    index, value : arrays (row, n_best)
        As `best_of_rows` gives them.
    """
    best = np.full((len(index), n_best), -1, dtype=np.int32)
    merged = np.full((len(index), n_best), np.nan, dtype=np.float32)
    for start in range(0, len(index), _PIECE):
        rows = slice(start, start + _PIECE)
        names = index[rows]
        values = np.where(names < 0, np.float32(-np.inf), value[rows])
        bounds = np.full((len(values), 1), -np.inf, dtype=np.float32)
        if values.shape[1] > n_best:
            kth = values.shape[1] - n_best
            bounds = np.partition(values, kth, axis=1)[:, kth, None]
        found = _candidates(values, bounds)
        row = found // values.shape[1]
        _rank(row, names.reshape(-1)[found], values.reshape(-1)[found], best[rows], merged[rows])
    return best, merged


def count_values(values: Float32, bins: Bins) -> NDArray[np.int64]:
    """Count values in bins, as `numpy.histogram` does, in a third of its time.

    Parameters
    ----------
    values : array of float32 (row, column)
        From the lower end up; what lies above the upper end counts in the last bin.
    bins : Bins

    Returns
    -------
    ndarray of int64 (bin,)
    """
    scale = np.float32(bins.count / (bins.upper - bins.lower))
    offset = round(bins.lower * bins.count / (bins.upper - bins.lower))
    counts = np.zeros(bins.count, dtype=np.int64)
    for start in range(0, len(values), _PIECE_ROWS):
        piece = values[start : start + _PIECE_ROWS] * scale
        # Rounded down before the shift: a value just below 0 stays in the bin below.
        np.floor(piece, out=piece)
        number = piece.astype(np.intp).reshape(-1)
        number -= offset
        found = np.bincount(number, minlength=bins.count)
        counts += found[: bins.count]
        counts[-1] += found[bins.count :].sum()
    return counts


def _candidates(piece: Float32, bounds: Float32) -> NDArray[np.intp]:
    """Return flat positions, in order, of values that reach the bound of their row or column."""
    found = np.flatnonzero(piece >= bounds)
    return found[piece.reshape(-1)[found] > -np.inf]


def _bounds(piece: Float32, n_best: int, *, of_columns: bool = False) -> Float32:
    """Return a value for each row that at least `n_best` of its values reach, and few others.

    The maxima of disjoint groups of columns are values of the row: as many as are wanted reach the
    last of the best maxima. One pass, where sorting or partitioning all values takes ten.
    """
    groups = _GROUPS_PER_BEST * n_best
    kth = groups - n_best
    if of_columns:
        whole = len(piece) // groups
        if whole == 0:
            return np.full(piece.shape[1], -np.inf, dtype=np.float32)
        highest = piece[: whole * groups].reshape(whole, groups, -1).max(axis=0)
        return np.asarray(np.partition(np.ascontiguousarray(highest.T), kth, axis=1)[:, kth])
    whole = piece.shape[1] // groups
    if whole == 0:
        return np.full(len(piece), -np.inf, dtype=np.float32)
    highest = piece[:, : whole * groups].reshape(len(piece), whole, groups).max(axis=1)
    return np.asarray(np.partition(highest, kth, axis=1)[:, kth])


def _rank(
    owner: NDArray[np.intp],
    other: NDArray[np.signedinteger[Any]],
    found: Float32,
    index: NDArray[np.int32],
    value: Float32,
) -> None:
    """Write the best of what was found for each owner to its row of `index` and `value`."""
    order = np.lexsort((other, -found, owner))
    owner, other, found = owner[order], other[order], found[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    best = rank < index.shape[1]
    index[owner[best], rank[best]] = other[best]
    value[owner[best], rank[best]] = found[best]
