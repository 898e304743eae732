"""The stage ``reference`` of ``emhet similarity``: one map against all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from emhet_dask.analysis.ranking import shell_similarity_to, similarity_to
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.runtime import fingerprint_file
from emhet_dask.workflows.stages.foreign import ForeignMap
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["reference_stage"]


def reference_stage(job: Job, rows: Rows, reference: ForeignMap) -> pd.DataFrame:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
    rows : Rows
    reference : ForeignMap

    Returns
    -------
    pandas.DataFrame
        ``volume``, ``name`` and ``value``, the map most like the reference first.
    """

    def build(workspace: Path) -> None:
        with job.progress.computing(job.client, label="reference") as compute:
            (values,) = compute(_against(job, rows, reference).data)
        table = pd.DataFrame(
            {
                "volume": job.ensemble.dataset["volume_index"].values,
                "name": job.ensemble.names,
                "value": values,
            }
        ).sort_values("value", ascending=not rows.kernel.largest_first, kind="stable")
        table.to_csv(workspace / "reference.csv", index=False, float_format="%.6g")

    job.results.stage(
        "reference",
        parameters={**rows.options.recorded(), "reference": fingerprint_file(reference.path)},
        after=(rows.stage,),
        build=build,
        replaceable=True,
    )
    return pd.read_csv(job.results.path("reference.csv"), dtype={"name": str})


def _against(job: Job, rows: Rows, reference: ForeignMap) -> Any:
    metric: Any = rows.options.metric
    if rows.options.in_shells:
        return shell_similarity_to(
            job.ensemble.volumes,
            reference.density,
            metric=metric,
            mask=rows.mask,
            voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
            resolution_angstrom=rows.options.resolution,
            threshold=rows.options.fsc_threshold,
        )
    voxels = open_matrix(str(job.group("matrix")))["voxel_index"].values
    inside = reference.density.reshape(-1)[voxels]
    return similarity_to(rows.lazy, inside, metric=metric, weights=rows.voxel_weights)
