"""The class maps of ``emhet class3d summary``: read, and fitted to the best one on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.alignment import Fitter, make_reference
from emhet_dask.analysis.rigid import move
from emhet_dask.analysis.rotations import relion_angles
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.mrc_write import write_map
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_summary_jobs import SummaryJob
from emhet_dask.workflows.stages.class_summary_tables import SummaryTables
from emhet_dask.workflows.stages.volume_costs import class_fits_work

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ALIGNED", "align_stage", "best_class", "map_paths", "read_maps"]

ALIGNED = "aligned"


def map_paths(job: SummaryJob) -> dict[int, Path]:
    """Return class number to map of the last iteration; empty where they were cleaned up."""
    return dict(job.folder.maps.get(job.last, {}))


def read_maps(
    paths: dict[int, Path], *, otherwise_angstrom: float
) -> tuple[dict[int, np.ndarray], float, tuple[float, float, float]]:
    """Read the class maps of a job.

    Parameters
    ----------
    paths : dict of int to Path
        Not empty.
    otherwise_angstrom : float
        Voxel size where the maps do not say it.

    Returns
    -------
    maps : dict of int to ndarray (z, y, x)
    voxel_size_angstrom : float
    origin_angstrom : tuple of float

    Raises
    ------
    InputError
        When a map cannot be read, or they differ in shape.
    """
    headers = {number: read_header(path) for number, path in paths.items()}
    first = next(iter(headers.values()))
    for header in headers.values():
        if header.shape != first.shape:
            raise InputError(
                f"{header.path}: {header.shape[0]} voxels a side, {first.path} has "
                f"{first.shape[0]}; class maps of a job are of one box"
            )
    voxel_size = first.voxel_size_angstrom or otherwise_angstrom
    if not voxel_size > 0:
        raise InputError(f"{first.path}: does not say its voxel size, nor does _model.star")
    maps = {number: read_volume(header) for number, header in headers.items()}
    return maps, voxel_size, first.origin_angstrom


def best_class(classes: pd.DataFrame, there: Sequence[int]) -> int:
    """Return the class of finest resolution; of several, the largest.

    Parameters
    ----------
    classes : DataFrame
        ``class``, ``resolution_A`` and ``distribution`` of one iteration.
    there : sequence of int
        Classes that have a map.
    """
    rows = classes[classes["class"].isin(there)]
    rows = rows.sort_values(["resolution_A", "distribution"], ascending=[True, False])
    return int(rows["class"].iloc[0])


def align_stage(
    jobs: Sequence[SummaryJob],
    tables: SummaryTables,
    *,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> None:
    """Fit the class maps of each job to its best one, or find that done.

    Writes ``aligned/JOB_class001.mrc``, … and ``aligned/transforms.csv``, whose columns are those
    of ``emhet align``.

    Parameters
    ----------
    jobs : sequence of SummaryJob
    tables : SummaryTables
    results, client, progress
        Where results go and work runs.

    Raises
    ------
    InputError
        When a map cannot be read or fitted.
    """

    def build(workspace: Path) -> None:
        (workspace / ALIGNED).mkdir()
        tasks = [
            _Fits.of(job, tables, workspace / ALIGNED) for job in jobs if len(map_paths(job)) > 1
        ]
        sizes = [[path.stat().st_size for path in task.paths.values()] for task in tasks]
        results.state(class_fits_work(sizes))
        found = list(progress.map(client, _Fits.run, tasks, label="align", unit="jobs"))
        rows = [row for of_job in found for row in of_job]
        pd.DataFrame(rows, columns=_COLUMNS).to_csv(
            workspace / ALIGNED / "transforms.csv", index=False, float_format="%.6g"
        )

    files = {
        job.name: [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns]
            for path in map_paths(job).values()
        ]
        for job in jobs
    }
    results.stage(
        "align", parameters={"maps": files}, after=("tables",), build=build, replaceable=True
    )


_COLUMNS = (
    *("job", "class", "reference", "rot", "tilt", "psi"),
    *("shift_x_angstrom", "shift_y_angstrom", "shift_z_angstrom"),
    *("correlation", "rival_correlation", "margin", "flagged", "reason", "chimerax_matrix"),
)


@dataclass(frozen=True)
class _Fits:
    """The fits of one job, made on one worker: the reference takes as long as a fit."""

    job: str
    paths: dict[int, Path]
    best: int
    voxel_size_angstrom: float
    folder: Path

    @classmethod
    def of(cls, job: SummaryJob, tables: SummaryTables, folder: Path) -> _Fits:
        paths = map_paths(job)
        own = tables.of(job.name)
        last = own.classes[own.classes["iteration"] == job.last]
        best = best_class(last, list(paths))
        return cls(job.name, paths, best, own.facts[0]["voxel_size_angstrom"], folder)

    def run(self) -> list[dict[str, Any]]:
        maps, voxel_size, origin = read_maps(
            self.paths, otherwise_angstrom=self.voxel_size_angstrom
        )
        try:
            reference = make_reference(maps[self.best], voxel_size_angstrom=voxel_size)
        except InputError as error:
            raise InputError(f"{self.paths[self.best]}: {error}") from error
        fitter = Fitter(reference)
        rows = []
        for number, volume in maps.items():
            moved, row = self._fit(fitter, number, volume, voxel_size, origin)
            rows.append(row)
            write_map(
                self.folder / f"{self.job}_class{number:03d}.mrc",
                moved,
                voxel_size_angstrom=voxel_size,
                origin_angstrom=origin,
            )
        return rows

    def _fit(
        self,
        fitter: Fitter,
        number: int,
        volume: np.ndarray,
        voxel_size: float,
        origin: tuple[float, float, float],
    ) -> tuple[np.ndarray, dict[str, Any]]:
        row: dict[str, Any] = {"job": self.job, "class": number, "reference": self.best}
        # A class that lost all its particles has an empty map, which is left where it is.
        if volume.min() == volume.max():
            return volume, {**row, "flagged": True, "reason": "the map is constant"}
        fit = fitter.fit(volume)
        shift = fit.motion.shift_voxels * voxel_size
        placement = fit.motion.placement(
            volume.shape[0], voxel_size_angstrom=voxel_size, origin_angstrom=origin
        )
        return move(volume, fit.motion), {
            **row,
            **dict(zip(("rot", "tilt", "psi"), relion_angles(fit.motion.rotation), strict=True)),
            **{f"shift_{axis}_angstrom": shift["xyz".index(axis)] for axis in "xyz"},
            "correlation": fit.correlation,
            "rival_correlation": fit.rival_correlation,
            "margin": fit.margin,
            "flagged": fit.flagged,
            "reason": fit.reason,
            "chimerax_matrix": ",".join(f"{value:.6g}" for value in placement.ravel()),
        }
