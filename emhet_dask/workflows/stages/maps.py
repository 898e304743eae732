"""Mean and standard deviation map of each state, in one reading of the volumes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask
import numpy as np

from emhet_dask.analysis.bands import tree
from emhet_dask.analysis.moments import Moments, accumulate, finish, merge_all
from emhet_dask.ensemble.reading import stream
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.stages.costs import state_maps_work
from emhet_dask.workflows.stages.job import Job

__all__ = ["write_state_maps"]

# A task streams a run of a state's members, however long: runs are cut so that there are enough of
# them to share out, and not so many that merging them counts. Of an array in memory a task is given
# all its volumes at once.
_RUNS = 128
_SHORTEST_RUN = 64
_RUN_IN_MEMORY = 32


def write_state_maps(job: Job, folder: Path, labels: np.ndarray, *, include: np.ndarray) -> None:
    """Write ``cluster_000_mean.mrc`` and ``cluster_000_std.mrc`` of every state.

    Volumes are weighted by their particles, where known. Runs of members are summed, one volume at
    a time, and merged as a tree; both are cut by the data alone, so that the maps are the same on
    any number of workers. Memory: a few volumes of float64 per thread.

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
    run = _run(job)
    tasks: list[Any] = []
    n_runs = 0
    for state in range(int(labels.max()) + 1):
        members = np.flatnonzero((labels == state) & include)
        if not len(members):
            members = np.flatnonzero(labels == state)
        share = weights[members]
        if not share.any():  # volumes that stand for no particle still have a mean
            share = np.ones(len(members))
        parts = [
            _moments(stream(job.ensemble, members[start : start + run]), share[start : start + run])
            for start in range(0, len(members), run)
        ]
        n_runs += len(parts)
        stem = str((folder / f"cluster_{state:03d}").absolute())
        tasks.append(_write(tree(parts, merge_all), stem, place))
    work = state_maps_work(job.ensemble, stage="state maps", tasks=n_runs, states=len(tasks))
    job.results.state(work)
    job.progress.compute(job.client, tasks, label="state maps")


def _run(job: Job) -> int:
    if job.ensemble.path is None:
        return _RUN_IN_MEMORY
    return max(_SHORTEST_RUN, -(-job.ensemble.n_volumes // _RUNS))


@dask.delayed(pure=False)
def _moments(volumes: Iterable[np.ndarray], weights: np.ndarray) -> Moments:
    return accumulate(volumes, weights)


@dask.delayed(pure=False)
def _write(moments: Moments, stem: str, place: dict[str, Any]) -> None:
    mean, deviation = finish(moments)
    write_map(f"{stem}_mean.mrc", mean, **place)
    write_map(f"{stem}_std.mrc", deviation, **place)
