"""``emhet blocks``: voxels that come and go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.blocks import Blocks
from emhet_dask.report.style import counted
from emhet_dask.runtime import task_memory_bytes
from emhet_dask.urls import UrlPlace
from emhet_dask.workflows.stages.block_report import block_report_stage
from emhet_dask.workflows.stages.blocks import (
    BlockOptions,
    BlockTables,
    blocks_stage,
    screening_stage,
)
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.mask import MaskOptions, mask_stage
from emhet_dask.workflows.stages.matrix import matrix_stage
from emhet_dask.workflows.stages.opening import opened
from emhet_dask.workflows.stages.selection import choose_volumes, inputs_of, open_source
from emhet_dask.workflows.stages.thresholds import ThresholdOptions, thresholds_stage
from emhet_dask.workflows.stages.voxel_pairs import PairOptions, occupied_stage, voxel_pairs_stage

__all__ = ["Blocked", "blocks"]


@dataclass(frozen=True)
class Blocked:
    """Blocks, as the results folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    tables : BlockTables
        ``labels`` (z, y, x), ``blocks``, ``occupancy``, ``relations``, ``states``, ``evidence``, ….
    screening : pandas.DataFrame or None
        How blocks change with threshold and significance, where that was asked for.
    """

    folder: Path | UrlPlace
    tables: BlockTables
    screening: pd.DataFrame | None = None

    @property
    def n_blocks(self) -> int:
        """Return the number of blocks."""
        return len(self.tables.blocks)

    @property
    def labels(self) -> np.ndarray:
        """Return the block of each voxel (z, y, x), from 1; 0 is none."""
        return self.tables.labels

    def describe(self) -> str:
        """Return it in words."""
        evidence, relations = self.tables.evidence, self.tables.relations
        found = (
            f"{counted(self.n_blocks, 'block')} of {evidence['voxels_in_blocks']:,} voxels, of "
            f"{evidence['voxels_compared']:,} that come and go"
        )
        kinds = relations["relation"].value_counts(sort=False)
        related = [f"{count} {kind}" for kind, count in kinds.items() if kind != "independent"]
        if related:
            found += f"; pairs of blocks: {', '.join(related)}"
        lines = [f"{found}."]
        tables = self.tables.blocks
        spread = tables.loc[~tables["two_modes"].astype(bool), "block"].astype(str)
        if len(spread):
            lines.append(
                f"warning: occupancy is spread out, not in two groups, for block "
                f"{', '.join(spread)}: presence there depends on the cut"
            )
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Blocks)
def blocks(options: Blocks) -> Blocked:
    """Find structural blocks: parts of the map that come and go together.

    Every pair of voxels is tested: is it occupied together more often than chance has it (exact
    hypergeometric tails)? Groups in the graph of the strongest such pairs are blocks. The stages
    mask, matrix, thresholds, occupied, voxel_pairs, blocks and report are kept in the output
    folder; the same call again continues where it was killed, and other options of a stage redo
    that one and those after it.

    Returns
    -------
    Blocked

    Raises
    ------
    InputError
        When the ensemble, the mask, the threshold or an option cannot be used, there are too few
        volumes for any pair to be significant, or the output holds results of other settings.
    """
    source = open_source(options.ensemble)
    ensemble, _ = choose_volumes(source)
    masking = MaskOptions(options.mask, None, options.dilate, 0.0)
    masking.refuse_early()
    deciding = ThresholdOptions(
        str(options.threshold), options.normalize, options.background_length
    )
    deciding.refuse_early()
    _refuse_few(ensemble.n_volumes)
    factors = _with_first(1.0, options.screen_thresholds)
    with opened(
        options,
        options.output,
        command="blocks",
        inputs=inputs_of(source, ensemble),
        recorded=_RECORDED,
    ) as (results, client, progress):
        job = Job(ensemble, results, client, progress)
        mask = mask_stage(job, masking)
        matrix_stage(job, mask["mask"].values)
        thresholds = thresholds_stage(job, deciding)
        limits = np.outer(factors, thresholds["threshold"].values)
        screened = " or a factor in --screen-thresholds" if options.screen_thresholds else ""
        occupied_stage(job, limits, said=f"--threshold {options.threshold}{screened}")
        levels = voxel_pairs_stage(
            job,
            _pair_options(options, thresholds.attrs["background_length_voxels"]),
            memory_bytes=task_memory_bytes(options.memory_limit),
        )
        searching = BlockOptions(**options.parameters(*BlockOptions.__dataclass_fields__))
        tables = blocks_stage(job, levels[0], thresholds, searching)
        screening = None
        if options.screen_thresholds or options.screen_p:
            screening = screening_stage(job, levels, thresholds, searching, factors=factors)
        block_report_stage(job, tables, thresholds, screening)
    return Blocked(results.place, tables, screening)


_RECORDED = (
    "mask",
    "dilate",
    "threshold",
    "normalize",
    "positive_p",
    "negative_p",
    "correction",
    "min_enrichment",
    "background_length",
    "min_voxels",
    "expand_fraction",
    "neighbours",
    "tolerance",
    "screen_thresholds",
    "screen_p",
    "seed",
)
# With fewer no two voxels can be associated, however few pairs there are.
_FEWEST = 8


def _refuse_few(n_volumes: int) -> None:
    if n_volumes < _FEWEST:
        raise InputError(
            f"{n_volumes} volumes are too few to tell what comes and goes together; some 40 or "
            "more are needed"
        )


def _with_first(first: float, others: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return what was asked for, then what is tried beside it."""
    return (first, *(value for value in dict.fromkeys(others or ()) if value != first))


def _pair_options(options: Blocks, length_voxels: float) -> PairOptions:
    levels = _with_first(options.positive_p, options.screen_p)
    settings: Any = tuple((level, options.negative_p) for level in levels)
    return PairOptions(
        settings,
        options.correction,  # type: ignore[arg-type]
        options.min_enrichment,
        options.neighbours,
        length_voxels,
    )
