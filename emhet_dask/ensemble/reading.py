"""Chosen volumes one after another, for tasks that need a few of many.

A state's volumes lie scattered over all shards, and reading just their chunks costs no more than
reading whole shards does. A chunk holds one volume, or several small ones: it is read once for all
that are wanted of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from emhet_dask.ensemble.checked import CheckedArray
from emhet_dask.ensemble.ensemble import Ensemble
from emhet_dask.ensemble.store import open_array, open_group

__all__ = ["StoredVolumes", "stream"]

# Of neighbouring volumes that are read at a time: a few requests under way where latency counts.
_READ_BYTES = 8 << 20


@dataclass(frozen=True)
class StoredVolumes:
    """Volumes of a store, read when iterated over, on whichever worker that is.

    Attributes
    ----------
    path : str
        Of the store.
    positions : ndarray of int
        Volumes, in the store's own numbering.
    scale : ndarray or None
        Their factors, where the store is in half precision.
    """

    path: str
    positions: np.ndarray
    scale: np.ndarray | None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each volume, float32, shape (z, y, x)."""
        stored = open_array(open_group(self.path), "volumes")
        volumes = CheckedArray(stored, self.path)
        size = int(np.prod(stored.shape[1:])) * stored.dtype.itemsize
        for run in _runs(self.positions, stored.chunks[0], max(1, _READ_BYTES // size)):
            # Plain slices only: a list of positions takes zarr ten times as long.
            first = int(self.positions[run].min())
            block = volumes[first : int(self.positions[run].max()) + 1]
            for row in range(run.start, run.stop):
                volume = block[self.positions[row] - first].astype(np.float32, copy=False)
                yield volume if self.scale is None else volume * self.scale[row]


def _runs(positions: np.ndarray, per_chunk: int, at_most: int) -> Iterator[slice]:
    """Cut positions where one is in another chunk than the last and is not its neighbour."""
    start = 0
    for row in range(1, len(positions) + 1):
        if row < len(positions):
            last, here = positions[row - 1], positions[row]
            together = here // per_chunk == last // per_chunk
            if together or (here == last + 1 and row - start < at_most):
                continue
        yield slice(start, row)
        start = row


def stream(ensemble: Ensemble, volumes: np.ndarray) -> Any:
    """Return chosen volumes as something that a task can iterate over.

    Of a store, they are read as the task goes; of an array in memory, they are all given to the
    task, so that no task should ask for many.

    Parameters
    ----------
    ensemble : Ensemble
    volumes : ndarray of int
        Positions in the ensemble.

    Returns
    -------
    StoredVolumes or dask.delayed.Delayed
        To be passed to a delayed function, which iterates over volumes of shape (z, y, x).
    """
    if ensemble.path is None:
        return dask.delayed(list)(ensemble.volumes[volumes])
    scale = ensemble.dataset.get("scale")
    return StoredVolumes(
        path=ensemble.path,
        positions=np.asarray(ensemble.dataset["volume_index"].values)[volumes],
        scale=None if scale is None else np.asarray(scale.values, dtype=np.float32)[volumes],
    )
