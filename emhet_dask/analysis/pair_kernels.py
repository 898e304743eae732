"""The arithmetic of one block of pairs of rows: NumPy in, NumPy out.

Every metric is an inner product of prepared rows, which a matrix product gives at the rate of the
machine. A block (rows × other rows) is summed over strips of columns, so that its memory does not
depend on how long the rows are: the block, and a strip of either band of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.neighbours import (
    Bins,
    best_of_columns,
    best_of_rows,
    count_values,
    merge_best,
)
from emhet_dask.analysis.shells import Shells, crossing_step

__all__ = [
    "Correlation",
    "Euclidean",
    "PairKernel",
    "Read",
    "ShellMean",
    "ShellResolution",
    "Summary",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Called with rows and columns; yields runs of these rows, float32 or float64, and where they lie.
Read = Callable[[slice, slice], Iterator[tuple[slice, NDArray[Any]]]]

_STRIP_COLUMNS = 2048
# A product of so many rows and as many others stays in the cache until it is added to the block.
_TILE = 512
# Rows of a block that are finished at a time.
_PIECE_ROWS = 64


class Summary(NamedTuple):
    """What is kept of a block when the block is not."""

    neighbour: NDArray[np.int32]  # (row, rank), among the other rows; -1: none
    neighbour_value: Float32  # (row, rank)
    other_neighbour: NDArray[np.int32]  # (other row, rank), among the rows
    other_value: Float32  # (other row, rank)
    counts: NDArray[np.int64]  # (bin,); every pair once


@dataclass(frozen=True, eq=False)
class PairKernel:
    """What all metrics share; each adds how rows are prepared and how products are finished.

    Attributes
    ----------
    undefined : array of bool (row,)
        Rows, such as constant maps, whose values are NaN.
    bins : Bins
        Of the histogram.
    n_columns : int
        Of a row.
    """

    undefined: NDArray[np.bool_]
    bins: Bins
    n_columns: int

    metric: ClassVar[str]
    largest_first: ClassVar[bool] = True
    # Arrays of the size of a block that exist at once.
    arrays: ClassVar[int] = 1

    @property
    def diagonal(self) -> float:
        """Return the value of a row and itself."""
        return 1.0

    def prepare(self, values: NDArray[Any], rows: slice, columns: slice, out: Float32) -> None:
        """Write prepared values of some rows and columns, float32, to `out`."""
        del rows, columns
        out[...] = values

    def finish(self, products: Float32, rows: slice, others: slice) -> None:
        """Turn inner products into values, in place."""
        raise NotImplementedError

    def block(self, read: Read, rows: slice, others: slice) -> Float32:
        """Compute the values of all pairs of two bands of rows.

        Parameters
        ----------
        read : callable
            ``read(rows, columns)`` yields runs of the rows as they are stored.
        rows, others : slice
            Two bands; the same band twice is a block on the diagonal, which is exactly symmetric.

        Returns
        -------
        ndarray of float32 (row, other row)
        """
        values = self._accumulate(read, rows, others)
        self.finish(values, rows, others)
        if rows == others:
            _mirror(values)
            np.fill_diagonal(values, self.diagonal)
        values[self.undefined[rows]] = np.nan
        values[:, self.undefined[others]] = np.nan
        return values

    def summarise(self, block: Float32, rows: slice, others: slice, n_best: int) -> Summary:
        """Find the nearest rows and the histogram of a block, whose values are lost.

        Parameters
        ----------
        block : array of float32 (row, other row)
            From `block`.
        rows, others : slice
        n_best : int
            Neighbours of each row to keep.
        """
        here, there = self.undefined[rows], self.undefined[others]
        same = rows == others
        defined = block[~here][:, ~there] if here.any() or there.any() else block
        counts = count_values(defined, self.bins)
        if same:
            counts -= count_values(np.full((1, len(defined)), self.diagonal, "f4"), self.bins)
            counts //= 2
        if not self.largest_first:
            np.negative(block, out=block)
        if same:
            np.fill_diagonal(block, -np.inf)
        block[here] = -np.inf
        block[:, there] = -np.inf
        index, value = best_of_rows(block, n_best, first_column=others.start)
        if same:
            other_index, other_value = index[:0], value[:0]
        else:
            other_index, other_value = best_of_columns(block, n_best, first_row=rows.start)
        sign = np.float32(1 if self.largest_first else -1)
        return Summary(index, sign * value, other_index, sign * other_value, counts)

    def merge(
        self, index: NDArray[np.int32], value: Float32, n_best: int
    ) -> tuple[NDArray[np.int32], Float32]:
        """Choose the nearest of rows (row, candidate) that several blocks found."""
        sign = np.float32(1 if self.largest_first else -1)
        best, found = merge_best(index, sign * value, n_best)
        return best, sign * found

    def _accumulate(self, read: Read, rows: slice, others: slice) -> Float32:
        products = np.empty((_length(rows), _length(others)), dtype=np.float32)
        for columns, left, right in self._strips(read, rows, others, _plain(self.n_columns)):
            _add_products(products, left, right, upper=rows == others, afresh=columns.start == 0)
        return products

    def _strips(
        self, read: Read, rows: slice, others: slice, cuts: list[slice]
    ) -> Iterator[tuple[slice, Float32, Float32]]:
        """Yield strips of both bands, prepared, in two buffers that are used again and again."""
        widest = max(_length(columns) for columns in cuts)
        left = np.empty((_length(rows), widest), dtype=np.float32)
        right = left if rows == others else np.empty((_length(others), widest), dtype=np.float32)
        for columns in cuts:
            width = _length(columns)
            self._load(read, rows, columns, left[:, :width])
            if rows != others:
                self._load(read, others, columns, right[:, :width])
            yield columns, left[:, :width], right[:, :width]

    def _load(self, read: Read, rows: slice, columns: slice, out: Float32) -> None:
        for run, values in read(rows, columns):
            target = out[run.start - rows.start : run.stop - rows.start]
            self.prepare(values, run, columns, target)


@dataclass(frozen=True, eq=False)
class Correlation(PairKernel):
    """Pearson correlation: rows about their weighted mean, of unit length.

    Attributes
    ----------
    mean, inverse_norm : arrays of float64 (row,)
    root_weights : array of float32 (column,) or None
    """

    mean: Float64
    inverse_norm: Float64
    root_weights: Float32 | None

    metric: ClassVar[str] = "correlation"

    def prepare(self, values: NDArray[Any], rows: slice, columns: slice, out: Float32) -> None:
        """Centre in the precision of the values, so that a large common mean costs no digits."""
        mean = self.mean[rows, None]
        if values.dtype == np.float64:
            np.subtract(values, mean, out=out, casting="same_kind")
        else:
            # The difference from the mean as float32 is exact nearby; then what that leaves over.
            near = mean.astype(np.float32)
            np.subtract(values, near, out=out)
            out -= (mean - near).astype(np.float32)
        out *= self.inverse_norm[rows, None].astype(np.float32)
        if self.root_weights is not None:
            out *= self.root_weights[columns]

    def finish(self, products: Float32, rows: slice, others: slice) -> None:
        """Clip what rounding leaves above 1."""
        del rows, others
        np.clip(products, -1.0, 1.0, out=products)


@dataclass(frozen=True, eq=False)
class Euclidean(PairKernel):
    """Distance ``√(a·a + b·b − 2 a·b)`` of rows about a common origin.

    The error is some 10⁻³ of a row's length at most, where two rows are the same; the origin is the
    mean row, since the length then is that of what differs.

    Attributes
    ----------
    origin : array of float64 (column,)
    squares : array of float64 (row,)
        Squared lengths about the origin.
    root_weights : array of float32 (column,) or None
    """

    origin: Float64
    squares: Float64
    root_weights: Float32 | None

    metric: ClassVar[str] = "l2"
    largest_first: ClassVar[bool] = False

    @property
    def diagonal(self) -> float:
        """Return the distance of a row from itself."""
        return 0.0

    def prepare(self, values: NDArray[Any], rows: slice, columns: slice, out: Float32) -> None:
        """Subtract the origin."""
        del rows
        origin = self.origin[columns]
        if values.dtype != np.float64:
            origin = origin.astype(np.float32)
        np.subtract(values, origin, out=out, casting="same_kind")
        if self.root_weights is not None:
            out *= self.root_weights[columns]

    def finish(self, products: Float32, rows: slice, others: slice) -> None:
        """Add the squared lengths in float64."""
        left, right = self.squares[rows], self.squares[others]
        for start in range(0, len(products), _PIECE_ROWS):
            piece = slice(start, start + _PIECE_ROWS)
            squared = left[piece, None] + right - 2.0 * products[piece]
            products[piece] = np.sqrt(np.maximum(squared, 0.0, out=squared))


@dataclass(frozen=True, eq=False)
class ShellMean(PairKernel):
    """Mean FSC over all shells, of rows from `emhet_dask.analysis.shells`."""

    shells: Shells

    metric: ClassVar[str] = "fsc-mean"

    def finish(self, products: Float32, rows: slice, others: slice) -> None:
        """Divide the sum of FSCs by their number."""
        del rows, others
        products *= np.float32(1.0 / self.shells.n_shells)
        np.clip(products, -1.0, 1.0, out=products)


@dataclass(frozen=True, eq=False)
class ShellResolution(PairKernel):
    """Resolution in Å at which the FSC first falls below a threshold."""

    shells: Shells
    threshold: float

    metric: ClassVar[str] = "fsc-resolution"
    largest_first: ClassVar[bool] = False
    arrays: ClassVar[int] = 3

    @property
    def diagonal(self) -> float:
        """Return the resolution of the last shell."""
        return float(np.float32(self.shells.finest_angstrom))

    def finish(self, products: Float32, rows: slice, others: slice) -> None:
        """Turn fractional shells into Å."""
        del rows, others
        np.divide(np.float32(self.shells.extent_angstrom), products, out=products)

    def _accumulate(self, read: Read, rows: slice, others: slice) -> Float32:
        offset = self.shells.offset
        shape = (_length(rows), _length(others))
        current, previous = np.zeros(shape, "f4"), np.zeros(shape, "f4")
        reached = np.full(shape, np.nan, dtype=np.float32)
        for columns, left, right in self._strips(read, rows, others, _by_shell(offset)):
            first = int(np.searchsorted(offset, columns.start, side="right"))
            last = int(np.searchsorted(offset, columns.stop, side="left"))
            for shell in range(first, last + 1):
                start = max(int(offset[shell - 1]), columns.start)
                stop = min(int(offset[shell]), columns.stop)
                part = slice(start - columns.start, stop - columns.start)
                _add_products(
                    current,
                    left[:, part],
                    right[:, part],
                    upper=rows == others,
                    afresh=start == offset[shell - 1],
                )
                if stop == offset[shell]:
                    self._cross(reached, previous, current, shell)
                    current, previous = previous, current
        reached[np.isnan(reached)] = self.shells.n_shells
        return reached

    def _cross(self, reached: Float32, previous: Float32, current: Float32, shell: int) -> None:
        for start in range(0, len(reached), _PIECE_ROWS):
            piece = slice(start, start + _PIECE_ROWS)
            crossing_step(
                reached[piece],
                previous[piece],
                current[piece],
                shell=shell,
                threshold=self.threshold,
            )


def _add_products(
    products: Float32, left: Float32, right: Float32, *, upper: bool, afresh: bool
) -> None:
    """Add ``left @ right.T``, tile by tile; of a block on the diagonal, its upper tiles alone."""
    for row in range(0, len(left), _TILE):
        for column in range(row if upper else 0, len(right), _TILE):
            tile = products[row : row + _TILE, column : column + _TILE]
            found = left[row : row + _TILE] @ right[column : column + _TILE].T
            if afresh:
                tile[...] = found
            else:
                tile += found


def _mirror(values: Float32) -> None:
    """Copy what is above the diagonal to what is below it."""
    for row in range(0, len(values), _TILE):
        tile = values[row : row + _TILE, row : row + _TILE]
        below = np.tril_indices(len(tile), -1)
        tile[below] = tile.T[below]
        values[row + _TILE :, row : row + _TILE] = values[row : row + _TILE, row + _TILE :].T


def _plain(n_columns: int) -> list[slice]:
    return [
        slice(start, min(start + _STRIP_COLUMNS, n_columns))
        for start in range(0, n_columns, _STRIP_COLUMNS)
    ]


def _by_shell(offset: NDArray[np.int64]) -> list[slice]:
    """Cut into strips of whole shells, or of parts of one that is too large."""
    cuts: list[slice] = []
    for start, stop in zip(offset[:-1].tolist(), offset[1:].tolist(), strict=True):
        if cuts and stop - cuts[-1].start <= _STRIP_COLUMNS:
            cuts[-1] = slice(cuts[-1].start, stop)
            continue
        cuts += [
            slice(first, min(first + _STRIP_COLUMNS, stop))
            for first in range(start, stop, _STRIP_COLUMNS)
        ]
    return cuts


def _length(span: slice) -> int:
    return int(span.stop - span.start)
