"""Writing MRC2014 maps and stacks; `emhet_dask.formats.mrc` reads them and offers both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from emhet_dask.errors import InputError

__all__ = ["write_map", "write_stack"]

HEADER_BYTES = 1024
LITTLE: Literal["<"] = "<"
FIRST_VOLUME_STACK_GROUP = 401
# Mode 0 is signed since MRC2014; 12 is IEEE half.
DTYPE_OF_MODE = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_MODE_OF_DTYPE = {np.dtype(name): mode for mode, name in DTYPE_OF_MODE.items()}


def write_map(
    path: str | Path,
    data: np.ndarray,
    *,
    voxel_size_angstrom: float,
    origin_angstrom: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write one map as MRC2014, little-endian, without a date: equal input gives equal bytes.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    data : array_like
        ``z × y × x``. int8, int16, uint16, float16 and float32 are kept as they are, booleans
        become int8, other integers int16 where they fit, everything else float32.
    voxel_size_angstrom : float
        Edge of a voxel in Å.
    origin_angstrom : sequence of float
        x, y and z of the first voxel in Å.

    Raises
    ------
    InputError
        When the data are not three-dimensional or are complex.
    """
    data = _storable(np.asarray(data), path, ndim=3)
    header = _new_header(data, voxel_size_angstrom, origin_angstrom)
    header["ispg"], header["mz"] = 1, data.shape[0]
    header["cella"]["z"] = data.shape[0] * voxel_size_angstrom
    _write(path, header, data)


def write_stack(
    path: str | Path,
    data: np.ndarray,
    *,
    voxel_size_angstrom: float,
    origin_angstrom: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write volumes into one file as an MRC2014 volume stack (space group 401).

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    data : array_like
        ``volume × z × y × x``; dtypes as in `write_map`.
    voxel_size_angstrom : float
        Edge of a voxel in Å.
    origin_angstrom : sequence of float
        x, y and z of the first voxel in Å.

    Raises
    ------
    InputError
        When the data are not four-dimensional or are complex.
    """
    data = _storable(np.asarray(data), path, ndim=4)
    n_volumes, depth = data.shape[:2]
    data = data.reshape(n_volumes * depth, *data.shape[2:])
    header = _new_header(data, voxel_size_angstrom, origin_angstrom)
    header["ispg"], header["mz"] = FIRST_VOLUME_STACK_GROUP, depth
    header["cella"]["z"] = depth * voxel_size_angstrom
    _write(path, header, data)


def _storable(data: np.ndarray, path: str | Path, *, ndim: int) -> np.ndarray:
    """Return ``data`` contiguous, little-endian and in a dtype that has an MRC mode."""
    if data.ndim != ndim or data.dtype.kind not in "biuf" or data.size == 0:
        raise InputError(
            f"{path}: cannot write an array of shape {data.shape} and dtype {data.dtype} as MRC; "
            f"expected {ndim} dimensions of real numbers"
        )
    if data.dtype.kind == "b":
        data = data.astype(np.int8)
    elif data.dtype.newbyteorder("=") not in _MODE_OF_DTYPE:
        fits = data.dtype.kind in "iu" and data.min() >= -(2**15) and data.max() < 2**15
        data = data.astype(np.int16 if fits else np.float32)
    return np.ascontiguousarray(data, data.dtype.newbyteorder(LITTLE))


def _new_header(
    data: np.ndarray, voxel_size_angstrom: float, origin_angstrom: Sequence[float]
) -> np.ndarray:
    header = np.zeros((), HEADER_DTYPE.newbyteorder(LITTLE))
    header["nz"], header["ny"], header["nx"] = data.shape
    header["my"], header["mx"] = data.shape[1:]
    header["mode"] = _MODE_OF_DTYPE[data.dtype.newbyteorder("=")]
    for axis, side in (("x", data.shape[2]), ("y", data.shape[1])):
        header["cella"][axis] = side * voxel_size_angstrom
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90.0
    for axis, value in zip("xyz", origin_angstrom, strict=True):
        header["origin"][axis] = value
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"] = data.min(), data.max()
    header["dmean"] = data.mean(dtype=np.float64)
    header["rms"] = data.std(dtype=np.float64)
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    header["nlabl"] = 1
    header["label"][0] = b"emhet_dask"
    return header


def _write(path: str | Path, header: np.ndarray, data: np.ndarray) -> None:
    with Path(path).open("wb") as file:
        file.write(header.tobytes())
        data.tofile(file)
