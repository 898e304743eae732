"""What tasks take that read particle images: upper bounds, as in `costs`.

Most are sums in Fourier space: a complex number and a weight per voxel of a padded box, which exist
a few times over where parts are added up.
"""

from __future__ import annotations

import math

from emhet_dask.analysis.reconstruction import Sampling
from emhet_dask.runtime import Work

__all__ = ["adding_work", "solving_work"]

# A complex number and a weight.
_SUM_BYTES = 12
# Of a pixel of a slice: its eight voxels with their weights, and what they are made of.
_LOOK_UP_BYTES = 160
_SMALLER_MAPS = "--box (smaller) or --max-resolution (coarser)"


def adding_work(
    sampling: Sampling, *, stage: str, particles: int, bands: int, symmetric: bool
) -> Work:
    """Add up the images of a state, half by half.

    Parameters
    ----------
    sampling : Sampling
    stage : str
    particles : int
        Of both halves.
    bands : int
        Of the larger half; each is a task.
    symmetric : bool
        Whether there is a point group to add up over.
    """
    sums = _SUM_BYTES * sampling.images.n_voxels
    image = 4 * sampling.images.box**2
    # Images, as read and as they are checked, and their transforms.
    chunk = min(sampling.chunk, particles)
    images = chunk * (4 * image + _LOOK_UP_BYTES * sampling.images.n_pixels)
    return Work(
        stage,
        2 * (2 * bands - 1) + 2,
        particles * image,
        0,
        # What a chunk gives, before and after it is in order, is added to what there was.
        max(3 * sums + images, (1 + symmetric) * sums),
        # A sum at every level of a tree of pairs, with what it is made of, and the other half.
        held_bytes=(math.ceil(math.log2(max(bands, 1))) + 2) * sums,
        remedy=_SMALLER_MAPS,
    )


def solving_work(sampling: Sampling, *, stage: str, iterations: int) -> Work:
    """Solve the maps of both halves and of both together.

    Parameters
    ----------
    sampling : Sampling
    stage : str
    iterations : int
        Of the weights of the grid.
    """
    grid = sampling.maps
    density = 4 * grid.box**3
    # Sums, distances, weights and their inverse; the padded transform, its density, the map.
    solving = 37 * grid.n_voxels + (8 * grid.padding**3 + 16) * grid.box**3
    if iterations:
        # The kernel is tabulated over as many voxels as the transform has.
        solving = max(solving, 20 * grid.n_voxels + 32 * (2 * grid.reach + 2) ** 3)
    return Work(
        f"maps of {stage}",
        3,
        0,
        3 * density,
        solving,
        held_bytes=3 * (_SUM_BYTES * grid.n_voxels + density),
        remedy=_SMALLER_MAPS,
    )
