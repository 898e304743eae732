"""Particle images in blocks, and sums over all of them: one pass of anything that classifies.

A block holds the transforms of some images over the spectrum of their noise, so that every
coefficient has noise of variance 1, their CTFs over the same, and the sparse matrix of their
slices. Functions of a block give sums, which are added up in the order of the blocks, within tasks
and along a tree of them, and rows, one per particle. Blocks are cut by the data, so that a pass
gives the same bits wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid, SliceOperator

__all__ = [
    "MOST_TASKS",
    "BlockSource",
    "ImageBlock",
    "Pass",
    "complete_plane",
    "run_pass",
    "run_passes",
    "spread",
]

# Parts that one task adds up.
_FAN = 4
# Of a pass: few enough that sums are not all that workers and scheduler are busy with, many enough
# for the workers of a cluster.
MOST_TASKS = 128

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


@dataclass(frozen=True, eq=False)
class Pass:
    """A function to be applied to every block once.

    Attributes
    ----------
    sources : sequence of BlockSource
    function : callable
        ``function(block, own, *shared) -> (sums, rows)``, two tuples of arrays.
    shared : tuple
        The same for all blocks.
    own : sequence, optional
        What is each block's own.
    """

    sources: Sequence[BlockSource]
    function: Callable[..., tuple[Arrays, Arrays]]
    shared: tuple[Any, ...] = ()
    own: Sequence[Any] | None = None


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
    sources, function, *shared, own
        As of `Pass`.
    radius : int
        Of the blocks' pixels.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    sums : tuple of ndarray
        Added up over the blocks.
    rows : tuple of ndarray
        One after the other.
    """
    each = Pass(sources, function, shared, own)
    return run_passes([each], radius=radius, compute=compute)[0]


def run_passes(
    passes: Sequence[Pass],
    *,
    radius: int,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> list[tuple[Arrays, Arrays]]:
    """Run passes that do not depend on one another together; returns as `run_pass`, for each.

    Where `compute` has ``homes``, names of workers, each part of a pass goes to the same one in
    every pass, as long as that is free: it may have kept the part's blocks.
    """
    homes = getattr(compute, "homes", ())
    # The first part of each pass goes to another worker.
    plans = [
        _planned(each, radius, [*homes[at:], *homes[:at]])
        for at, each in ((number % max(len(homes), 1), each) for number, each in enumerate(passes))
    ]
    found = iter(compute(*(part for total, rows in plans for part in (total, *rows))))
    results = []
    for _, rows in plans:
        sums, whole = next(found)
        results.append((sums, _joined([next(found) for _ in rows]) if rows else whole))
    return results


def _planned(each: Pass, radius: int, homes: Sequence[str]) -> tuple[Any, list[Any]]:
    """Return the sums of a pass, with its rows where there is one part, and those of its parts.

    A task goes through several blocks and adds up on the way, so that sums as large as a map are
    not sent from task to task for every block.
    """
    owned = [None] * len(each.sources) if each.own is None else each.own
    once = [dask.delayed(value, pure=False, traverse=False) for value in each.shared]
    size = -(-len(each.sources) // MOST_TASKS)
    starts = range(0, len(each.sources), size)
    parts = []
    for number, at in enumerate(starts):
        rows = slice(at, at + size)
        share = _Share(each.sources[rows], owned[rows], each.function, radius)
        with _home(homes, number, len(starts)):
            parts.append(dask.delayed(share, pure=False, traverse=False)(*once))
    add, listed = dask.delayed(_add, pure=False), dask.delayed(_rows, pure=False)
    if len(parts) == 1:
        return parts[0], []
    sums = parts
    while len(sums) > 1:
        sums = [add(sums[at : at + _FAN]) for at in range(0, len(sums), _FAN)]
    return sums[0], [listed(part) for part in parts]


def _home(homes: Sequence[str], number: int, count: int) -> AbstractContextManager[None]:
    """Make what is planned inside go to a worker, the first parts to the first one."""
    if len(set(homes)) < 2:
        return nullcontext()
    home = homes[number * len(homes) // count]
    return dask.annotate(workers=[home], allow_other_workers=True)


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


class _Share:
    """What one task does: nothing that Dask would look for collections in."""

    def __init__(
        self,
        sources: Sequence[BlockSource],
        owned: Sequence[Any],
        function: Callable[..., tuple[Arrays, Arrays]],
        radius: int,
    ) -> None:
        self.sources, self.owned = list(sources), list(owned)
        self.function, self.radius = function, radius
        # What Dask calls the task.
        self.__name__ = function.__name__.strip("_")

    def __call__(self, *shared: Any) -> tuple[Arrays, Arrays]:
        total: Arrays = ()
        rows = []
        for number, (source, own) in enumerate(zip(self.sources, self.owned, strict=True)):
            sums, found = self.function(source.load(self.radius), own, *shared)
            rows.append(found)
            total = _plus(total, sums) if number else sums
        return total, _joined(rows)


def _plus(total: Arrays, sums: Arrays) -> Arrays:
    for one, other in zip(total, sums, strict=True):
        np.add(one, other, out=one)
    return total


def _joined(rows: Sequence[Arrays]) -> Arrays:
    return tuple(np.concatenate(each) for each in zip(*rows, strict=True))


def _rows(part: tuple[Arrays, Arrays]) -> Arrays:
    return part[1]


def _add(parts: Sequence[tuple[Arrays, Arrays]]) -> tuple[Arrays, Arrays]:
    """Add up the sums of parts; their rows are taken elsewhere."""
    total = tuple(each.copy() for each in parts[0][0])
    for sums, _ in parts[1:]:
        total = _plus(total, sums)
    return total, ()


def _square_sums(operator: SliceOperator) -> Float32:
    values = operator.weights.data.reshape(operator.mate.size, -1)
    return np.einsum("pc,pc->p", values, values)
