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

from emhet_dask.analysis.bands import as_matrix, compute_all, row_bands, tree

__all__ = ["mean_distances", "mean_products", "mean_values"]

Float64 = NDArray[np.float64]
Compute = Callable[..., tuple[Any, ...]]


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
    add = dask.delayed(tile_sums, pure=False)
    parts = [add(band.part, tile[band.span], len(counts)) for band in row_bands(matrix)]
    ((sums, squares),) = (compute_all(compute, [tree(parts, _merge)])[0],)
    return sums, squares, counts


def tile_sums(band: NDArray[Any], tile: NDArray[np.intp], count: int) -> tuple[Float64, Float64]:
    """Add up the rows of a band by tile, and their squared lengths.

    Parameters
    ----------
    band : array (row, column)
    tile : array (row,)
    count : int
        Tiles.
    """
    inside = np.flatnonzero(tile >= 0)
    member = np.zeros((count, len(band)))
    member[tile[inside], inside] = 1.0
    rows = band.astype(np.float64)
    return member @ rows, member @ np.einsum("ij,ij->i", rows, rows)


def _merge(parts: list[tuple[Float64, Float64]]) -> tuple[Float64, Float64]:
    sums, squares = parts[0][0].copy(), parts[0][1].copy()
    for other, more in parts[1:]:
        sums += other
        squares += more
    return sums, squares
