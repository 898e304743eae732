"""The matrix (volume × voxel) of the voxels inside one mask, written once and streamed ever after.

It is 10 to 50 times smaller than the volumes. Landscape reads rows, blocks read columns, so that
chunks are two-dimensional; a shard is a band of rows over all columns, written once by one task,
and its presence is the record that it is finished.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize
from zarr.codecs import Crc32cCodec

from emhet_dask.ensemble.checked import REMAKE, CheckedArray
from emhet_dask.ensemble.ensemble import Ensemble
from emhet_dask.ensemble.reading import stream
from emhet_dask.ensemble.shards import LocalShards, cut_columns
from emhet_dask.ensemble.store import has_chunk, open_array, open_group, put_array
from emhet_dask.variables import RESULTS, check, describe

__all__ = [
    "MatrixLayout",
    "into_box",
    "open_bands",
    "open_matrix",
    "plan_matrix",
    "write_band",
    "write_matrix",
]

_COLUMNS = 2048
_ROWS = 1024
_SMALLEST_BAND_BYTES = 32 << 20
_LARGEST_BAND_BYTES = 128 << 20
_BANDS_OF_A_SMALL_MATRIX = 32
# What one task reads, for a band whose rows others read beside it: at least so many volumes, and of
# small ones so many bytes, for a scheduler takes a millisecond or two for a task whatever it does.
_VOLUMES_PER_TASK = 32
_BYTES_PER_TASK = 16 << 20


@dataclass(frozen=True)
class MatrixLayout:
    """Shape of the matrix and how it is cut.

    Attributes
    ----------
    shape : (int, int)
        (volume, voxel).
    dtype : str
        ``"float32"`` or ``"float16"``.
    rows : int
        Volumes in a band.
    columns : int
        Voxels in a chunk.
    """

    shape: tuple[int, int]
    dtype: str
    rows: int
    columns: int

    @property
    def bands(self) -> list[tuple[int, int]]:
        """Return the first row of each band and the one after its last."""
        count = self.shape[0]
        return [(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]


def plan_matrix(n_volumes: int, n_voxels: int, dtype: str) -> MatrixLayout:
    """Choose how the matrix is cut; by the data alone, so that results never depend on workers.

    Parameters
    ----------
    n_volumes, n_voxels : int
    dtype : str
        ``"float32"`` or ``"float16"``.

    Returns
    -------
    MatrixLayout
        Chunks of about 1,024 × 2,048 in bands of 32 to 128 MiB.
    """
    row_bytes = n_voxels * np.dtype(dtype).itemsize
    wanted = n_volumes * row_bytes / _BANDS_OF_A_SMALL_MATRIX
    band_bytes = min(max(wanted, _SMALLEST_BAND_BYTES), _LARGEST_BAND_BYTES)
    rows = int(min(_ROWS, max(1, band_bytes // row_bytes)))
    return MatrixLayout(
        shape=(n_volumes, n_voxels),
        dtype=dtype,
        rows=min(rows, n_volumes),
        columns=min(_COLUMNS, n_voxels),
    )


def write_matrix(
    path: str, ensemble: Ensemble, *, mask: np.ndarray, key: str
) -> tuple[list[Any], MatrixLayout]:
    """Plan the writing of the masked voxels of an ensemble; nothing is read yet.

    Parameters
    ----------
    path : str
        Group of its own. Bands that an earlier call with the same `key` finished are kept.
    ensemble : Ensemble
    mask : ndarray, shape (z, y, x)
        Voxels above 0 are kept, and their values as ``voxel_weight``.
    key : str
        Of everything that the matrix depends on.

    Returns
    -------
    tasks : list of dask.delayed.Delayed
        One for each band that is not there yet, to be computed in any order.
    layout : MatrixLayout
    """
    voxels = np.flatnonzero(mask > 0)
    scale = ensemble.dataset.get("scale")
    dtype = "float32" if scale is None else "float16"
    layout = plan_matrix(ensemble.n_volumes, len(voxels), dtype)
    target, fresh = open_bands(path, "matrix", layout, key)
    if fresh:
        group = open_group(path, mode="r+")
        _put(group, "voxel_index", voxels.astype(np.int64))
        _put(group, "voxel_weight", mask.reshape(-1)[voxels].astype(np.float32))
        if scale is not None:
            _put(group, "matrix_scale", np.asarray(scale.values, dtype=np.float32))
        group.attrs["key"] = key  # last: with it, the arrays above are known to be there
    factor = None if scale is None else np.asarray(scale.values, dtype=np.float32)
    index = dask.delayed(voxels, pure=False)  # once in the graph, not once per task
    volume_bytes = ensemble.box**3 * np.dtype(dtype).itemsize
    run = max(_VOLUMES_PER_TASK, _BYTES_PER_TASK // volume_bytes)
    tasks = []
    for number, (start, stop) in enumerate(layout.bands):
        if fresh or not has_chunk(target, number, 0):
            parts = [
                _take(
                    stream(ensemble, rows), index, None if factor is None else factor[rows], dtype
                )
                for rows in _cut(start, stop, run)
            ]
            tasks.append(_write_parts(target, start, parts))
    return tasks, layout


def open_matrix(path: str, *, columns: bool = False) -> xr.Dataset:
    """Open the matrix as lazy arrays, one block per band.

    Parameters
    ----------
    path : str
    columns : bool
        One block per stored chunk instead, narrow in columns: for work that goes through the matrix
        by columns, which would otherwise wait for all bands. A chunk is read without its band.

    Returns
    -------
    xarray.Dataset
        ``matrix`` (volume, voxel), float32 with its scale applied, ``voxel_index`` and
        ``voxel_weight``.
    """
    group = open_group(path)
    stored = open_array(group, "matrix")
    blocks = stored.chunks if columns else stored.shards or stored.chunks
    matrix = da.from_array(
        CheckedArray(stored, path, advice=REMAKE),
        chunks=blocks,
        name=f"matrix-{tokenize(path, group.attrs.get('key'), columns)}",
        inline_array=True,
        asarray=False,
    )
    if "matrix_scale" in group:
        scale = np.asarray(open_array(group, "matrix_scale")[...])
        factor = da.from_array(scale, chunks=blocks[0])
        matrix = matrix.astype(np.float32) * factor[:, None]
    dataset = xr.Dataset(
        {
            "matrix": (("volume", "voxel"), matrix),
            "voxel_index": (("voxel",), np.asarray(open_array(group, "voxel_index")[...])),
            "voxel_weight": (("voxel",), np.asarray(open_array(group, "voxel_weight")[...])),
        }
    )
    check(dataset, RESULTS, what=path)
    return describe(dataset, RESULTS)


def open_bands(path: str, name: str, layout: MatrixLayout, key: str) -> tuple[zarr.Array, bool]:
    """Return the array that bands of rows are written to, and whether it is new.

    Parameters
    ----------
    path : str
        Group of its own; what it holds of another key is withdrawn.
    name : str
        Of the array.
    layout : MatrixLayout
    key : str
        Of what earlier bands must have been made of. Of a new group the caller writes it, as the
        last of all that is known beforehand.
    """
    try:
        group = zarr.open_group(path, mode="r+", zarr_format=3)
        if group.attrs.get("key") == key:
            return open_array(group, name), False
        group.attrs["key"] = None  # killed while it is emptied, it must not pass for what it was
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        pass
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array(
        name,
        shape=layout.shape,
        chunks=(layout.rows, layout.columns),
        shards=(layout.rows, -(-layout.shape[1] // layout.columns) * layout.columns),
        dtype=layout.dtype,
        # Which no band holds: one of zeros is written as any other.
        fill_value=float("nan"),
        compressors=(Crc32cCodec(),),
        dimension_names=RESULTS[name].dims,
        attributes={**RESULTS[name].attributes()},
    )
    return array, True


def write_band(target: zarr.Array, start: int, rows: np.ndarray) -> int:
    """Write a band of rows; its presence is the record that it is finished.

    Parameters
    ----------
    target : zarr.Array
        From `open_bands`.
    start : int
        First row.
    rows : ndarray (row, column)

    Returns
    -------
    int
        How many there are.
    """
    local = LocalShards.of(target)
    if local is None:
        target[start : start + len(rows)] = rows
    else:
        chunk = (target.chunks[0], target.chunks[1])
        local.write((start // chunk[0], 0), cut_columns(rows, chunk, local.dtype))
    return len(rows)


def into_box(values: np.ndarray, voxels: np.ndarray, box: int) -> np.ndarray:
    """Put the values of masked voxels back into their box.

    Parameters
    ----------
    values : ndarray, shape (voxel,)
    voxels : ndarray of int, shape (voxel,)
        ``voxel_index`` of the matrix.
    box : int

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        0 outside the mask.
    """
    flat = np.zeros(box**3, dtype=np.float32)
    flat[voxels] = values
    return flat.reshape((box,) * 3)


def _cut(start: int, stop: int, run: int) -> list[np.ndarray]:
    return [np.arange(first, min(first + run, stop)) for first in range(start, stop, run)]


@dask.delayed(pure=False)
def _take(
    volumes: Iterable[np.ndarray], voxels: np.ndarray, factor: np.ndarray | None, dtype: str
) -> np.ndarray:
    """Return the masked voxels of volumes that come one after another, as they are stored."""
    rows = []
    for row, volume in enumerate(volumes):
        values = volume.reshape(-1)[voxels]
        rows.append((values if factor is None else values / factor[row]).astype(dtype, copy=False))
    return np.stack(rows)


@dask.delayed(pure=False)
def _write_parts(target: zarr.Array, start: int, parts: list[np.ndarray]) -> int:
    return write_band(target, start, np.concatenate(parts))


def _put(group: zarr.Group, name: str, values: np.ndarray) -> None:
    variable = RESULTS[name]
    put_array(group, name, values, variable.dims, attributes=variable.attributes())
