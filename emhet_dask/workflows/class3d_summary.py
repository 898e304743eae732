"""``emhet class3d summary``: how RELION classifications converged, and a verdict on each."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from emhet_dask.options import command
from emhet_dask.options.class3d_summary import Class3DSummary
from emhet_dask.report.class_verdict import ClassVerdict
from emhet_dask.urls import Place
from emhet_dask.workflows.stages.class_summary_jobs import open_jobs
from emhet_dask.workflows.stages.class_summary_maps import align_stage
from emhet_dask.workflows.stages.class_summary_page import summary_report_stage
from emhet_dask.workflows.stages.class_summary_tables import SummaryTables, tables_stage
from emhet_dask.workflows.stages.opening import opened

__all__ = ["ClassificationSummary", "class3d_summary"]


@dataclass(frozen=True)
class ClassificationSummary:
    """What a summary found, as its folder holds it.

    Attributes
    ----------
    folder : Path or UrlPlace
    tables : SummaryTables
        ``classes``, ``convergence``, ``ssnr``, ``views`` and ``facts``.
    verdicts : dict of str to ClassVerdict
        By job.
    """

    folder: Place
    tables: SummaryTables
    verdicts: dict[str, ClassVerdict]

    @property
    def classes(self) -> pd.DataFrame:
        """Return ``classes.csv``: a row per job, iteration and class."""
        return self.tables.classes

    @property
    def convergence(self) -> pd.DataFrame:
        """Return ``convergence.csv``: a row per job and iteration."""
        return self.tables.convergence

    def describe(self) -> str:
        """Return it in words."""
        lines = []
        for facts in self.tables.facts:
            verdict = self.verdicts[facts["job"]]
            lines.append(f"{facts['job']}: {verdict.words}")
            lines += [f"  {reason}" for reason in verdict.reasons]
            lines += [f"  note: {note}" for note in facts["notes"]]
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Class3DSummary)
def class3d_summary(options: Class3DSummary) -> ClassificationSummary:
    """Read RELION 3D classifications: their classes, how they converged, and a verdict on each.

    Every finished iteration whose ``_model.star`` is there is read once, of a continued job
    (``run_ct12_it025``) the later run's; iterations without are skipped, and named. RELION 3.0 to
    5 are understood; translations come out in Å. ``classes.csv`` has a row per job, iteration and
    class, ``convergence.csv`` one per job and iteration, ``ssnr.csv`` one per Fourier shell;
    ``verdicts.json`` holds what the verdicts rest on.

    A classification has *converged* where at most 1% of the particles changed class, on average
    over the last three iterations, and, where orientations are searched, their changes and those
    of the offsets no longer fall or are below RELION's estimate of their accuracy. Above 1% it is
    *still moving*, or, where the share is within a tenth of that of the three iterations before,
    *not settling*. A class has *collapsed* with less than a tenth of an even share (or
    `collapsed_share`). *Orientation coverage* is poor where the sampling factor of the class's
    Fourier shell is below 0.5, so that half of the particles are lost to their views, or more than
    5% of the shell is empty; the shell is that of the class's own resolution. See
    `emhet_dask.analysis.convergence` for sources.

    Returns
    -------
    ClassificationSummary

    Raises
    ------
    InputError
        When a folder is no classification job or has no finished iteration, a file of it cannot
        be read, or the output holds results of other jobs.
    """
    jobs = open_jobs(options.jobs)
    with opened(
        options,
        options.output,
        command="class3d summary",
        inputs={"jobs": {job.name: str(job.folder.path) for job in jobs}},
        recorded=("jobs", "align", "collapsed_share"),
    ) as (results, client, progress):
        tables = tables_stage(
            jobs,
            collapsed_share=options.collapsed_share,
            results=results,
            client=client,
            progress=progress,
        )
        if options.align:
            align_stage(jobs, tables, results=results, client=client, progress=progress)
        verdicts = summary_report_stage(
            jobs, tables, align=options.align, results=results, progress=progress
        )
    return ClassificationSummary(results.place, tables, verdicts)
