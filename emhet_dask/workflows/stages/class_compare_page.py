"""The stage ``report`` of ``emhet class3d compare``: figures and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from emhet_dask.analysis.consensus import Consensus
from emhet_dask.report.class_tables import (
    agreement_rows,
    consensus_rows,
    correspondence_rows,
    overlap_matrix,
)
from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.sankey import class_flow, sankey
from emhet_dask.report.sankey_page import write_sankey_page
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_compare_jobs import ComparedJobs
from emhet_dask.workflows.stages.class_compare_tables import CompareTables
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["compare_report_stage"]

# Past so many classes the table of shares is a picture of dots.
_MOST_CLASSES = 120
# A p-value above this is no evidence of any agreement.
_INSIGNIFICANT = 0.05


def compare_report_stage(
    compared: ComparedJobs,
    tables: CompareTables,
    found: Consensus,
    *,
    notes: Sequence[str],
    results: ResultsFolder,
    progress: Progress,
) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    compared : ComparedJobs
    tables : CompareTables
    found : Consensus
    notes : sequence of str
        What was left out.
    results : ResultsFolder
        With both stages of tables finished.
    progress : Progress
    """

    def build(workspace: Path) -> None:
        flow = class_flow(
            compared.labels, found.labels, names=compared.names, classes=compared.classes
        )
        draw = {
            "sankey_counts.png": partial(sankey, flow),
            "sankey_fractions.png": partial(sankey, flow, fractions=True),
        }
        if sum(len(each) for each in compared.classes) <= _MOST_CLASSES:
            draw["overlap.png"] = partial(
                overlap_matrix,
                _wide(compared, tables.chance, "fraction"),
                _wide(compared, tables.chance, "residual"),
                names=compared.names,
                classes=compared.classes,
            )
        with progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        title = f"Classes of {', '.join(compared.names)}"
        write_sankey_page(workspace / "sankey.html", flow, title=title)
        _write_page(_Page(compared, tables, found, tuple(notes)), workspace, results)

    results.stage(
        "report",
        parameters={"notes": list(notes)},
        after=("tables", "consensus"),
        build=build,
        replaceable=True,
    )


def _wide(compared: ComparedJobs, chance: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column of the table as (class, class), job by job."""
    place = {
        key: row
        for row, key in enumerate(
            (name, number)
            for name, known in zip(compared.names, compared.classes, strict=True)
            for number in known
        )
    }
    values = np.full((len(place), len(place)), np.nan)
    one = [place[key] for key in zip(chance["job1"], chance["class1"], strict=True)]
    two = [place[key] for key in zip(chance["job2"], chance["class2"], strict=True)]
    values[one, two] = chance[column]
    return values


@dataclass(frozen=True, eq=False)
class _Page:
    """What the report tells of."""

    compared: ComparedJobs
    tables: CompareTables
    found: Consensus
    notes: tuple[str, ...]


def _write_page(page: _Page, folder: Path, results: ResultsFolder) -> None:
    compared, tables, found = page.compared, page.tables, page.found
    classes = pd.read_csv(results.path("consensus_classes.csv"))
    n_particles = compared.matched.n_particles
    unresolved = int(np.count_nonzero(found.labels == 0))
    core = int(np.count_nonzero(found.core))
    write_report(
        folder / "report.html",
        title=f"Comparison of {', '.join(compared.names)}",
        headline=(
            f"{counted(len(compared.jobs), 'job')}, {counted(n_particles, 'particle')}: "
            f"{found.n_classes} consensus class{'es' * (found.n_classes != 1)}"
        ),
        reason=_reason(compared, found),
        summary=[
            ("Stable core", f"{core:,} ({core / n_particles:.0%})"),
            ("Unresolved", f"{unresolved:,} ({unresolved / n_particles:.1%})"),
            (
                "Adjusted Rand index of jobs",
                _range(tables.agreement["adjusted_rand_index"]),
            ),
            ("Smallest class allowed", counted(found.min_size, "particle")),
        ],
        warnings=_warnings(page),
        sections=_sections(folder, compared, tables, classes),
        provenance=provenance(results.path())
        | {
            "Input": {
                name: str(job.path) for name, job in zip(compared.names, compared.jobs, strict=True)
            },
        },
    )


def _reason(compared: ComparedJobs, found: Consensus) -> str:
    made = [division for division in found.divisions if division.made]
    if not made:
        return "No two jobs make the same division of the particles."
    voting = int(np.count_nonzero(found.job_weight))
    single = sum(division.n_jobs == 1 for division in made)
    text = f"{counted(len(made), 'division')} of the particles, "
    if single == len(made):
        return f"{text}each made by one job."
    if single:
        return (
            f"{text}{len(made) - single} made by both jobs and {single} by one of them, where the "
            "other has both sides in one class."
            if voting == 2
            else f"{text}{single} of them made by one job alone."
        )
    return f"{text}each made by at least two of {voting} jobs."


def _range(values: pd.Series) -> str:
    low, high = (round(float(each), 2) + 0.0 for each in (values.min(), values.max()))
    return f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f}"


def _warnings(page: _Page) -> list[Remark]:
    compared, tables, found = page.compared, page.tables, page.found
    remarks = []
    if page.notes:
        text = f"Particles that are not in every job are left out: {'; '.join(page.notes)}."
        remarks.append(Remark(text, serious=False))
    useless = [
        name for name, weight in zip(compared.names, found.job_weight, strict=True) if weight == 0
    ]
    if useless:
        text = (
            f"{', '.join(useless)}: shares nothing with any other job, and has no vote in the "
            "consensus."
        )
        remarks.append(Remark(text, serious=False))
    if (tables.agreement["p_value"] > _INSIGNIFICANT).all():
        text = (
            "No two jobs agree better than by chance. Their consensus classes are combinations of "
            "classes, which nothing confirms."
        )
        remarks.append(Remark(text, serious=True))
    elif len(compared.jobs) == 2:
        text = (
            "With two jobs, a division that only one of them makes cannot be confirmed. A third "
            "job, with another seed, would tell states from accidents."
        )
        remarks.append(Remark(text, serious=False))
    return remarks


def _sections(
    folder: Path, compared: ComparedJobs, tables: CompareTables, classes: pd.DataFrame
) -> list[Section]:
    overlap = [
        Picture(
            folder / "overlap.png",
            "In percent; every row of a job adds up to 100 over each other job. All counts are in "
            "intersection_counts.csv, and beside what chance would give in chance.csv.",
        )
    ]
    return [
        Section(
            "Consensus classes",
            "Each particle belongs to the class that most jobs vote for; confidence is the share "
            "of the votes, and the stable core has nine tenths of them. Beside each class, the "
            "classes of the jobs that hold most of it. consensus.csv lists the particles, "
            "tuples.csv every combination of classes that occurs.",
            table=consensus_rows(classes, compared.names),
        ),
        Section(
            "From job to job",
            "sankey.html is the same, and answers to the mouse.",
            [
                Picture(
                    folder / "sankey_counts.png",
                    "Boxes are classes, as high as they have particles.",
                ),
                Picture(
                    folder / "sankey_fractions.png",
                    "The same with every class equally high, so that small ones can be read.",
                ),
            ],
        ),
        Section(
            "Agreement of the jobs",
            "Both indices are 1 for equal classifications and 0, on average, for unrelated ones. "
            "Of 999 random permutations of the labels, 95 in 100 stay below the values under "
            "Chance; p is the share of them that reach the mutual information found.",
            table=agreement_rows(tables.agreement),
        ),
        Section(
            "Overlap of classes",
            "",
            overlap if (folder / "overlap.png").is_file() else [],
        ),
        Section(
            "Corresponding classes",
            "The pairing of classes that keeps the most particles together (correspondence.csv).",
            table=correspondence_rows(tables.correspondence),
        ),
    ]
