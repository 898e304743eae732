"""The matrix (volume × voxel) of the voxels inside one mask, written once and streamed ever after.

It is 10 to 50 times smaller than the volumes. Landscape reads rows, blocks read columns, so that
chunks are two-dimensional; a shard is a band of rows over all columns, written once by one task,
and its presence is the record that it is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from emhet_dask.ensemble.ensemble import Ensemble
from emhet_dask.ensemble.store import open_array, open_group, put_array
from emhet_dask.variables import RESULTS, check, describe

__all__ = ["MatrixLayout", "open_matrix", "plan_matrix", "write_matrix"]

_COLUMNS = 2048
_ROWS = 1024
_SMALLEST_BAND_BYTES = 32 << 20
_LARGEST_BAND_BYTES = 128 << 20
_BANDS_OF_A_SMALL_MATRIX = 32


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

    @property
    def band_bytes(self) -> int:
        """Return the size of a full band."""
        return min(self.rows, self.shape[0]) * self.shape[1] * np.dtype(self.dtype).itemsize


def plan_matrix(n_volumes: int, n_voxels: int, dtype: str, *, align: int = 1) -> MatrixLayout:
    """Choose how the matrix is cut; by the data alone, so that results never depend on workers.

    Parameters
    ----------
    n_volumes, n_voxels : int
    dtype : str
        ``"float32"`` or ``"float16"``.
    align : int
        Volumes per shard of the ensemble; bands hold a whole number of them where they can.

    Returns
    -------
    MatrixLayout
        Chunks of about 1,024 × 2,048 in bands of 32 to 128 MiB.
    """
    row_bytes = n_voxels * np.dtype(dtype).itemsize
    wanted = n_volumes * row_bytes / _BANDS_OF_A_SMALL_MATRIX
    band_bytes = min(max(wanted, _SMALLEST_BAND_BYTES), _LARGEST_BAND_BYTES)
    rows = int(min(_ROWS, max(1, band_bytes // row_bytes)))
    if rows > align:
        rows -= rows % align
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
    layout = plan_matrix(
        ensemble.n_volumes,
        len(voxels),
        "float32" if scale is None else "float16",
        align=ensemble.volumes.chunks[0][0],
    )
    target, fresh = _target(path, layout, key)
    if fresh:
        group = open_group(path, mode="r+")
        _put(group, "voxel_index", voxels.astype(np.int64))
        _put(group, "voxel_weight", mask.reshape(-1)[voxels].astype(np.float32))
        if scale is not None:
            _put(group, "matrix_scale", np.asarray(scale.values, dtype=np.float32))
        group.attrs["key"] = key  # last: with it, the arrays above are known to be there
    flat = ensemble.volumes.map_blocks(
        _take,  # type: ignore[arg-type]
        voxels,
        dtype=np.float32,
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(ensemble.volumes.chunks[0], (len(voxels),)),
    )
    if scale is not None:
        factor = da.from_array(np.asarray(scale.values, np.float32), chunks=(flat.chunks[0],))
        flat = (flat / factor[:, None]).astype(np.float16)
    tasks = [
        _write_band(target, start, flat[start:stop])
        for number, (start, stop) in enumerate(layout.bands)
        if fresh or not _has_band(target, number)
    ]
    return tasks, layout


def open_matrix(path: str) -> xr.Dataset:
    """Open the matrix as lazy arrays, one block per band.

    Parameters
    ----------
    path : str

    Returns
    -------
    xarray.Dataset
        ``matrix`` (volume, voxel), float32 with its scale applied, ``voxel_index`` and
        ``voxel_weight``.
    """
    group = open_group(path)
    stored = open_array(group, "matrix")
    band = stored.shards or stored.chunks
    matrix = da.from_array(stored, chunks=band, name=None, inline_array=True)
    if "matrix_scale" in group:
        scale = np.asarray(open_array(group, "matrix_scale")[...])
        factor = da.from_array(scale, chunks=band[0])
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


def _take(volumes: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return volumes.reshape(len(volumes), -1)[:, voxels]


@dask.delayed(pure=False)
def _write_band(target: zarr.Array, start: int, rows: Any) -> int:
    target[start : start + len(rows)] = rows
    return len(rows)


def _target(path: str, layout: MatrixLayout, key: str) -> tuple[zarr.Array, bool]:
    """Return the array to write into, and whether it is new."""
    try:
        group = zarr.open_group(path, mode="r+", zarr_format=3)
        if group.attrs.get("key") == key:
            return open_array(group, "matrix"), False
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        pass
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array(
        "matrix",
        shape=layout.shape,
        chunks=(layout.rows, layout.columns),
        shards=(layout.rows, -(-layout.shape[1] // layout.columns) * layout.columns),
        dtype=layout.dtype,
        compressors=(Crc32cCodec(),),
        dimension_names=RESULTS["matrix"].dims,
        attributes={**RESULTS["matrix"].attributes()},
        config={"write_empty_chunks": True},
    )
    return array, True


def _put(group: zarr.Group, name: str, values: np.ndarray) -> None:
    variable = RESULTS[name]
    put_array(group, name, values, variable.dims, attributes=variable.attributes())


def _has_band(target: zarr.Array, number: int) -> bool:
    key = f"{target.store_path.path}/c/{number}/0".lstrip("/")
    return zarr.core.sync.sync(target.store_path.store.exists(key))
