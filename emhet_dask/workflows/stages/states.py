"""The stage ``tree``: outliers, the tree of all volumes, and the evidence for separate states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.clustering import (
    Tree,
    build_tree_from_distances,
    micro_cluster_agreement,
)
from emhet_dask.analysis.distances import euclidean_distances
from emhet_dask.analysis.outliers import find_outliers
from emhet_dask.analysis.states import choose_states
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages.components import ComponentOptions, prepared_matrix
from emhet_dask.workflows.stages.costs import distances_work
from emhet_dask.workflows.stages.job import Job

__all__ = ["States", "TreeOptions", "states_stage"]

# The table of all distances on voxels: 0.8 GB at this size, and as much again while it is made.
_MOST_ON_VOXELS = 10_000


@dataclass(frozen=True)
class TreeOptions:
    """What the stage depends on beside the components.

    Attributes
    ----------
    linkage, feature : str
    seed : int
    """

    linkage: str
    feature: str
    seed: int

    def refuse_early(self, n_volumes: int) -> None:
        """Refuse more volumes than the table of all distances can hold.

        Raises
        ------
        InputError
        """
        if self.feature == "voxels" and n_volumes > _MOST_ON_VOXELS:
            raise InputError(
                f"--feature voxels: {n_volumes} volumes have too many pairs, expected at most "
                f"{_MOST_ON_VOXELS}; use --feature pcs"
            )


@dataclass(frozen=True)
class States:
    """The tree, and what it says of states.

    Attributes
    ----------
    options : TreeOptions
        What it was made with.
    tree : Tree
    dataset : xarray.Dataset
        The group ``tree``: ``outlier``, ``outlier_score`` and the evidence over candidate numbers
        of clusters.
    verdict : dict
        ``n_clusters`` (what was chosen), ``separate_states``, ``reason``, ``n_signal``.
    """

    options: TreeOptions
    tree: Tree
    dataset: xr.Dataset
    verdict: dict[str, Any]


def states_stage(job: Job, pca: xr.Dataset, options: TreeOptions, used: ComponentOptions) -> States:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With the stages ``matrix`` and ``pca`` finished.
    pca : xarray.Dataset
        The group ``pca``.
    options : TreeOptions
    used : ComponentOptions
        Of the stage ``pca``, for clustering on voxels.

    Returns
    -------
    States
    """

    def build(workspace: Path) -> dict[str, Any]:
        found, verdict = _find(job, pca, options, used)
        save_group(workspace / "results.zarr" / "tree", found)
        np.save(workspace / "linkage.npy", found["linkage"].values)
        return verdict

    record = job.results.stage(
        "tree", parameters=vars(options), after=("pca",), build=build, replaceable=True
    )
    dataset = load_group(job.group("tree"))
    tree = Tree(dataset["linkage"].values, dataset["leaf"].values.astype(np.intp), options.linkage)
    return States(options, tree, dataset, json.loads(json.dumps(dict(record.summary))))


def _find(
    job: Job, pca: xr.Dataset, options: TreeOptions, used: ComponentOptions
) -> tuple[xr.Dataset, dict[str, Any]]:
    scores = np.asarray(pca["scores"].values, dtype=np.float64)
    with job.progress.task("states"):
        outliers = find_outliers(
            scores,
            explained_variance=pca["eigenvalues"].values,
            total_variance=float(pca.attrs["total_variance"]),
            residual=pca["residual"].values,
            factor=pca["factor"].values if "factor" in pca else None,
            seed=options.seed,
        )
        choice = choose_states(
            scores,
            explained_variance=pca["eigenvalues"].values,
            total_variance=float(pca.attrs["total_variance"]),
            linkage=options.linkage,  # type: ignore[arg-type]
            exclude=outliers["outlier"].values,
            seed=options.seed,
        )
    tree = choice.tree
    if options.feature == "voxels":
        tree = _on_voxels(job, pca, options, used)
    found = xr.Dataset(
        {
            "linkage": (("merge", "column"), tree.merges),
            "leaf": (("volume",), np.asarray(tree.leaf, dtype=np.int64)),
            "outlier": (("volume",), outliers["outlier"].values),
            "outlier_score": (("volume",), outliers["score"].values),
        }
    )
    verdict: dict[str, Any] = {
        "n_clusters": int(choice.n_clusters),
        "separate_states": bool(choice.separate_states),
        "reason": choice.reason,
        "n_signal": int(choice.n_signal),
        # With --feature voxels the tree is another, but what speaks for states is seen on the PCs.
        "evidence_from": "pcs",
        "n_outliers": int(outliers["outlier"].values.sum()),
    }
    if not tree.exact:
        with job.progress.task("comparison with the exact tree"):
            verdict["agreement_with_exact"] = micro_cluster_agreement(
                scores[:, : max(1, choice.n_signal)],
                n_clusters=choice.n_clusters,
                linkage=options.linkage,  # type: ignore[arg-type]
                seed=options.seed,
            )
    return found.merge(choice.evidence, combine_attrs="no_conflicts"), verdict


def _on_voxels(job: Job, pca: xr.Dataset, options: TreeOptions, used: ComponentOptions) -> Tree:
    factor = pca["factor"].values if "factor" in pca else None
    matrix = prepared_matrix(job, factor=factor, clip_negative=used.clip_negative, columns=True)
    job.results.state(distances_work(matrix, stage="distances", remedy="--feature pcs"))
    with job.progress.computing(job.client, label="distances") as compute:
        distances = euclidean_distances(matrix, compute=compute)
    return build_tree_from_distances(distances, linkage=options.linkage)  # type: ignore[arg-type]
