"""MRC and CCP4 density maps: headers believed as far as the file bears them out.

The layout is MRC2014 (Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002); field names are those of
`mrcfile`, whose header dtype is used. Reading is by hand: it is several times faster than opening
an `mrcfile` object, it does not warn about the machine stamps that cryoDRGN and others write, and
it checks the header against the size of the file first.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc_write import (
    DTYPE_OF_MODE,
    FIRST_VOLUME_STACK_GROUP,
    HEADER_BYTES,
    LITTLE,
    write_map,
    write_stack,
)

__all__ = ["MapHeader", "read_header", "read_volume", "read_volumes", "write_map", "write_stack"]

BIG = ">"
_HEADER = {order: HEADER_DTYPE.newbyteorder(order) for order in (LITTLE, BIG)}
_UNUSABLE_MODES = {
    3: "complex integers, a Fourier transform",
    4: "complex numbers, a Fourier transform",
    101: "4-bit integers, raw camera frames",
}
# Strictly below 2^16: a dimension read in the wrong byte order is never below it.
_MAX_SIDE = 2**16 - 1
_STAMP = {b"\x44\x44": LITTLE, b"\x44\x41": LITTLE, b"\x11\x11": BIG}
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2"}
# What opening, unpacking and reading raise on a faulty file; ValueError is for a NUL in the name.
_READ_ERRORS = (OSError, EOFError, zlib.error, ValueError, MemoryError)
_MAX_GZIP_RATIO = 1100  # deflate cannot do better than 1032:1
_MAX_ANISOTROPY = 1.01


@dataclass(frozen=True, slots=True)
class MapHeader:
    """What is needed of a map's header to judge and to read it.

    Attributes
    ----------
    path : str
        The file, as it was given.
    shape : tuple of int
        Voxels of one volume along z, y and x.
    n_volumes : int
        1, or the volumes of a stack.
    dtype : numpy.dtype
        Of the file, byte order included.
    offset : int
        Byte at which the first volume starts (in the uncompressed stream).
    voxel_size_angstrom : float or None
        One edge in Å; None where the header says 0, 1 (both are what programs write when they do
        not know) or differs by more than 1% between axes.
    voxel_sizes_angstrom : tuple of float or None
        The edges along x, y and z in Å as the header states them; None where it states none.
    origin_angstrom : tuple of float
        x, y and z of the first voxel in Å.
    compression : str or None
        ``"gzip"`` or ``"bzip2"``, told by the content and not by the name.
    nbytes : int
        Size of the file.
    axis_order : tuple of int
        File axes (section, row, column) that are z, y and x.
    """

    path: str
    shape: tuple[int, int, int]
    n_volumes: int
    dtype: np.dtype[Any]
    offset: int
    voxel_size_angstrom: float | None
    voxel_sizes_angstrom: tuple[float, float, float] | None
    origin_angstrom: tuple[float, float, float]
    compression: str | None
    nbytes: int
    axis_order: tuple[int, int, int] = (0, 1, 2)

    @property
    def is_cubic(self) -> bool:
        """Whether the three sides have the same number of voxels."""
        return len(set(self.shape)) == 1

    @property
    def is_anisotropic(self) -> bool:
        """Whether the header states voxel edges that differ by more than 1%."""
        sizes = self.voxel_sizes_angstrom
        return sizes is not None and max(sizes) > _MAX_ANISOTROPY * min(sizes)


def read_header(path: str | Path, *, as_stack: bool = False) -> MapHeader:
    """Read and check the header of one map.

    Parameters
    ----------
    path : str or Path
        ``.mrc``, ``.map`` or ``.ccp4``, plain or compressed by gzip or bzip2.
    as_stack : bool
        Take an n·k × n × n file for k cubes of n, even if its header does not call itself a stack
        of volumes. A header that says stack of images (space group 0 and mz = 1) is not split.

    Returns
    -------
    MapHeader

    Raises
    ------
    InputError
        When the file is absent, shorter than a header or than its header says, not MRC in either
        byte order, of complex or 4-bit values, or has axes that are not x, y, z in some order.
    """
    name = str(path)
    try:
        raw, compression, nbytes = _read_head(name)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except _READ_ERRORS as error:
        raise InputError(f"{name}: cannot be read ({_reason(error)})") from None
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{name}: {len(raw)} bytes are too few for an MRC header of {HEADER_BYTES}; "
            "the file is empty or cut short"
        )
    fields = _decode(raw, name)
    dtype = _dtype_of(fields, name)
    n_volumes, file_shape = _split_stack(fields, as_stack=as_stack)
    axis_order = _axis_order(fields, name)
    data_bytes = n_volumes * math.prod(file_shape) * dtype.itemsize
    offset = _data_offset(int(fields["nsymbt"]), data_bytes, compression, nbytes, name)
    sizes = _voxel_sizes(fields)
    return MapHeader(
        path=name,
        shape=cast(tuple[int, int, int], tuple(file_shape[axis] for axis in axis_order)),
        n_volumes=n_volumes,
        dtype=dtype,
        offset=offset,
        voxel_size_angstrom=_one_voxel_size(sizes),
        voxel_sizes_angstrom=sizes,
        origin_angstrom=_origin(fields, sizes, axis_order),
        compression=compression,
        nbytes=nbytes,
        axis_order=axis_order,
    )


def read_volume(header: MapHeader, index: int = 0) -> np.ndarray:
    """Read one volume.

    Parameters
    ----------
    header : MapHeader
        From `read_header`.
    index : int
        Which volume of a stack, from 0.

    Returns
    -------
    ndarray
        float32, ``z × y × x``, C order, native byte order.

    Raises
    ------
    InputError
        When the file has become unreadable or ends early, or holds no volume of that index.
    """
    return read_volumes(header, [index])[0]


def read_volumes(
    header: MapHeader, indices: Sequence[int], *, out: np.ndarray | None = None
) -> np.ndarray:
    """Read volumes of a stack; a compressed one is unpacked once, if the indices ascend.

    Parameters
    ----------
    header : MapHeader
        From `read_header`.
    indices : sequence of int
        Volumes to read, from 0.
    out : ndarray of float32, ``volume × z × y × x``, optional
        Where to read them to: memory that is used again costs nothing to get.

    Returns
    -------
    ndarray
        float32, ``volume × z × y × x``, C order, native byte order; `out` where it is given.

    Raises
    ------
    InputError
        When the file has become unreadable or ends early, or holds no volume of some index.
    """
    for index in indices:
        if not 0 <= index < header.n_volumes:
            raise InputError(
                f"{header.path}: volume {index} was asked for, the file holds {header.n_volumes} "
                "(counted from 0)"
            )
    volume_bytes = math.prod(header.shape) * header.dtype.itemsize
    try:
        volumes = np.empty((len(indices), *header.shape), np.float32) if out is None else out
        with _open(header.path, header.compression) as stream:
            for volume, index in zip(volumes, indices, strict=True):
                stream.seek(header.offset + index * volume_bytes)
                _fill(volume, stream, header)
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise InputError(f"{header.path}: cannot be read ({_reason(error)})") from None
    return volumes


def _reason(error: BaseException) -> str:
    """Say in a few words what the operating system or a codec complained of."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _open(path: str, compression: str | None) -> IO[bytes]:
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if compression == "bzip2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    # Unbuffered: a volume is read by one call, straight into its array.
    return cast(IO[bytes], open(path, "rb", buffering=0))  # noqa: PTH123


def _read_head(path: str) -> tuple[bytes, str | None, int]:
    """Return the first 1,024 uncompressed bytes, the compression, and the size of the file."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        raw = file.read(HEADER_BYTES) or b""
        nbytes = file.seek(0, 2)
    compression = _MAGIC.get(raw[:3])
    if compression is not None:
        with _open(path, compression) as stream:
            raw = stream.read(HEADER_BYTES)
    return raw, compression, nbytes


def _decode(raw: bytes, name: str) -> np.void:
    """Pick the byte order by which dimensions and mode make sense; the stamp only breaks ties."""
    preferred = _STAMP.get(raw[212:214], LITTLE)
    orders = (preferred, BIG if preferred == LITTLE else LITTLE)
    decoded = [np.frombuffer(raw, _HEADER[order], count=1)[0] for order in orders]
    for fields in decoded:
        mode = int(fields["mode"])
        sides = int(fields["nx"]), int(fields["ny"])
        if (
            (mode in DTYPE_OF_MODE or mode in _UNUSABLE_MODES)
            and all(0 < side <= _MAX_SIDE for side in sides)
            and fields["nz"] > 0
        ):
            return cast(np.void, fields)
    first = decoded[0]
    raise InputError(
        f"{name}: not an MRC map; its header reads {first['nx']} × {first['ny']} × {first['nz']} "
        f"voxels of mode {first['mode']}, and makes no sense in the other byte order either"
    )


def _dtype_of(fields: np.void, name: str) -> np.dtype[Any]:
    mode = int(fields["mode"])
    if mode in _UNUSABLE_MODES:
        raise InputError(
            f"{name}: holds {_UNUSABLE_MODES[mode]} (mode {mode}); a density map of real values "
            f"is needed (modes {', '.join(map(str, DTYPE_OF_MODE))})"
        )
    order = fields.dtype["nx"].byteorder
    return np.dtype(DTYPE_OF_MODE[mode]).newbyteorder(order)


def _split_stack(fields: np.void, *, as_stack: bool) -> tuple[int, tuple[int, int, int]]:
    """Return the number of volumes and the file's shape (sections, rows, columns) of one."""
    nx, ny, nz = (int(fields[key]) for key in ("nx", "ny", "nz"))
    mx, my, mz = (int(fields[key]) for key in ("mx", "my", "mz"))
    group = int(fields["ispg"])
    says_stack = group >= FIRST_VOLUME_STACK_GROUP or mx == my == mz == nx == ny
    if says_stack and 1 < mz < nz and nz % mz == 0:
        return nz // mz, (mz, ny, nx)
    is_image_stack = group == 0 and mz == 1
    if as_stack and nx == ny and nz > nx and nz % nx == 0 and not is_image_stack:
        return nz // nx, (nx, ny, nx)
    return 1, (nz, ny, nx)


def _axis_order(fields: np.void, name: str) -> tuple[int, int, int]:
    axes = [int(fields[key]) for key in ("maps", "mapr", "mapc")]
    if axes == [0, 0, 0]:  # older programs leave them empty
        return (0, 1, 2)
    if sorted(axes) != [1, 2, 3]:
        raise InputError(
            f"{name}: columns, rows and sections are axes {axes[2]}, {axes[1]}, {axes[0]} by its "
            "header; expected 1, 2, 3 (x, y, z) in some order"
        )
    return axes.index(3), axes.index(2), axes.index(1)


def _data_offset(
    nsymbt: int, data_bytes: int, compression: str | None, nbytes: int, name: str
) -> int:
    """Return where the data start, and refuse a file that is too short for them."""
    if compression is not None:
        # The unpacked length is known only after unpacking; absurd claims are refused already.
        if nsymbt < 0 or (compression == "gzip" and data_bytes > nbytes * _MAX_GZIP_RATIO):
            raise InputError(
                f"{name}: its header speaks of {data_bytes:,} bytes of data, which {nbytes:,} "
                "compressed bytes cannot hold"
            )
        return HEADER_BYTES + nsymbt
    if nsymbt >= 0 and HEADER_BYTES + nsymbt + data_bytes <= nbytes:
        return HEADER_BYTES + nsymbt
    if HEADER_BYTES + data_bytes == nbytes:
        return HEADER_BYTES  # the extended header that nsymbt speaks of was never written
    if nsymbt < 0:
        raise InputError(f"{name}: its header gives {nsymbt} bytes for the extended header")
    raise InputError(
        f"{name}: cut short; its header speaks of {HEADER_BYTES + nsymbt + data_bytes:,} bytes, "
        f"the file has {nbytes:,}"
    )


def _voxel_sizes(fields: np.void) -> tuple[float, float, float] | None:
    """Return cella / m along x, y, z; never cella / n, as a map may be cut from its cell."""
    sizes = []
    for axis, intervals in zip("xyz", ("mx", "my", "mz"), strict=True):
        cell, count = float(fields["cella"][axis]), int(fields[intervals])
        # Six decimals are beyond any calibration, and undo the rounding of float32.
        size = round(cell / count, 6) if count > 0 and 0 < cell < np.inf else 0.0
        sizes.append(size)
    return None if min(sizes) <= 0 else (sizes[0], sizes[1], sizes[2])


def _one_voxel_size(sizes: tuple[float, float, float] | None) -> float | None:
    if sizes is None or max(sizes) > _MAX_ANISOTROPY * min(sizes) or set(sizes) == {1.0}:
        return None
    return sizes[0] if len(set(sizes)) == 1 else round(sum(sizes) / 3, 6)


def _origin(
    fields: np.void,
    sizes: tuple[float, float, float] | None,
    axis_order: tuple[int, int, int],
) -> tuple[float, float, float]:
    """Return ORIGIN (Å, MRC2000 and later), or nxstart × voxel size where it is zero."""
    origin = [float(fields["origin"][axis]) for axis in "xyz"]
    if bytes(fields["map"])[:3] == b"MAP" and any(origin) and np.isfinite(origin).all():
        return round(origin[0], 6), round(origin[1], 6), round(origin[2], 6)
    starts = [int(fields[key]) for key in ("nzstart", "nystart", "nxstart")]
    z, y, x = (starts[axis] for axis in axis_order)
    edges = sizes or (1.0, 1.0, 1.0)
    return x * edges[0], y * edges[1], z * edges[2]


def _fill(volume: np.ndarray, stream: IO[bytes], header: MapHeader) -> None:
    """Read one volume at the stream's position into ``volume`` (float32, z × y × x)."""
    direct = header.axis_order == (0, 1, 2) and header.dtype == np.dtype("=f4")
    if direct:
        target = volume
    else:
        file_shape = [0, 0, 0]
        for side, axis in zip(header.shape, header.axis_order, strict=True):
            file_shape[axis] = side
        target = np.empty(file_shape, header.dtype)
    view = target.reshape(-1).view(np.uint8)
    filled = 0
    while filled < target.nbytes:
        count = cast(Any, stream).readinto(view[filled:])
        if not count:
            raise InputError(
                f"{header.path}: cut short; a volume of {target.nbytes:,} bytes ends after "
                f"{filled:,}"
            )
        filled += count
    if not direct:
        volume[...] = target.transpose(header.axis_order)
