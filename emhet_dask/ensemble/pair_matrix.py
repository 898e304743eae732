"""Reading the store of all pairs: nearest rows, the histogram, and the matrix where it is kept.

The matrix is stored above its diagonal alone; it is read as if it were whole.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr

from emhet_dask.ensemble.checked import REMAKE, CheckedArray
from emhet_dask.ensemble.store import open_array
from emhet_dask.ensemble.triangle import Triangle, finished_group
from emhet_dask.errors import InputError
from emhet_dask.variables import RESULTS, check, describe

__all__ = ["condensed", "open_pairs", "read_rows"]

# Rows that are read at a time, where pairs are put in one row.
_ROWS = 1024


def open_pairs(path: str) -> xr.Dataset:
    """Open a finished store of pairs.

    Parameters
    ----------
    path : str

    Returns
    -------
    xarray.Dataset
        ``neighbour`` and ``neighbour_similarity`` (volume, rank), ``histogram`` (bin),
        ``histogram_edges`` (edge), ``undefined`` (volume) and, where all was kept, ``similarity``
        (volume, volume_b), lazy and symmetric. Attribute ``metric``.

    Raises
    ------
    InputError
        When there is none, or it is not finished.
    """
    group = finished_group(path)
    small = ("neighbour", "neighbour_similarity", "histogram", "histogram_edges", "undefined")
    dataset = xr.Dataset(
        {name: (RESULTS[name].dims, np.asarray(open_array(group, name)[...])) for name in small},
        attrs={"metric": str(group.attrs["metric"])},
    )
    if "similarity" in group:
        dataset["similarity"] = (RESULTS["similarity"].dims, _symmetric(group, path))
    check(dataset, RESULTS, what=path)
    return describe(dataset, RESULTS)


def read_rows(path: str, start: int, stop: int) -> np.ndarray:
    """Read whole rows of the matrix.

    Parameters
    ----------
    path : str
        A finished store that keeps all.
    start, stop : int

    Returns
    -------
    ndarray of float32 (stop - start, volume)

    Raises
    ------
    InputError
        When the store is not finished or keeps neighbours alone.
    """
    group = finished_group(path)
    stored = CheckedArray(_matrix(group, path), path, advice=REMAKE)
    triangle = _triangle(group)
    rows = np.empty((stop - start, triangle.n_rows), dtype=np.float32)
    for span in triangle.bands:
        first, last = max(start, span.start), min(stop, span.stop)
        if first < last:
            part = rows[first - start : last - start]
            part[:, span.start :] = stored[first:last, span.start :]
            if span.start:
                part[:, : span.start] = np.asarray(stored[: span.start, first:last]).T
    return rows


def condensed(path: str, *, dtype: Any = np.float32) -> np.ndarray:
    """Read all pairs, each once, in SciPy's condensed order.

    Parameters
    ----------
    path : str
        A finished store that keeps all.
    dtype : optional
        Of the result, which is n (n − 1) / 2 long.

    Returns
    -------
    ndarray (pair,)

    Raises
    ------
    InputError
        When the store is not finished or keeps neighbours alone.
    """
    group = finished_group(path)
    array = _matrix(group, path)
    stored = CheckedArray(array, path, advice=REMAKE)
    n = array.shape[0]
    pairs = np.empty(n * (n - 1) // 2, dtype=dtype)
    position = 0
    step = min(array.chunks[0], _ROWS)
    for start in range(0, n, step):
        rows = np.asarray(stored[start : start + step, start:])
        for row in range(len(rows)):
            right = rows[row, row + 1 :]
            pairs[position : position + len(right)] = right
            position += len(right)
    return pairs


def _matrix(group: zarr.Group, path: str) -> zarr.Array:
    if "similarity" not in group:
        raise InputError(f"{path}: keeps nearest neighbours alone, not the matrix of all pairs")
    return open_array(group, "similarity")


def _triangle(group: zarr.Group) -> Triangle:
    return Triangle(int(str(group.attrs["n_rows"])), int(str(group.attrs["side"])))


def _symmetric(group: zarr.Group, path: str) -> da.Array:
    """Return the whole matrix, lazy; blocks below the diagonal are transposes of those above."""
    triangle = _triangle(group)
    checked = CheckedArray(open_array(group, "similarity"), path, advice=REMAKE)
    stored = da.from_array(checked, chunks=(triangle.side,) * 2, inline_array=True, asarray=False)
    count = range(len(triangle.bands))
    return da.block(
        [[stored.blocks[i, j] if i <= j else stored.blocks[j, i].T for j in count] for i in count]
    )
