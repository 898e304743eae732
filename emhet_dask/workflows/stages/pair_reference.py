"""One map against all, for ``emhet similarity --reference``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from emhet_dask.analysis.ranking import shell_similarity_to, similarity_to
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages.foreign import ForeignMap
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["compare_with"]


def compare_with(job: Job, rows: Rows, reference: ForeignMap) -> pd.DataFrame:
    """Compare one map with all.

    Parameters
    ----------
    job : Job
    rows : Rows
    reference : ForeignMap

    Returns
    -------
    pandas.DataFrame
        ``volume``, ``name`` and ``value``, the map most like the reference first; the index is the
        position in the ensemble.

    Raises
    ------
    InputError
        When the reference is constant inside the mask.
    """
    inside = reference.density[rows.mask > 0]
    if inside.min() == inside.max():
        raise InputError(
            f"--reference {reference.path}: is constant inside the mask, expected a map with "
            "density"
        )
    with job.progress.computing(job.client, label="reference") as compute:
        (values,) = compute(_against(job, rows, reference).data)
    table = pd.DataFrame(
        {
            "volume": job.ensemble.dataset["volume_index"].values,
            "name": job.ensemble.names,
            "value": values,
        }
    )
    return table.sort_values("value", ascending=not rows.options.larger_is_closer, kind="stable")


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
