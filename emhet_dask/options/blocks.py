"""Options of ``emhet blocks``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run, source_ensemble

__all__ = ["Blocks"]


@dataclass(frozen=True, kw_only=True)
class Blocks(Run):
    """Find structural blocks: voxels that are occupied in the same volumes."""

    summary = "Find structural blocks: parts of the map that come and go together."
    examples = (
        "emhet blocks ENS.zarr -o blocks",
        "emhet blocks ENS.zarr -o blocks --threshold 0.02",
        "emhet blocks ENS.zarr -o blocks --threshold predictions.csv --correction none",
        "emhet blocks ENS.zarr -o blocks --screen-thresholds 0.8,1.25 --screen-p 0.001,0.05",
        "emhet select blocks --block 3 --present -o particles.star",
    )

    ensemble: Any = source_ensemble()
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    mask: str = option(
        "auto",
        help=(
            "Where blocks are looked for: auto (voxels that more volumes reach than background "
            "noise explains), none (the whole box), or an MRC file."
        ),
        kind=kinds.path(words=("auto", "none"), expected="auto, none or a file"),
    )
    dilate: float | None = option(
        None,
        help="Grow the mask by so many Å; default: two voxels for auto, 0 for a file.",
        kind=kinds.number(minimum=0),
    )
    threshold: Any = option(
        "auto",
        help=(
            "Density above which a voxel is occupied: auto (three times the background noise, but "
            "a fifth to two fifths of the densest voxels), a number, or a CSV file with the "
            "columns name,threshold (SIREn's predictions.csv too)."
        ),
        kind=kinds.number_or_path(words=("auto",), expected="auto, a number or a CSV file"),
    )
    normalize: bool = option(
        True,
        help=(
            "Bring the volumes to one amplitude before the threshold; thresholds of a CSV file are "
            "taken as they are."
        ),
        kind=kinds.flag(),
    )
    positive_p: float = option(
        0.01,
        help="Level of significance of voxels that are occupied together, over all pairs.",
        kind=kinds.number(minimum=1e-200, maximum=0.49),
    )
    negative_p: float = option(
        0.05,
        help="Level of significance of voxels that exclude each other, over all pairs.",
        kind=kinds.number(minimum=1e-200, maximum=0.49),
    )
    correction: str = option(
        "bonferroni",
        help="For many pairs: bonferroni, benjamini-hochberg, or none.",
        kind=kinds.choice("bonferroni", "benjamini-hochberg", "none"),
    )
    min_enrichment: float = option(
        1.0,
        help="Pairs must be occupied together so many times as often as chance has it.",
        kind=kinds.number(minimum=1),
    )
    background_length: Any = option(
        "auto",
        help=(
            "Pairs of voxels at most so many Å apart count for nothing, since noise alone ties "
            "them together; auto: measured where nothing of the molecule is."
        ),
        kind=kinds.number(minimum=0, words=("auto",)),
    )
    min_voxels: Any = option(
        "auto",
        help="Smaller groups are no blocks; auto: a ball with the background length for radius.",
        kind=kinds.whole(minimum=1, words=("auto",)),
    )
    expand_fraction: float = option(
        0.25,
        help="A voxel joins a block when it is associated with this share of its voxels.",
        kind=kinds.number(minimum=0.01, maximum=1),
    )
    neighbours: int = option(
        32,
        help="Strongest associations of each voxel that the graph is made of.",
        kind=kinds.whole(minimum=4, maximum=256),
    )
    tolerance: float = option(
        0.05,
        help="Share of volumes that may contradict 'requires' and 'excludes'.",
        kind=kinds.number(minimum=0, maximum=0.3),
    )
    screen_thresholds: tuple[float, ...] | None = option(
        None,
        help="Try other thresholds too: factors of --threshold, such as 0.8,1,1.25.",
        kind=kinds.decimals("factors separated by commas, such as 0.8,1,1.25", above=0),
    )
    screen_p: tuple[float, ...] | None = option(
        None,
        help="Try other levels of --positive-p too, such as 0.001,0.01,0.05.",
        kind=kinds.decimals("levels separated by commas, such as 0.001,0.01", above=0, below=0.5),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))
