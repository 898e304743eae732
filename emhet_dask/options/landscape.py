"""Options of ``emhet landscape``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Masked, source_ensemble

__all__ = ["Landscape"]


@dataclass(frozen=True, kw_only=True)
class Landscape(Masked):
    """Find the conformational states of an ensemble: mask, volume PCA, clusters, report."""

    summary = "Find the states in an ensemble: mask, PCA, clusters, maps, particle lists, report."
    examples = (
        "emhet landscape ENS.zarr -o landscape",
        "emhet landscape ENS.zarr -o landscape --n-clusters 12 --linkage average",
        "emhet landscape ENS.zarr -o core_only --mask core.mrc --keep 0-499",
        "emhet landscape ENS.zarr -o without_junk --keep landscape:0,1,3",
    )

    ensemble: Any = source_ensemble()
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    normalize: bool = option(
        True,
        help=(
            "Divide each volume by its amplitude relative to the mean map (one factor, least "
            "squares inside the mask) for PCA and clustering; state maps stay as they are."
        ),
        kind=kinds.flag(),
    )
    clip_negative: bool = option(
        False, help="Set negative density to 0 for PCA and clustering.", kind=kinds.flag()
    )
    weights: bool = option(
        True,
        help="Weight the PCA by the particles of each volume, where known.",
        kind=kinds.flag(),
    )
    n_components: int | None = option(
        None,
        help="Principal components to keep; default: 20, or one less than volumes.",
        kind=kinds.whole(minimum=1),
    )
    plot_dim: int = option(
        5, help="Components drawn, and written as maps.", kind=kinds.whole(minimum=1)
    )
    n_clusters: Any = option(
        "auto",
        help="Number of states, or auto: chosen from the data, with the evidence drawn.",
        kind=kinds.whole(minimum=1, words=("auto",)),
    )
    linkage: str = option(
        "ward",
        help="How the distance between clusters is measured.",
        kind=kinds.choice("ward", "average", "complete", "single"),
    )
    feature: str = option(
        "pcs",
        help="Cluster on principal components (pcs) or on all masked voxels (voxels).",
        kind=kinds.choice("pcs", "voxels"),
    )
    keep: str | None = option(
        None,
        help=(
            "Use a part of the volumes: numbers such as 0-99,120, a file with one name or number a "
            "line, or RESULTS:0,2 for states of an earlier landscape, whose mask is then reused."
        ),
        kind=kinds.text(expected="volume numbers, a file, or RESULTS:STATES"),
    )
    exclude_outliers: bool = option(
        False, help="Leave outlier volumes out of the state maps.", kind=kinds.flag()
    )
    umap: bool = option(
        False,
        help='Draw a UMAP of the latents, or else of the components (extra "umap").',
        kind=kinds.flag(),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))
