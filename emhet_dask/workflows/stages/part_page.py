"""The stage ``report`` of ``emhet occupancy``: figures and page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from emhet_dask.analysis.occupancy import rescale_parts
from emhet_dask.analysis.relations import state_table
from emhet_dask.report.clustermap import occupancy_clustermap
from emhet_dask.report.graph import relation_graph
from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.palette import STATE_COLOURS
from emhet_dask.report.relation_rows import relation_rows, state_rows
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.part_tables import PartTables
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["part_report_stage"]


def part_report_stage(job: Job, tables: PartTables, *, relative: bool) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With all other stages finished.
    tables : PartTables
    relative : bool
        Whether occupancies are relative to references.
    """

    def build(workspace: Path) -> None:
        names = tables.names
        values = tables.occupancy[names]
        present = tables.presence[names].to_numpy(dtype=bool)
        scaled = pd.DataFrame(rescale_parts(values), columns=names)
        blocks = tables.parts.rename(columns={"part": "block"})
        states = state_table(present, names)[1]
        draw = {
            "clustermap.png": partial(
                occupancy_clustermap,
                scaled,
                presence=present,
                # No reader tells more colours apart.
                states=states if len(tables.states) <= len(STATE_COLOURS) else None,
                label="occupancy, rescaled",
                noun="part",
            ),
            "relations.png": partial(relation_graph, tables.relations, blocks, noun="part"),
        }
        with job.progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        _write_page(workspace, job, tables, relative=relative)

    job.results.stage(
        "report", parameters={}, after=("occupancy", "relations"), build=build, replaceable=True
    )


def _write_page(folder: Path, job: Job, tables: PartTables, *, relative: bool) -> None:
    ensemble = job.ensemble
    related = tables.relations[tables.relations["relation"] != "independent"]
    write_report(
        folder / "report.html",
        title=Path(ensemble.path).name if ensemble.path else "array in memory",
        headline=(
            f"{counted(len(tables.parts), 'part')} in {counted(ensemble.n_volumes, 'volume')}: "
            f"{counted(len(related), 'pair')} related, "
            f"{counted(len(tables.states), 'combination')} of parts"
        ),
        summary=[
            ("Box", f"{ensemble.box}³ voxels of {ensemble.voxel_size_angstrom:.4g} Å"),
            ("Occupancy is", "relative to references" if relative else "a sum of density"),
            ("Pairs of parts", len(tables.relations)),
        ],
        warnings=_warnings(tables),
        sections=_sections(folder, tables, related, relative=relative),
        provenance=provenance(job.results.path()),
    )


def _warnings(tables: PartTables) -> list[Remark]:
    names = tables.undecided
    if not names:
        return []
    text = (
        f"{', '.join(names[:5])}{' and others' * (len(names) > 5)}: occupancies have no two modes, "
        "so nothing tells in which volumes the part is missing. It counts as present in all (or "
        "in none, below 0.2 of its reference), and has no relations; --cut says otherwise."
    )
    return [Remark(text, serious=False)]


def _sections(
    folder: Path, tables: PartTables, related: pd.DataFrame, *, relative: bool
) -> list[Section]:
    how = "divided by the sum of its reference map" if relative else "not divided by anything"
    return [
        Section(
            "Occupancy",
            f"The sum of mask × map for each part, {how}, is in occupancy.csv; the mean density in "
            "the mask is in mean_density.csv. A part is present (occupancy_presence.csv) where it "
            "exceeds its cut.",
            [
                Picture(
                    folder / "clustermap.png",
                    "Every volume, in the order of the tree. For this picture parts are rescaled, "
                    "the 10th percentile to 0 and the 90th to 1; a rare part from its least to its "
                    "most, and one without two modes from 0.",
                )
            ],
            _parts_table(tables.parts),
        ),
        Section(
            "Relations",
            "By Fisher's exact test on presence, corrected for all pairs by Holm's method; a rule "
            "holds in all but 5% of the volumes. All pairs are in occupancy_relations.csv.",
            [
                Picture(
                    folder / "relations.png",
                    "What others need is at the left; it need not have come first.",
                )
            ],
            relation_rows(related, noun="part") if len(related) else None,
        ),
        Section(
            "Combinations",
            "Which parts are present together, the most frequent first; all are in "
            "occupancy_states.csv. `emhet select --state` makes particle lists of them.",
            table=state_rows(tables.states, tables.names, noun="part"),
        ),
    ]


def _parts_table(parts: pd.DataFrame) -> pd.DataFrame:
    titles = {
        "part": "Part",
        "voxels": "Voxels",
        "cut": "Cut",
        "volumes": "Volumes with it",
    }
    shown = parts.rename(columns=titles)[list(titles.values())]
    return shown.assign(Share=[f"{share:.1%}" for share in parts["fraction"]])
