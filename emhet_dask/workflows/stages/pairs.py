"""The stage ``pairs``: the similarity of every pair of maps, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble.pair_matrix import condensed, open_pairs, read_rows
from emhet_dask.ensemble.pairs import Keep, finish_pairs, plan_pairs, write_pairs
from emhet_dask.runtime import digest, format_bytes
from emhet_dask.workflows.stages.costs import amplitudes_work, pairs_work
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["MOST_IN_CSV", "MOST_WITH_MATRIX", "Pairs", "pairs_stage"]

# A matrix of 1.6 GB; past that it is kept only where it is asked for.
MOST_WITH_MATRIX = 20_000
# Maps whose matrix is written as a table too.
MOST_IN_CSV = 2_000
# Nearest maps are listed as a table up to here; past that they are in similarity.zarr alone.
_MOST_RANKED = 20_000
_TASK_BYTES = 512 << 20


@dataclass(frozen=True)
class Pairs:
    """All pairs, in the results folder.

    Attributes
    ----------
    path : str
        Store of the pairs.
    dataset : xarray.Dataset
        ``neighbour``, ``neighbour_similarity``, ``histogram``, …; ``similarity`` where it is kept.
    """

    path: str
    dataset: xr.Dataset

    @property
    def has_matrix(self) -> bool:
        """Tell whether the matrix of all pairs is kept."""
        return "similarity" in self.dataset

    @property
    def undefined(self) -> np.ndarray:
        """Tell which maps are constant, so that they are like nothing; shape (volume,)."""
        return np.asarray(self.dataset["undefined"].values, dtype=bool)

    def condensed(self) -> np.ndarray:
        """Return the values of all pairs of defined maps, float64, in SciPy's condensed order."""
        values = condensed(self.path, dtype=np.float64)
        if not self.undefined.any():
            return values
        return values[~np.isnan(values)]

    def matrix(self) -> np.ndarray:
        """Return the whole matrix."""
        return read_rows(self.path, 0, self.dataset.sizes["volume"])


def pairs_stage(
    job: Job, rows: Rows, *, full_matrix: bool, n_neighbours: int, memory_bytes: int
) -> Pairs:
    """Run the stage, or find it done; a stage that was killed keeps its finished blocks.

    Parameters
    ----------
    job : Job
    rows : Rows
    full_matrix : bool
        Keep the matrix however many maps there are.
    n_neighbours : int
        Of each map.
    memory_bytes : int
        Of one worker.

    Returns
    -------
    Pairs
    """
    count = job.ensemble.n_volumes
    keep: Keep = "all" if full_matrix or count <= MOST_WITH_MATRIX else "neighbours"
    parameters = {**rows.options.recorded(), "keep": keep, "neighbours": n_neighbours}

    def build(workspace: Path) -> dict[str, Any]:
        path = str((workspace / "similarity.zarr").absolute())
        job.results.state(amplitudes_work(rows.lazy, stage="norms of rows"))
        kernel = rows.kernel
        layout = plan_pairs(
            count,
            rows.stored.shape[1],
            min(_TASK_BYTES, memory_bytes // 4),
            arrays=kernel.arrays,
        )
        tasks = write_pairs(
            path,
            rows.stored,
            kernel=kernel,
            layout=layout,
            key=digest({"ensemble": job.ensemble.fingerprint, **parameters}),
            keep=keep,
            n_neighbours=n_neighbours,
        )
        job.progress.say(
            f"pairs: {count * (count - 1) // 2:,} of {count:,} maps, {len(layout.blocks):,} blocks"
            + (f", {format_bytes(4 * count * count)}" if keep == "all" else "")
        )
        if tasks:
            work = pairs_work(layout, tasks=len(tasks), keeps_matrix=keep == "all")
            job.results.state(work)
            job.progress.compute(job.client, tasks, label="pairs")
        finish_pairs(path, kernel=kernel)
        pairs = Pairs(path, open_pairs(path))
        _write_tables(job, pairs, workspace)
        return {
            "blocks": len(layout.blocks),
            "undefined": job.ensemble.names[pairs.undefined].tolist(),
        }

    job.results.stage(
        "pairs",
        parameters=parameters,
        after=(rows.stage,),
        build=build,
        replaceable=True,
        resumable=True,
    )
    path = str(job.results.path("similarity.zarr"))
    return Pairs(path, open_pairs(path))


def _write_tables(job: Job, pairs: Pairs, workspace: Path) -> None:
    names = job.ensemble.names
    if pairs.has_matrix and len(names) <= MOST_IN_CSV:
        pd.DataFrame(pairs.matrix(), index=names, columns=names).to_csv(
            workspace / "similarity_matrix.csv", float_format="%.6g"
        )
    if len(names) <= _MOST_RANKED:
        _nearest(job, pairs).to_csv(
            workspace / "nearest_maps.csv", index=False, float_format="%.6g"
        )


def _nearest(job: Job, pairs: Pairs) -> pd.DataFrame:
    """Return a row for each map and each of those nearest to it."""
    neighbour = pairs.dataset["neighbour"].values
    count, ranks = neighbour.shape
    names, numbers = job.ensemble.names, job.ensemble.dataset["volume_index"].values
    table = pd.DataFrame(
        {
            "volume": np.repeat(numbers, ranks),
            "name": np.repeat(names, ranks),
            "rank": np.tile(np.arange(1, ranks + 1), count),
            "nearest_volume": numbers[neighbour.ravel()],
            "nearest_name": names[neighbour.ravel()],
            "value": pairs.dataset["neighbour_similarity"].values.ravel(),
        }
    )
    return table[neighbour.ravel() >= 0]
