"""Reference maps of other boxes, voxel sizes and grey scales: brought to the images' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.fourier import crop_box, pad_box
from emhet_dask.analysis.image_blocks import BlockSource, ImageBlock, run_pass
from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid

__all__ = ["best_correlated", "to_box"]

# Voxels that are added on the way, so that both voxel sizes divide the same extent.
_MOST_ADDED = 64


def to_box(
    volume: ArrayLike, *, voxel_size_angstrom: float, box: int, pixel_size_angstrom: float
) -> Float32:
    """Resample a map about its middle voxel to another voxel size and box.

    Parameters
    ----------
    volume : array (z, y, x)
        A cube of an even number of voxels.
    voxel_size_angstrom : float
        Of the map.
    box, pixel_size_angstrom
        That are wanted.

    Returns
    -------
    ndarray of float32 (z, y, x)
        Beyond the map, what lies on its border.
    """
    given = np.asarray(volume, dtype=np.float32)
    found = given
    if abs(voxel_size_angstrom - pixel_size_angstrom) > 1e-3 * pixel_size_angstrom:
        ratio = voxel_size_angstrom / pixel_size_angstrom
        sides = len(given) + np.arange(0, _MOST_ADDED + 1, 2)
        wanted = 2 * np.rint(sides * ratio / 2).astype(int)
        best = int(np.argmin(np.abs(wanted / (sides * ratio) - 1.0)))
        found = _windowed(given, int(sides[best]))
        resample = pad_box if wanted[best] > sides[best] else crop_box
        found = resample(found, int(wanted[best]))
    return _windowed(found, box)


def best_correlated(
    sources: Sequence[BlockSource],
    references: Complex64,
    mean: Complex64,
    *,
    grid: SliceGrid,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Float32:
    """Give each image to the map that it correlates with best, whatever their grey scales.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of what the consensus leaves of the images.
    references : array (voxel, class)
        Transforms of the maps.
    mean : array (voxel,)
        Of the consensus.
    grid : SliceGrid
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray of float32 (particle, class)
        1 for the class of the image, 0 for the others.
    """
    _, (found,) = run_pass(
        sources, _correlate_block, references, mean, radius=grid.radius, compute=compute
    )
    return np.eye(references.shape[1], dtype=np.float32)[found.argmax(axis=1)]


def _correlate_block(
    block: ImageBlock, _: None, references: Complex64, mean: Complex64
) -> tuple[tuple[()], tuple[NDArray[np.float64]]]:
    whole = block.slices + block.predict(mean[:, None])[..., 0]
    predicted = block.predict(references)
    product = np.einsum("np,npk->nk", whole.conj(), predicted).real
    power = np.square(np.abs(predicted)).sum(axis=1, dtype=np.float64)
    return (), (product / np.sqrt(np.maximum(power, 1e-30)),)


def _windowed(volume: Float32, box: int) -> Float32:
    """Cut a cube out of the middle of a cube, or surround it by the mean of its border."""
    side = len(volume)
    before = box // 2 - side // 2
    if before < 0:
        ends = slice(-before, box - before)
        return np.ascontiguousarray(volume[ends, ends, ends])
    inner = volume[1:-1, 1:-1, 1:-1]
    rim = float(volume.sum(dtype=np.float64) - inner.sum(dtype=np.float64))
    level = rim / (volume.size - inner.size)
    after = box - side - before
    return np.pad(volume, (before, after), constant_values=np.float32(level))
