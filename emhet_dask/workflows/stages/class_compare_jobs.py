"""The jobs of ``emhet class3d compare``: their particles, matched, and their class maps."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.analysis.fourier import crop_box
from emhet_dask.errors import InputError
from emhet_dask.formats.classification import Classification
from emhet_dask.formats.matching import Matched, match_classifications
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.options.class3d_compare import Class3DCompare
from emhet_dask.runtime import fingerprint_file

__all__ = ["ComparedJobs", "open_compared"]

# Class maps are compared at most so finely: what tells classes apart is of low resolution.
_BOX = 64


@dataclass(frozen=True, eq=False)
class ComparedJobs:
    """Classifications of the same particles.

    Attributes
    ----------
    names : tuple of str
        Unique, fit for file names.
    jobs : tuple of Classification
    matched : Matched
    """

    names: tuple[str, ...]
    jobs: tuple[Classification, ...]
    matched: Matched

    @property
    def classes(self) -> list[tuple[int, ...]]:
        """All classes of each job."""
        return [job.classes for job in self.jobs]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class (job, particle) of each shared particle."""
        return self.matched.labels(self.jobs)

    @cached_property
    def pmax(self) -> list[np.ndarray | None]:
        """Pmax of each shared particle in each job, where it is known."""
        return [
            None if job.pmax is None else job.pmax[rows]
            for job, rows in zip(self.jobs, self.matched.rows, strict=True)
        ]

    @cached_property
    def map_correlation(self) -> np.ndarray:
        """Correlations between all class maps (class, class), job by job; NaN where there is none.

        Maps are Fourier-cropped to 64³ voxels at most. Those of another extent are in another
        frame, and are not compared.
        """
        rows: list[np.ndarray | None] = []
        extents: list[Any] = []
        for job in self.jobs:
            for number in job.classes:
                row, extent = _prepared(job.class_maps.get(number))
                rows.append(row)
                extents.append(extent)
        found = np.full((len(rows), len(rows)), np.nan)
        for i, one in enumerate(rows):
            for j, other in enumerate(rows[: i + 1]):
                if one is not None and other is not None and extents[i] == extents[j]:
                    found[i, j] = found[j, i] = float(one @ other)
        return found

    @property
    def map_similarity(self) -> list[np.ndarray | None]:
        """Correlations between the class maps of each job; None for a job without maps."""
        ends = np.cumsum([0, *(len(job.classes) for job in self.jobs)])
        blocks = [self.map_correlation[start:end, start:end] for start, end in pairwise(ends)]
        return [None if np.isnan(block).all() else block for block in blocks]

    def inputs(self) -> dict[str, Any]:
        """Return what identifies the input, for the record of the run."""
        return {
            "jobs": {
                name: {
                    "path": str(job.path.absolute()),
                    "particles": fingerprint_file(job.path),
                    "maps": {
                        str(number): fingerprint_file(path)
                        for number, path in job.class_maps.items()
                    },
                }
                for name, job in zip(self.names, self.jobs, strict=True)
            }
        }

    def unmatched(self) -> list[str]:
        """Say how many particles of each job are not in all others."""
        return [
            f"{count:,} of the {job.n_particles:,} particles of {name}"
            for name, job, count in zip(
                self.names, self.jobs, self.matched.n_unmatched, strict=True
            )
            if count
        ]


def open_compared(options: Class3DCompare) -> ComparedJobs:
    """Read the jobs and match their particles.

    Raises
    ------
    InputError
        When there are fewer than two jobs, one is not found or given twice, a file cannot be read,
        or the particles cannot be matched.
    """
    paths = [*(options.job or ()), *_of_project(options)]
    if len(paths) < 2:
        raise InputError(f"JOB: found {len(paths)}, expected two or more, or --project and --jobs")
    jobs = [_open(path, options.passthrough or ()) for path in paths]
    # The file that is read: a folder and its own last iteration are the same job.
    real = [os.path.realpath(job.path) for job in jobs]
    twice = [path for path, each in zip(paths, real, strict=True) if real.count(each) > 1]
    if twice:
        raise InputError(
            f"JOB: {twice[0]} and {twice[1]} are the same classification; expected different ones"
        )
    return ComparedJobs(
        names=_unique([job.name for job in jobs], [job.path for job in jobs]),
        jobs=tuple(jobs),
        matched=match_classifications(jobs),
    )


def _open(path: str, passthrough: Sequence[str]) -> Classification:
    return Classification.open(path, passthrough=passthrough if path.endswith(".cs") else ())


def _of_project(options: Class3DCompare) -> list[str]:
    if (options.project is None) != (options.jobs is None):
        raise InputError("--project: goes with --jobs, such as --project . --jobs 85,86")
    if options.project is None or options.jobs is None:
        return []
    found = []
    for number in options.jobs:
        name = f"job{number:03d}"
        there = sorted(path for path in Path(options.project).glob(f"*/{name}") if path.is_dir())
        if len(there) != 1:
            where = f"{len(there)} folders */{name}" if there else f"no folder */{name}"
            raise InputError(
                f"--jobs: {options.project} has {where}; expected one, such as Class3D/{name}"
            )
        found.append(str(there[0]))
    return found


def _unique(names: Sequence[str], paths: Sequence[Path]) -> tuple[str, ...]:
    """Return names fit for file names; equal ones get the folder before, or a number."""
    plain = [re.sub(r"[^\w.+-]+", "_", name) or "job" for name in names]
    if len(set(plain)) < len(plain):
        twice = {name for name in plain if plain.count(name) > 1}
        folders = [path.absolute().parent for path in paths]
        before = [
            (folder.parent if folder.name == name else folder).name
            for folder, name in zip(folders, names, strict=True)
        ]
        plain = [
            re.sub(r"[^\w.+-]+", "_", f"{folder}_{name}") if name in twice else name
            for folder, name in zip(before, plain, strict=True)
        ]
    found: list[str] = []
    for name in plain:
        number, candidate = 2, name
        while candidate in found:
            candidate, number = f"{name}_{number}", number + 1
        found.append(candidate)
    return tuple(found)


def _prepared(path: Path | None) -> tuple[np.ndarray | None, Any]:
    """Return a map as a vector of mean 0 and length 1, and what it has to share with others."""
    if path is None:
        return None, None
    header = read_header(path)
    z, y, x = (min(side, _BOX) for side in header.shape)
    volume = crop_box(read_volume(header), (z, y, x))
    vector = volume.ravel().astype(np.float64)
    vector -= vector.mean()
    length = float(np.linalg.norm(vector))
    if not length > 0:  # an empty class has an empty map
        return None, None
    return vector / length, (header.shape, header.voxel_size_angstrom)
