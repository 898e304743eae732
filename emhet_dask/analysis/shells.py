"""Fourier shells: maps as rows whose inner products are Fourier shell correlations.

Shells are numbered as in RELION: a coefficient at ``k`` (in units of one over the extent of the
box) belongs to shell ``round(|k|)``. Sums are over the whole sphere, where RELION counts each
coefficient of the half transform once and so gives the plane ``x = 0`` twice its weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from emhet_dask.errors import InputError

__all__ = ["Shells", "crossing", "crossing_step", "plan_shells", "shell_matrix", "shell_rows"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shells:
    """The Fourier coefficients of a cubic box up to a resolution, sorted by shell.

    Attributes
    ----------
    box : int
    voxel_size_angstrom : float
    position : array of int (coefficient,)
        In the flattened half transform (`numpy.fft.rfftn`).
    weight : array of float32 (coefficient,)
        √2 where a coefficient stands for its Hermitian mate too, 1 otherwise.
    offset : array of int (shell + 1,)
        First column of shells 1, 2, …, and the one after the last; a coefficient has two columns,
        its real and its imaginary part.
    """

    box: int
    voxel_size_angstrom: float
    position: NDArray[np.int64]
    weight: Float32
    offset: NDArray[np.int64]

    @property
    def n_shells(self) -> int:
        """Return the number of shells; the first is shell 1."""
        return len(self.offset) - 1

    @property
    def n_columns(self) -> int:
        """Return the number of columns of a row."""
        return int(self.offset[-1])

    @property
    def extent_angstrom(self) -> float:
        """Return the side of the box, which is the resolution of shell 1, in Å."""
        return self.box * self.voxel_size_angstrom

    @property
    def finest_angstrom(self) -> float:
        """Return the resolution of the last shell in Å."""
        return self.extent_angstrom / self.n_shells


def plan_shells(
    shape: tuple[int, ...],
    *,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
) -> Shells:
    """Find the coefficients of shells 1 to the last at or coarser than a resolution.

    Parameters
    ----------
    shape : (z, y, x)
    voxel_size_angstrom : float
    resolution_angstrom : float, optional
        Default, and finest: Nyquist.

    Returns
    -------
    Shells

    Raises
    ------
    InputError
        When the box is not cubic, or the resolution is coarser than the box is wide.
    """
    box = int(shape[-1])
    if len(shape) != 3 or set(shape) != {box} or box < 2:
        raise InputError(f"Fourier shells need a cubic box, found {tuple(shape)}")
    last = box // 2
    if resolution_angstrom is not None:
        # What is meant as the resolution of a shell should not fall short of it by rounding.
        last = min(last, int(box * voxel_size_angstrom / resolution_angstrom * (1 + 1e-9)))
    if last < 1:
        raise InputError(
            f"resolution {resolution_angstrom} Å is coarser than the box is wide; "
            f"at most {box * voxel_size_angstrom:g} Å is possible"
        )
    full, half = fft.fftfreq(box, 1 / box), fft.rfftfreq(box, 1 / box)
    radius = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    shell = np.rint(radius).astype(np.int64).reshape(-1)
    inside = np.flatnonzero((shell >= 1) & (shell <= last))
    position = inside[np.argsort(shell[inside], kind="stable")]
    counts = np.bincount(shell[position], minlength=last + 1)[1:]
    column = position % len(half)
    alone = (column == 0) | (2 * column == box)
    return Shells(
        box=box,
        voxel_size_angstrom=float(voxel_size_angstrom),
        position=position,
        weight=np.where(alone, 1.0, np.sqrt(2.0)).astype(np.float32),
        offset=np.concatenate([[0], 2 * np.cumsum(counts)]),
    )


def shell_rows(volumes: Iterable[ArrayLike], mask: ArrayLike | None, shells: Shells) -> Float32:
    """Turn maps into rows: each shell of each row has unit length.

    The inner product of two rows over the columns of a shell is their FSC in it: the sum of
    ``Re(F conj(G))`` over the root of the product of both powers (Harauz & van Heel 1986).

    Parameters
    ----------
    volumes : iterable of arrays (z, y, x)
    mask : array (z, y, x), optional
        Multiplies each map.
    shells : Shells

    Returns
    -------
    ndarray of float32 (volume, column)
        Zeros for a map that is constant inside the mask, and in a shell without power: a shell of
        which nothing is known has FSC 0.
    """
    factor = None if mask is None else np.asarray(mask, dtype=np.float32)
    inside = ... if factor is None else factor > 0
    rows = []
    for volume in volumes:
        density = np.asarray(volume, dtype=np.float32)
        within = density[inside]
        if within.size == 0 or within.min() == within.max():
            rows.append(np.zeros(shells.n_columns, dtype=np.float32))
            continue
        spectrum = fft.rfftn(density if factor is None else density * factor)
        chosen = spectrum.reshape(-1)[shells.position] * shells.weight
        row = np.ascontiguousarray(chosen, dtype=np.complex64).view(np.float32)
        power = np.add.reduceat(np.square(row, dtype=np.float64), shells.offset[:-1])
        scale = np.divide(1.0, np.sqrt(power), out=np.zeros_like(power), where=power > 0)
        rows.append((row * np.repeat(scale, np.diff(shells.offset))).astype(np.float32))
    return np.stack(rows) if rows else np.empty((0, shells.n_columns), dtype=np.float32)


def shell_matrix(
    volumes: Any,
    *,
    mask: ArrayLike | None = None,
    voxel_size_angstrom: float,
    resolution_angstrom: float | None = None,
) -> tuple[xr.DataArray, Shells]:
    """Turn maps into a lazy matrix of rows whose inner products are FSCs.

    Parameters
    ----------
    volumes : array (volume, z, y, x)
        Dask, NumPy or labelled.
    mask : array (z, y, x), optional
    voxel_size_angstrom : float
    resolution_angstrom : float, optional
        Of the last shell; default Nyquist.

    Returns
    -------
    rows : xarray.DataArray (volume, column), float32
    shells : Shells

    Raises
    ------
    InputError
        When the box is not cubic, the mask has another shape, or the resolution is too coarse.
    """
    data = getattr(volumes, "data", volumes) if hasattr(volumes, "dims") else volumes
    if not isinstance(data, da.Array):
        data = da.from_array(np.asarray(data), chunks=(64, -1, -1, -1), name=False)
    shells = plan_shells(
        data.shape[1:],
        voxel_size_angstrom=voxel_size_angstrom,
        resolution_angstrom=resolution_angstrom,
    )
    if mask is not None and np.shape(mask) != data.shape[1:]:
        raise InputError(f"the mask has shape {np.shape(mask)}, the maps {data.shape[1:]}")
    rows = data.rechunk({1: -1, 2: -1, 3: -1}).map_blocks(
        shell_rows,
        None if mask is None else np.asarray(mask, dtype=np.float32),
        shells,
        drop_axis=(2, 3),
        chunks=(data.chunks[0], (shells.n_columns,)),
        dtype=np.float32,
        meta=np.empty((0, 0), dtype=np.float32),
    )
    return xr.DataArray(rows, dims=("volume", "column")), shells


def crossing_step(
    reached: Float32, previous: Float32, current: Float32, *, shell: int, threshold: float
) -> None:
    """Note, in place, where the FSC falls below a threshold between two shells.

    Parameters
    ----------
    reached : array of float32
        Shell, as a fraction, at which it fell; NaN where it has not.
    previous, current : arrays of float32
        FSC of shell ``shell - 1``, and of `shell`.
    shell : int
    threshold : float
    """
    falls = (current < threshold) & np.isnan(reached)
    if shell == 1:
        reached[falls] = 1.0
        return
    above, below = previous[falls], current[falls]
    reached[falls] = (shell - 1) + (above - threshold) / (above - below)


def crossing(fsc: ArrayLike, *, threshold: float, extent_angstrom: float) -> Float32:
    """Return the resolution in Å at which FSCs first fall below a threshold.

    Parameters
    ----------
    fsc : array (..., shell)
        Of shells 1, 2, ….
    threshold : float
    extent_angstrom : float
        Side of the box.

    Returns
    -------
    array of float32 (...)
        By linear interpolation between shells, in frequency; the resolution of shell 1 where that
        is below, of the last shell where none is.
    """
    curves = np.moveaxis(np.asarray(fsc, dtype=np.float32), -1, 0)
    reached = np.full(curves.shape[1:], np.nan, dtype=np.float32)
    for number, current in enumerate(curves, start=1):
        previous = curves[max(number - 2, 0)]
        crossing_step(reached, previous, current, shell=number, threshold=threshold)
    reached[np.isnan(reached)] = len(curves)
    return np.asarray(extent_angstrom / reached, dtype=np.float32)
