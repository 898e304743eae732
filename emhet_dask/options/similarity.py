"""Options of ``emhet similarity``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Masked
from emhet_dask.options.align import reference as fitted_to

__all__ = ["Similarity"]


@dataclass(frozen=True, kw_only=True)
class Similarity(Masked):
    """Compare every pair of maps: matrix, dendrogram, clusters, nearest maps, report."""

    summary = "Compare every pair of maps: similarity matrix, dendrogram, clusters, report."
    examples = (
        "emhet similarity maps/ -o similarity",
        "emhet similarity maps/ -o similarity --names names.csv --n-clusters 3",
        "emhet similarity ENS.zarr -o by_fsc --metric fsc-mean --resolution 8",
        "emhet similarity ENS.zarr -o alike --reference apo.mrc",
    )

    ensemble: Any = option(
        help=(
            "An ensemble store (ENS.zarr), or a folder of maps, RELION job or stack as emhet "
            "ingest takes it; from Python also an open Ensemble."
        ),
        kind=kinds.anything("a store or a folder of maps", "path or Ensemble", is_path=True),
        argument=True,
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    metric: str = option(
        "correlation",
        help=(
            "correlation (Pearson, inside the mask), l2 (distance), fsc-mean (mean Fourier shell "
            "correlation) or fsc-resolution (in Å, where it falls below --fsc-threshold)."
        ),
        kind=kinds.choice("correlation", "l2", "fsc-mean", "fsc-resolution"),
    )
    names: str | None = option(
        None,
        help=(
            "CSV with the columns original_filename,custom_name; default: the one CSV in the "
            "folder of maps, if it has them."
        ),
        kind=kinds.path(expected="a CSV file"),
    )
    box: int | None = option(
        None,
        help="Crop the maps of a folder in Fourier space to so many voxels a side.",
        kind=kinds.whole(minimum=8),
    )
    apix: float | None = option(
        None,
        help="Voxel size of the maps of a folder in Å, where their headers do not say it.",
        kind=kinds.number(minimum=1e-3),
    )
    resolution: float | None = option(
        None,
        help="Finest resolution that the FSC metrics look at, in Å; default: Nyquist.",
        kind=kinds.number(minimum=1e-3),
    )
    fsc_threshold: float = option(
        0.5,
        help="FSC at which fsc-resolution is read off; 0.143 compares half maps, 0.5 whole ones.",
        kind=kinds.number(minimum=0, maximum=1),
    )
    linkage: str = option(
        "average",
        help="How the distance between clusters is measured; ward needs correlation or l2.",
        kind=kinds.choice("average", "complete", "single", "ward"),
    )
    n_clusters: Any = option(
        "auto",
        help="Number of clusters, or auto: chosen from the data, with the evidence drawn.",
        kind=kinds.whole(minimum=1, words=("auto",)),
    )
    distance: float | None = option(
        None,
        help="Cut the tree at this height of the dendrogram, instead of --n-clusters.",
        kind=kinds.number(minimum=0),
    )
    reference: str | None = option(
        None,
        help="A map to compare all others with too (MRC, of the same extent).",
        kind=kinds.path(expected="an MRC file"),
    )
    align_to: str | None = option(
        None,
        help=(
            "Bring all maps into one frame first, as emhet align --to does: first, best, a volume "
            "number or an MRC file."
        ),
        kind=fitted_to(),
    )
    hand: bool = option(
        False, help="With --align-to: also try the mirror image of each map.", kind=kinds.flag()
    )
    neighbours: int = option(
        10, help="Nearest maps to list for each map.", kind=kinds.whole(minimum=1)
    )
    full_matrix: bool = option(
        False,
        help=(
            "Keep the matrix of all pairs for more than 20,000 maps too (4 bytes a pair); "
            "otherwise nearest maps and the histogram of all values are kept."
        ),
        kind=kinds.flag(),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))
