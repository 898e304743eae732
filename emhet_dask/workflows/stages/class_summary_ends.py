"""What the particles of a job's last iteration say: classes, viewing directions, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emhet_dask.analysis.convergence import (
    Coverage,
    fourier_coverage,
    symmetry_operations,
    view_directions,
)
from emhet_dask.formats.relion_model import IterationModel, read_symmetry
from emhet_dask.formats.star import ParticleTable, read_particles
from emhet_dask.report.class_views import VIEW_BINS
from emhet_dask.workflows.stages.class_summary_jobs import SummaryJob

__all__ = ["Ends", "coverage_of", "read_ends", "view_counts"]


@dataclass(frozen=True)
class Ends:
    """The particles of the last iteration.

    Attributes
    ----------
    symmetry : str
        Point group.
    n_particles : int or None
        None where there is no ``_data.star``.
    labels : ndarray (particle,) or None
        Class of each particle.
    angles : ndarray (particle, 2) or None
        Rot and tilt in degrees.
    unknown : str
        Why there are no angles to judge.
    """

    symmetry: str
    n_particles: int | None
    labels: np.ndarray | None = None
    angles: np.ndarray | None = None
    unknown: str = ""


def read_ends(job: SummaryJob) -> Ends:
    """Read the particles and the symmetry of a job.

    Raises
    ------
    InputError
        When a file that is there cannot be read.
    """
    sampling = job.star("sampling", job.last)
    symmetry = "C1" if sampling is None else read_symmetry(sampling)
    data = job.star("data", job.last)
    if data is None:
        return Ends(symmetry, None, unknown=f"iteration {job.last} has no _data.star")
    table = read_particles(data)
    columns, count = table.particles, len(table.particles)
    labels = None
    if "rlnClassNumber" in columns:
        labels = pd.to_numeric(columns["rlnClassNumber"], errors="coerce").to_numpy()
    if labels is None or not {"rlnAngleRot", "rlnAngleTilt"} <= set(columns):
        return Ends(symmetry, count, labels, unknown="the particles have no classes or no angles")
    if _is_tomography(table):
        return Ends(symmetry, count, labels, unknown="subtomograms are no projections")
    angles = np.stack(
        [
            pd.to_numeric(columns[name], errors="coerce").to_numpy(dtype=float)
            for name in ("rlnAngleRot", "rlnAngleTilt")
        ],
        axis=1,
    )
    return Ends(symmetry, count, labels, angles)


def _is_tomography(table: ParticleTable) -> bool:
    if "rlnTomoParticleName" in table.particles or "rlnTomoName" in table.particles:
        return True
    optics = table.optics
    return (
        optics is not None
        and "rlnImageDimensionality" in optics
        and bool((pd.to_numeric(optics["rlnImageDimensionality"], errors="coerce") == 3).any())
    )


def coverage_of(last: IterationModel, end: Ends, diameter: float) -> dict[int, Coverage]:
    """Judge the views of every class at its own resolution.

    Parameters
    ----------
    last : IterationModel
    end : Ends
    diameter : float
        Of the particle, in Å.

    Returns
    -------
    dict of int to Coverage
        Without classes that have no particles or no resolution; empty where there is nothing to
        judge.
    """
    operations = symmetry_operations(end.symmetry)
    if end.labels is None or end.angles is None or operations is None:
        return {}
    directions = view_directions(end.angles[:, 0], end.angles[:, 1])
    found = {}
    for number, resolution in last.classes[["class", "resolution_A"]].itertuples(index=False):
        shell = diameter / resolution
        own = directions[end.labels == number]
        if len(own) and np.isfinite(shell) and np.isfinite(own).all():
            found[int(number)] = fourier_coverage(own, shell=shell, operations=operations)
    return found


def view_counts(job: SummaryJob, last: IterationModel, end: Ends) -> pd.DataFrame:
    """Count the viewing directions of every class in bins of equal area; without empty bins."""
    tables = [pd.DataFrame(columns=["job", "class", "rot_bin", "tilt_bin", "particles"])]
    if end.labels is not None and end.angles is not None:
        rot = (end.angles[:, 0] + 180.0) % 360.0 - 180.0
        height = np.cos(np.deg2rad(end.angles[:, 1]))
        for number in last.classes["class"]:
            own = (end.labels == number) & np.isfinite(rot) & np.isfinite(height)
            counts, _, _ = np.histogram2d(
                rot[own], height[own], bins=VIEW_BINS, range=((-180, 180), (-1, 1))
            )
            places = np.argwhere(counts)
            if len(places):
                tables.append(
                    pd.DataFrame(
                        {
                            "job": job.name,
                            "class": number,
                            "rot_bin": places[:, 0],
                            "tilt_bin": places[:, 1],
                            "particles": counts[tuple(places.T)].astype(int),
                        }
                    )
                )
    return pd.concat(tables[1:] or tables, ignore_index=True)
