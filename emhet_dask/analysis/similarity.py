"""How alike maps are: all pairs of a volume × voxel matrix.

| metric | value | most alike |
|---|---|---|
| ``correlation`` | Pearson's r over the (weighted) voxels | 1 |
| ``l2`` | Euclidean distance over the (weighted) voxels | 0 |
| ``fsc-mean`` | mean FSC over the shells to a resolution | 1 |
| ``fsc-resolution`` | Å at which the FSC falls below a threshold | the finest shell |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import as_matrix, compute_all, row_bands
from emhet_dask.analysis.neighbours import Bins
from emhet_dask.analysis.pair_kernels import (
    Correlation,
    Euclidean,
    PairKernel,
    ShellMean,
    ShellResolution,
)
from emhet_dask.analysis.shells import Shells, shell_matrix
from emhet_dask.errors import InputError

__all__ = [
    "Metric",
    "ShellMetric",
    "VoxelMetric",
    "check_metric",
    "check_voxel_weights",
    "pair_kernel",
    "row_moments",
    "row_squares",
    "shell_kernel",
    "shell_similarity_matrix",
    "similarity_matrix",
    "tree_distances",
]

VoxelMetric = Literal["correlation", "l2"]
ShellMetric = Literal["fsc-mean", "fsc-resolution"]
Metric = Literal["correlation", "l2", "fsc-mean", "fsc-resolution"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# With this number, bins of [-1, 1] begin at whole multiples of 1/1024, which float32 holds exactly.
_BINS = 2048
_PIECE_ROWS = 64


def similarity_matrix(
    array: Any, *, metric: VoxelMetric = "correlation", weights: ArrayLike | None = None
) -> xr.DataArray:
    """Compare all pairs of maps, voxel by voxel.

    The upper triangle is computed in blocks, the lower one is its transpose: the matrix is exactly
    symmetric. For matrices that do not fit into memory there is `emhet_dask.ensemble.pairs`.

    Parameters
    ----------
    array : array (volume, voxel)
        Dask, NumPy or labelled.
    metric : {"correlation", "l2"}
    weights : array (voxel,), optional
        0 or more, such as the values of a soft mask.

    Returns
    -------
    xarray.DataArray (volume, volume_b), float32
        Lazy. The diagonal is exactly 1, or 0 for a distance; the correlation of a constant map is
        NaN, with itself too.

    Raises
    ------
    InputError
        When the metric is unknown, or weights do not fit; when computed, where a map holds NaN or
        infinity.
    """
    matrix = as_matrix(array)
    return _all_pairs(matrix, _voxel_kernel(matrix, metric, weights), metric)


def shell_similarity_matrix(
    volumes: Any,
    *,
    metric: ShellMetric = "fsc-mean",
    mask: ArrayLike | None = None,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
    threshold: float = 0.143,
) -> xr.DataArray:
    """Compare all pairs of maps by Fourier shell correlation.

    Parameters
    ----------
    volumes : array (volume, z, y, x)
    metric : {"fsc-mean", "fsc-resolution"}
    mask : array (z, y, x), optional
        Multiplies each map.
    voxel_size_angstrom : float
    resolution_angstrom : float, optional
        Of the last shell; default Nyquist.
    threshold : float
        Of the FSC, for ``fsc-resolution``.

    Returns
    -------
    xarray.DataArray (volume, volume_b), float32
        Lazy; NaN for a map that is constant inside the mask.

    Raises
    ------
    InputError
        As `emhet_dask.analysis.shells.shell_matrix` does, or when the metric is unknown.
    """
    rows, shells = shell_matrix(
        volumes,
        mask=mask,
        voxel_size_angstrom=voxel_size_angstrom,
        resolution_angstrom=resolution_angstrom,
    )
    matrix = as_matrix(rows)
    kernel = _shell_kernel(matrix, shells, metric, threshold)
    return _all_pairs(matrix, kernel, metric)


def pair_kernel(
    array: Any,
    *,
    metric: VoxelMetric = "correlation",
    weights: ArrayLike | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> PairKernel:
    """Find what every row needs before pairs can be compared block by block.

    Parameters
    ----------
    array : array (volume, voxel)
        Streamed once for the correlation, twice for distances.
    metric : {"correlation", "l2"}
    weights : array (voxel,), optional
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    PairKernel
        ``undefined`` (volume,) are the maps that are constant.

    Raises
    ------
    InputError
        As `similarity_matrix` does.
    """
    kernel: PairKernel = compute_all(compute, [_voxel_kernel(as_matrix(array), metric, weights)])[0]
    return kernel


def shell_kernel(
    rows: Any,
    shells: Shells,
    *,
    metric: ShellMetric = "fsc-mean",
    threshold: float = 0.143,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> PairKernel:
    """As `pair_kernel`, for rows of Fourier shells.

    Parameters
    ----------
    rows : array (volume, column)
        From `emhet_dask.analysis.shells.shell_matrix`; streamed once.
    shells : Shells
    metric : {"fsc-mean", "fsc-resolution"}
    threshold : float
    compute : callable

    Returns
    -------
    PairKernel

    Raises
    ------
    InputError
        When the metric is unknown, or a map holds NaN or infinity.
    """
    matrix = as_matrix(rows)
    kernel: PairKernel = compute_all(compute, [_shell_kernel(matrix, shells, metric, threshold)])[0]
    return kernel


def tree_distances(values: Float64, *, metric: str, linkage: str) -> Float64:
    """Turn values of pairs into the distances that a tree is built on, in place.

    Parameters
    ----------
    values : ndarray of float64 (pair,)
    metric : str
    linkage : str
        Ward's needs a Euclidean distance: √(2 (1 − r)) between rows of unit length.

    Returns
    -------
    ndarray (pair,)
        1 − value for correlations, the value itself for distances.
    """
    if metric in {"correlation", "fsc-mean"}:
        np.subtract(1.0, values, out=values)
        np.maximum(values, 0.0, out=values)
        if linkage == "ward":
            values *= 2.0
            np.sqrt(values, out=values)
    return values


# Kernels from streams of rows --------------------------------------------------------------------


def _voxel_kernel(matrix: da.Array, metric: str, weights: ArrayLike | None) -> Delayed:
    check_metric(metric, ("correlation", "l2"))
    factors = check_voxel_weights(weights, matrix.shape[1])
    bands = row_bands(matrix)
    if metric == "correlation":
        measure = dask.delayed(row_moments, pure=False)
        parts = [measure(band.part, factors, band.span.start) for band in bands]
        return dask.delayed(_correlation, pure=False)(parts, factors, matrix.shape[1])
    add = dask.delayed(_row_sum, pure=False)
    origin = dask.delayed(_mean_row, pure=False)(
        [add(band.part, band.span.start) for band in bands], matrix.shape[0]
    )
    square = dask.delayed(row_squares, pure=False)
    squares = [square(band.part, origin, factors) for band in bands]
    return dask.delayed(_euclidean, pure=False)(squares, origin, factors, matrix.shape[1])


def _shell_kernel(matrix: da.Array, shells: Shells, metric: str, threshold: float) -> Delayed:
    check_metric(metric, ("fsc-mean", "fsc-resolution"))
    empty = dask.delayed(_empty_rows, pure=False)
    parts = [empty(band.part, band.span.start) for band in row_bands(matrix)]
    given = dask.delayed(shells, pure=False, traverse=False)
    return dask.delayed(_by_shells, pure=False)(parts, given, metric, threshold)


def row_moments(
    band: NDArray[Any], weights: Float64 | None, first: int
) -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """Weighted mean, length about it, and whether it is constant, of each row.

    Parameters
    ----------
    band : array (row, voxel)
    weights : array (voxel,) or None
    first : int
        Number of the first row, for messages.

    Raises
    ------
    InputError
        When a row holds NaN or infinity.
    """
    mean, length = np.empty(len(band)), np.empty(len(band))
    constant = np.empty(len(band), dtype=bool)
    counted = ... if weights is None or weights.all() else weights > 0
    for start in range(0, len(band), _PIECE_ROWS):
        piece = slice(start, start + _PIECE_ROWS)
        rows = band[piece].astype(np.float64)
        _refuse_faulty(rows.sum(axis=1), first + start)
        within = rows[:, counted] if counted is not ... else rows
        constant[piece] = within.min(axis=1) == within.max(axis=1)
        mean[piece] = rows.mean(axis=1) if weights is None else rows @ (weights / weights.sum())
        rows -= mean[piece, None]
        np.square(rows, out=rows)
        length[piece] = np.sqrt(rows.sum(axis=1) if weights is None else rows @ weights)
    return mean, length, constant


def _correlation(
    parts: list[tuple[Float64, Float64, NDArray[np.bool_]]],
    weights: Float64 | None,
    n_columns: int,
) -> Correlation:
    mean, length, constant = (np.concatenate(each) for each in zip(*parts, strict=True))
    defined = ~constant & (length > 0)
    inverse = np.divide(1.0, length, out=np.zeros_like(length), where=defined)
    bins = Bins(-1.0, 1.0, _BINS)
    return Correlation(~defined, bins, n_columns, mean, inverse, _root(weights))


def _row_sum(band: NDArray[Any], first: int) -> Float64:
    sums = band.sum(axis=1, dtype=np.float64)
    _refuse_faulty(sums, first)
    return np.asarray(band.sum(axis=0, dtype=np.float64))


def _mean_row(sums: list[Float64], n_rows: int) -> Float64:
    total = sums[0].copy()
    for each in sums[1:]:
        total += each
    return total / n_rows


def row_squares(band: NDArray[Any], origin: Float64, weights: Float64 | None) -> Float64:
    """Return the weighted squared distance of each row of a band from an origin (voxel,)."""
    squares = np.empty(len(band))
    for start in range(0, len(band), _PIECE_ROWS):
        piece = slice(start, start + _PIECE_ROWS)
        rows = band[piece] - origin
        np.square(rows, out=rows)
        squares[piece] = rows.sum(axis=1) if weights is None else rows @ weights
    return squares


def _euclidean(
    parts: list[Float64], origin: Float64, weights: Float64 | None, n_columns: int
) -> Euclidean:
    squares = np.concatenate(parts)
    # No two rows are farther apart than both are from the origin.
    farthest = float(np.sqrt(np.sort(squares)[-2:]).sum())
    bins = Bins(0.0, farthest if farthest > 0 else 1.0, _BINS)
    undefined = np.zeros(len(squares), dtype=bool)
    return Euclidean(undefined, bins, n_columns, origin, squares, _root(weights))


def _empty_rows(band: Float32, first: int) -> NDArray[np.bool_]:
    squares = np.square(band).sum(axis=1, dtype=np.float64)
    _refuse_faulty(squares, first)
    return np.asarray(squares == 0)


def _by_shells(
    parts: list[NDArray[np.bool_]], shells: Shells, metric: str, threshold: float
) -> PairKernel:
    empty = np.concatenate(parts)
    if metric == "fsc-mean":
        return ShellMean(empty, Bins(-1.0, 1.0, _BINS), shells.n_columns, shells)
    bins = Bins(0.0, shells.extent_angstrom, _BINS)
    return ShellResolution(empty, bins, shells.n_columns, shells, threshold)


# All pairs of an array ----------------------------------------------------------------------------


def _all_pairs(matrix: da.Array, kernel: Delayed, metric: str) -> xr.DataArray:
    bands = row_bands(matrix)
    compare = dask.delayed(_block_of_bands, pure=False)
    turn = dask.delayed(np.transpose, pure=False)
    blocks: dict[tuple[int, int], da.Array] = {}
    for i, rows in enumerate(bands):
        for j, others in enumerate(bands[i:], start=i):
            shape = (rows.span.stop - rows.span.start, others.span.stop - others.span.start)
            task = compare(kernel, rows.part, rows.span, others.part, others.span)
            blocks[i, j] = da.from_delayed(task, shape, dtype=np.float32)
            if i != j:
                blocks[j, i] = da.from_delayed(turn(task), shape[::-1], dtype=np.float32)
    count = range(len(bands))
    whole = da.block([[blocks[i, j] for j in count] for i in count])
    return xr.DataArray(whole, dims=("volume", "volume_b"), name=metric)


def _block_of_bands(
    kernel: PairKernel, band: NDArray[Any], rows: slice, other: NDArray[Any], others: slice
) -> Float32:
    def read(span: slice, columns: slice) -> Iterator[tuple[slice, NDArray[Any]]]:
        values = (band if span == rows else other)[:, columns]
        yield span, values if values.dtype == np.float64 else values.astype(np.float32, copy=False)

    return kernel.block(read, rows, others)


# Checks -------------------------------------------------------------------------------------------


def check_metric(metric: str, known: tuple[str, str]) -> None:
    """Refuse a metric that is not among those known."""
    if metric not in known:
        raise InputError(f"metric {metric!r} is unknown here; it must be {' or '.join(known)}")


def check_voxel_weights(weights: ArrayLike | None, n_voxels: int) -> Float64 | None:
    """Return weights of voxels as float64, or None where all are 1.

    Raises
    ------
    InputError
        When there are more or fewer than voxels, one is negative or not finite, or all are 0.
    """
    if weights is None:
        return None
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n_voxels,) or not (np.isfinite(values) & (values >= 0)).all():
        raise InputError(
            f"weights: found an array of shape {values.shape}; "
            f"one number, 0 or more, for each of the {n_voxels} voxels is needed"
        )
    if not values.any():
        raise InputError("weights: all are 0; at least one voxel must count")
    return None if (values == 1).all() else values


def _root(weights: Float64 | None) -> Float32 | None:
    return None if weights is None else np.sqrt(weights).astype(np.float32)


def _refuse_faulty(sums: Float64, first: int) -> None:
    faulty = np.flatnonzero(~np.isfinite(sums))
    if len(faulty):
        raise InputError(f"volume {first + int(faulty[0])} holds NaN or infinite densities")
