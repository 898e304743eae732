"""What tasks take that work on one volume at a time: of `align`, `export`, `mask`, `simulate`.

Upper bounds, as in `emhet_dask.workflows.stages.costs`. Where a library holds arrays of its own
(SciPy's distance transform), their number is what was measured, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from emhet_dask.analysis.alignment import FINEST_SHELLS
from emhet_dask.analysis.phantom import atoms_of_sphere
from emhet_dask.ensemble import Ensemble
from emhet_dask.ensemble.layout import Layout
from emhet_dask.formats.volumes import VolumeSource
from emhet_dask.runtime import Work
from emhet_dask.workflows.stages.costs import STREAM_BYTES

__all__ = [
    "align_work",
    "class_fits_work",
    "export_work",
    "masks_work",
    "profiles_work",
    "simulate_work",
]

# Of a `Fitter`: 7,981 rotations of 1,276 coefficients, with a copy while they are brought to norm.
_ROTATED_BYTES = 2 * 7981 * 1276 * 8
# Products of all rotations with all shifts, and what they are made of.
_SEARCH_BYTES = 48 << 20
# Four fits of either hand are refined at once; each holds at a frequency the model, its gradient,
# where both are looked up, seven slopes, and as much again while a trial step is looked at.
_FIT_BYTES_PER_FREQUENCY = 4 * 300
# Float32 volumes that exist at once around a spline of fifth order, which is in float64.
_ALIGNED_VOLUMES = 10
# Densities, and what `scipy.ndimage.distance_transform_edt` makes of them: 13.8 were measured.
_MASK_VOLUMES = 15
# Where an atom goes and how much of it: 64 voxels, three arrays of 8 bytes.
_ATOM_BYTES = 64 * 3 * 8


def align_work(layout: Layout, *, shells: int, hand: bool) -> Work:
    """Fit volumes to a reference, move them and write them.

    Parameters
    ----------
    layout : Layout
        Of the store that is written.
    shells : int
        Last Fourier shell that is compared.
    hand : bool
        Whether mirror images are tried too.
    """
    volume, chunk = 4 * layout.box**3, layout.volumes_per_chunk * layout.volume_bytes
    stored = layout.n_volumes * layout.volume_bytes
    held, fit = _fitter_bytes(shells, hands=1 + hand)
    return Work(
        "align",
        layout.n_shards,
        stored,
        stored,
        STREAM_BYTES + _ALIGNED_VOLUMES * volume + 2 * chunk + fit,
        held_bytes=held,
        remedy="--resolution (coarser)",
    )


def class_fits_work(maps_bytes: Sequence[Sequence[int]]) -> Work:
    """Fit the class maps of jobs, each to the best of its job: a job is a task.

    Parameters
    ----------
    maps_bytes : sequence of sequence of int
        Sizes of the maps of each job.
    """
    held, fit = _fitter_bytes(FINEST_SHELLS, hands=1)
    all_maps = sum(map(sum, maps_bytes))
    most = max((sum(sizes) + _ALIGNED_VOLUMES * max(sizes) for sizes in maps_bytes), default=0)
    return Work("align", len(maps_bytes), all_maps, all_maps, held + fit + most)


def _fitter_bytes(shells: int, *, hands: int) -> tuple[int, int]:
    """Return what a `Fitter` up to a shell holds, and what a fit takes."""
    side = 2 * shells + 2
    # The transform of the reference, twice as fine as its box: complex numbers, and four of each
    # where gradients are wanted.
    table = 40 * (2 * side + 1) ** 2 * (side + 1)
    frequencies = 2 * math.pi / 3 * (shells + 0.5) ** 3
    fit = _SEARCH_BYTES + int(hands * _FIT_BYTES_PER_FREQUENCY * frequencies)
    return _ROTATED_BYTES + table, fit + 8 * side**3


def profiles_work(ensemble: Ensemble, *, tasks: int, volumes: int) -> Work:
    """Find the most typical volume, by its power in Fourier shells."""
    volume = 4 * ensemble.box**3
    return Work("find the best", tasks, volumes * volume, 0, STREAM_BYTES + 6 * volume,
                remedy="--to VOLUME")  # fmt: skip


def export_work(ensemble: Ensemble, *, tasks: int, volumes: int) -> Work:
    """Read volumes and write each to a file."""
    volume = 4 * ensemble.box**3
    return Work("export", tasks, volumes * volume, volumes * volume, STREAM_BYTES + 4 * volume)


def masks_work(sources: Sequence[VolumeSource]) -> Work:
    """Make a mask of each map."""
    sizes = [4 * math.prod(source.header.shape) for source in sources]
    return Work("mask", len(sizes), sum(sizes), sum(sizes), _MASK_VOLUMES * max(sizes))


def simulate_work(
    *, box: int, voxel_size_angstrom: float, bodies: int, tasks: int, maps: int
) -> Work:
    """Simulate maps of a model, which every process makes once.

    Parameters
    ----------
    box : int
    voxel_size_angstrom : float
    bodies : int
        Whose densities are held.
    tasks, maps : int
        That are left to do.
    """
    volume = 4 * box**3
    atoms = _ATOM_BYTES * atoms_of_sphere(box, voxel_size_angstrom)
    return Work(
        "simulate",
        tasks,
        0,
        maps * volume,
        8 * volume + atoms,
        # As a list and as one array while they are made; the two filters.
        held_bytes=(2 * bodies + 4) * volume,
        remedy="--box (smaller)",
    )
