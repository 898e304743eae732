"""The page ``report.html``: what was found, in the order in which a biologist asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emhet_dask.report.html import Picture, Section, states_table, write_report
from emhet_dask.report.style import counted
from emhet_dask.report.verdict import headline, verdict_warnings
from emhet_dask.runtime import read_run
from emhet_dask.workflows.stages.clusters import Clusters
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["provenance", "write_page"]

_CAPTIONS = {
    "states": (
        "Three orthogonal slices of the mean map of each state, through the middle of the mask, on "
        "one grey scale. What differs between states is what comes, goes or moves."
    ),
    "counts": "How many volumes, and particles where they are known, each state has.",
    "evidence": (
        "How far apart neighbouring clusters are, in units of their own spread, at every number of "
        "clusters, beside what pieces of a continuum would give."
    ),
    "dendrogram": "The tree of all volumes and where it is cut.",
    "pc1_pc2": "Every volume on the first two principal components, coloured by state.",
    "pc_pairs": "The same for all pairs of the first components.",
    "components": (
        "Where density comes and goes along each component, over the mean map. The maps along each "
        "component are in pcs/."
    ),
    "scree": "The share of the variance along each component, and which stand out of the noise.",
    "mask": "The outline of the mask over the mean map: only what is inside is compared.",
    "latents": "The latents of the volumes, coloured by state.",
    "umap": "A UMAP, coloured by state. Distances between far points mean little in it.",
}


_ABOUT_EVIDENCE = (
    "Any cloud of points can be cut into clusters. They are states only where nothing lies between "
    "them: the gap between two neighbours must be wider than pieces of a continuum show."
)


def write_page(
    path: Path, *, job: Job, mask: xr.Dataset, pca: xr.Dataset, clusters: Clusters
) -> None:
    """Write the report of a landscape.

    Parameters
    ----------
    path : Path
        Beside a folder ``figures`` with the figures.
    job : Job
    mask, pca : xarray.Dataset
        Groups of the results.
    clusters : Clusters
    """
    ensemble, evidence = job.ensemble, clusters.evidence
    particles = clusters.table["particles"].sum() if "particles" in clusters.table else None
    outliers = int(clusters.dataset["outlier"].values.sum())
    verdict = {
        "n_clusters": evidence["n_clusters"],
        "separate_states": evidence["separate_states"],
        "automatic_n_clusters": evidence["automatic_n_clusters"],
    }
    write_report(
        path,
        title=Path(ensemble.path).name if ensemble.path else "array in memory",
        headline=headline(n_volumes=ensemble.n_volumes, n_particles=particles, **verdict),
        reason=evidence["reason"],
        summary=_summary(job, mask, pca, evidence),
        warnings=verdict_warnings(n_outliers=outliers, n_volumes=ensemble.n_volumes, **verdict),
        sections=_sections(path.parent / "figures", job, pca, clusters),
        provenance=provenance(job.results.path()),
    )


def _summary(
    job: Job, mask: xr.Dataset, pca: xr.Dataset, evidence: dict[str, Any]
) -> list[tuple[str, object]]:
    ensemble = job.ensemble
    inside = int(np.count_nonzero(mask["mask"].values))
    ratios = pca["explained_variance_ratio"].values
    return [
        ("Box", f"{ensemble.box}³ voxels of {ensemble.voxel_size_angstrom:.4g} Å"),
        ("Mask", f"{inside:,} voxels, {inside / ensemble.box**3:.1%} of the box"),
        ("Components above the noise", f"{evidence['n_signal']} of {len(ratios)}"),
        ("Variance in them", f"{ratios[: evidence['n_signal']].sum():.1%}"),
        ("Number of clusters chosen", evidence["chosen"]),
    ]


def _sections(folder: Path, job: Job, pca: xr.Dataset, clusters: Clusters) -> list[Section]:
    def pictures(*names: str) -> list[Picture]:
        there = [name for name in names if (folder / f"{name}.png").is_file()]
        return [Picture(folder / f"{name}.png", _CAPTIONS[name]) for name in there]

    separate = clusters.evidence["separate_states"]
    what = "States" if separate else "Clusters"
    return [
        Section(
            what,
            _about_states(job, clusters),
            pictures("states", "counts"),
            states_table(clusters.table, noun="state" if separate else "cluster"),
        ),
        Section("Are they separate?", _ABOUT_EVIDENCE, pictures("evidence")),
        Section("What varies", _about_components(pca), pictures("components", "pc1_pc2")),
        Section("All components", "", pictures("pc_pairs", "scree", "latents", "umap")),
        Section("Tree", _about_tree(clusters), pictures("dendrogram")),
        Section("Mask", _about_mask(job), pictures("mask")),
    ]


def _about_states(job: Job, clusters: Clusters) -> str:
    weighted = "weighted by particles" if job.ensemble.weights is not None else "unweighted"
    lists = ""
    if job.ensemble.has_particles:
        lists = " The particles of each are in clusters/cluster_000_particles.*, and so on."
    count = counted(len(clusters.table), "mean map")
    return (
        f"{count}, {weighted}, in clusters/; open.cxc shows them in ChimeraX in the colours used "
        f"here.{lists}"
    )


def _about_components(pca: xr.Dataset) -> str:
    how = {
        "gram": "exactly, from the Gram matrix",
        "covariance": "exactly, from the covariance matrix",
        "randomized": "by randomised block Krylov iteration",
        "incremental": "incrementally",
    }[pca.attrs["method"]]
    normalised = (
        " Each volume was first divided by its amplitude relative to the mean map; state maps were "
        "not."
        if "factor" in pca
        else ""
    )
    return f"Principal components of the voxels inside the mask, computed {how}.{normalised}"


def _about_tree(clusters: Clusters) -> str:
    if clusters.evidence["exact_tree"]:
        return f"Agglomerative clustering, {clusters.evidence['linkage']} linkage."
    return (
        f"Agglomerative clustering, {clusters.evidence['linkage']} linkage, of micro-clusters, "
        "since the volumes are too many for an exact tree. On as many of them as an exact tree can "
        "have, the cuts of both agree with an adjusted Rand index of "
        f"{clusters.evidence['agreement_with_exact']:.3f} (1: equal)."
    )


def _about_mask(job: Job) -> str:
    mask = read_run(job.results.path()).stages["mask"].parameters["mask"]
    if mask == "auto":
        return (
            "Voxels that exceed the threshold in more volumes than background noise explains, "
            "dilated."
        )
    if mask == "none":
        return "The whole box."
    return "The mask of an earlier landscape." if "values" in mask else "From a file."
