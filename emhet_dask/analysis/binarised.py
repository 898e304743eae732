"""Where maps are occupied: densities above a threshold, as bits along the volumes of each voxel.

N volumes of M voxels are N M / 8 bytes, which many tasks can share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import as_matrix, compute_all, row_bands
from emhet_dask.errors import InputError

__all__ = ["BitRows", "Occupied", "Packed", "count_occupied", "kept_voxels", "occupancy", "pack"]

Bits = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Compute = Callable[..., tuple[Any, ...]]

# float32 holds all whole numbers up to this.
_MOST_VOLUMES = 1 << 24


def occupancy(array: Any, thresholds: ArrayLike) -> da.Array:
    """Tell where the density is above the threshold of its volume.

    Parameters
    ----------
    array : array (volume, voxel)
    thresholds : float or array (volume,)

    Returns
    -------
    dask.array of bool (volume, voxel)

    Raises
    ------
    InputError
        When a threshold is not finite, or there are more or fewer than volumes.
    """
    matrix = as_matrix(array)
    values = np.asarray(thresholds, dtype=np.float64)
    if values.shape not in ((), (matrix.shape[0],)):
        raise InputError(
            f"thresholds: found an array of shape {values.shape}; one number, or one for each of "
            f"the {matrix.shape[0]} volumes, is needed"
        )
    if not np.isfinite(values).all():
        raise InputError("thresholds: some are NaN or infinite; they must be finite numbers")
    # One number too is compared in float64: NumPy would round it to the matrix's float32.
    column = np.broadcast_to(values[..., None], (matrix.shape[0], 1))
    return matrix > da.from_array(column, chunks=(matrix.chunks[0], 1), name=False)


def count_occupied(occupied: Any, *, compute: Compute = dask.compute) -> Int64:
    """Count the volumes in which each voxel is occupied.

    Parameters
    ----------
    occupied : array (volume, voxel)
        Not 0 where occupied; streamed once.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray of int64 (voxel,)
    """
    count = dask.delayed(_count_band, pure=False)
    parts = [count(band.part) for band in row_bands(as_matrix(occupied))]
    return np.asarray(sum(compute_all(compute, parts)))


def kept_voxels(
    margins: ArrayLike, n_volumes: int, *, least_fraction: float = 0.01
) -> NDArray[np.intp]:
    """Choose the voxels that are worth comparing: sometimes occupied, and not always.

    Parameters
    ----------
    margins : array of int (voxel,)
        From `count_occupied`.
    n_volumes : int
    least_fraction : float
        Occupied in more than this share of the volumes.

    Returns
    -------
    ndarray of int (kept,)
        Rising.

    Raises
    ------
    InputError
        When none is left.
    """
    counts = np.asarray(margins)
    often = counts > least_fraction * n_volumes
    kept = np.flatnonzero(often & (counts < n_volumes))
    if not len(kept):
        found = (
            f"{np.count_nonzero(often)} in all {n_volumes} volumes"
            if often.any()
            else f"none in more than {least_fraction:.3g} of the {n_volumes} volumes"
        )
        raise InputError(
            f"the threshold leaves no voxel that is occupied in some volumes and not in others: "
            f"{found}; a {'higher' if often.any() else 'lower'} threshold is needed"
        )
    return kept


class BitRows(Protocol):
    """Bits (voxel, byte) that are read part by part."""

    @property
    def n_bytes(self) -> int:
        """Return the number of bytes of each voxel."""

    def __call__(self, voxels: slice, octets: slice) -> Bits:
        """Return the bits of some voxels and bytes."""


class Occupied(BitRows, Protocol):
    """Occupancy as bits, in memory (`Packed`) or stored."""

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels."""

    @property
    def n_volumes(self) -> int:
        """Return the number of volumes."""

    @property
    def margins(self) -> Int64:
        """Return the number of volumes in which each voxel is occupied."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Occupancy as bits, along the volumes of each voxel.

    Attributes
    ----------
    bits : array of uint8 (voxel, byte)
        Bands of volumes, each filled up with zeros to whole bytes.
    n_volumes : int
    margins : array of int64 (voxel,)
        Volumes in which each voxel is occupied.
    """

    bits: Bits
    n_volumes: int
    margins: Int64

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels."""
        return len(self.bits)

    @property
    def n_bytes(self) -> int:
        """Return the number of bytes of each voxel."""
        return self.bits.shape[1]

    def __call__(self, voxels: slice, octets: slice) -> Bits:
        """Return bits of some voxels and bytes; what `count_together` reads."""
        return self.bits[voxels, octets]


def pack(
    occupied: Any, *, voxels: NDArray[np.intp] | None = None, compute: Compute = dask.compute
) -> Packed:
    """Pack the occupancy of (some) voxels, in one reading.

    Parameters
    ----------
    occupied : array (volume, voxel)
        Not 0 where occupied.
    voxels : array of int, optional
        Those to take, as `kept_voxels` gives them; by default all.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    Packed
        Its memory, volumes × voxels / 8 bytes, is taken twice for a moment.

    Raises
    ------
    InputError
        When there are more than 2²⁴ volumes.
    """
    matrix = as_matrix(occupied)
    if matrix.shape[0] > _MOST_VOLUMES:
        raise InputError(f"{matrix.shape[0]} volumes are too many; at most {_MOST_VOLUMES} can be")
    chosen = None if voxels is None else dask.delayed(np.asarray(voxels), pure=False)
    taken = dask.delayed(_pack_band, pure=False)
    parts = [taken(band.part, chosen) for band in row_bands(matrix)]
    bits = np.concatenate(compute_all(compute, parts), axis=1)
    return Packed(bits, matrix.shape[0], _count_bits(bits))


def _count_band(band: NDArray[Any]) -> Int64:
    return np.asarray(np.count_nonzero(band, axis=0), dtype=np.int64)


def _pack_band(band: NDArray[Any], voxels: NDArray[np.intp] | None) -> Bits:
    chosen = band if voxels is None else band[:, voxels]
    return np.packbits(np.ascontiguousarray((chosen != 0).T), axis=1)


def _count_bits(bits: Bits) -> Int64:
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))
