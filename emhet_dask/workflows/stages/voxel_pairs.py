"""The stages ``occupied`` and ``voxel_pairs``: bits of the voxels, and the tests of all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.association import Association
from emhet_dask.analysis.binarised import kept_voxels
from emhet_dask.analysis.cooccupancy import Correction, edge_kernel, level_kernel, tile_side
from emhet_dask.analysis.near_pairs import NearPairs, near_pairs
from emhet_dask.ensemble.edges import (
    finish_edges,
    finish_levels,
    open_edges,
    write_edges,
    write_levels,
)
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.ensemble.occupied import StoredBits, finish_occupied, open_occupied, write_occupied
from emhet_dask.errors import InputError
from emhet_dask.runtime import digest, fingerprint_values
from emhet_dask.workflows.stages.costs import occupied_work, tiles_work
from emhet_dask.workflows.stages.job import Job

__all__ = ["PairOptions", "VoxelPairs", "occupied_stage", "voxel_pairs_stage"]

_TASK_BYTES = 256 << 20


@dataclass(frozen=True)
class PairOptions:
    """What the tests depend on beside the bits.

    Attributes
    ----------
    settings : tuple of (float, float)
        ``positive_p`` and ``negative_p``; the first is the one that was asked for, others are
        screened.
    correction : str
    min_enrichment : float
    neighbours : int
    length_voxels : float
        Pairs at most so far apart are not tested.
    """

    settings: tuple[tuple[float, float], ...]
    correction: Correction
    min_enrichment: float
    neighbours: int
    length_voxels: float


@dataclass(frozen=True)
class VoxelPairs:
    """Associations of the voxels of one level of thresholds.

    Attributes
    ----------
    bits : StoredBits
    edges_path : str
    box : int
    options : PairOptions
    """

    bits: StoredBits
    edges_path: str
    box: int
    options: PairOptions

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Return the positions of the voxels in the box, (voxel, axis)."""
        return _coordinates(self.bits, self.box)

    @cached_property
    def near(self) -> NearPairs | None:
        """Return which pairs are too near to be tested."""
        return near_pairs(self.coordinates, self.options.length_voxels, self.bits.n_voxels)

    def edges(self, setting: int = 0) -> xr.Dataset:
        """Return the associations at one setting."""
        return open_edges(self.edges_path, setting)

    def tests(self, edges: xr.Dataset) -> Association:
        """Return the tests by which these edges were found."""
        positive, negative = (float(alpha) for alpha in edges["alpha"].values)
        bits = self.bits
        return Association(
            bits.margins, bits.n_volumes, positive, negative, self.options.min_enrichment
        )


def occupied_stage(job: Job, thresholds: np.ndarray, *, said: str) -> None:
    """Run the stage, or find it done; a stage that was killed keeps its finished columns.

    Parameters
    ----------
    job : Job
        With the stage ``thresholds`` finished.
    thresholds : ndarray (level, volume)
    said : str
        Option that they come from, for messages.

    Raises
    ------
    InputError
        When a level leaves no voxel that is occupied in some volumes and not in others.
    """
    parameters = {"thresholds": fingerprint_values(thresholds)}
    key = digest({"ensemble": job.ensemble.fingerprint, **parameters})

    def build(workspace: Path) -> dict[str, Any]:
        path = str((workspace / "results.zarr" / "occupied").absolute())
        tasks = write_occupied(path, str(job.group("matrix")), thresholds, key=key)
        if tasks:
            matrix = open_matrix(str(job.group("matrix")), columns=True)["matrix"].data
            job.results.state(
                occupied_work(
                    matrix,
                    levels=len(thresholds),
                    columns=max(matrix.chunks[1]),
                    tasks=len(tasks),
                )
            )
            job.progress.compute(job.client, tasks, label="occupied voxels")
        with _named(said):
            finish_occupied(path, choose=kept_voxels)
        counts = [open_occupied(path, level).n_voxels for level in range(len(thresholds))]
        return {"voxels": counts}

    job.results.stage(
        "occupied",
        parameters=parameters,
        after=("thresholds",),
        build=build,
        replaceable=True,
        resumable=True,
    )


def voxel_pairs_stage(job: Job, options: PairOptions, *, memory_bytes: int) -> list[VoxelPairs]:
    """Run the stage, or find it done; a stage that was killed keeps its finished tiles.

    Parameters
    ----------
    job : Job
        With the stage ``occupied`` finished.
    options : PairOptions
    memory_bytes : int
        Of one worker.

    Returns
    -------
    list of VoxelPairs
        Of each level of thresholds.

    Raises
    ------
    InputError
        When there are fewer volumes than any pair needs to be significant.
    """

    def build(workspace: Path) -> dict[str, Any]:
        facts = []
        for level, bits in enumerate(_levels(job)):
            path = (workspace / "results.zarr" / "voxel_pairs" / f"level_{level}").absolute()
            facts.append(_compare(job, bits, str(path), options, memory_bytes))
        return {"pairs": facts}

    job.results.stage(
        "voxel_pairs",
        parameters=vars(options),
        after=("occupied",),
        build=build,
        replaceable=True,
        resumable=True,
    )
    return [
        VoxelPairs(
            bits, str(job.group("voxel_pairs") / f"level_{level}"), job.ensemble.box, options
        )
        for level, bits in enumerate(_levels(job))
    ]


def _compare(job: Job, bits: StoredBits, path: str, options: PairOptions, memory_bytes: int) -> int:
    """Test all pairs of one level; return how many they were."""
    key = digest({"ensemble": job.ensemble.fingerprint, **vars(options)})
    side = tile_side(
        bits.n_voxels,
        bits.n_volumes,
        min(_TASK_BYTES, memory_bytes // 4),
        n_settings=len(options.settings),
        n_neighbours=options.neighbours,
    )
    bands = -(-bits.n_voxels // side)
    job.results.state(
        tiles_work(
            n_voxels=bits.n_voxels,
            n_volumes=bits.n_volumes,
            side=side,
            tasks=bands * (bands + 1) // 2,
            n_settings=len(options.settings),
            n_neighbours=options.neighbours,
        )
    )
    distance: dict[str, Any] = {
        "coordinates": _coordinates(bits, job.ensemble.box),
        "least_distance": options.length_voxels,
    }
    counts = None
    if options.correction == "benjamini-hochberg":
        levels = level_kernel(bits, options.settings, **distance)
        tasks = write_levels(f"{path}_p", bits, kernel=levels, side=side, key=key)
        if tasks:
            job.progress.compute(job.client, tasks, label="p-values")
        counts = finish_levels(f"{path}_p")
    with _named("--positive-p, --negative-p"):
        kernel = edge_kernel(
            bits,
            options.settings,
            correction=options.correction,
            counts=counts,
            min_enrichment=options.min_enrichment,
            n_neighbours=options.neighbours,
            **distance,
        )
    tasks = write_edges(path, bits, kernel=kernel, side=side, key=key)
    job.progress.say(f"pairs: {kernel.n_pairs:,} of {bits.n_voxels:,} voxels")
    if tasks:
        job.progress.compute(job.client, tasks, label="pairs of voxels")
    finish_edges(path, kernel=kernel)
    return kernel.n_pairs


def _levels(job: Job) -> list[StoredBits]:
    path = job.group("occupied")
    count = sum(each.name.startswith("level_") for each in path.iterdir())
    return [open_occupied(str(path), level) for level in range(count)]


def _coordinates(bits: StoredBits, box: int) -> np.ndarray:
    return np.stack(np.unravel_index(bits.voxel_index, (box,) * 3), axis=1).astype(np.int32)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Say which option an error is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{option}: {error}") from None
