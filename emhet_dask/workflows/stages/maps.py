"""Mean and standard deviation map of each state, in one reading of the volumes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask
import numpy as np

from emhet_dask.analysis.moments import Moments, accumulate, finish, merge_all
from emhet_dask.ensemble.reading import stream
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.stages.job import Job

__all__ = ["write_state_maps"]

# Members that one task reads; of a state with more, the parts are merged in order.
_MEMBERS_PER_TASK = 256
_VOLUMES_AT_ONCE = 8


def write_state_maps(job: Job, folder: Path, labels: np.ndarray, *, include: np.ndarray) -> None:
    """Write ``cluster_000_mean.mrc`` and ``cluster_000_std.mrc`` of every state.

    Volumes are weighted by their particles, where known. What a task reads depends on the data
    alone, and no task holds more than a few volumes, however many states there are.

    Parameters
    ----------
    job : Job
    folder : Path
        Where to write.
    labels : ndarray of int, shape (volume,)
    include : ndarray of bool, shape (volume,)
        Volumes that enter the maps; a state without any is made of all its members.
    """
    weights = job.ensemble.weights
    if weights is None:
        weights = np.ones(job.ensemble.n_volumes)
    place = {
        "voxel_size_angstrom": job.ensemble.voxel_size_angstrom,
        "origin_angstrom": job.ensemble.origin_angstrom,
    }
    tasks = []
    for state in range(int(labels.max()) + 1):
        members = np.flatnonzero((labels == state) & include)
        if not len(members):
            members = np.flatnonzero(labels == state)
        share = weights[members]
        if not share.any():  # volumes that stand for no particle still have a mean
            share = np.ones(len(members))
        parts = [
            _moments(stream(job.ensemble, members[part]), share[part])
            for part in _parts(len(members))
        ]
        stem = str((folder / f"cluster_{state:03d}").absolute())
        tasks.append(_write(parts, stem, place))
    job.progress.compute(job.client, tasks, label="state maps")


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _MEMBERS_PER_TASK) for start in range(0, count, _MEMBERS_PER_TASK)]


@dask.delayed(pure=False)
def _moments(volumes: Iterable[np.ndarray], weights: np.ndarray) -> Moments:
    parts: list[Moments] = []
    block: list[np.ndarray] = []
    for row, volume in enumerate(volumes, start=1):
        block.append(volume)
        if len(block) == _VOLUMES_AT_ONCE or row == len(weights):
            parts.append(accumulate(np.stack(block), weights[row - len(block) : row]))
            parts = [merge_all(parts)]
            block = []
    return parts[0]


@dask.delayed(pure=False)
def _write(parts: list[Moments], stem: str, place: dict[str, Any]) -> None:
    mean, deviation = finish(merge_all(parts))
    write_map(f"{stem}_mean.mrc", mean, **place)
    write_map(f"{stem}_std.mrc", deviation, **place)
