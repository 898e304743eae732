"""Blocks of images as workers load them: transforms from Zarr, less what all have in common."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import zarr

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.image_blocks import ImageBlock
from emhet_dask.analysis.projection import (
    SliceGrid,
    particles_per_operator,
    plan_slices,
    pose_matrices,
    shift_ramps,
    slice_operator,
)
from emhet_dask.formats.particle_images import ParticleImages

__all__ = [
    "Consensus",
    "Particles",
    "StoredBlock",
    "block_rows",
    "cut_blocks",
    "halves_of",
    "radial_order",
]

_FEWEST_BLOCKS = 8
_LEAST_PARTICLES = 16
_MOST_PARTICLES = 1024
_OPERATOR_BYTES = 128 << 20
# What one worker keeps, so that blocks are not made again in every pass.
_KEPT_BYTES = 512 << 20


@dataclass(frozen=True)
class Consensus:
    """What all particles have in common.

    Attributes
    ----------
    path : str
        NumPy file of its transform (voxel,) up to the full radius.
    noise : ndarray of float64 (group, shell)
        Amplitude of the noise.
    key : str
        Another one for another consensus.
    """

    path: str
    noise: np.ndarray
    key: str


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles, where their transforms are kept, and how their images came to be.

    Attributes
    ----------
    path : str
        Zarr array of transforms (particle, pixel), pixels by their distance from the origin.
    key : str
        Another one for other transforms.
    images : ParticleImages
        With the poses that they are taken at.
    centred : ndarray (particle, 2)
        Shifts, in pixels, that the transforms are centred by.
    groups : ndarray of int64 (particle,)
        Number of the group of images that share noise and amplitude, from 0.
    names : tuple of str
        Of the groups.
    scale : ndarray of float64 (group,)
        Amplitude.
    intact_first_peak : bool
        CTFs are 1 up to their first peak.
    """

    path: str
    key: str
    images: ParticleImages
    centred: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    scale: np.ndarray
    intact_first_peak: bool

    @property
    def n_groups(self) -> int:
        """Return the number of groups."""
        return len(self.names)

    def __getitem__(self, rows: slice) -> Particles:
        """Return some of the particles."""
        return replace(
            self,
            images=self.images[rows],
            centred=self.centred[rows],
            groups=self.groups[rows],
        )


@dataclass(frozen=True, eq=False)
class StoredBlock:
    """A block of images.

    Attributes
    ----------
    particles : Particles
        Its own.
    start : int
        Row of the first one among all.
    key : str
        Another one for other images, poses or amplitudes.
    consensus : Consensus or None
        What is taken off; without it, images as they are.
    parity : int or None
        0 or 1 for the particles of even or odd rows alone.
    """

    particles: Particles
    start: int
    key: str
    consensus: Consensus | None = None
    parity: int | None = None

    @property
    def rows(self) -> slice:
        """Return which of its particles are taken."""
        return slice(None) if self.parity is None else slice(self.parity, None, 2)

    @property
    def n_particles(self) -> int:
        """Return the number of particles."""
        return len(range(len(self.particles.images))[self.rows])

    def load(self, radius: int) -> ImageBlock:
        """Return the block with its pixels up to a radius."""
        key = (self.key, self.start, self.parity, radius)
        return _KEPT.get(key, lambda: self._load(radius))

    def _load(self, radius: int) -> ImageBlock:
        particles = self.particles[self.rows]
        images = particles.images
        grid = plan_slices(images.box, radius=radius)
        order = radial_order(grid)
        stored = zarr.open_array(particles.path, mode="r")
        end = self.start + len(self.particles.images)
        slices = np.empty((len(images), grid.n_pixels), dtype=np.complex64)
        slices[:, order] = np.asarray(stored[self.start : end, : grid.n_pixels])[self.rows]
        operator = slice_operator(pose_matrices(images.angles), grid)
        moved = images.shifts - particles.centred
        if moved.any():
            slices *= shift_ramps(moved, grid)
        transfer = _transfer(particles, grid)
        if self.consensus is not None:
            whole = np.load(self.consensus.path)
            mean = cropped(whole, plan_slices(images.box), grid)
            slices -= operator.project(mean[:, None])[..., 0] * transfer
            # The mean density of a map, shell 0, is nobody's.
            noise = self.consensus.noise[particles.groups][:, grid.shell]
            over = np.where(grid.shell > 0, 1.0 / noise, 0.0).astype(np.float32)
            slices *= over
            transfer *= over
        return ImageBlock(operator, slices, transfer)


def cropped(volume: np.ndarray, grid: SliceGrid, to: SliceGrid) -> np.ndarray:
    """Return the part of a transform (voxel,) of one grid that a smaller one holds."""
    cut = grid.reach - to.reach
    cube = volume.reshape(grid.shape)
    ends = slice(cut, cube.shape[0] - cut)
    found = cube[ends, ends, : to.reach + 1].reshape(-1).copy()
    found[to.voxel_radius > to.radius + 1] = 0
    return found


def cut_blocks(particles: Particles, consensus: Consensus | None = None) -> list[StoredBlock]:
    """Cut particles into blocks, by their number and box alone."""
    key = _key(particles, consensus)
    return [
        StoredBlock(particles[rows], rows.start, key, consensus)
        for rows in block_rows(particles.images)
    ]


def block_rows(images: ParticleImages) -> list[slice]:
    """Return the rows of each block."""
    count = len(images)
    most = min(
        _MOST_PARTICLES,
        particles_per_operator(plan_slices(images.box), nbytes=_OPERATOR_BYTES),
        max(_LEAST_PARTICLES, -(-count // _FEWEST_BLOCKS)),
    )
    size = max(2, most - most % 2)  # rows of even and odd numbers stay what they are
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


def halves_of(blocks: Sequence[StoredBlock]) -> tuple[list[StoredBlock], list[StoredBlock]]:
    """Return the particles of even and of odd rows, block by block."""
    even = [replace(block, parity=0) for block in blocks]
    odd = [replace(block, parity=1) for block in blocks]
    return even, odd


def radial_order(grid: SliceGrid) -> np.ndarray:
    """Return the pixels of a grid by their distance from the origin.

    Those of a smaller radius come first, in the same order for every radius.
    """
    return np.lexsort((grid.x, grid.y, grid.x**2 + grid.y**2))


def _key(particles: Particles, consensus: Consensus | None) -> str:
    """Digest all that decides what a block holds."""
    images = particles.images
    digest = hashlib.blake2b(repr((particles.key, consensus and consensus.key)).encode())
    digest.update(repr((particles.intact_first_peak, images.ctf is None)).encode())
    for values in (images.angles, images.shifts, particles.groups, particles.scale):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _transfer(particles: Particles, grid: SliceGrid) -> np.ndarray:
    """Return the CTF of each particle times its amplitude."""
    images = particles.images
    amplitude = particles.scale[particles.groups].astype(np.float32)[:, None]
    if images.ctf is None:
        return np.repeat(amplitude, grid.n_pixels, axis=1)
    extent = images.box * images.pixel_size_angstrom
    factor = contrast_transfer(
        CtfParameters(**images.ctf),
        x=grid.x / extent,
        y=grid.y / extent,
        intact_first_peak=particles.intact_first_peak,
    )
    return np.asarray(factor * amplitude)


class _Kept:
    """Blocks of late, up to so many bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[object, tuple[ImageBlock, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: object, make: object) -> ImageBlock:
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key][0]
        block = make()  # type: ignore[operator]
        size = _bytes_of(block)
        with self._lock:
            if key not in self._blocks and size <= _KEPT_BYTES:
                self._blocks[key] = block, size
                self._bytes += size
            while self._bytes > _KEPT_BYTES:
                _, (_, freed) = self._blocks.popitem(last=False)
                self._bytes -= freed
        return block

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._bytes = 0


def _bytes_of(block: ImageBlock) -> int:
    weights = block.operator.weights
    parts = (weights.data, weights.indices, weights.indptr, block.slices, block.transfer)
    return sum(part.nbytes for part in parts) + block.operator.mate.nbytes


_KEPT = _Kept()
