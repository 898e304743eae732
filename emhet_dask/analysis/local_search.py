"""Poses near those that are known: rotations and shifts under which images look most like a map.

As RELION's local searches (Scheres 2012), with a normal prior around the given poses. Each image is
first compared at a coarse grid of rotations times shifts, and then at ever finer ones around the
likeliest (adaptive oversampling). Rotations are vectors on a cubic grid within a ball, so that a
grid about any pose is as even as that about any other. An image with a shift is the image times a
ramp of phases, so that only rotations need a look-up in the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.image_blocks import BlockSource, ImageBlock, run_pass, spread
from emhet_dask.analysis.projection import (
    Complex64,
    Float32,
    SliceGrid,
    particles_per_operator,
    pose_matrices,
    shift_ramps,
    slice_operator,
)

__all__ = [
    "SPREAD_OF_RANGE",
    "Images",
    "Poses",
    "SearchRange",
    "angles_between",
    "angles_of",
    "ball_grid",
    "gain",
    "search_poses",
]

Float64 = NDArray[np.float64]

# The prior's standard deviation is this part of the range, as in RELION.
SPREAD_OF_RANGE = 1 / 3
# Steps of the coarse grid from the middle to the end of the range, and those of the grids that
# follow, each around the best of the one before: twice each, as the best may lie beyond.
_COARSE_STEPS = 2
_STEPS = (1.0, 0.5, 0.5, 0.25, 0.25, 0.125)
_OPERATOR_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of particles.

    Attributes
    ----------
    angles : ndarray of float64 (particle, 3)
        RELION's rot, tilt and psi in degrees.
    shifts : ndarray of float64 (particle, 2)
        RELION's origins in pixels.
    """

    angles: Float64
    shifts: Float64


@dataclass(frozen=True)
class SearchRange:
    """How far poses may be from the given ones.

    Attributes
    ----------
    degrees : float
    pixels : float
    """

    degrees: float
    pixels: float


def search_poses(
    sources: Sequence[BlockSource],
    classes: tuple[Complex64, Float32],
    mean: Complex64,
    *,
    given: Poses,
    present: Poses,
    reach: SearchRange,
    grid: SliceGrid,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Poses:
    """Find the likeliest poses near the given ones.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of what the consensus leaves of the images, at their present poses.
    classes : tuple of array (voxel, class) and array (particle, class)
        Transforms of whole maps, and the probability of each for each image.
    mean : array (voxel,)
        Transform of the consensus.
    given : Poses
        Around which the prior is, whatever has been found since.
    present : Poses
        Of the sources, where the search begins.
    reach : SearchRange
    grid : SliceGrid
        Shells that are compared.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    Poses
    """
    volumes, posteriors = classes
    poses: list[NDArray[Any]] = [given.angles, given.shifts, present.angles, present.shifts]
    _, (found,) = run_pass(
        sources,
        _search_block,
        volumes,
        mean,
        reach,
        radius=grid.radius,
        own=spread(np.hstack([*poses, posteriors]), sources),
        compute=compute,
    )
    return Poses(found[:, :3], found[:, 3:])


def angles_between(one: Float64, other: Float64) -> Float64:
    """Return the angle (particle,) in degrees between two sets of angles (particle, 3)."""
    return np.rad2deg(_turn_between(pose_matrices(one)[:, None], pose_matrices(other))[:, 0])


def ball_grid(dimensions: int, *, step: float, steps: int) -> Float64:
    """Return the points (point, dimension) of a cubic grid in a ball, the middle first."""
    axis = np.arange(-steps, steps + 1)
    points = np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1)
    flat = points.reshape(-1, dimensions)
    # Of the innermost grid all corners, so that steps along diagonals are found.
    most = dimensions if steps == 1 else steps**2
    square = np.square(flat).sum(axis=1)
    order = np.argsort(square, kind="stable")
    return step * flat[order[square[order] <= most]].astype(np.float64)


# One block ----------------------------------------------------------------------------------------


def _search_block(
    block: ImageBlock, own: Float64, volumes: Complex64, mean: Complex64, reach: SearchRange
) -> tuple[tuple[()], tuple[Float64]]:
    most = len(ball_grid(3, step=1.0, steps=_COARSE_STEPS))
    size = max(1, particles_per_operator(block.grid, nbytes=_OPERATOR_BYTES) // most)
    images = block.slices + block.predict(mean[:, None])[..., 0]
    found = []
    for at in range(0, len(own), size):
        rows = slice(at, at + size)
        shares = np.log(np.maximum(own[rows, 10:], 1e-30))
        some = Images(images[rows], block.transfer[rows], shares, block.grid)
        found.append(_search(some, own[rows, :5], own[rows, 5:10], volumes, reach))
    return (), (np.concatenate(found),)


@dataclass(frozen=True, eq=False)
class Images:
    """Whole images of some particles at their present shifts, over the noise.

    Attributes
    ----------
    slices : ndarray of complex64 (particle, pixel)
    transfer : ndarray of float32 (particle, pixel)
        CTF over the amplitude of the noise.
    log_shares : ndarray of float64 (particle, map)
        Logarithm of how likely each image is to show each map.
    grid : SliceGrid
    free_scale : bool
        The amplitude of maps is found for each image and pose.
    """

    slices: Complex64
    transfer: Float32
    log_shares: Float64
    grid: SliceGrid
    free_scale: bool = False

    def __getitem__(self, rows: NDArray[np.int64]) -> Images:
        """Return some of them."""
        return replace(
            self,
            slices=self.slices[rows],
            transfer=self.transfer[rows],
            log_shares=self.log_shares[rows],
        )

    def fit(self, volumes: Complex64, turns: Float64, shifts: Float64) -> Float64:
        """Return how likely turns (particle, turn, 3, 3) and shifts (particle, shift, 2) are.

        Returns
        -------
        ndarray (particle, turn, shift)
            Log-likelihood, but for a constant of each particle.
        """
        count, n_turns = turns.shape[:2]
        n_shifts, grid = shifts.shape[1], self.grid
        ramps = shift_ramps(shifts.reshape(-1, 2), grid).reshape(count, n_shifts, -1)
        moved = (self.slices[:, None] * ramps).conj()
        looked_up = slice_operator(turns.reshape(-1, 3, 3), grid).project(volumes)
        looked_up = looked_up.reshape(count, n_turns, grid.n_pixels, -1)
        fits = []
        for number in range(looked_up.shape[-1]):
            seen = looked_up[..., number] * self.transfer[:, None]
            product = seen @ moved.swapaxes(1, 2)
            power = np.square(np.abs(seen)).sum(axis=2, dtype=np.float64)
            fit = gain(product.real, power[..., None], free_scale=self.free_scale)
            fits.append(fit + self.log_shares[:, number, None, None])
        return np.asarray(np.logaddexp.reduce(fits, axis=0))


def gain(product: NDArray[Any], power: NDArray[Any], *, free_scale: bool) -> NDArray[Any]:
    """Return the log-likelihood of a map over that of none, from ``<y, m>`` and ``<m, m>``.

    With `free_scale`, that of the likeliest amplitude, which is positive.
    """
    if not free_scale:
        return np.asarray(2.0 * product - power)
    return np.asarray(np.square(np.maximum(product, 0.0)) / np.maximum(power, 1e-30))


def _search(
    images: Images, given: Float64, present: Float64, volumes: Complex64, reach: SearchRange
) -> Float64:
    """Search poses of some images; return angles and shifts (particle, 5)."""
    around, turns = pose_matrices(given[:, :3]), pose_matrices(present[:, :3])
    moved = np.zeros((len(given), 2))
    each = np.arange(len(given))
    for number, part in enumerate(_STEPS):
        degrees, pixels = part * reach.degrees / _COARSE_STEPS, part * reach.pixels / _COARSE_STEPS
        steps = _COARSE_STEPS if number == 0 else 1
        vectors = ball_grid(3, step=np.deg2rad(degrees), steps=steps)
        trial = Rotation.from_rotvec(vectors).as_matrix() @ turns[:, None]
        shifts = moved[:, None] + ball_grid(2, step=pixels, steps=steps)
        fit = images.fit(volumes, trial, shifts)
        away = _turn_between(trial, around) / (SPREAD_OF_RANGE * np.deg2rad(reach.degrees))
        off = (shifts + (present - given)[:, None, 3:]) / (SPREAD_OF_RANGE * reach.pixels)
        fit -= 0.5 * np.square(away)[..., None]
        fit -= 0.5 * np.square(off).sum(axis=-1)[:, None]
        best = fit.reshape(len(fit), -1).argmax(axis=1)
        rotation, offset = np.divmod(best, shifts.shape[1])
        turns, moved = trial[each, rotation], shifts[each, offset]
    return np.concatenate([angles_of(turns), present[:, 3:] + moved], axis=1)


def _turn_between(trial: Float64, around: Float64) -> Float64:
    """Return the angle (particle, turn) in radians from each of some turns to one."""
    trace = np.einsum("nrij,nij->nr", trial, around)
    return np.asarray(np.arccos(np.clip(0.5 * (trace - 1.0), -1.0, 1.0)))


def angles_of(turns: Float64) -> Float64:
    """Return RELION's angles (particle, 3) of matrices: `pose_matrices` the other way."""
    z = np.clip(turns[:, 2, 2], -1.0, 1.0)
    upright = 1.0 - np.abs(z) < 1e-10
    # Where tilt is 0 or 180°, rot and psi turn about one axis, and psi is set to 0.
    sign = np.sign(z)
    rot = np.where(
        upright,
        np.arctan2(sign * turns[:, 0, 1], sign * turns[:, 0, 0]),
        np.arctan2(turns[:, 2, 1], turns[:, 2, 0]),
    )
    psi = np.where(upright, 0.0, np.arctan2(turns[:, 1, 2], -turns[:, 0, 2]))
    return np.rad2deg(np.stack([rot, np.arccos(z), psi], axis=1))
