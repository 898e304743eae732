"""The page ``report.html`` of ``emhet blocks``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.relation_rows import relation_rows, state_rows
from emhet_dask.report.style import counted
from emhet_dask.report.verdict import Remark
from emhet_dask.workflows.stages.blocks import BlockTables
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["write_block_page"]

# A volume of protein weighs this much, in kDa per Å³ (1.35 g/cm³).
_KDA_PER_A3 = 0.81e-3


def write_block_page(
    folder: Path,
    *,
    job: Job,
    tables: BlockTables,
    thresholds: xr.Dataset,
    screening: pd.DataFrame | None,
    title: str,
) -> None:
    """Write the report.

    Parameters
    ----------
    folder : Path
        With the figures.
    job : Job
    tables : BlockTables
    thresholds : xarray.Dataset
    screening : pandas.DataFrame or None
    title : str
        What the blocks were looked for in.
    """
    evidence = tables.evidence
    share = evidence["voxels_in_blocks"] / max(evidence["voxels_compared"], 1)
    related = tables.relations[tables.relations["relation"] != "independent"]
    headline = (
        f"{counted(evidence['n_blocks'], 'block')} in "
        f"{counted(job.ensemble.n_volumes, 'volume')}: {counted(len(related), 'pair')} related, "
        f"{counted(len(tables.states), 'combination')} of blocks"
        if evidence["n_blocks"]
        else f"No block in {counted(job.ensemble.n_volumes, 'volume')}"
    )
    write_report(
        folder / "report.html",
        title=title,
        headline=headline,
        reason=(
            f"Of {evidence['voxels_compared']:,} voxels that are occupied in some volumes and not "
            f"in others, {evidence['voxels_in_blocks']:,} ({share:.0%}) come and go with a block."
        ),
        summary=_summary(job, evidence, thresholds),
        warnings=_warnings(evidence, tables.blocks),
        sections=_sections(folder, tables, related, screening),
        provenance=provenance(job.results.path()),
    )


def _summary(
    job: Job, evidence: dict[str, Any], thresholds: xr.Dataset
) -> list[tuple[str, object]]:
    positive, negative = evidence["level_of_one_test"]
    return [
        ("Box", f"{job.ensemble.box}³ voxels of {job.ensemble.voxel_size_angstrom:.4g} Å"),
        ("Occupied above", f"{evidence['threshold']:.4g}"),
        ("Background reaches", f"{evidence['background_length_angstrom']:.3g} Å"),
        ("Pairs of voxels tested", f"{evidence['pairs_tested']:,}"),
        ("Together", f"{evidence['pairs_together']:,} (p up to {positive:.2g} each)"),
        ("Apart", f"{evidence['pairs_apart']:,} (p up to {negative:.2g} each)"),
    ]


def _warnings(evidence: dict[str, Any], blocks: pd.DataFrame) -> list[Remark]:
    found = []
    spread = blocks.loc[~blocks["two_modes"].astype(bool), "block"].astype(str).tolist()
    if spread:
        found.append(
            Remark(
                f"{'Block' if len(spread) == 1 else 'Blocks'} {', '.join(spread)}: occupancy is "
                "spread out, not in two groups. Which volumes have it depends on the cut, and "
                "relations between such blocks are what any gradual change gives.",
                serious=True,
            )
        )
    if evidence["correction"] == "none":
        by_chance = evidence["level_of_one_test"][0] * evidence["pairs_tested"]
        found.append(
            Remark(
                f"Nothing was corrected for testing {evidence['pairs_tested']:,} pairs: "
                f"{by_chance:,.0f} of the {evidence['pairs_together']:,} pairs of voxels that are "
                "called together may be so by chance.",
                serious=True,
            )
        )
    if not evidence["background_reached"]:
        found.append(
            Remark(
                "The background stays correlated over an eighth of the box, as that of maps from "
                "a decoder does; it is taken to reach "
                f"{evidence['background_length_angstrom']:.3g} Å. --background-length says "
                "otherwise.",
                serious=False,
            )
        )
    for key, words in (
        ("groups_too_small", f"smaller than {evidence['min_voxels']} voxels (--min-voxels)"),
        ("groups_too_thin", "thinner than the background reaches, as where two parts touch"),
        ("groups_flickering", "voxels around the threshold whose density hardly changes"),
    ):
        if evidence[key]:
            found.append(
                Remark(f"{counted(evidence[key], 'group')} left out: {words}.", serious=False)
            )
    return found


def _sections(
    folder: Path, tables: BlockTables, related: pd.DataFrame, screening: pd.DataFrame | None
) -> list[Section]:
    def picture(name: str, caption: str) -> list[Picture]:
        path = folder / name
        return [Picture(path, caption)] if path.is_file() else []

    sections = []
    if len(tables.blocks):
        sections = [
            Section(
                "Blocks",
                "Voxels of a block are occupied in the same volumes more often than chance has it, "
                "and farther apart than background noise ties voxels together. Pieces are parts of "
                "a block that do not touch: they come and go together all the same.",
                [
                    *picture("blocks_3d.png", "The blocks, and each alone, within the mean map."),
                    *picture("blocks.png", "Slices of the mean map, with the blocks outlined."),
                ],
                _blocks_table(tables.blocks),
            ),
            Section(
                "Relations",
                "Which block needs another, and which exclude each other: Fisher's exact test on "
                "presence, corrected for all pairs by Holm's method. All pairs are in "
                "block_relations.csv.",
                [
                    *picture(
                        "relations.png",
                        "What others need is at the left; it need not have come first.",
                    ),
                    *picture("figures/odds.png", "Odds ratios of all pairs of blocks."),
                ],
                relation_rows(related) if len(related) else None,
            ),
            Section(
                "In each volume",
                "Occupancy is the share of a block's voxels above the threshold; a block is "
                "present where that exceeds its cut. Mean density, which needs no threshold, is "
                "beside it: trust a cut where both show two groups.",
                [
                    *picture("clustermap.png", "Every volume, in the order of the tree."),
                    *picture("figures/histograms.png", "Occupancy and mean density of each block."),
                ],
            ),
            Section(
                "Combinations",
                "Which blocks are present together, the most frequent first; all are in "
                "block_states.csv. `emhet select --state` makes particle lists of them.",
                table=state_rows(tables.states, _names(tables)),
            ),
        ]
    if screening is not None:
        sections.append(
            Section(
                "Other settings",
                "What becomes of the blocks at other thresholds and levels of significance. "
                "Agreement is the adjusted Rand index over voxels that are in blocks in both.",
                picture("figures/screening.png", "Blocks, voxels and agreement."),
            )
        )
    return sections


def _names(tables: BlockTables) -> list[str]:
    return [f"block_{number:03d}" for number in tables.blocks["block"]]


def _blocks_table(blocks: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "Block": blocks["block"],
            "Voxels": blocks["voxels"],
            "About kDa": (blocks["volume_A3"] * _KDA_PER_A3).round(0).astype(int),
            "Pieces": [
                f"{count} ({sizes.replace(';', ' + ')})" if count > 1 else str(count)
                for count, sizes in zip(blocks["pieces"], blocks["piece_voxels"], strict=True)
            ],
            "Volumes": blocks["volumes"],
            "Share": [f"{value:.0%}" for value in blocks["fraction"]],
        }
    )
    if "particles" in blocks:
        table["Particles"] = blocks["particles"].round(0).astype(int)
    table["φ inside"] = blocks["phi"].round(2)
    return table
