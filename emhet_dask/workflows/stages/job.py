"""What every stage needs: the ensemble, the results folder, and where work runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from emhet_dask.ensemble import Ensemble
from emhet_dask.runtime import Progress, ResultsFolder

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One command at work.

    Attributes
    ----------
    ensemble : Ensemble
        The volumes that the command uses, in the order of its results.
    results : ResultsFolder
    client : distributed.Client
    progress : Progress
    made_by : tuple of str
        Stages of this command that made the ensemble.
    """

    ensemble: Ensemble
    results: ResultsFolder
    client: Client
    progress: Progress
    made_by: tuple[str, ...] = ()

    def persist(self, *collections: Any) -> tuple[Any, ...]:
        """Hold collections in the memory of the workers, with the signature of `dask.persist`."""
        return tuple(self.client.persist(list(collections)))

    def group(self, name: str) -> Path:
        """Return the path of a finished group of ``results.zarr``."""
        return self.results.path("results.zarr") / name
