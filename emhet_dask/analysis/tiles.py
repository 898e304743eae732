"""Means over the pairs of two groups of maps, from one reading of the maps.

The mean of inner products is the inner product of means, so that no pair is looked at: what a
matrix of 10^10 values looks like follows from the sums of some hundred groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import as_matrix, chain, compute_all, row_bands

__all__ = ["mean_distances", "mean_products", "mean_values"]

Float64 = NDArray[np.float64]
Compute = Callable[..., tuple[Any, ...]]
Sums = tuple[Float64, Float64]  # (tile, column), (tile,)

# Sums of some hundred tiles are as large as a band: few of them exist at once.
_CHAINS = 4
# Rows that are added up in float64 at a time.
_PIECE_ROWS = 128


def mean_products(array: Any, tiles: ArrayLike, *, compute: Compute = dask.compute) -> Float64:
    """Mean inner product over the pairs of a row in one tile and a row in another.

    Parameters
    ----------
    array : array (volume, column)
        Streamed once.
    tiles : array of int (volume,)
        Tile of each row, from 0; -1 for none.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray (tile, tile)
        No row is paired with itself; NaN where there is no pair.
    """
    sums, squares, counts = _sums_of(array, tiles, compute)
    return _products(sums, squares, counts)


def mean_distances(array: Any, tiles: ArrayLike, *, compute: Compute = dask.compute) -> Float64:
    """Root mean square Euclidean distance over the pairs of two tiles.

    Parameters and result as of `mean_products`; ``|a − b|² = a·a + b·b − 2 a·b``.
    """
    sums, squares, counts = _sums_of(array, tiles, compute)
    own = np.divide(squares, counts, out=np.full_like(squares, np.nan), where=counts > 0)
    squared = np.add.outer(own, own) - 2.0 * _products(sums, squares, counts)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def mean_values(matrix: ArrayLike, tiles: ArrayLike) -> Float64:
    """Mean over the pairs of two tiles of values that are known.

    Parameters
    ----------
    matrix : array (volume, volume)
        Symmetric; the diagonal is not looked at.
    tiles : array of int (volume,)
        Tile of each row, from 0; -1 for none.

    Returns
    -------
    ndarray (tile, tile)
        NaN where there is no pair.
    """
    values, tile = np.array(matrix, dtype=np.float64), np.asarray(tiles, dtype=np.intp)
    np.fill_diagonal(values, 0.0)
    inside = np.flatnonzero(tile >= 0)
    counts = np.bincount(tile[inside]).astype(np.float64)
    member = np.zeros((len(counts), len(inside)))
    member[tile[inside], np.arange(len(inside))] = 1.0
    sums = member @ values[np.ix_(inside, inside)] @ member.T
    pairs = np.outer(counts, counts) - np.diag(counts)
    return np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)


def _products(sums: Float64, squares: Float64, counts: Float64) -> Float64:
    pairs = np.outer(counts, counts) - np.diag(counts)
    products = sums @ sums.T - np.diag(squares)
    return np.divide(products, pairs, out=np.full_like(products, np.nan), where=pairs > 0)


def _sums_of(array: Any, tiles: ArrayLike, compute: Compute) -> tuple[Float64, Float64, Float64]:
    """Sum of the rows of each tile, sum of their squared lengths, and their number."""
    matrix = as_matrix(array)
    tile = np.asarray(tiles, dtype=np.intp)
    counts = np.bincount(tile[tile >= 0]).astype(np.float64)
    ((sums, squares),) = compute_all(
        compute,
        [chain(row_bands(matrix), _add, _merge, n_chains=_CHAINS, tile=tile, count=len(counts))],
    )
    return sums, squares, counts


def _add(
    state: Sums | None, band: NDArray[Any], span: slice, *, tile: NDArray[np.intp], count: int
) -> Sums:
    """Add up the rows of a band by tile, and their squared lengths; `state` is left as it was."""
    if state is None:
        sums, squares = np.zeros((count, band.shape[1])), np.zeros(count)
    else:
        sums, squares = state[0].copy(), state[1].copy()
    here = tile[span]
    for start in range(0, len(band), _PIECE_ROWS):
        rows = band[start : start + _PIECE_ROWS].astype(np.float64)
        of = here[start : start + _PIECE_ROWS]
        inside = np.flatnonzero(of >= 0)
        found, which = np.unique(of[inside], return_inverse=True)
        member = np.zeros((len(found), len(rows)))
        member[which, inside] = 1.0
        sums[found] += member @ rows
        squares[found] += member @ np.einsum("ij,ij->i", rows, rows)
    return sums, squares


def _merge(parts: list[Sums]) -> Sums:
    sums, squares = parts[0][0].copy(), parts[0][1].copy()
    for other, more in parts[1:]:
        sums += other
        squares += more
    return sums, squares
