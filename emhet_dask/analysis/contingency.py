"""In how many volumes both voxels of a pair are occupied, exactly, in tiles of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.binarised import Packed

__all__ = [
    "SIDE",
    "STRIP_BYTES",
    "Read",
    "Tile",
    "Voxels",
    "contingency_tiles",
    "count_together",
    "ends_of",
    "pair_tiles",
]

Bits = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Tile = tuple[slice, slice]
# A band, or any voxels, of which memory is spent on all between the first and the last.
Voxels = slice | NDArray[np.intp]

# Called with voxels and bytes; gives their bits (voxel, byte).
Read = Callable[[slice, slice], Bits]

# Voxels in a band.
SIDE = 2048
# Bytes of a strip, 2,048 volumes: both counts of `_PAIRED` stay below 4,096.
STRIP_BYTES = 256
_PAIRED = np.float32(4096)
# A product of so many voxels and as many others stays in the cache until it is taken apart.
_TILE = 512


def count_together(read: Read, voxels: Voxels, others: Voxels, *, n_bytes: int) -> Float32:
    """Count the volumes in which both voxels of each pair are occupied.

    A float32 holds 24 bits, and a strip of 2,048 volumes needs 12: the product of one voxel and
    4,096 times another with a third holds both counts, for the price of one.

    Parameters
    ----------
    read : callable
        ``read(voxels, bytes)`` gives bits (voxel, byte).
    voxels, others : slice or array of int
        Two bands; the same band twice is a block on the diagonal. Or any voxels.
    n_bytes : int
        Of each voxel.

    Returns
    -------
    ndarray of float32 (voxel, other)
        Whole numbers, exactly.
    """
    counts = np.zeros((_length(voxels), _length(others)), dtype=np.float32)
    same = isinstance(voxels, slice) and isinstance(others, slice) and voxels == others
    for start in range(0, n_bytes, STRIP_BYTES):
        octets = slice(start, min(start + STRIP_BYTES, n_bytes))
        left = _unpack(_read(read, voxels, octets))
        right = left if same else _unpack(_read(read, others, octets))
        _add_counts(counts, left, right, upper=same)
    if same:
        for row in range(0, len(counts), _TILE):
            rows, after = slice(row, row + _TILE), slice(row + _TILE, None)
            counts[after, rows] = counts[rows, after].T
    return counts


def contingency_tiles(
    packed: Packed, *, side: int = SIDE
) -> Iterator[tuple[slice, slice, Float32]]:
    """Count all pairs, tile by tile of the upper triangle; no more than one tile is kept.

    Parameters
    ----------
    packed : Packed
    side : int
        Voxels in a band.

    Yields
    ------
    voxels, others : slice
    counts : ndarray of float32 (voxel, other)
        ``n11``; with the margins *a* and *b*, ``n10 = a − n11``, ``n01 = b − n11`` and
        ``n00 = N − a − b + n11``. Both halves of a tile on the diagonal.
    """
    for voxels, others in pair_tiles(packed.n_voxels, side):
        yield voxels, others, count_together(packed, voxels, others, n_bytes=packed.n_bytes)


def _read(read: Read, voxels: Voxels, octets: slice) -> Bits:
    if isinstance(voxels, slice):
        return read(voxels, octets)
    if not len(voxels):
        return read(slice(0, 0), octets)
    first = int(voxels.min())
    return read(slice(first, int(voxels.max()) + 1), octets)[voxels - first]


def _unpack(bits: Bits) -> Float32:
    return np.unpackbits(bits, axis=1).astype(np.float32)


def _add_counts(counts: Float32, left: Float32, right: Float32, *, upper: bool) -> None:
    """Add the products of a strip, tile by tile; of a block on the diagonal, upper tiles alone."""
    for row in range(0, len(left), _TILE):
        rows = left[row : row + _TILE]
        half = (len(rows) + 1) // 2
        paired = rows[:half].copy()
        paired[: len(rows) - half] += _PAIRED * rows[half:]
        for column in range(row if upper else 0, len(right), _TILE):
            low = paired @ right[column : column + _TILE].T
            high = low * (1 / _PAIRED)
            np.floor(high, out=high)
            tile = counts[row : row + _TILE, column : column + _TILE]
            tile[half:] += high[: len(rows) - half]
            high *= _PAIRED
            low -= high
            tile[:half] += low


def pair_tiles(n_voxels: int, side: int) -> list[Tile]:
    """Return the tiles of the upper triangle of all pairs, in bands of so many voxels."""
    bands = [slice(start, min(start + side, n_voxels)) for start in range(0, n_voxels, side)]
    return [(bands[i], bands[j]) for i in range(len(bands)) for j in range(i, len(bands))]


def ends_of(span: slice) -> tuple[int, int]:
    """Return where a band begins and ends, which can be a key where a slice cannot."""
    return span.start, span.stop


def _length(voxels: Voxels) -> int:
    return int(voxels.stop - voxels.start) if isinstance(voxels, slice) else len(voxels)
