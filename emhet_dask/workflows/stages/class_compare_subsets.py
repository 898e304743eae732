"""Particle files of ``emhet class3d compare``: classes, intersections, consensus classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emhet_dask.analysis.consensus import Consensus
from emhet_dask.formats.classification import Classification
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_compare_jobs import ComparedJobs
from emhet_dask.workflows.stages.class_compare_tables import class_label

__all__ = ["class_files_stage", "consensus_files_stage"]


class _Subset(NamedTuple):
    path: str
    source: Classification
    rows: np.ndarray


def class_files_stage(
    compared: ComparedJobs, *, results: ResultsFolder, progress: Progress
) -> None:
    """Write a file per class of each job, and one per intersection that holds particles.

    A class has all particles of its job; an intersection is a subset of the first of both jobs.
    """
    subsets = [*_of_classes(compared), *_of_intersections(compared)]
    build = partial(_write, subsets=subsets, progress=progress, label="class files")
    results.stage("class files", parameters={}, build=build)


def consensus_files_stage(
    compared: ComparedJobs, found: Consensus, *, results: ResultsFolder, progress: Progress
) -> None:
    """Write a file per consensus class and per stable core, from the first job's particles."""
    build = partial(
        _write,
        subsets=list(_of_consensus(compared, found)),
        progress=progress,
        label="consensus files",
    )
    results.stage(
        "consensus files", parameters={}, after=("consensus",), build=build, replaceable=True
    )


def _write(
    folder: Path, *, subsets: list[_Subset], progress: Progress, label: str
) -> dict[str, int]:
    with progress.task(label, total=len(subsets), unit="files") as task:
        for subset in subsets:
            path = folder / subset.path
            path.parent.mkdir(parents=True, exist_ok=True)
            subset.source.write(path, subset.rows)
            task.update(1)
    return {"files": len(subsets)}


def _of_classes(compared: ComparedJobs) -> Iterator[_Subset]:
    for name, job in zip(compared.names, compared.jobs, strict=True):
        for number in job.classes:
            rows = np.flatnonzero(job.labels == number)
            if len(rows):
                path = f"per_class_star/{class_label(name, number)}{job.suffix}"
                yield _Subset(path, job, rows)


def _of_intersections(compared: ComparedJobs) -> Iterator[_Subset]:
    names, labels = compared.names, compared.labels
    for first, job in enumerate(compared.jobs):
        rows = compared.matched.rows[first]
        for second in range(first + 1, len(names)):
            for one in job.classes:
                inside = labels[first] == one
                for two in compared.classes[second]:
                    both = np.flatnonzero(inside & (labels[second] == two))
                    if len(both):
                        stem = (
                            f"{class_label(names[first], one)}_vs_{class_label(names[second], two)}"
                        )
                        path = f"intersections/{stem}{job.suffix}"
                        yield _Subset(path, job, np.sort(rows[both]))


def _of_consensus(compared: ComparedJobs, found: Consensus) -> Iterator[_Subset]:
    job, rows = compared.jobs[0], compared.matched.rows[0]
    for number in range(found.n_classes + 1):
        stem = f"class_{number}" if number else "unresolved"
        inside = found.labels == number
        for folder, chosen in (("consensus_star", inside), ("consensus_core", inside & found.core)):
            if chosen.any():
                yield _Subset(f"{folder}/{stem}{job.suffix}", job, rows[chosen])
