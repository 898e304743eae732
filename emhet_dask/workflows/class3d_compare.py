"""``emhet class3d compare``: classifications of the same particles, and what they agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from emhet_dask.analysis.consensus import Consensus
from emhet_dask.options import command
from emhet_dask.options.class3d_compare import Class3DCompare
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.urls import Place
from emhet_dask.workflows.stages.class_compare_jobs import open_compared
from emhet_dask.workflows.stages.class_compare_page import compare_report_stage
from emhet_dask.workflows.stages.class_compare_subsets import (
    class_files_stage,
    consensus_files_stage,
)
from emhet_dask.workflows.stages.class_compare_tables import (
    CompareTables,
    compare_tables_stage,
    consensus_stage,
)

__all__ = ["Compared", "class3d_compare"]


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison found, as its folder holds it.

    Attributes
    ----------
    folder : Path or UrlPlace
    names : tuple of str
        Of the jobs.
    tables : CompareTables
        ``pairs``, ``agreement``, ``correspondence`` and ``chance``.
    consensus : Consensus
    notes : tuple of str
        Particles that were left out.
    """

    folder: Place
    names: tuple[str, ...]
    tables: CompareTables
    consensus: Consensus
    notes: tuple[str, ...]

    @property
    def agreement(self) -> pd.DataFrame:
        """Return ``agreement.csv``: a row per pair of jobs."""
        return self.tables.agreement

    def describe(self) -> str:
        """Return it in words."""
        found = self.consensus
        lines = [
            f"{row.job1} and {row.job2}: adjusted Rand index {row.adjusted_rand_index:.3f}, "
            f"adjusted mutual information {row.adjusted_mutual_information:.3f}"
            for row in self.agreement.itertuples()
        ]
        sizes = ", ".join(
            f"{count:,}" for count in np.bincount(found.labels, minlength=found.n_classes + 1)[1:]
        )
        unresolved = int(np.count_nonzero(found.labels == 0))
        classes = f"{found.n_classes} consensus class{'es' * (found.n_classes != 1)}"
        lines.append(
            f"{classes} of {sizes} particles; {unresolved:,} unresolved, "
            f"{np.count_nonzero(found.core):,} in the stable core"
        )
        if len(self.agreement) == 1:
            lines.append(
                "note: with two jobs, a division that only one of them makes cannot be confirmed"
            )
        if self.notes:
            lines.append(f"note: left out, for they are not in every job: {'; '.join(self.notes)}")
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Class3DCompare)
def class3d_compare(options: Class3DCompare) -> Compared:
    """Compare classifications of the same particles, and find the classes they agree on.

    Particles are matched by image name (``uid`` among ``.cs`` files) and copy rank; those that are
    not in every job are counted and left out. ``intersection_counts.csv`` and
    ``intersection_fractions.csv`` (of the class of the row) are tables of all classes of different
    jobs, ``counts_matrix.csv`` and ``fraction_matrix.csv`` the same in rows; ``chance.csv`` puts
    beside them what unrelated jobs would show. ``agreement.csv`` has the adjusted Rand index and
    the adjusted mutual information of each pair of jobs with their distribution under permutation,
    ``correspondence.csv`` the classes that correspond. ``consensus.csv`` gives each particle's
    consensus class (0 is unresolved) and confidence; see `emhet_dask.analysis.consensus` for how.

    Returns
    -------
    Compared

    Raises
    ------
    InputError
        When there are fewer than two jobs, a file cannot be read, the particles cannot be matched,
        the jobs do not tell apart so many classes, or the output holds results of other jobs.
    """
    progress = Progress(quiet=options.quiet)
    compared = open_compared(options)
    notes = tuple(compared.unmatched())
    with ResultsFolder.open(
        options.output,
        command="class3d compare",
        inputs=compared.inputs(),
        parameters=options.parameters(
            "job", "project", "jobs", "passthrough", "n_consensus", "min_size", "no_star", "seed"
        ),
        overwrite=options.overwrite,
        progress=progress,
    ) as results:
        tables = compare_tables_stage(compared, seed=options.seed, results=results)
        found = consensus_stage(
            compared,
            n_consensus=options.n_consensus,
            min_size=options.min_size,
            results=results,
        )
        if not options.no_star:
            class_files_stage(compared, results=results, progress=progress)
            consensus_files_stage(compared, found, results=results, progress=progress)
        compare_report_stage(
            compared, tables, found, notes=notes, results=results, progress=progress
        )
    return Compared(results.place, compared.names, tables, found, notes)
