"""Where in the box classes may differ: a mask in space, applied to transforms of a few shells.

A padded transform has voxels closer together than a particle of limited size needs, so that most
of its noise lies outside of the particle. Multiplying by a mask in space takes that noise away. It
also makes good what trilinear weights dim towards the edges of the box: once when slices were added
up, and once when they are looked up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from emhet_dask.analysis.gridding import density_at, density_of, transform_at
from emhet_dask.analysis.projection import (
    Complex64,
    Float32,
    SliceGrid,
    interpolation_dimming,
)

__all__ = ["Support", "disc", "filled_with_noise", "map_of", "sphere", "support_of"]

_EDGE_PIXELS = 4.0


@dataclass(frozen=True, eq=False)
class Support:
    """A mask over the padded box, at least as fine as the transform resolves.

    Attributes
    ----------
    grid : SliceGrid
    side : int
        Of the padded box.
    rows : ndarray of int64
        Of each axis, origin first, those inside the box; the mask is 0 at all others.
    mask : ndarray of float32 (row, row, row)
        Over the square of what interpolation dims.
    share : float
        Part of the noise that is left of what is looked up in the transform.
    """

    grid: SliceGrid
    side: int
    rows: NDArray[np.int64]
    mask: Float32
    share: float

    def keep(self, volumes: Complex64) -> Complex64:
        """Return transforms (voxel, volume), to look slices up in, of what is inside.

        Parameters
        ----------
        volumes : array (voxel, volume)
            Sums of slices over their weights.
        """
        reach = self.grid.reach
        where: dict[str, Any] = {
            "side": self.side,
            "frequencies": np.arange(-reach, reach + 1),
        }
        found = np.empty_like(volumes)
        for number in range(volumes.shape[1]):
            density = density_at(volumes[:, number].reshape(self.grid.shape), self.rows, **where)
            density = density * self.mask
            found[:, number] = transform_at(density, self.rows, **where).reshape(-1)
        return found


def sphere(box: int, *, diameter: float) -> Float32:
    """Return a ball with a soft edge inside it (z, y, x).

    Parameters
    ----------
    box : int
    diameter : float
        In pixels.
    """
    axis = np.square(np.arange(box, dtype=np.float32) - box // 2)
    distance = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    return _edge(distance, diameter)


def support_of(mask: ArrayLike, grid: SliceGrid) -> Support:
    """Sample a mask of the box where transforms of a grid are sampled.

    Parameters
    ----------
    mask : array (z, y, x)
        Of the grid's box.
    grid : SliceGrid
    """
    inside = np.asarray(mask, dtype=np.float32)
    side, padded = fft.next_fast_len(2 * grid.reach + 1, real=True), grid.box * grid.padding
    # Pixels from the middle, origin first as in a transform.
    every = (fft.fftfreq(side) * padded).astype(np.float32)
    rows = np.flatnonzero(np.abs(every) <= grid.box / 2)
    place = every[rows]
    look_up = _linear_weights(place + np.float32(grid.box // 2), grid.box)
    sampled = inside
    for _ in range(3):  # an axis at a time: the last one becomes the first
        sampled = np.tensordot(look_up, sampled, axes=(1, 2))
    square = np.square(place)
    distance = np.sqrt(square[:, None, None] + square[:, None] + square)
    sampled /= np.sinc(np.minimum(distance / np.float32(padded), np.float32(0.5))) ** 4
    # Of noise that was added up and is looked up, interpolation dims the power along each axis.
    dim = np.sinc(every.astype(np.float64) / padded) ** 4
    power = np.square(sampled)
    for _ in range(3):
        power = power @ dim[rows].astype(np.float32)
    return Support(grid, side, rows, sampled, float(power) / float(dim.sum()) ** 3)


def _linear_weights(places: Float32, count: int) -> Float32:
    """Return weights (place, pixel) of linear interpolation; 0 for places beyond the pixels."""
    lower = np.clip(np.floor(places), 0, count - 2).astype(np.int64)
    found = np.zeros((len(places), count), dtype=np.float32)
    each = np.arange(len(places))
    found[each, lower] = lower + 1 - places
    found[each, lower + 1] = places - lower
    found[(places < 0) | (places > count - 1)] = 0
    return found


def map_of(transform: Complex64, grid: SliceGrid) -> Float32:
    """Return the map (z, y, x) of a transform that slices are looked up in."""
    inside = np.where(grid.voxel_radius <= grid.radius, transform, np.complex64(0))
    dimmed = interpolation_dimming(grid.box, padding=grid.padding)
    return np.asarray(density_of(inside, grid) * dimmed, dtype=np.float32)


def disc(box: int, *, diameter: float, shifts: ArrayLike) -> Float32:
    """Return discs (particle, y, x) with a soft edge, around where particles are in their images.

    Parameters
    ----------
    box : int
    diameter : float
        In pixels.
    shifts : array (particle, 2)
        RELION's origins in pixels, x and y: how far each image is moved to be centred.
    """
    by = np.asarray(shifts, dtype=np.float32)
    axis = np.arange(box, dtype=np.float32) - box // 2
    across = np.square(axis + by[:, 0, None])[:, None, :]
    distance = np.sqrt(across + np.square(axis + by[:, 1, None])[:, :, None])
    return _edge(distance, diameter)


def filled_with_noise(images: Float32, inside: Float32, random: np.random.Generator) -> Float32:
    """Return images (particle, y, x) with noise in place of what is outside.

    Parameters
    ----------
    images : array (particle, y, x)
        Of one kind of noise, which is measured outside.
    inside : array (particle, y, x)
        From `disc`.
    random : numpy.random.Generator
    """
    box = images.shape[-1]
    outside = 1.0 - inside
    share = float(np.square(outside).mean())
    level = float((images * outside).sum(dtype=np.float64) / outside.sum(dtype=np.float64))
    spectrum = np.square(np.abs(fft.rfft2((images - level) * outside))).mean(axis=0) / share
    y, x = fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1)
    shell = np.rint(np.hypot(y, x)).astype(np.int64)
    means = np.bincount(shell.ravel(), spectrum.ravel()) / np.bincount(shell.ravel())
    white = fft.rfft2(random.standard_normal(images.shape, dtype=np.float32))
    white *= np.sqrt(means[shell] / box**2).astype(np.float32)
    noise = fft.irfft2(white, s=(box, box)) + np.float32(level)
    return np.asarray(images * inside + noise * outside, dtype=np.float32)


def _edge(distance: Float32, diameter: float) -> Float32:
    outside = np.clip((distance - 0.5 * diameter) / _EDGE_PIXELS + 1.0, 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * outside), dtype=np.float32)
