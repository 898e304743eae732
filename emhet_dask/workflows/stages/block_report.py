"""The stage ``report`` of ``emhet blocks``: figures, ChimeraX script, notebook and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from emhet_dask.report.block_pairs import block_matrix
from emhet_dask.report.block_presence import block_histograms
from emhet_dask.report.block_sheets import block_sheet
from emhet_dask.report.block_surface import block_surfaces
from emhet_dask.report.chimerax import BlockMap, write_blocks_chimerax
from emhet_dask.report.clustermap import occupancy_clustermap
from emhet_dask.report.graph import relation_graph
from emhet_dask.report.notebook import block_cells, write_notebook
from emhet_dask.report.palette import STATE_COLOURS
from emhet_dask.report.screening import screening_figure
from emhet_dask.report.style import save_all
from emhet_dask.workflows.stages.block_page import write_block_page
from emhet_dask.workflows.stages.blocks import BlockTables
from emhet_dask.workflows.stages.job import Job

__all__ = ["block_report_stage"]


def block_report_stage(
    job: Job, tables: BlockTables, thresholds: xr.Dataset, screening: pd.DataFrame | None
) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With all other stages finished.
    tables : BlockTables
    thresholds : xarray.Dataset
    screening : pandas.DataFrame or None
    """

    def build(workspace: Path) -> None:
        (workspace / "figures").mkdir(exist_ok=True)
        draw = dict(_drawings(job, tables, thresholds, screening))
        with job.progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        write_blocks_chimerax(
            workspace / "open.cxc",
            blocks=[
                BlockMap(int(number), f"block_{number:03d}.mrc")
                for number in tables.blocks["block"]
            ],
            mean_map="mean.mrc",
            mean_level=_level(tables, thresholds),
            title=_title(job),
        )
        write_notebook(
            workspace / "explore.ipynb",
            block_cells(folder=job.results.place, ensemble=job.ensemble.path or ""),
        )
        write_block_page(
            workspace,
            job=job,
            tables=tables,
            thresholds=thresholds,
            screening=screening,
            title=_title(job),
        )

    after = ("mask", "thresholds", "blocks", *(("screening",) if screening is not None else ()))
    job.results.stage("report", parameters={}, after=after, build=build, replaceable=True)


def _drawings(
    job: Job, tables: BlockTables, thresholds: xr.Dataset, screening: pd.DataFrame | None
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield the file of each figure and what draws it."""
    if screening is not None:
        yield "figures/screening.png", partial(screening_figure, screening)
    if not len(tables.blocks):
        return
    voxel_size = job.ensemble.voxel_size_angstrom
    names = [f"block_{number:03d}" for number in tables.blocks["block"]]
    yield (
        "blocks.png",
        partial(
            block_sheet,
            tables.labels,
            mean_map=tables.mean_map,
            blocks=tables.blocks,
            voxel_size_angstrom=voxel_size,
        ),
    )
    yield (
        "blocks_3d.png",
        partial(
            block_surfaces,
            tables.labels,
            mean_map=tables.mean_map,
            level=_level(tables, thresholds),
            blocks=tables.blocks,
            voxel_size_angstrom=voxel_size,
            level_name="half of the threshold",
        ),
    )
    states = tables.presence["state"].to_numpy()
    yield (
        "clustermap.png",
        partial(
            occupancy_clustermap,
            tables.occupancy[names],
            presence=tables.presence[names].to_numpy(dtype=bool),
            # No reader tells more colours apart.
            states=states if len(tables.states) <= len(STATE_COLOURS) else None,
        ),
    )
    yield "relations.png", partial(relation_graph, tables.relations, tables.blocks)
    yield (
        "figures/histograms.png",
        partial(
            block_histograms,
            tables.occupancy,
            presence=tables.presence,
            cuts=dict(zip(names, tables.blocks["cut"], strict=True)),
            density=tables.density,
        ),
    )
    if len(names) > 1:
        yield (
            "figures/odds.png",
            partial(block_matrix, tables.relations, n_blocks=len(names)),
        )


def _level(tables: BlockTables, thresholds: xr.Dataset) -> float:
    """Return where the mean map is drawn: parts that are there in few volumes are seen too."""
    level = thresholds.attrs["level"] / 2
    top = float(tables.mean_map.max())
    return float(level) if 0 < level < top else float(np.clip(top / 3, 1e-12, None))


def _title(job: Job) -> str:
    return Path(job.ensemble.path).name if job.ensemble.path else "array in memory"
