"""Particle images in blocks, and sums over all of them: one pass of anything that classifies.

A block holds the transforms of some images over the spectrum of their noise, so that every
coefficient has noise of variance 1, their CTFs over the same, and the sparse matrix of their
slices. Functions of a block give sums, which are added up along a tree in the order of the blocks,
and rows, one per particle. Blocks are cut by the data, so that a pass gives the same bits wherever
it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid, SliceOperator

__all__ = ["BlockSource", "ImageBlock", "complete_plane", "run_pass", "spread"]

# Parts that one task adds up.
_FAN = 4

Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class ImageBlock:
    """Images of some particles, ready to be compared with maps.

    Attributes
    ----------
    operator : SliceOperator
    slices : ndarray of complex64 (particle, pixel)
        Transforms of the images, or what a map leaves of them, over the amplitude of the noise.
    transfer : ndarray of float32 (particle, pixel)
        CTF over the amplitude of the noise.
    """

    operator: SliceOperator
    slices: Complex64
    transfer: Float32

    @property
    def grid(self) -> SliceGrid:
        """Return pixels and voxels."""
        return self.operator.grid

    def predict(self, volumes: Complex64) -> Complex64:
        """Return the images (particle, pixel, volume) of volumes (voxel, volume)."""
        return self.operator.project(volumes) * self.transfer[..., None]

    def look_up(self, values: Float32) -> Float32:
        """Interpolate real values (voxel, column) at the pixels (particle, pixel, column)."""
        return np.asarray(
            (self.operator.weights @ values).reshape(*self.transfer.shape, values.shape[1])
        )

    def spread_of_self(self) -> Float32:
        """Return the sum of squared weights (particle, pixel) of each pixel's voxels.

        What a coefficient of an image gives to its voxels comes back, when it is looked up, times
        this.
        """
        return _square_sums(self.operator).reshape(self.transfer.shape)


class BlockSource(Protocol):
    """Where a block comes from, as a worker needs it."""

    @property
    def n_particles(self) -> int:
        """Return the number of particles."""

    def load(self, radius: int) -> ImageBlock:
        """Return the block with its pixels up to a radius."""


def run_pass(
    sources: Sequence[BlockSource],
    function: Callable[..., tuple[Arrays, Arrays]],
    *shared: Any,
    radius: int,
    own: Sequence[Any] | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> tuple[Arrays, Arrays]:
    """Apply a function to every block once.

    Parameters
    ----------
    sources : sequence of BlockSource
    function : callable
        ``function(block, own, *shared) -> (sums, rows)``, two tuples of arrays.
    *shared
        The same for all blocks.
    radius : int
        Of the blocks' pixels.
    own : sequence, optional
        What is each block's own.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    sums : tuple of ndarray
        Added up over the blocks.
    rows : tuple of ndarray
        One after the other.
    """
    owned = [None] * len(sources) if own is None else own
    once = [dask.delayed(each, pure=False, traverse=False) for each in shared]
    apply = dask.delayed(_apply, pure=False, traverse=False)
    parts = [
        apply(source, radius, function, mine, *once)
        for source, mine in zip(sources, owned, strict=True)
    ]
    take = dask.delayed(_take, pure=False)
    rows = [take(part, 1) for part in parts]
    sums = [take(part, 0) for part in parts]
    add = dask.delayed(_add, pure=False)
    while len(sums) > 1:
        sums = [add(sums[at : at + _FAN]) for at in range(0, len(sums), _FAN)]
    total, *listed = compute(sums[0], *rows)
    return total, tuple(np.concatenate(each) for each in zip(*listed, strict=True))


def spread(values: NDArray[Any], sources: Sequence[BlockSource]) -> list[NDArray[Any]]:
    """Cut an array (particle, …) into what is each block's own."""
    ends = np.cumsum([source.n_particles for source in sources])
    return np.split(values, ends[:-1])


def complete_plane(values: NDArray[Any], grid: SliceGrid) -> NDArray[Any]:
    """Complete the plane ``x = 0`` of sums (voxel, column), as `hermitian_sums` does of one map."""
    cube = values.reshape(*grid.shape, -1)
    mates = cube[::-1, ::-1, 0].conj()
    cube[:, :, 0] += mates
    return values


def _apply(
    source: BlockSource,
    radius: int,
    function: Callable[..., tuple[Arrays, Arrays]],
    own: Any,
    *shared: Any,
) -> tuple[Arrays, Arrays]:
    return function(source.load(radius), own, *shared)


def _take(part: tuple[Arrays, Arrays], which: int) -> Arrays:
    return part[which]


def _add(parts: Sequence[Arrays]) -> Arrays:
    found = []
    for each in zip(*parts, strict=True):
        total = each[0].copy()
        for other in each[1:]:
            total += other
        found.append(total)
    return tuple(found)


def _square_sums(operator: SliceOperator) -> Float32:
    values = operator.weights.data.reshape(operator.mate.size, -1)
    return np.einsum("pc,pc->p", values, values)
