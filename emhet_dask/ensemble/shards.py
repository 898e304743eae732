"""Shards of stored arrays on a disk, written and read without Zarr in between.

The bytes are those of Zarr's sharding: chunks one after another, each with its crc32c, then an
index of offsets and lengths with a crc32c of its own. Anything that reads Zarr reads them, and this
reads what Zarr wrote. What is saved are its copies of every chunk and the turns of its event loop,
most of the time where nothing is compressed (``docs/performance.md``). Stores that are not on a
disk are left to Zarr.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

__all__ = ["DamagedShardError", "LocalShards", "crc32c", "cut_columns", "gather_rows"]

_CHECKSUM = np.dtype("<u4")
_INDEX = np.dtype("<u8")
_ABSENT = np.iinfo(_INDEX).max

Bounds = Sequence[tuple[int, int]]
Cell = tuple[int, ...]


class DamagedShardError(ValueError):
    """A shard is missing, too short, or has a checksum that is not that of its bytes."""


@dataclass(frozen=True)
class LocalShards:
    """The shards of one uncompressed array on a disk.

    Attributes
    ----------
    folder : str
        Of the array.
    separator : str
        Between the numbers in the name of a shard.
    shape, shards, chunks : tuple of int
        Of the array, of a shard, and of a chunk in it.
    dtype : numpy.dtype
        Little-endian.
    """

    folder: str
    separator: str
    shape: tuple[int, ...]
    shards: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: zarr.Array) -> LocalShards | None:
        """Return the shards of an array, or None where they are not of this kind."""
        if not hasattr(os, "writev"):  # where there is no POSIX
            return None
        metadata, store = array.metadata, array.store
        if not isinstance(metadata, ArrayV3Metadata) or not isinstance(store, LocalStore):
            return None
        named = metadata.chunk_key_encoding
        if array.shards is None or len(metadata.codecs) != 1 or not _is_plain(array):
            return None
        if not isinstance(named, DefaultChunkKeyEncoding):
            return None
        return cls(
            folder=str(Path(store.root) / array.path),
            separator=named.separator,
            shape=array.shape,
            shards=array.shards,
            chunks=array.chunks,
            dtype=array.dtype.newbyteorder("<"),
        )

    def write(self, shard: Cell, chunks: Iterable[NDArray[Any]]) -> None:
        """Write one shard, which appears under its name when it is whole.

        Parameters
        ----------
        shard : tuple of int
            Its number along each axis.
        chunks : iterable of ndarray
            Its chunks, the last axis running fastest; those behind the last one stay absent. None
            is held longer than it takes to write it.
        """
        target = self._path(shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        index = np.full((int(np.prod(self._grid)), 2), _ABSENT, dtype=_INDEX)
        try:
            offset = 0
            with partial.open("xb", buffering=0) as file:
                for slot, chunk in enumerate(chunks):
                    length = _write(file, chunk)
                    index[slot] = offset, length
                    offset += length
                _write(file, index)
            partial.replace(target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
            raise

    def read(self, bounds: Bounds) -> NDArray[Any]:
        """Read a part of the array.

        Parameters
        ----------
        bounds : sequence of (int, int)
            First index and the one after the last, along each axis; axes without are read whole.

        Raises
        ------
        DamagedShardError
            When a shard is missing or too short, or a checksum is wrong.
        """
        region = [*bounds, *((0, size) for size in self.shape[len(bounds) :])]
        found = np.empty([stop - start for start, stop in region], dtype=self.dtype)
        for shard in _cells(region, self.shards):
            path = self._path(shard)
            try:
                with path.open("rb", buffering=0) as file:
                    self._read_shard(file, shard, region, found)
            except OSError as error:  # missing, or shorter than its index
                raise DamagedShardError(f"{self._name(shard)}: {error.strerror}") from error
            except DamagedShardError as error:
                raise DamagedShardError(f"{self._name(shard)}: {error}") from None
        return found

    @property
    def _grid(self) -> Cell:
        return tuple(s // c for s, c in zip(self.shards, self.chunks, strict=True))

    def _name(self, shard: Cell) -> str:
        return self.separator.join(["c", *map(str, shard)])

    def _path(self, shard: Cell) -> Path:
        return Path(self.folder) / self._name(shard)

    def _read_shard(self, file: BinaryIO, shard: Cell, region: Bounds, found: NDArray[Any]) -> None:
        """Copy what a region has of a shard to its place in `found`."""
        index = np.empty((int(np.prod(self._grid)), 2), dtype=_INDEX)
        file.seek(-(index.nbytes + _CHECKSUM.itemsize), os.SEEK_END)
        _read(file, index)
        corner = [number * side for number, side in zip(shard, self.shards, strict=True)]
        inside = [
            (max(start, first) - first, min(stop, first + side) - first)
            for (start, stop), first, side in zip(region, corner, self.shards, strict=True)
        ]
        for cell in _cells(inside, self.chunks):
            offset, length = index[np.ravel_multi_index(cell, self._grid)]
            origin = [
                first + n * side for first, n, side in zip(corner, cell, self.chunks, strict=True)
            ]
            into, taken = _overlap(region, origin, self.chunks)
            part = found[into]
            whole = part.shape == self.chunks and part.flags.c_contiguous
            chunk = part if whole else np.empty(self.chunks, dtype=self.dtype)
            if length != chunk.nbytes + _CHECKSUM.itemsize:
                raise DamagedShardError(f"chunk {'/'.join(map(str, cell))} is missing")
            file.seek(int(offset))
            _read(file, chunk)
            if not whole:
                part[...] = chunk[taken]


def gather_rows(
    rows: Iterable[NDArray[Any]], chunk: Cell, dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Gather rows along the first axis in chunks; the last one is filled up with zeros.

    Parameters
    ----------
    rows : iterable of ndarray
        Each of the shape of a chunk but for its first axis.
    chunk : tuple of int
        Shape.
    dtype : numpy.dtype
        What rows are converted to.
    """
    if chunk[0] == 1:
        for row in rows:
            yield np.ascontiguousarray(row, dtype=dtype)
        return
    gathered = np.zeros(chunk, dtype=dtype)
    filled = 0
    for row in rows:
        gathered[filled] = row
        filled += 1
        if filled == chunk[0]:
            yield gathered
            filled = 0
    if filled:
        gathered[filled:] = 0
        yield gathered


def cut_columns(
    band: NDArray[Any], chunk: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Cut a band of rows, at most as many as a chunk has, in chunks along its columns.

    Parameters
    ----------
    band : ndarray (row, column)
    chunk : (int, int)
        Shape; what a chunk has beyond the band is zero.
    dtype : numpy.dtype
        What is written.
    """
    for start in range(0, band.shape[1], chunk[1]):
        part = band[:, start : start + chunk[1]]
        padded = np.zeros(chunk, dtype=dtype)
        padded[: part.shape[0], : part.shape[1]] = part
        yield padded


def crc32c(values: NDArray[Any]) -> int:
    """Return the checksum of the bytes of a contiguous array.

    The library makes a copy of what may be written, so it is given what may not.
    """
    frozen = values.reshape(-1).view(np.uint8)
    frozen.flags.writeable = False
    return int(google_crc32c.value(frozen))


def _cells(region: Bounds, sides: Cell) -> Iterator[Cell]:
    """Yield the numbers of the cells of a regular grid that a region touches."""
    return product(
        *(
            range(start // side, -(-stop // side) if stop > start else start // side)
            for (start, stop), side in zip(region, sides, strict=True)
        )
    )


def _overlap(
    region: Bounds, origin: Sequence[int], sides: Cell
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where in a region a chunk lies, and which part of the chunk that is."""
    into, taken = [], []
    for (start, stop), first, side in zip(region, origin, sides, strict=True):
        low, high = max(start, first), min(stop, first + side)
        into.append(slice(low - start, high - start))
        taken.append(slice(low - first, high - first))
    return tuple(into), tuple(taken)


def _is_plain(array: zarr.Array) -> bool:
    """Tell whether an array's codec is sharding of little-endian bytes and their crc32c alone."""
    codec: Any = array.metadata.codecs[0]  # type: ignore[union-attr]
    if not isinstance(codec, ShardingCodec):
        return False
    plain = (BytesCodec(endian="little"), Crc32cCodec())
    # Single bytes have no order, which metadata that were read back say.
    bare = (BytesCodec(endian=None), Crc32cCodec())
    inner = tuple(codec.codecs)
    return (
        (inner == plain or (array.dtype.itemsize == 1 and inner == bare))
        and tuple(codec.index_codecs) == plain
        and codec.index_location.value == "end"
    )


def _bytes(values: NDArray[Any]) -> memoryview:
    return memoryview(values.reshape(-1).view(np.uint8).data)


def _write(file: BinaryIO, values: NDArray[Any]) -> int:
    """Write an array and its crc32c; return how many bytes they are."""
    left = [_bytes(values), _bytes(np.array([crc32c(values)], dtype=_CHECKSUM))]
    length = sum(map(len, left))
    while left:  # a file may take less than it is given
        taken = os.writev(file.fileno(), left)
        while left and taken >= len(left[0]):
            taken -= len(left.pop(0))
        if left:
            left[0] = left[0][taken:]
    return length


def _read(file: BinaryIO, into: NDArray[Any]) -> None:
    """Fill a contiguous array, and compare its crc32c with the one behind it."""
    stored = np.empty(1, dtype=_CHECKSUM)
    left = [_bytes(into), _bytes(stored)]
    while left:
        taken = os.readv(file.fileno(), left)
        if not taken and len(left[0]):
            raise DamagedShardError("is shorter than it should be")
        while left and taken >= len(left[0]):
            taken -= len(left.pop(0))
        if left:
            left[0] = left[0][taken:]
    if crc32c(into) != int(stored[0]):
        raise DamagedShardError("a checksum is wrong")
