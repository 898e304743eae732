"""How alike maps are: all pairs of a volume × voxel matrix, and one map against all.

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

from emhet_dask.analysis.bands import Block, as_matrix, compute_all, row_bands
from emhet_dask.analysis.neighbours import Bins
from emhet_dask.analysis.pair_kernels import (
    Correlation,
    Euclidean,
    PairKernel,
    ShellMean,
    ShellResolution,
)
from emhet_dask.analysis.shells import Shells, crossing, shell_matrix, shell_rows
from emhet_dask.errors import InputError

__all__ = [
    "Metric",
    "ShellMetric",
    "VoxelMetric",
    "pair_kernel",
    "shell_kernel",
    "shell_similarity_matrix",
    "shell_similarity_to",
    "similarity_matrix",
    "similarity_to",
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


def similarity_to(
    array: Any,
    reference: ArrayLike,
    *,
    metric: VoxelMetric = "correlation",
    weights: ArrayLike | None = None,
) -> xr.DataArray:
    """Compare one map with all, voxel by voxel.

    Parameters
    ----------
    array : array (volume, voxel)
    reference : array (voxel,)
    metric : {"correlation", "l2"}
    weights : array (voxel,), optional

    Returns
    -------
    xarray.DataArray (volume), float32
        Lazy; NaN for the correlation with a constant map.

    Raises
    ------
    InputError
        When the reference has another number of voxels or is not finite, and as
        `similarity_matrix` does.
    """
    matrix = as_matrix(array)
    row = np.asarray(reference, dtype=np.float64)
    if row.shape != matrix.shape[1:]:
        raise InputError(f"the reference has shape {row.shape}, a map {matrix.shape[1:]}")
    if not np.isfinite(row).all():
        raise InputError("the reference holds NaN or infinite densities")
    _check_metric(metric, ("correlation", "l2"))
    factors = _check_voxel_weights(weights, matrix.shape[1])
    compare = _correlations_with if metric == "correlation" else _distances_from
    return _against(matrix, compare, row, factors, metric=metric)


def shell_similarity_to(
    volumes: Any,
    reference: ArrayLike,
    *,
    metric: ShellMetric = "fsc-mean",
    mask: ArrayLike | None = None,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
    threshold: float = 0.143,
) -> xr.DataArray:
    """Compare one map with all by Fourier shell correlation.

    Parameters
    ----------
    volumes : array (volume, z, y, x)
    reference : array (z, y, x)
    metric, mask, voxel_size_angstrom, resolution_angstrom, threshold
        As for `shell_similarity_matrix`.

    Returns
    -------
    xarray.DataArray (volume), float32
        Lazy.

    Raises
    ------
    InputError
        When the reference has another box, and as `shell_similarity_matrix` does.
    """
    rows, shells = shell_matrix(
        volumes,
        mask=mask,
        voxel_size_angstrom=voxel_size_angstrom,
        resolution_angstrom=resolution_angstrom,
    )
    _check_metric(metric, ("fsc-mean", "fsc-resolution"))
    if np.shape(reference) != (shells.box,) * 3:
        raise InputError(f"the reference has shape {np.shape(reference)}, not box {shells.box}")
    row = shell_rows([reference], mask, shells)[0]
    return _against(as_matrix(rows), _shells_with, row, shells, metric, threshold, metric=metric)


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


# Kernels from streams of rows --------------------------------------------------------------------


def _voxel_kernel(matrix: da.Array, metric: str, weights: ArrayLike | None) -> Delayed:
    _check_metric(metric, ("correlation", "l2"))
    factors = _check_voxel_weights(weights, matrix.shape[1])
    bands = row_bands(matrix)
    if metric == "correlation":
        measure = dask.delayed(row_moments, pure=False)
        parts = [measure(band.part, factors, band.span.start) for band in bands]
        return dask.delayed(_correlation, pure=False)(parts, factors, matrix.shape[1])
    add = dask.delayed(_row_sum, pure=False)
    origin = dask.delayed(_mean_row, pure=False)(
        [add(band.part, band.span.start) for band in bands], matrix.shape[0]
    )
    square = dask.delayed(_row_squares, pure=False)
    squares = [square(band.part, origin, factors) for band in bands]
    return dask.delayed(_euclidean, pure=False)(squares, origin, factors, matrix.shape[1])


def _shell_kernel(matrix: da.Array, shells: Shells, metric: str, threshold: float) -> Delayed:
    _check_metric(metric, ("fsc-mean", "fsc-resolution"))
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


def _row_squares(band: NDArray[Any], origin: Float64, weights: Float64 | None) -> Float64:
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


# One map against all ------------------------------------------------------------------------------


def _against(
    matrix: da.Array, compare: Callable[..., Float32], *arguments: Any, metric: str
) -> xr.DataArray:
    task = dask.delayed(compare, pure=False)
    shared = [dask.delayed(each, pure=False, traverse=False) for each in arguments]

    def values(band: Block) -> da.Array:
        length = band.span.stop - band.span.start
        return da.from_delayed(task(band.part, *shared), (length,), dtype=np.float32)

    whole = da.concatenate([values(band) for band in row_bands(matrix)])
    return xr.DataArray(whole, dims=("volume",), name=metric)


def _correlations_with(band: NDArray[Any], reference: Float64, weights: Float64 | None) -> Float32:
    mean, length, constant = row_moments(band, weights, 0)
    own_mean, own_length, own_constant = row_moments(reference[None], weights, 0)
    factor = reference - own_mean
    factor = factor if weights is None else factor * weights
    products = np.empty(len(band))
    for start in range(0, len(band), _PIECE_ROWS):
        piece = slice(start, start + _PIECE_ROWS)
        products[piece] = (band[piece] - mean[piece, None]) @ factor
    undefined = constant | own_constant | (length == 0)
    lengths = np.where(undefined, np.nan, length * own_length)
    return np.clip(products / lengths, -1.0, 1.0).astype(np.float32)


def _distances_from(band: NDArray[Any], reference: Float64, weights: Float64 | None) -> Float32:
    return np.sqrt(_row_squares(band, reference, weights)).astype(np.float32)


def _shells_with(
    band: Float32, reference: Float32, shells: Shells, metric: str, threshold: float
) -> Float32:
    fsc = np.add.reduceat(band * reference, shells.offset[:-1], axis=1, dtype=np.float64)
    if metric == "fsc-mean":
        found = np.clip(fsc.mean(axis=1), -1.0, 1.0).astype(np.float32)
    else:
        found = crossing(fsc, threshold=threshold, extent_angstrom=shells.extent_angstrom)
    found[~band.any(axis=1) | (not reference.any())] = np.nan
    return found


# Checks -------------------------------------------------------------------------------------------


def _check_metric(metric: str, known: tuple[str, str]) -> None:
    if metric not in known:
        raise InputError(f"metric {metric!r} is unknown here; it must be {' or '.join(known)}")


def _check_voxel_weights(weights: ArrayLike | None, n_voxels: int) -> Float64 | None:
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
