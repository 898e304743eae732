"""``emhet occupancy``: how much of each given part is there in each volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from emhet_dask.options import command
from emhet_dask.options.occupancy import Occupancy
from emhet_dask.report.style import counted
from emhet_dask.urls import UrlPlace
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.opening import opened
from emhet_dask.workflows.stages.part_page import part_report_stage
from emhet_dask.workflows.stages.part_tables import (
    MavenLayout,
    PartTables,
    load_tables,
    maven_stage,
    measure_stage,
    relate_stage,
)
from emhet_dask.workflows.stages.parts import find_parts
from emhet_dask.workflows.stages.selection import choose_volumes, inputs_of, open_source

__all__ = ["Occupied", "occupancy"]


@dataclass(frozen=True)
class Occupied:
    """Results of a measurement of parts, as its folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    tables : PartTables
        ``occupancy``, ``presence``, ``relations``, ``states`` and ``parts``.
    """

    folder: Path | UrlPlace
    tables: PartTables

    @property
    def occupancy(self) -> pd.DataFrame:
        """Return the occupancies: ``volume``, ``name`` and a column for each part."""
        return self.tables.occupancy

    @property
    def relations(self) -> pd.DataFrame:
        """Return the relations, a row per pair of parts."""
        return self.tables.relations

    def describe(self) -> str:
        """Return it in words."""
        tables = self.tables
        kinds = tables.relations["relation"].value_counts(sort=False)
        related = [f"{count} {kind}" for kind, count in kinds.items() if kind != "independent"]
        lines = [
            f"{counted(len(tables.parts), 'part')} in {counted(len(tables.occupancy), 'volume')}, "
            f"{counted(len(tables.states), 'combination')} of them; relations: "
            f"{', '.join(related) or 'none'}"
        ]
        if tables.undecided:
            lines.append(
                f"warning: {', '.join(tables.undecided[:5])}"
                f"{' and others' * (len(tables.undecided) > 5)}: no two modes, so the same in all "
                "volumes, and without relations; --cut says otherwise"
            )
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Occupancy)
def occupancy(options: Occupancy) -> Occupied:
    """Measure the occupancy of given parts in each volume, and relate the parts.

    Occupancy is that of MAVEn: the sum of mask × map, divided, where references are given, by the
    sum of the reference map of the part. The volumes are read once, one after another on each
    worker. ``occupancy.csv`` and ``mean_density.csv`` (mean over the mask) have a row per volume;
    ``occupancy_presence.csv``, ``occupancy_relations.csv`` and ``occupancy_states.csv`` say where
    each part is present, which parts need or exclude each other, and which combinations occur.

    With ``format="maven"``, ``occupancies.csv`` is the table that MAVEn writes: a row per volume
    under the number that ends its name, and columns under the two headers ``PDB`` and ``Chain``,
    all letters a to z for each PDB, empty where there is no such part. As there, the mask of a
    chain is ``Mask_PDB_chainX.mrc``; a name without ``_chain`` becomes chain a of its own PDB.

    Returns
    -------
    Occupied

    Raises
    ------
    InputError
        When the ensemble, a mask or a reference cannot be used, or the output holds results of
        other settings.
    """
    source = open_source(options.ensemble)
    ensemble, _ = choose_volumes(source)
    files = find_parts(options.masks, options.references, ensemble)
    layout = None
    if options.format == "maven":
        layout = MavenLayout.of(ensemble.names.tolist(), files.names)
    with opened(
        options,
        options.output,
        command="occupancy",
        inputs=inputs_of(source, ensemble),
        recorded=("masks", "references", "cut", "format"),
    ) as (results, client, progress):
        job = Job(ensemble, results, client, progress)
        measured = measure_stage(job, files)
        if layout is not None:
            maven_stage(job, layout)
        relate_stage(job, files, measured, cut=options.cut)
        tables = load_tables(results.path())
        part_report_stage(job, tables, relative=files.references is not None)
    return Occupied(results.place, tables)
