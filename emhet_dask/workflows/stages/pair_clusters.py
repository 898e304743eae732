"""The stage ``clusters`` of ``emhet similarity``: a cut of the tree, its table and its maps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.maps import write_state_maps
from emhet_dask.workflows.stages.pair_tree import PairTree

__all__ = ["NOT_COMPARED", "PairClusters", "pair_clusters_stage"]

# Label of a constant map, which is like nothing.
NOT_COMPARED = -1


@dataclass(frozen=True)
class PairClusters:
    """The cut.

    Attributes
    ----------
    labels : ndarray of int, shape (volume,)
        From 0 by decreasing size; -1 for a constant map.
    table : pandas.DataFrame
        One row per cluster, as in ``clusters.csv``.
    evidence : dict
        As in ``evidence.json``.
    """

    labels: np.ndarray
    table: pd.DataFrame
    evidence: dict[str, Any]


def pair_clusters_stage(
    job: Job, tree: PairTree, *, n_clusters: int | str, distance: float | None
) -> PairClusters:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
    tree : PairTree
    n_clusters : int or "auto"
    distance : float or None
        Height to cut at instead.

    Returns
    -------
    PairClusters

    Raises
    ------
    InputError
        When more clusters are asked for than the tree has leaves.
    """
    if n_clusters != "auto" and int(n_clusters) > tree.tree.n_leaves:
        raise InputError(
            f"--n-clusters: got {n_clusters}, expected at most {tree.tree.n_leaves} for "
            f"{len(tree.members)} maps"
        )

    def build(workspace: Path) -> None:
        members = _cut(tree, n_clusters, distance)
        labels = np.full(job.ensemble.n_volumes, NOT_COMPARED, dtype=np.int64)
        labels[tree.members] = members
        pd.DataFrame({"Custom_Name": job.ensemble.names, "Cluster_Label": labels}).to_csv(
            workspace / "cluster_results.csv", index=False
        )
        # A constant map must not enter the mean of any cluster.
        write_state_maps(job, workspace, labels, include=labels >= 0)
        _table(job, labels).to_csv(workspace / "clusters.csv", index=False)
        told = _evidence(tree, int(members.max()) + 1, n_clusters, distance)
        (workspace / "evidence.json").write_text(json.dumps(told, indent=2) + "\n")
        found = xr.Dataset({"cluster": (("volume",), labels)})
        save_group(workspace / "results.zarr" / "clusters", found)

    job.results.stage(
        "clusters",
        parameters={"n_clusters": n_clusters, "distance": distance},
        after=("tree",),
        build=build,
        replaceable=True,
    )
    return PairClusters(
        np.asarray(load_group(job.group("clusters"))["cluster"].values),
        pd.read_csv(job.results.path("clusters.csv")),
        json.loads(job.results.path("evidence.json").read_text()),
    )


def _cut(tree: PairTree, n_clusters: int | str, distance: float | None) -> np.ndarray:
    if distance is not None:
        return np.asarray(tree.tree.cut_at(distance))
    wanted = tree.verdict["n_clusters"] if n_clusters == "auto" else int(n_clusters)
    return np.asarray(tree.tree.cut(min(wanted, tree.tree.n_leaves)))


def _evidence(
    tree: PairTree, found: int, n_clusters: int | str, distance: float | None
) -> dict[str, Any]:
    how = "automatically" if n_clusters == "auto" else "by --n-clusters"
    told = dict(tree.verdict)
    return {
        "n_clusters": found,
        "chosen": f"at distance {distance:g}" if distance is not None else how,
        "automatic_n_clusters": told.pop("n_clusters"),
        "linkage": tree.tree.linkage,
        "exact_tree": told.pop("exact"),
        **told,
    }


def _table(job: Job, labels: np.ndarray) -> pd.DataFrame:
    count = np.bincount(labels[labels >= 0])
    table = pd.DataFrame({"cluster": np.arange(len(count)), "maps": count})
    if job.ensemble.weights is not None:
        inside = labels >= 0
        table["particles"] = np.bincount(labels[inside], job.ensemble.weights[inside])
    table["mean_map"] = [f"cluster_{number:03d}_mean.mrc" for number in table["cluster"]]
    return table
