"""Chosen volumes one after another, for tasks that need a few of many.

A state's volumes lie scattered over all shards. Chunks are single volumes, so that reading just
those costs no more than reading whole shards does (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from emhet_dask.ensemble.ensemble import Ensemble
from emhet_dask.ensemble.store import open_array, open_group

__all__ = ["StoredVolumes", "stream"]


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
        volumes = open_array(open_group(self.path), "volumes")
        for row, position in enumerate(self.positions):
            volume = np.asarray(volumes[int(position)], dtype=np.float32)
            yield volume if self.scale is None else volume * self.scale[row]


def stream(ensemble: Ensemble, volumes: np.ndarray) -> Any:
    """Return chosen volumes as something that a task can iterate over.

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
