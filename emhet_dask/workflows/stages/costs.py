"""What the tasks of each stage take: upper bounds, from shapes, before anything is read.

Of tasks on an ensemble or its matrix; `volume_costs`, `decoding_costs` and `image_costs` have the
others. Bounds of memory are of arrays that exist at once in the code of the tasks;
`tests/workflows` compares them with what workers were measured to take.
"""

from __future__ import annotations

import dask.array as da
import numpy as np

from emhet_dask.analysis.bands import STRIP_COLUMNS
from emhet_dask.analysis.cooccupancy import task_bytes as tile_bytes
from emhet_dask.analysis.pca import PCAPlan
from emhet_dask.ensemble import Ensemble
from emhet_dask.ensemble.layout import Layout
from emhet_dask.ensemble.matrix import MatrixLayout
from emhet_dask.ensemble.pairs import PairsLayout
from emhet_dask.runtime import Work
from emhet_dask.runtime.memory import waiting

__all__ = [
    "STREAM_BYTES",
    "amplitudes_work",
    "background_work",
    "blocks_work",
    "distances_work",
    "group_sums_work",
    "ingest_work",
    "mask_work",
    "matrix_work",
    "occupied_work",
    "pairs_work",
    "parts_work",
    "pca_work",
    "shells_work",
    "state_maps_work",
    "tiles_work",
]

# What a stream of volumes reads at a time (`emhet_dask.ensemble.reading`), twice: as stored, and
# in float32.
STREAM_BYTES = 16 << 20
# A run of a compressed stack that is unpacked together (`emhet_dask.workflows.ingest`).
_UNPACKED_BYTES = 256 << 20
# Sums of groups that exist at once (`emhet_dask.analysis.tiles`).
_CHAINS = 4


def ingest_work(
    layout: Layout, *, source_box: int, compressed: bool, in_files: bool, tasks: int, volumes: int
) -> Work:
    """Shards of an ensemble: a volume is in memory at a time, and the chunk that it goes to.

    Parameters
    ----------
    layout : Layout
    source_box : int
        Voxels a side of the files.
    compressed : bool
        Whether files are unpacked.
    in_files : bool
        Whether the store is on a disk; elsewhere a shard is written as a whole.
    tasks, volumes : int
        That are left to do.
    """
    source = 4 * source_box**3
    # As read, in float32, in pieces for the percentile; cropped, in Fourier space too.
    volume = 4 * source + (4 * source if source_box != layout.box else 0)
    chunk = layout.volumes_per_chunk * layout.volume_bytes
    shard = 2 * chunk if in_files else 3 * layout.volumes_per_shard * layout.volume_bytes
    return Work(
        "ingest",
        tasks,
        volumes * source,
        volumes * layout.volume_bytes,
        volume + shard + (_UNPACKED_BYTES + source if compressed else 0),
        remedy="--box (smaller)" if source_box > 64 else "",
    )


def mask_work(ensemble: Ensemble) -> Work:
    """Count, for each voxel, the volumes beyond a threshold: a shard at a time."""
    volume, shard = 4 * ensemble.box**3, _shard_bytes(ensemble)
    tasks = ensemble.volumes.numblocks[0]
    counts = 2 * volume  # two, int32
    return Work(
        "mask",
        tasks,
        _stored_bytes(ensemble),
        0,
        # And the shard before, which comes back late: 56 MiB were measured at shards of 24.
        2 * shard + 2 * counts + volume,
        held_bytes=counts * waiting(tasks),
        remedy="--mask FILE",
    )


def matrix_work(ensemble: Ensemble, layout: MatrixLayout, *, tasks: int) -> Work:
    """Gather the voxels inside the mask: a band's parts wait for one another."""
    row = layout.shape[1] * np.dtype(layout.dtype).itemsize
    band = layout.rows * row
    reading = STREAM_BYTES + 3 * 4 * ensemble.box**3
    return Work(
        "matrix",
        tasks,
        _stored_bytes(ensemble),
        layout.shape[0] * row,
        reading + 2 * band,
        # Parts of the bands that are next, and the positions of the voxels.
        held_bytes=2 * band + 8 * layout.shape[1],
        remedy="a smaller mask (--mask, --threshold)",
    )


def shells_work(ensemble: Ensemble, rows: da.Array, layout: MatrixLayout, *, tasks: int) -> Work:
    """Transform the volumes to rows of Fourier shells."""
    volume, row = 4 * ensemble.box**3, 4 * layout.shape[1]
    band = layout.rows * row
    block = int(max(rows.chunks[0])) * row
    return Work(
        "rows",
        tasks,
        _stored_bytes(ensemble),
        layout.shape[0] * row,
        max(_shard_bytes(ensemble) + 6 * volume + 2 * block + 4 * row, 2 * band),
        held_bytes=2 * band + block + 4 * row,
        remedy="--resolution (coarser)",
    )


def amplitudes_work(matrix: da.Array, *, stage: str) -> Work:
    """Sum over bands of the matrix, and of their products with a few rows."""
    band = _band_bytes(matrix)
    n_voxels = matrix.shape[1]
    return Work(
        stage,
        2 * matrix.numblocks[0],
        2 * matrix.nbytes,
        0,
        5 * band + 64 * n_voxels,
        held_bytes=16 * n_voxels * waiting(matrix.numblocks[0]),
        remedy="a smaller mask (--mask)",
    )


def pca_work(plan: PCAPlan, matrix: da.Array) -> Work:
    """Decompose the matrix, as `emhet_dask.analysis.pca.plan_pca` says."""
    held, task = plan["held_bytes"], plan["peak_bytes"]
    if plan["method"] == "gram":
        # Strips that wait for the last band are held once, whoever cuts them.
        waiting = max(0, task - 20 * matrix.shape[0] ** 2 - 2 * _band_bytes(matrix))
        held, task = held + waiting, task - waiting
    return Work(
        "pca",
        plan["tasks"],
        plan["passes"] * matrix.nbytes,
        0,
        task + _band_bytes(matrix),
        held_bytes=held,
        client_bytes=plan["client_bytes"],
        remedy="--n-components (fewer) or a smaller mask",
    )


def distances_work(matrix: da.Array, *, stage: str, remedy: str = "") -> Work:
    """Sum the products of all rows, strip by strip of columns."""
    n_volumes, n_voxels = matrix.shape
    strip = min(STRIP_COLUMNS, n_voxels)
    # Strips that are cut out of wide bands wait for the last of them.
    wide = max(matrix.chunks[1]) > 4 * strip
    return Work(
        stage,
        -(-n_voxels // strip),
        matrix.nbytes,
        0,
        12 * n_volumes * strip + 20 * n_volumes**2,
        held_bytes=20 * n_volumes**2 + (matrix.nbytes if wide else 0),
        client_bytes=24 * n_volumes**2,
        remedy=remedy,
    )


def group_sums_work(matrix: da.Array, *, stage: str, groups: int) -> Work:
    """Add up the rows of each group, in float64."""
    sums = 8 * groups * matrix.shape[1]
    return Work(
        stage,
        matrix.numblocks[0],
        matrix.nbytes,
        0,
        2 * _band_bytes(matrix) + 2 * sums + 1024 * matrix.shape[1],
        held_bytes=sums * min(_CHAINS, matrix.numblocks[0]),
    )


def pairs_work(layout: PairsLayout, *, tasks: int, keeps_matrix: bool) -> Work:
    """Compare all pairs of rows: a block is computed from strips of two bands."""
    row = 4 * layout.n_columns
    read = tasks * 2 * layout.side * row
    written = 4 * tasks * layout.side**2 if keeps_matrix else 0
    shared = 16 * (layout.n_columns + 4 * layout.n_rows)  # means, norms
    block = 4 * layout.side**2 * keeps_matrix  # as it is being stored
    return Work("pairs", tasks, read, written, layout.task_bytes + 2 * block, held_bytes=shared)


def occupied_work(matrix: da.Array, *, levels: int, columns: int, tasks: int) -> Work:
    """Compare a chunk of columns, all volumes, with thresholds."""
    n_volumes, n_voxels = matrix.shape
    octets = n_voxels * n_volumes // 8
    bits = columns * n_volumes // 8 * levels
    run = 4 * columns * min(1024, n_volumes)
    return Work(
        "occupied",
        tasks,
        matrix.nbytes,
        levels * octets,
        3 * run + 3 * bits + 4 * levels * n_volumes,
        remedy="--screen-thresholds (fewer)" if levels > 1 else "",
    )


def tiles_work(
    *,
    n_voxels: int,
    n_volumes: int,
    side: int,
    tasks: int,
    n_settings: int,
    n_neighbours: int,
) -> Work:
    """Test all pairs of voxels, tile by tile."""
    tile = tile_bytes(n_volumes, side=side, n_settings=n_settings, n_neighbours=n_neighbours)
    return Work(
        "voxel_pairs",
        tasks,
        tasks * 2 * side * n_volumes // 8,
        tasks * 4 * 4 * n_settings * side * n_neighbours,
        tile,
        held_bytes=64 * n_voxels,
        remedy="--neighbours (fewer)",
    )


def background_work(ensemble: Ensemble, *, sampled: int) -> Work:
    """Measure the background on some volumes, in float64 and in Fourier space."""
    volume = 4 * ensemble.box**3
    return Work("background", 1, 2 * sampled * volume, 0, STREAM_BYTES + 32 * volume)


def blocks_work(matrix: da.Array, *, blocks: int = 0) -> Work:
    """Read the matrix for the densities of blocks, and for its mean."""
    band = _band_bytes(matrix)
    return Work(
        "blocks",
        matrix.numblocks[0],
        matrix.nbytes,
        0,
        4 * band + 8 * blocks * matrix.shape[0],
        held_bytes=16 * matrix.shape[1] * waiting(matrix.numblocks[0]),
    )


def state_maps_work(ensemble: Ensemble, *, stage: str, tasks: int, states: int) -> Work:
    """Sum the volumes of each state, in float64."""
    volume = 4 * ensemble.box**3
    # Sums and sums of squares in both precisions, the origin; three more while they are merged.
    return Work(
        stage,
        tasks,
        _stored_bytes(ensemble),
        2 * states * volume,
        STREAM_BYTES + 20 * volume,
        held_bytes=4 * volume * waiting(tasks),
    )


def parts_work(ensemble: Ensemble, *, stage: str, tasks: int, parts_bytes: int) -> Work:
    """Sum each volume inside given masks."""
    volume = 4 * ensemble.box**3
    return Work(
        stage,
        tasks,
        _stored_bytes(ensemble),
        0,
        STREAM_BYTES + 4 * volume,
        held_bytes=2 * parts_bytes,
    )


def _stored_bytes(ensemble: Ensemble) -> int:
    half = "scale" in ensemble.dataset
    return ensemble.n_volumes * ensemble.box**3 * (2 if half else 4)


def _shard_bytes(ensemble: Ensemble) -> int:
    """Return what reading a shard takes: in half precision also converted, and then scaled."""
    volumes = int(max(ensemble.volumes.chunks[0]))
    each = 10 if "scale" in ensemble.dataset else 4
    return volumes * each * ensemble.box**3


def _band_bytes(matrix: da.Array) -> int:
    return int(max(matrix.chunks[0])) * matrix.shape[1] * 4
