"""How occupied, and how dense, groups of voxels are in each volume, in one pass over the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import as_matrix, compute_all, row_bands

__all__ = ["group_sums"]

# Rows that are widened and multiplied at once.
_ROWS = 64


def group_sums(
    array: Any,
    groups: ArrayLike,
    *,
    n_groups: int,
    thresholds: ArrayLike,
    factors: ArrayLike | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> xr.Dataset:
    """Measure groups of voxels in each volume.

    Parameters
    ----------
    array : array (volume, voxel)
        Densities; streamed once.
    groups : array of int (voxel,)
        Group of each voxel, from 0; -1 for those of none.
    n_groups : int
    thresholds : float or array (volume,)
        A voxel is occupied where its density is above.
    factors : array (volume,), optional
        Amplitudes that mean densities are divided by.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    xarray.Dataset
        ``occupancy`` (volume, group), the share of the group's voxels that is occupied, and
        ``density`` (volume, group), their mean density; float64, NaN for a group without voxels.
        ``voxels`` (group,).
    """
    matrix = as_matrix(array)
    n_volumes = matrix.shape[0]
    member = np.asarray(groups)
    limits = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (n_volumes,))
    columns = np.flatnonzero(member >= 0)
    columns = columns[np.argsort(member[columns], kind="stable")]
    sizes = np.bincount(member[columns], minlength=n_groups)
    shared = [dask.delayed(each, pure=False) for each in (columns, sizes)]
    measure = dask.delayed(_sums_of_band, pure=False)
    parts = compute_all(
        compute, [measure(b.part, limits[b.span], *shared) for b in row_bands(matrix)]
    )
    occupied, total = (np.concatenate(each) for each in zip(*parts, strict=True))
    if factors is not None:
        total = total / np.asarray(factors, dtype=np.float64)[:, None]
    share = np.where(sizes > 0, 1 / np.maximum(sizes, 1), np.nan)
    dims = ("volume", "group")
    return xr.Dataset(
        {
            "occupancy": (dims, occupied * share),
            "density": (dims, total * share),
            "voxels": ("group", sizes),
        }
    )


def _sums_of_band(
    band: NDArray[Any], limits: NDArray[np.float64], columns: NDArray[np.intp], sizes: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count and add up; columns of a group are neighbours, so that sums are of runs."""
    filled = np.flatnonzero(sizes)
    first = (np.cumsum(sizes) - sizes)[filled]
    occupied, total = (np.zeros((len(band), len(sizes))) for _ in range(2))
    if not len(filled):
        return occupied, total
    for start in range(0, len(band), _ROWS):
        rows = slice(start, start + _ROWS)
        values = band[rows][:, columns].astype(np.float64)
        above = (values > limits[rows][:, None]).astype(np.int32)
        occupied[rows, filled] = np.add.reduceat(above, first, axis=1)
        total[rows, filled] = np.add.reduceat(values, first, axis=1)
    return occupied, total
