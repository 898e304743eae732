"""The stage ``report`` of ``emhet class3d summary``: figures and page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emhet_dask.analysis.convergence import MOST_CHANGING
from emhet_dask.report.class_sheet import class_sheet
from emhet_dask.report.class_verdict import ClassVerdict, class_verdict
from emhet_dask.report.class_views import VIEW_BINS, views_figure
from emhet_dask.report.convergence import convergence_figure, spectrum_figure
from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_summary_jobs import SummaryJob
from emhet_dask.workflows.stages.class_summary_maps import (
    ALIGNED,
    best_class,
    map_paths,
    read_maps,
)
from emhet_dask.workflows.stages.class_summary_tables import SummaryTables
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["summary_report_stage"]

FIGURES = "figures"
_CAPTIONS = {
    "convergence": (
        "What RELION noted at each iteration. The log-likelihood of two iterations compares only "
        "where both used the same resolution."
    ),
    "maps": (
        "Three orthogonal slices through the middle of the largest class, on one grey scale. A "
        "class that looks like noise, or like another one, is none of its own."
    ),
    "ssnr": "How much signal each class map has at each resolution.",
    "views": "From where the particles of each class are seen. Empty regions are missing views.",
}


def summary_report_stage(
    jobs: Sequence[SummaryJob],
    tables: SummaryTables,
    *,
    align: bool,
    results: ResultsFolder,
    progress: Progress,
) -> dict[str, ClassVerdict]:
    """Run the stage, or find it done.

    Parameters
    ----------
    jobs : sequence of SummaryJob
    tables : SummaryTables
    align : bool
        Whether the maps on the sheets are those of the stage ``align``.
    results, progress
        Where results go.

    Returns
    -------
    dict of str to ClassVerdict
        By job.

    Raises
    ------
    InputError
        When a class map cannot be read.
    """
    verdicts = {facts["job"]: class_verdict(facts) for facts in tables.facts}

    def build(workspace: Path) -> None:
        (workspace / FIGURES).mkdir()
        draw: dict[str, Callable[[], Figure]] = {}
        for job in jobs:
            draw |= _figures(job, tables.of(job.name), results.path() if align else None)
        with progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        _write_page(workspace, jobs, tables, verdicts, results.path())

    results.stage(
        "report",
        parameters={"align": align},
        after=("tables", "align") if align else ("tables",),
        build=build,
        replaceable=True,
    )
    return verdicts


# Figures ------------------------------------------------------------------------------------------


def _figures(
    job: SummaryJob, tables: SummaryTables, aligned_in: Path | None
) -> dict[str, Callable[[], Figure]]:
    classes = tables.classes[tables.classes["iteration"] == job.last]
    draw: dict[str, Callable[[], Figure]] = {
        _file(job, "convergence"): partial(
            convergence_figure,
            tables.classes,
            tables.convergence,
            job=job.name,
            limit=MOST_CHANGING,
        )
    }
    shells = tables.ssnr[tables.ssnr["iteration"] == job.last]
    if len(shells):
        draw[_file(job, "ssnr")] = partial(
            spectrum_figure, shells, job=job.name, iteration=job.last
        )
    if len(tables.views):
        draw[_file(job, "views")] = partial(_views_figure, job, tables, classes)
    if map_paths(job):
        draw[_file(job, "maps")] = partial(_sheet, job, tables, classes, aligned_in)
    return draw


def _file(job: SummaryJob, name: str) -> str:
    return f"{FIGURES}/{job.name}_{name}.png"


def _views_figure(job: SummaryJob, tables: SummaryTables, classes: pd.DataFrame) -> Figure:
    # The largest first, as on the sheet of maps.
    rows = classes.sort_values("distribution", ascending=False, kind="stable")
    counts = np.zeros((len(rows), *VIEW_BINS))
    titles = []
    numbers = rows["class"].astype(int).tolist()
    for k, number in enumerate(numbers):
        own = tables.views[tables.views["class"] == number]
        counts[k, own["rot_bin"], own["tilt_bin"]] = own["particles"]
        found = tables.facts[0]["coverage"].get(number)
        title = f"class {number} · {own['particles'].sum():,}"
        titles.append(title + (f" · factor {found['sampling_factor']:.2f}" if found else ""))
    return views_figure(counts, numbers=numbers, titles=titles, job=job.name)


def _sheet(
    job: SummaryJob, tables: SummaryTables, classes: pd.DataFrame, aligned_in: Path | None
) -> Figure:
    paths = map_paths(job)
    note = ""
    if aligned_in is not None and len(paths) > 1:
        best = best_class(classes, list(paths))
        note = f"All fitted to class {best}, the best resolved."
        paths = {
            number: aligned_in / ALIGNED / f"{job.name}_class{number:03d}.mrc" for number in paths
        }
    maps, voxel_size, _ = read_maps(
        paths, otherwise_angstrom=tables.facts[0]["voxel_size_angstrom"]
    )
    return class_sheet(
        maps, classes=classes, voxel_size_angstrom=voxel_size, job=job.name, note=note
    )


# Page ---------------------------------------------------------------------------------------------


def _write_page(
    folder: Path,
    jobs: Sequence[SummaryJob],
    tables: SummaryTables,
    verdicts: dict[str, ClassVerdict],
    root: Path,
) -> None:
    good = sum(verdict.good for verdict in verdicts.values())
    overview = [Section("Verdicts", table=_verdict_table(tables, verdicts))]
    if len(jobs) == 1:
        headline = f"{jobs[0].name}: {verdicts[jobs[0].name].words}"
        overview = []
    else:
        headline = f"{counted(len(jobs), 'classification')}: {good} converged without objection"
    write_report(
        folder / "report.html",
        title="RELION classification" + "s" * (len(jobs) > 1),
        headline=headline,
        warnings=[
            Remark(f"{facts['job']}: {note}.", serious=False)
            for facts in tables.facts
            for note in facts["notes"]
        ],
        sections=[
            *overview,
            *(_section(folder, job, tables.of(job.name), verdicts[job.name]) for job in jobs),
        ],
        provenance=provenance(root),
    )


def _verdict_table(tables: SummaryTables, verdicts: dict[str, ClassVerdict]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Job": [facts["job"] for facts in tables.facts],
            "Verdict": [verdicts[facts["job"]].words for facts in tables.facts],
            "Classes": [facts["n_classes"] for facts in tables.facts],
            "Iterations": [facts["last_iteration"] for facts in tables.facts],
            "Particles": [facts["n_particles"] for facts in tables.facts],
            "Changed class at the end": [
                "–" if np.isnan(facts["classes"]["recent"]) else f"{facts['classes']['recent']:.2%}"
                for facts in tables.facts
            ],
        }
    )


def _section(
    folder: Path, job: SummaryJob, tables: SummaryTables, verdict: ClassVerdict
) -> Section:
    pictures = [
        Picture(folder / _file(job, name), caption)
        for name, caption in _CAPTIONS.items()
        if (folder / _file(job, name)).is_file()
    ]
    facts = tables.facts[0]
    planned = facts["iterations_planned"]
    text = [f"Verdict: {verdict.words}.", " ".join(verdict.reasons)]
    if planned is not None and planned > job.last:
        text.append(f"The job was to run {planned} iterations; {job.last} are finished.")
    if not map_paths(job):
        text.append(f"There are no class maps of iteration {job.last}.")
    return Section(
        job.name,
        "\n\n".join(text),
        pictures,
        _class_table(tables.classes[tables.classes["iteration"] == job.last]),
    )


def _class_table(classes: pd.DataFrame) -> pd.DataFrame:
    rows = classes.sort_values("distribution", ascending=False, kind="stable")
    shown = pd.DataFrame(
        {
            "Class": rows["class"].astype(int),
            "Share": [f"{share:.1%}" for share in rows["distribution"]],
            "Particles": rows["assigned"].fillna(rows["particles"]).round(),
            "Resolution, Å": rows["resolution_A"],
            "Rot. ±°": rows["accuracy_rotations_deg"],
            "Shift ±Å": rows["accuracy_translations_A"],
            "Completeness, %": (100 * rows["fourier_completeness"]).round(1),
            "Sampling factor": rows["sampling_factor"].round(2),
            "Empty shell, %": (100 * rows["unsampled"]).round(1),
        }
    )
    shown["Particles"] = shown["Particles"].astype("Int64")
    return shown.dropna(axis="columns", how="all")
