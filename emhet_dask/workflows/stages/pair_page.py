"""The page ``report.html`` of ``emhet similarity``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.style import counted
from emhet_dask.report.verdict import Remark, headline, verdict_warnings
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.pair_clusters import PairClusters
from emhet_dask.workflows.stages.pairs import Pairs
from emhet_dask.workflows.stages.provenance import provenance
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["write_pair_page"]

_HOW = {
    "correlation": (
        "Pearson's correlation of the densities inside the mask: 1 is the same map up to its "
        "scale and offset."
    ),
    "l2": "Root of the summed squares of the differences inside the mask: 0 is the same map.",
    "fsc-mean": "Fourier shell correlation inside the mask, mean over the shells: 1 is the same.",
    "fsc-resolution": (
        "Resolution at which the Fourier shell correlation inside the mask first falls below the "
        "threshold: the finer, the more alike."
    ),
}
# Sheets of members on the page, which would take long to open with all of them.
_MOST_SHEETS = 6
_ADVICE = "To see what varies, run emhet landscape on them."
_MATRIX = (
    "Every pair of maps, in the order of the tree. Blocks along the diagonal are groups of maps "
    "that are alike."
)


def write_pair_page(
    folder: Path,
    *,
    job: Job,
    mask: xr.Dataset,
    rows: Rows,
    pairs: Pairs,
    clusters: PairClusters,
    reference: str | None,
    flagged: list[str],
    title: str,
) -> None:
    """Write the report.

    Parameters
    ----------
    folder : Path
        With the figures.
    job : Job
    mask : xarray.Dataset
    rows : Rows
    pairs : Pairs
    clusters : PairClusters
    reference : str or None
        Name of the map that all were compared with.
    flagged : list of str
        Maps whose alignment is doubtful.
    title : str
        What was compared.
    """
    ensemble, evidence = job.ensemble, clusters.evidence
    verdict = {
        name: evidence[name] for name in ("n_clusters", "separate_states", "automatic_n_clusters")
    }
    particles = None if ensemble.weights is None else float(ensemble.weights.sum())
    write_report(
        folder / "report.html",
        title=title,
        headline=headline(n_volumes=ensemble.n_volumes, n_particles=particles, **verdict),
        reason=evidence["reason"],
        summary=_summary(job, mask, rows, pairs, evidence),
        warnings=[
            *_undefined(job, pairs),
            *_doubtful(flagged),
            *verdict_warnings(**verdict, n_volumes=ensemble.n_volumes, advice=_ADVICE),
        ],
        sections=_sections(folder, rows, clusters, reference),
        provenance=provenance(job.results.path()),
    )


def _summary(
    job: Job, mask: xr.Dataset, rows: Rows, pairs: Pairs, evidence: dict[str, Any]
) -> list[tuple[str, object]]:
    inside = int(np.count_nonzero(mask["mask"].values))
    found: list[tuple[str, object]] = [
        ("Box", f"{job.ensemble.box}³ voxels of {job.ensemble.voxel_size_angstrom:.4g} Å"),
        ("Mask", f"{inside:,} voxels, {inside / job.ensemble.box**3:.1%} of the box"),
        ("Pairs", f"{int(pairs.dataset['histogram'].values.sum()):,}, by {rows.options.metric}"),
        ("Number of clusters chosen", evidence["chosen"]),
    ]
    if evidence["cophenetic_correlation"] is not None:
        found.append(("Cophenetic correlation", f"{evidence['cophenetic_correlation']:.3f}"))
    return found


def _undefined(job: Job, pairs: Pairs) -> list[Remark]:
    names = job.ensemble.names[pairs.undefined].tolist()
    if not names:
        return []
    text = f"{_first(names)}: constant inside the mask, "
    return [Remark(text + "so that nothing can be said of it; it is in no cluster.", serious=True)]


def _doubtful(names: list[str]) -> list[Remark]:
    if not names:
        return []
    text = (
        f"{counted(len(names), 'map')} may be aligned wrongly: {_first(names)}. Another "
        "orientation fits as well, for the reasons in transforms.csv; values of pairs with them "
        "may be too low."
    )
    return [Remark(text, serious=True)]


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + " and others" * (len(names) > 5)


def _sections(
    folder: Path, rows: Rows, clusters: PairClusters, reference: str | None
) -> list[Section]:
    def picture(name: str, caption: str) -> list[Picture]:
        path = folder / name
        return [Picture(path, caption)] if path.is_file() else []

    members = [
        each
        for number in clusters.table["cluster"].head(_MOST_SHEETS)
        for each in picture(
            f"figures/cluster_{number:03d}_members.png",
            f"Members of cluster {number}, three slices of each.",
        )
    ]
    compared = [
        Section(
            f"All against {reference}",
            "All maps, and those most like it first, are in reference.csv.",
            picture("figures/reference.png", "The maps most like it."),
        )
    ]
    return [
        Section(
            "Every pair",
            _HOW[rows.options.metric]
            + " Values are in similarity_matrix.csv (up to 2,000 maps) and similarity.zarr, the "
            "nearest maps of each in nearest_maps.csv.",
            [
                *picture("similarity_matrix_heatmap.png", _MATRIX),
                *picture("figures/histogram.png", "Values of all pairs."),
            ],
        ),
        *(compared if reference is not None else []),
        Section(
            "Clusters",
            "Mean maps are in cluster_000_mean.mrc and so on; open.cxc shows them in ChimeraX in "
            "the colours used here.",
            picture("figures/surfaces.png", "Surfaces of the mean maps, all from the same side."),
            _table(clusters.table),
        ),
        Section("Tree", _about_tree(clusters), picture("dendrogram.png", "Where it is cut.")),
        Section(
            "Are they separate?",
            "Any set of maps can be cut into clusters. They are states only where nothing lies "
            "between them: the gap between two neighbours must be wider than pieces of a continuum "
            "show. The principal components of what is compared tell.",
            picture("figures/evidence.png", "Gaps between neighbouring clusters."),
        ),
        Section("Members", _about_members(clusters), members),
    ]


def _about_tree(clusters: PairClusters) -> str:
    evidence = clusters.evidence
    text = f"Agglomerative clustering, {evidence['linkage']} linkage."
    if evidence["cophenetic_correlation"] is not None:
        text += (
            " Distances within the tree correlate with those between the maps by "
            f"{evidence['cophenetic_correlation']:.3f} (cophenetic correlation; 1: the tree says "
            "it all)."
        )
    if evidence["exact_tree"]:
        return text
    return text + (
        " The maps are too many for an exact tree: it is built on micro-clusters along the "
        f"principal components. Cut for {counted(evidence['compared_maps'], 'map')} drawn at "
        "random, it agrees with the exact tree of all their pairs with an adjusted Rand index of "
        f"{evidence['agreement_with_exact']:.3f} (1: equal)."
    )


def _about_members(clusters: PairClusters) -> str:
    if len(clusters.table) <= _MOST_SHEETS:
        return ""
    return f"The {_MOST_SHEETS} largest clusters; those of others are in figures/."


def _table(table: pd.DataFrame) -> pd.DataFrame:
    titles = {"cluster": "Cluster", "maps": "Maps", "particles": "Particles"}
    return table.rename(columns=titles)[[titles[name] for name in titles if name in table]]
