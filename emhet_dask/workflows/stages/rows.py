"""The rows that pairs of maps are compared by: masked voxels, or Fourier shells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dask.array as da
import numpy as np

from emhet_dask.analysis.pair_kernels import PairKernel
from emhet_dask.analysis.shells import Shells, plan_shells, shell_matrix
from emhet_dask.analysis.similarity import pair_kernel, shell_kernel
from emhet_dask.ensemble.matrix import open_matrix, plan_matrix
from emhet_dask.ensemble.rows import StoredRows, open_rows, write_rows
from emhet_dask.runtime import digest, fingerprint_values
from emhet_dask.workflows.stages.costs import shells_work
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.matrix import matrix_stage

__all__ = ["RowOptions", "Rows", "rows_stage"]


@dataclass(frozen=True)
class RowOptions:
    """What the rows, and the values of pairs of them, depend on.

    Attributes
    ----------
    metric : str
        ``"correlation"``, ``"l2"``, ``"fsc-mean"`` or ``"fsc-resolution"``.
    resolution : float or None
        Finest resolution of the shells, in Å.
    fsc_threshold : float
    """

    metric: str
    resolution: float | None
    fsc_threshold: float

    @property
    def in_shells(self) -> bool:
        """Tell whether rows are Fourier shells."""
        return self.metric.startswith("fsc")

    @property
    def is_inner_product(self) -> bool:
        """Tell whether values follow from one inner product of rows, as distances in space do."""
        return self.metric != "fsc-resolution"

    @property
    def larger_is_closer(self) -> bool:
        """Tell whether values are similarities, not distances."""
        return self.metric in {"correlation", "fsc-mean"}

    def recorded(self) -> dict[str, Any]:
        """Return what decides the values of pairs, beside the rows."""
        threshold = {} if self.is_inner_product else {"fsc_threshold": self.fsc_threshold}
        return {"metric": self.metric, **threshold}


@dataclass(frozen=True)
class Rows:
    """Rows of all maps, in the results folder.

    Attributes
    ----------
    job : Job
    options : RowOptions
    mask : ndarray, shape (z, y, x)
    """

    job: Job
    options: RowOptions
    mask: np.ndarray

    @property
    def stage(self) -> str:
        """Return the stage that wrote them."""
        return "rows" if self.options.in_shells else "matrix"

    @property
    def stored(self) -> StoredRows:
        """Return what tasks read them with."""
        return StoredRows(str(self.job.group(self.stage)))

    @property
    def lazy(self) -> da.Array:
        """Return them as a lazy array (volume, column), float32."""
        path = str(self.job.group(self.stage))
        if self.options.in_shells:
            return cast("da.Array", open_rows(path)["rows"].data)
        return cast("da.Array", open_matrix(path)["matrix"].data)

    @property
    def shells(self) -> Shells:
        """Return the Fourier shells that the columns are sorted by."""
        return _shells(self.job, self.options)

    @cached_property
    def voxel_weights(self) -> np.ndarray | None:
        """Return the weights of the voxels, the squares of a soft mask; None inside a hard one."""
        soft = open_matrix(str(self.job.group(self.stage)))["voxel_weight"].values
        return None if np.all(soft == 1) else np.square(soft, dtype=np.float64)

    @cached_property
    def kernel(self) -> PairKernel:
        """Return the arithmetic of pairs; the rows are read for it, once or twice."""
        metric: Any = self.options.metric
        with self.job.progress.computing(self.job.client, label="rows") as compute:
            if self.options.in_shells:
                return shell_kernel(
                    self.lazy,
                    self.shells,
                    metric=metric,
                    threshold=self.options.fsc_threshold,
                    compute=compute,
                )
            return pair_kernel(
                self.lazy, metric=metric, weights=self.voxel_weights, compute=compute
            )

    @property
    def prepared(self) -> da.Array:
        """Return lazy rows (volume, column) whose inner products are the values, float32."""
        return da.map_blocks(
            _prepare,
            self.lazy,
            self.kernel,
            dtype=np.float32,
            meta=np.empty((0, 0), dtype=np.float32),
        )


def rows_stage(job: Job, mask: np.ndarray, options: RowOptions) -> Rows:
    """Run the stage ``matrix``, or ``rows`` for the metrics of Fourier shells; or find it done.

    Parameters
    ----------
    job : Job
        With the stage ``mask`` finished.
    mask : ndarray, shape (z, y, x)
    options : RowOptions

    Returns
    -------
    Rows

    Raises
    ------
    InputError
        When the resolution asked for is coarser than the box is wide.
    """
    if not options.in_shells:
        matrix_stage(job, mask)
        return Rows(job, options, mask)
    _shells(job, options)  # refuses what is impossible
    key = digest(
        {
            "ensemble": job.ensemble.fingerprint,
            "mask": fingerprint_values(mask),
            "resolution": options.resolution,
        }
    )

    def build(workspace: Path) -> None:
        rows, _ = shell_matrix(
            job.ensemble.volumes,
            mask=mask,
            voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
            resolution_angstrom=options.resolution,
        )
        path = str((workspace / "results.zarr" / "rows").absolute())
        tasks = write_rows(path, rows.data, key=key)
        if tasks:
            layout = plan_matrix(rows.shape[0], rows.shape[1], "float32")
            job.results.state(shells_work(job.ensemble, rows.data, layout, tasks=len(tasks)))
            job.progress.compute(job.client, tasks, label="Fourier shells")

    parameters = {"resolution": options.resolution}
    job.results.stage("rows", parameters=parameters, after=("mask",), build=build, resumable=True)
    return Rows(job, options, mask)


def _shells(job: Job, options: RowOptions) -> Shells:
    return plan_shells(
        (job.ensemble.box,) * 3,
        voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
        resolution_angstrom=options.resolution,
    )


def _prepare(block: np.ndarray, kernel: PairKernel, block_info: Any = None) -> np.ndarray:
    if block_info is None or not block.size:  # how dask asks what would come out
        return np.empty(block.shape, dtype=np.float32)
    rows, columns = (slice(*bounds) for bounds in block_info[0]["array-location"])
    prepared = np.empty(block.shape, dtype=np.float32)
    kernel.prepare(block, rows, columns, prepared)
    return prepared
