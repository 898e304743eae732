"""Maps from images at given poses: sums of CTF-weighted slices, which a map is solved from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.gridding import hermitian_sums, solve_map
from emhet_dask.analysis.projection import (
    Complex64,
    Float32,
    SliceGrid,
    image_transforms,
    particles_per_operator,
    plan_slices,
    slice_operator,
)
from emhet_dask.analysis.symmetry import symmetrise
from emhet_dask.errors import InputError

__all__ = ["Sampling", "Sums", "add_up", "complete", "plan_sampling", "reconstruct_map"]


@dataclass(frozen=True, eq=False)
class Sampling:
    """How images are sampled and what a map is made of.

    Attributes
    ----------
    images, maps : SliceGrid
        Of one radius; of the boxes of images and maps.
    voxel_size_angstrom : float
        Of the maps.
    """

    images: SliceGrid
    maps: SliceGrid
    voxel_size_angstrom: float

    @property
    def extent_angstrom(self) -> float:
        """Return the side of both boxes in Å."""
        return self.maps.box * self.voxel_size_angstrom

    @property
    def chunk(self) -> int:
        """Return how many particles are added up at a time; depends on the box alone."""
        return particles_per_operator(self.images)


@dataclass(frozen=True, eq=False)
class Sums:
    """What a map is solved from; sums of different particles add up.

    Attributes
    ----------
    data : ndarray of complex64 (voxel,)
        Slices times CTF.
    weight : ndarray of float32 (voxel,)
        CTF².
    """

    data: Complex64
    weight: Float32

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.data + other.data, self.weight + other.weight)


def plan_sampling(
    box: int,
    *,
    pixel_size_angstrom: float,
    map_box: int | None = None,
    resolution_angstrom: float | None = None,
    padding: int = 2,
) -> Sampling:
    """Choose the Fourier radius of a reconstruction.

    Parameters
    ----------
    box : int
        Of the images.
    pixel_size_angstrom : float
    map_box : int, optional
        Of the maps, of the same extent: fewer, larger voxels. Default: that of the images.
    resolution_angstrom : float, optional
        Finest to be used; default, and most, Nyquist of the maps.
    padding : int

    Raises
    ------
    InputError
        When a box is odd, the maps' is larger than the images', or the resolution is coarser than
        the box is wide.
    """
    map_box = box if map_box is None else map_box
    if map_box > box:
        raise InputError(f"--box {map_box}: expected at most {box}, the box of the images")
    radius = map_box // 2
    extent = box * pixel_size_angstrom
    if resolution_angstrom is not None:
        # As RELION rounds --maxres.
        radius = min(radius, int(np.ceil(extent / resolution_angstrom * (1 - 1e-9))))
    return Sampling(
        plan_slices(box, radius=radius, padding=padding),
        plan_slices(map_box, radius=radius, padding=padding),
        extent / map_box,
    )


def add_up(
    images: ArrayLike,
    *,
    turns: ArrayLike,
    shifts: ArrayLike,
    ctf: CtfParameters | None,
    sampling: Sampling,
    intact_first_peak: bool = False,
) -> Sums:
    """Add up the slices of some particles, as many as fit into memory at a time.

    Parameters
    ----------
    images : array (particle, y, x)
    turns : array (particle, 3, 3)
        From `emhet_dask.analysis.projection.pose_matrices`.
    shifts : array (particle, 2)
        RELION's origins in pixels.
    ctf : CtfParameters, optional
        Without them all CTFs are 1.
    sampling : Sampling
    intact_first_peak : bool
        CTFs are 1 up to their first peak.
    """
    grid = sampling.images
    slices = image_transforms(images, grid, shifts=shifts)
    if ctf is None:
        weights = np.ones(slices.shape, dtype=np.float32)
    else:
        factor = contrast_transfer(
            ctf,
            x=grid.x / sampling.extent_angstrom,
            y=grid.y / sampling.extent_angstrom,
            intact_first_peak=intact_first_peak,
        )
        slices *= factor
        weights = np.square(factor, out=factor)
    return Sums(*slice_operator(turns, grid).back_project(slices, weights))


def complete(sums: Sums, sampling: Sampling, *, operators: NDArray[np.floating]) -> Sums:
    """Complete the sums of all particles by what symmetry adds: that of real maps, and a group's.

    Parameters
    ----------
    sums : Sums
    sampling : Sampling
    operators : array (operator, 3, 3)
        From `emhet_dask.analysis.symmetry.symmetry_operators`.
    """
    data, weight = hermitian_sums(sums.data, sums.weight, sampling.images)
    if len(operators) > 1:
        data, weight = symmetrise(data, weight, sampling.images, operators)
    return Sums(data, weight)


def reconstruct_map(sums: Sums, sampling: Sampling, *, iterations: int) -> Float32:
    """Solve a map.

    Parameters
    ----------
    sums : Sums
        From `complete`.
    sampling : Sampling
    iterations : int
        Of the weights; see `emhet_dask.analysis.gridding.solve_map`.

    Returns
    -------
    ndarray of float32 (z, y, x)
        Densities of the scale of the images, of which a projection is a sum.
    """
    # A coefficient is a sum over voxels, of which a smaller box has fewer.
    scale = np.float32((sampling.maps.box / sampling.images.box) ** 3)
    return solve_map(sums.data * scale, sums.weight, sampling.maps, iterations=iterations)
