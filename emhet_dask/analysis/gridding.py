"""From sums of back-projected images to a map: division by the weights, with care for the grid.

Sums of CTF-weighted slices over sums of CTF² and, where there is a prior, over that plus the
prior's weight, are the maximum a posteriori of the map's transform (Scheres 2012, eq. 13). The
weights vary from voxel to voxel as the views happen to fall; Pipe & Menon (1999) iterate the
weights until their convolution with the kernel is flat, as RELION does unless told to skip it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from emhet_dask.analysis.projection import (
    Complex64,
    Float32,
    SliceGrid,
    interpolation_dimming,
)

__all__ = [
    "density_at",
    "density_of",
    "hermitian_sums",
    "shell_mean",
    "soft_sphere",
    "solve_map",
    "transform_at",
]

# RELION's kernel for the iteration of weights: a Kaiser-Bessel blob of so many unpadded voxels.
_BLOB_RADIUS, _BLOB_ALPHA = 1.9, 15.0
_LEAST_CONVOLVED = 1e-6
# No weight counts as less than this part of its shell's mean.
_LEAST_PART = 1e-3
_EDGE_VOXELS = 3.0


def hermitian_sums(data: Complex64, weight: Float32, grid: SliceGrid) -> tuple[Complex64, Float32]:
    """Complete the plane ``x = 0``, of which each slice reaches one half or the other.

    To be done once, when all slices have been added up.

    Parameters
    ----------
    data : ndarray of complex64 (voxel,)
    weight : ndarray of float32 (voxel,)
    grid : SliceGrid

    Returns
    -------
    data, weight
        New arrays.
    """
    cube, heavy = data.reshape(grid.shape).copy(), weight.reshape(grid.shape).copy()
    cube[..., 0] += cube[::-1, ::-1, 0].conj()
    heavy[..., 0] += heavy[::-1, ::-1, 0]
    return cube.reshape(-1), heavy.reshape(-1)


def shell_mean(values: Float32, grid: SliceGrid) -> NDArray[np.float64]:
    """Return the mean of values (voxel,) in each shell, from 0 to the radius."""
    shells = grid.voxel_shell
    sums = np.bincount(shells, weights=values, minlength=grid.radius + 1)[: grid.radius + 1]
    counts = np.bincount(shells, minlength=grid.radius + 1)[: grid.radius + 1]
    return np.asarray(sums / counts)


def solve_map(
    data: Complex64,
    weight: Float32,
    grid: SliceGrid,
    *,
    prior_weight: NDArray[np.floating] | None = None,
    iterations: int = 0,
) -> Float32:
    """Return the map of sums of slices.

    Parameters
    ----------
    data : ndarray of complex64 (voxel,)
        Sums of slices times CTF, over the noise; from `hermitian_sums`.
    weight : ndarray of float32 (voxel,)
        Sums of CTF², over the noise.
    grid : SliceGrid
    prior_weight : array (shell,), optional
        One over the variance that the transform is expected to have in each shell, 0 to the
        radius; added to `weight`.
    iterations : int
        Of the weights: 0 divides by `weight` itself, which is floored at a thousandth of its
        shell's mean; RELION's default is 10. They matter where views are few.

    Returns
    -------
    ndarray of float32 (z, y, x)
        Of the grid's box; beyond the sphere in it, the mean of what was there.
    """
    distance = grid.voxel_radius
    within = distance <= grid.radius
    total = weight
    if prior_weight is not None:
        shell = np.minimum(grid.voxel_shell, grid.radius)
        total = weight + np.asarray(prior_weight, dtype=np.float32)[shell]
    if iterations:
        scale = np.float32(1.0 / max(float(total.max()), 1e-30))
        inverse = _iterated(total * scale, within, grid, iterations) * scale
    else:
        divisor = np.maximum(total, _floor(total, distance, grid))
        inverse = np.divide(1.0, divisor, out=np.zeros_like(divisor), where=within & (divisor > 0))
    density = density_of((data * inverse).astype(np.complex64), grid)
    return density / interpolation_dimming(grid.box, padding=grid.padding)


def _floor(weight: Float32, distance: Float32, grid: SliceGrid) -> Float32:
    """Return a thousandth of the mean weight between each voxel's whole radius and the next."""
    ring = np.minimum(distance.astype(np.int32), grid.radius)
    sums = np.bincount(ring, weights=weight)[: grid.radius]
    means = sums / np.bincount(ring)[: grid.radius]
    return (_LEAST_PART * means).astype(np.float32)[np.minimum(ring, grid.radius - 1)]


def _iterated(
    weight: Float32, within: NDArray[np.bool_], grid: SliceGrid, iterations: int
) -> Float32:
    """Return what data are to be multiplied by, for weights of at most 1."""
    side = fft.next_fast_len(2 * grid.reach + 1, real=True)
    kernel = _blob(side, grid)
    inverse = within.astype(np.float32)
    for _ in range(iterations):
        padded = _to_transform((inverse * weight).reshape(grid.shape), side, grid)
        density = fft.irfftn(padded, s=(side,) * 3, overwrite_x=True)
        density *= kernel
        spectrum = fft.rfftn(density, overwrite_x=True)
        convolved = np.abs(_from_transform(spectrum, grid)).reshape(-1)
        inverse /= np.maximum(convolved, np.float32(_LEAST_CONVOLVED))
    return inverse


def _blob(side: int, grid: SliceGrid) -> Float32:
    """Return the transform of the kernel, 1 in the middle, for a padded box, origin first.

    Like RELION, over the padded box of the map, also where the radius asks for a smaller one.
    """
    axis = np.square(fft.fftfreq(side, grid.box * grid.padding / side)).astype(np.float32)
    distance = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    argument = 2.0 * np.pi * _BLOB_RADIUS * grid.padding * distance
    # (s^-3/2) I_3/2(s) for s² > 0 and (s^-3/2) J_3/2(s) beyond (Lewitt 1990); tabulated, since
    # Bessel functions take long.
    points = np.linspace(0.0, float(argument.max()) + 1e-3, 20001)
    square = _BLOB_ALPHA**2 - points**2
    root = np.sqrt(np.abs(square)) + 1e-6
    values = np.where(square > 0, special.iv(1.5, root), special.jv(1.5, root)) / root**1.5
    return np.asarray(np.interp(argument, points, values / values[0]), dtype=np.float32)


def density_of(spectrum: Complex64, grid: SliceGrid) -> Float32:
    """Return the density (z, y, x) of a transform (voxel,), dimmed as by interpolation."""
    side, half = grid.box * grid.padding, grid.box // 2
    inside = grid.padding * grid.radius
    axis, rows = np.arange(-inside, inside + 1), np.arange(-half, half)
    cube = spectrum.reshape(grid.shape)[1:-1, 1:-1, :-1]
    if 2 * inside == side:  # both ends of an axis are one frequency
        axis, cube = axis[1:], cube[1:, 1:]
    return soft_sphere(density_at(cube, rows, side=side, frequencies=axis))


def density_at(
    cube: Complex64, rows: NDArray[np.int64], *, side: int, frequencies: NDArray[np.int64]
) -> Float32:
    """Return a part of a density: an axis at a time, in little more than half of the time.

    Parameters
    ----------
    cube : array (z, y, x)
        Its transform at `frequencies` along z and y, and from 0 on along x; 0 at all others.
    rows : array
        Of each axis, those that are wanted, counted from the origin; negative ones lie before it.
    side : int
        Of the whole.
    frequencies : array
        Whole numbers, each once modulo `side`.

    Returns
    -------
    ndarray of float32 (row, row, row)
    """
    found: NDArray[Any] = cube
    for along in (0, 1):
        lines = np.moveaxis(found, along, 0)
        padded = np.zeros((side, *lines.shape[1:]), dtype=np.complex64)
        padded[frequencies % side] = lines
        found = np.moveaxis(fft.ifft(padded, axis=0, overwrite_x=True)[rows], 0, along)
    return np.take(fft.irfft(found, n=side, axis=2), rows, axis=2)


def transform_at(
    density: Float32, rows: NDArray[np.int64], *, side: int, frequencies: NDArray[np.int64]
) -> Complex64:
    """Return the transform of a density that is 0 outside of `rows`: `density_at` the other way.

    Parameters
    ----------
    density : array (row, row, row)
    rows, side, frequencies
        As of `density_at`.

    Returns
    -------
    ndarray of complex64 (z, y, x)
        At `frequencies`; along x at those of them alone that are not negative.
    """
    padded = np.zeros((*density.shape[:2], side), dtype=np.float32)
    padded[..., rows % side] = density
    cube: NDArray[Any] = fft.rfft(padded, axis=2)[..., frequencies[frequencies >= 0]]
    for along in (1, 0):
        lines = np.moveaxis(cube, along, 0)
        padded = np.zeros((side, *lines.shape[1:]), dtype=np.complex64)
        padded[rows % side] = lines
        cube = np.moveaxis(fft.fft(padded, axis=0, overwrite_x=True)[frequencies], 0, along)
    return np.asarray(cube)


def soft_sphere(volume: Float32) -> Float32:
    """Replace what is outside of the sphere in a box by its mean, with an edge of three voxels."""
    box = volume.shape[-1]
    axis = np.square(np.arange(box, dtype=np.float32) - box // 2)
    distance = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    outside = np.clip((distance - box / 2) / _EDGE_VOXELS, 0.0, 1.0)
    share = np.asarray(0.5 - 0.5 * np.cos(np.pi * outside), dtype=np.float32)
    background = float((volume * share).sum(dtype=np.float64) / share.sum(dtype=np.float64))
    return np.asarray(volume + share * (np.float32(background) - volume), dtype=np.float32)


def _to_transform(values: Float32, side: int, grid: SliceGrid) -> Complex64:
    """Lay values (z, y, x) out as the half transform of a real box of `side`."""
    axis = np.arange(-grid.reach, grid.reach + 1) % side
    padded = np.zeros((side, side, side // 2 + 1), dtype=np.complex64)
    padded[np.ix_(axis, axis, np.arange(grid.reach + 1))] = values
    return padded


def _from_transform(spectrum: Complex64, grid: SliceGrid) -> Complex64:
    axis = np.arange(-grid.reach, grid.reach + 1) % spectrum.shape[0]
    return np.asarray(spectrum[np.ix_(axis, axis, np.arange(grid.reach + 1))])
