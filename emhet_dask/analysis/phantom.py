"""Shapes for simulated ensembles: a grid that renders pseudo-atoms, and compact bodies of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import binary_fill_holes
from scipy.spatial.distance import cdist

from emhet_dask.errors import InputError

__all__ = ["Grid", "atoms_of_sphere", "ellipsoid_atoms", "label_map", "packed_bodies"]

Array = npt.NDArray[Any]

# One pseudo-atom stands for one residue: 110 Da at 0.81 Da per cubic ångström of protein.
_RESIDUE_VOLUME_A3 = 135.0
# The complex fills a sphere of this radius, as a fraction of the edge of the box.
_COMPLEX_RADIUS = 0.35


@dataclass(frozen=True)
class Grid:
    """A cubic box and the Gaussian low-pass that gives maps and noise their resolution.

    Attributes
    ----------
    box : int
        Edge in voxels.
    voxel_size_angstrom, resolution_angstrom : float
        The filter falls to 1/e at a spatial frequency of 1/resolution (as ChimeraX's ``molmap``).
    """

    box: int
    voxel_size_angstrom: float
    resolution_angstrom: float

    def __post_init__(self) -> None:
        if self.box < 16:
            raise InputError(f"box: found {self.box}, need at least 16 voxels")
        if not self.voxel_size_angstrom > 0:
            raise InputError(f"voxel size: found {self.voxel_size_angstrom} Å, need more than 0")
        if not self.resolution_angstrom > 0:
            raise InputError(f"resolution: found {self.resolution_angstrom} Å, need more than 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (z, y, x) of one map."""
        return (self.box, self.box, self.box)

    @property
    def radius_angstrom(self) -> float:
        """Radius of the sphere that the complex fills."""
        return _COMPLEX_RADIUS * self.box * self.voxel_size_angstrom

    def noise(self, rng: np.random.Generator) -> Array:
        """Return low-passed Gaussian noise (z, y, x), float32, of expected variance 1."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        return self._filter(white, self._noise_filter)

    def render(self, atoms_angstrom: Array) -> Array:
        """Return the density (z, y, x), float32, of point atoms (atom, 3) of unit mass.

        Positions are in Å from the centre of the box, in the order z, y, x. Each atom is spread
        over 4³ voxels by a cubic B-spline, which the filter then divides out (as in smooth
        particle-mesh Ewald, Essmann et al. 1995), so the cost does not grow with the resolution.
        """
        position = atoms_angstrom / self.voxel_size_angstrom + self.box // 2
        below = np.floor(position)
        weight = _cubic_spline(position - below)
        index = (below.astype(np.int64)[:, :, None] + np.arange(-1, 3)) % self.box
        flat = (
            index[:, 0, :, None, None] * self.box**2
            + index[:, 1, None, :, None] * self.box
            + index[:, 2, None, None, :]
        )
        mass = (
            weight[:, 0, :, None, None] * weight[:, 1, None, :, None] * weight[:, 2, None, None, :]
        )
        density = np.bincount(flat.ravel(), mass.ravel(), minlength=self.box**3)
        return self._filter(density.astype(np.float32).reshape(self.shape), self._atom_filter)

    @cached_property
    def _noise_filter(self) -> Array:
        full = self._low_pass(scipy.fft.fftfreq(self.box))
        half = self._low_pass(scipy.fft.rfftfreq(self.box))
        # Filtered white noise has the mean square of the filter as its variance.
        scale = np.sqrt(np.mean(full**2))
        return _outer(full / scale, full / scale, half / scale)

    @cached_property
    def _atom_filter(self) -> Array:
        # A cubic B-spline multiplies the spectrum by sinc^4 along each axis.
        full, half = scipy.fft.fftfreq(self.box), scipy.fft.rfftfreq(self.box)
        full, half = (self._low_pass(f) / np.sinc(f) ** 4 for f in (full, half))
        return _outer(full, full, half)

    def _low_pass(self, cycles_per_voxel: Array) -> Array:
        cycles = cycles_per_voxel * self.resolution_angstrom / self.voxel_size_angstrom
        return np.exp(-(cycles**2))

    def _filter(self, density: Array, transfer: Array) -> Array:
        spectrum = scipy.fft.rfftn(density, overwrite_x=True)
        spectrum *= transfer
        return scipy.fft.irfftn(spectrum, s=self.shape, overwrite_x=True)


def _outer(z: Array, y: Array, x: Array) -> Array:
    return (z[:, None, None] * y[None, :, None] * x[None, None, :]).astype(np.float32)


def _cubic_spline(fraction: Array) -> Array:
    """Return the cubic B-spline (..., 4) at -1, 0, 1, 2 for positions between 0 and 1."""
    t = fraction[..., None]
    u = 1.0 - t
    pieces = [u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3]
    return np.concatenate(pieces, axis=-1) / 6.0


def atoms_of_sphere(box: int, voxel_size_angstrom: float) -> int:
    """Return how many pseudo-atoms fill the sphere that a complex fills in a box."""
    radius = _COMPLEX_RADIUS * box * voxel_size_angstrom
    return round(4.0 / 3.0 * np.pi * radius**3 / _RESIDUE_VOLUME_A3)


def ellipsoid_atoms(rng: np.random.Generator, semi_axes_angstrom: Array) -> Array:
    """Return pseudo-atoms (atom, 3) at random in an ellipsoid, at the density of protein."""
    volume = 4.0 / 3.0 * np.pi * np.prod(semi_axes_angstrom)
    n_atoms = max(20, round(volume / _RESIDUE_VOLUME_A3))
    return _ball_points(rng, n_atoms) * semi_axes_angstrom


def packed_bodies(
    rng: np.random.Generator, *, n_bodies: int, radius_angstrom: float, gap_angstrom: float
) -> list[Array]:
    """Cut a sphere of pseudo-atoms into compact bodies that do not overlap.

    Each body is what a cell of the power diagram of relaxed (Lloyd) centres leaves once its rim,
    half a gap wide, and its corners are taken off.

    Parameters
    ----------
    rng : Generator
        Of the centres and atoms.
    n_bodies : int
        Number of bodies. The first one is nearest to the centre of the sphere.
    radius_angstrom : float
        Of the sphere.
    gap_angstrom : float
        Free space between neighbours; at most a quarter of a body's diameter is taken.

    Returns
    -------
    list of array (atom, 3)
        Positions in Å (z, y, x) from the centre of the sphere.
    """
    sphere_volume = 4.0 / 3.0 * np.pi * radius_angstrom**3
    n_atoms = max(200 * n_bodies, round(sphere_volume / _RESIDUE_VOLUME_A3))
    atoms = _ball_points(rng, n_atoms) * radius_angstrom
    centres = _ball_points(rng, n_bodies) * radius_angstrom
    weight = np.zeros(n_bodies)
    # A few steps only: they leave sizes uneven, as wanted, but for the one held in the middle,
    # which the others would squeeze.
    for _ in range(12):
        centres[0] = 0.0
        owner = _power(atoms, centres, weight).argmin(axis=1)
        share = np.bincount(owner, minlength=n_bodies) / n_atoms
        weight[0] += radius_angstrom**2 * (1.0 / n_bodies - share[0])
        centres = np.stack(
            [atoms[owner == k].mean(axis=0) if share[k] else centres[k] for k in range(n_bodies)]
        )
    gap = min(gap_angstrom, 0.5 * radius_angstrom / n_bodies ** (1 / 3))
    power = _power(atoms, centres, weight)
    return [_trim(atoms, centres, power, body=k, gap_angstrom=gap) for k in range(n_bodies)]


def _power(atoms: Array, centres: Array, weight: Array) -> Array:
    """Return the power distances (atom, body): squared distances less the weight of each body."""
    return cdist(atoms, centres, "sqeuclidean") - weight


def _trim(atoms: Array, centres: Array, power: Array, *, body: int, gap_angstrom: float) -> Array:
    """Keep the atoms of one cell that are half a gap inside it, without its corners."""
    others = np.arange(len(centres)) != body
    apart = np.linalg.norm(centres[others] - centres[body], axis=1)
    to_walls = (power[:, others] - power[:, [body]]) / (2.0 * apart)
    mine = atoms[(to_walls > 0.5 * gap_angstrom).all(axis=1)]
    distance = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
    return mine[distance <= np.quantile(distance, 0.9)]


def label_map(densities: Array) -> npt.NDArray[np.int16]:
    """Return the body (z, y, x), from 1, that each voxel belongs to; 0 is none.

    A voxel belongs to the body that is densest there, where that reaches a fifth of the body's own
    99th percentile; holes inside a body are filled.
    """
    densest = densities.argmax(axis=0)
    labels = np.zeros(densest.shape, dtype=np.int16)
    for body, density in enumerate(densities):
        strong = density > 0.1 * density.max()
        solid = density > 0.2 * np.percentile(density[strong], 99)
        labels[binary_fill_holes(solid) & (densest == body)] = body + 1
    return labels


def _ball_points(rng: np.random.Generator, n_points: int) -> Array:
    """Points (point, 3) spread evenly in the unit ball."""
    direction = rng.standard_normal((n_points, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * np.cbrt(rng.random((n_points, 1)))
