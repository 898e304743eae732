"""One map against all others: what is nearest to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import Block, as_matrix, row_bands
from emhet_dask.analysis.shells import Shells, crossing, shell_matrix, shell_rows
from emhet_dask.analysis.similarity import (
    ShellMetric,
    VoxelMetric,
    check_metric,
    check_voxel_weights,
    row_moments,
    row_squares,
)
from emhet_dask.errors import InputError

__all__ = ["shell_similarity_to", "similarity_to"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_PIECE_ROWS = 64


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
    check_metric(metric, ("correlation", "l2"))
    factors = check_voxel_weights(weights, matrix.shape[1])
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
    check_metric(metric, ("fsc-mean", "fsc-resolution"))
    if np.shape(reference) != (shells.box,) * 3:
        raise InputError(f"the reference has shape {np.shape(reference)}, not box {shells.box}")
    row = shell_rows([reference], mask, shells)[0]
    return _against(as_matrix(rows), _shells_with, row, shells, metric, threshold, metric=metric)


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
    return np.sqrt(row_squares(band, reference, weights)).astype(np.float32)


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
