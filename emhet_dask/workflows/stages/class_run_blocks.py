"""Blocks of images as workers load them: transforms from Zarr, less what all have in common."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from distributed import get_worker

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.image_blocks import ImageBlock
from emhet_dask.analysis.projection import (
    SliceGrid,
    cropped,
    particles_per_operator,
    plan_slices,
    pose_matrices,
    shift_ramps,
    slice_operator,
)
from emhet_dask.formats.particle_images import ParticleImages

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Consensus",
    "Particles",
    "Placed",
    "StoredBlock",
    "block_rows",
    "cut_blocks",
    "halves_of",
    "kept_bytes",
    "radial_order",
    "rows_of_halves",
]

_FEWEST_BLOCKS = 8
_LEAST_PARTICLES = 16
_MOST_PARTICLES = 1024
_OPERATOR_BYTES = 128 << 20
# Pixels of all images of a block, for a pass over it to take longer than handing it out.
_WORTH_A_TASK = 1 << 17
# What one worker keeps, so that blocks are not made again in every pass: so much, or a part of the
# memory that it may use.
_KEPT_BYTES = 512 << 20
_KEPT_PART = 0.2


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
        place = (self.start, len(self.particles.images), self.parity)
        return _KEPT.get((self.key, radius), place, lambda: self._load(radius))

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
            # Of a file that is mapped, only the part of few shells is read.
            whole = np.load(self.consensus.path, mmap_mode="r")
            mean = cropped(whole, plan_slices(images.box), grid)
            slices -= operator.project(mean[:, None])[..., 0] * transfer
            # The mean density of a map, shell 0, is nobody's.
            noise = self.consensus.noise[particles.groups][:, grid.shell]
            over = np.where(grid.shell > 0, 1.0 / noise, 0.0).astype(np.float32)
            slices *= over
            transfer *= over
        return ImageBlock(operator, slices, transfer)


def cut_blocks(
    particles: Particles, consensus: Consensus | None = None, *, radius: int | None = None
) -> list[StoredBlock]:
    """Cut particles into blocks for comparisons up to a radius, by their number and box alone."""
    key = _key(particles, consensus)
    return [
        StoredBlock(particles[rows], rows.start, key, consensus)
        for rows in block_rows(particles.images, radius=radius)
    ]


def block_rows(images: ParticleImages, *, radius: int | None = None) -> list[slice]:
    """Return the rows of each block: those of the full radius, or several of them together."""
    count = len(images)
    full = plan_slices(images.box)
    most = min(
        _MOST_PARTICLES,
        particles_per_operator(full, nbytes=_OPERATOR_BYTES),
        max(_LEAST_PARTICLES, -(-count // _FEWEST_BLOCKS)),
    )
    size = max(2, most - most % 2)  # rows of even and odd numbers stay what they are
    if radius is not None:
        pixels = plan_slices(images.box, radius=radius).n_pixels
        size *= max(1, _WORTH_A_TASK // (pixels * size))
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]


class Placed:
    """Like `dask.compute`, and tells passes which workers there are, so that blocks come back.

    Attributes
    ----------
    homes : list of str
        Addresses of the workers, one for each of their threads, always in the same order.
    """

    def __init__(self, compute: Callable[..., tuple[Any, ...]], client: Client) -> None:
        self._compute, self._client = compute, client

    @property
    def homes(self) -> list[str]:
        """Return the workers of now: they may come and go between passes."""
        threads = self._client.nthreads()
        return [address for address in sorted(threads) for _ in range(threads[address])]

    def __call__(self, *collections: Any) -> tuple[Any, ...]:
        """Compute collections together."""
        return self._compute(*collections)


def halves_of(blocks: Sequence[StoredBlock]) -> tuple[list[StoredBlock], list[StoredBlock]]:
    """Return the particles of even and of odd rows, block by block."""
    even = [replace(block, parity=0) for block in blocks]
    odd = [replace(block, parity=1) for block in blocks]
    return even, odd


def rows_of_halves(blocks: Sequence[StoredBlock]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the particles of `halves_of`, in their order."""
    every = [np.arange(each.start, each.start + len(each.particles.images)) for each in blocks]
    even, odd = (np.concatenate([rows[parity::2] for rows in every]) for parity in (0, 1))
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


def kept_bytes(limit: int | None) -> int:
    """Return how much a worker keeps of blocks, at most, by the memory that it may use."""
    return _KEPT_BYTES if not limit else min(_KEPT_BYTES, int(_KEPT_PART * limit))


def _limit() -> int | None:
    """Return the memory that the worker may use, where this is run on one."""
    try:
        limit = get_worker().memory_manager.memory_limit
    except ValueError:  # no worker: a computation in this process
        return None
    return None if limit is None else int(limit)


class _Kept:
    """Blocks of late, up to so many bytes.

    Passes go through all blocks in turn. Where they are more than can be kept, those that came
    first stay: the least recently used would always be the one that is needed next. What was kept
    for other passes, of another radius or other poses, makes room.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[object, object], tuple[ImageBlock, int]] = OrderedDict()
        self._bytes = 0

    def get(self, kind: object, place: object, make: Callable[[], ImageBlock]) -> ImageBlock:
        key = kind, place
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key][0]
        block = make()
        size = _bytes_of(block)
        with self._lock:
            if key not in self._blocks and self._has_room(kind, size):
                self._blocks[key] = block, size
                self._bytes += size
        return block

    def _has_room(self, kind: object, size: int) -> bool:
        most = kept_bytes(_limit())
        others = [key for key in self._blocks if key[0] != kind]
        while self._bytes + size > most and others:
            _, freed = self._blocks.pop(others.pop(0))
            self._bytes -= freed
        return self._bytes + size <= most

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._bytes = 0


def _bytes_of(block: ImageBlock) -> int:
    weights = block.operator.weights
    parts = (weights.data, weights.indices, weights.indptr, block.slices, block.transfer)
    return sum(part.nbytes for part in parts) + block.operator.mate.nbytes


_KEPT = _Kept()
