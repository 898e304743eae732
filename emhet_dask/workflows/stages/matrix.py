"""The stage ``matrix``: the voxels inside the mask, written once for all that follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emhet_dask.ensemble.matrix import write_matrix
from emhet_dask.runtime import digest, fingerprint_values, format_bytes
from emhet_dask.workflows.stages.costs import matrix_work
from emhet_dask.workflows.stages.job import Job

__all__ = ["matrix_stage"]


def matrix_stage(job: Job, mask: np.ndarray) -> None:
    """Run the stage, or find it done; a stage that was killed keeps its finished bands.

    Parameters
    ----------
    job : Job
        With the stage ``mask`` finished.
    mask : ndarray, shape (z, y, x)
        Voxels above 0 are kept.
    """
    key = digest(
        {
            "ensemble": job.ensemble.fingerprint,
            "mask": fingerprint_values(mask),
        }
    )

    def build(workspace: Path) -> None:
        path = str((workspace / "results.zarr" / "matrix").absolute())
        tasks, layout = write_matrix(path, job.ensemble, mask=mask, key=key)
        job.progress.say(
            f"matrix: {layout.shape[0]:,} volumes × {layout.shape[1]:,} voxels, "
            + format_bytes(int(np.prod(layout.shape)) * np.dtype(layout.dtype).itemsize)
        )
        if tasks:
            job.results.state(matrix_work(job.ensemble, layout, tasks=len(tasks)))
            job.progress.compute(job.client, tasks, label="masked voxels")

    job.results.stage("matrix", parameters={}, after=("mask",), build=build, resumable=True)
