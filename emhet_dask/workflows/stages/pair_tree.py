"""The stage ``tree`` of ``emhet similarity``: the tree of all maps, and the evidence for a cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.analysis.clustering import (
    Linkage,
    Tree,
    build_tree_from_distances,
    cophenetic_correlation,
)
from emhet_dask.analysis.distances import euclidean_distances
from emhet_dask.analysis.pca import DEFAULT_COMPONENTS, pca, plan_pca
from emhet_dask.analysis.similarity import tree_distances
from emhet_dask.analysis.states import StateChoice, best_cut, choose_states
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages.costs import distances_work, pca_work
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.pairs import MOST_WITH_MATRIX, Pairs
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["PairTree", "PairTreeOptions", "largest_exact", "pair_tree_stage"]

# Distances, their copy in the algorithm, and the values that they are made of: 8 bytes each.
_BYTES_PER_PAIR = 24
_MOST_COMPARED = 8_000
# Inner products of the maps compared: two sums of them, their places, distances and a copy.
_BYTES_PER_PRODUCT = 48
# Agreement of the tree with the groups that are separate, from which its clusters are called so.
_SAME_GROUPS = 0.95


@dataclass(frozen=True)
class PairTreeOptions:
    """What the stage depends on beside the pairs.

    Attributes
    ----------
    linkage : str
    seed : int
    """

    linkage: Linkage
    seed: int


@dataclass(frozen=True)
class PairTree:
    """The tree of the maps that are not constant, and what speaks for a cut.

    Attributes
    ----------
    tree : Tree
        Over the maps of `members`.
    members : ndarray of int
        Positions in the ensemble.
    dataset : xarray.Dataset
        The group ``tree``.
    verdict : dict
        ``n_clusters`` (what was chosen), ``separate_states``, ``reason``,
        ``cophenetic_correlation``, ``agreement_with_exact``, ….
    """

    tree: Tree
    members: np.ndarray
    dataset: xr.Dataset
    verdict: dict[str, Any]


def largest_exact(memory_bytes: int) -> int:
    """Return how many maps an exact tree may have: all its distances must fit.

    Parameters
    ----------
    memory_bytes : int
        Of the process that builds it.
    """
    return int((2 * memory_bytes / _BYTES_PER_PAIR) ** 0.5)


def pair_tree_stage(
    job: Job, rows: Rows, pairs: Pairs, options: PairTreeOptions, *, memory_bytes: int
) -> PairTree:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
    rows : Rows
    pairs : Pairs
    options : PairTreeOptions
    memory_bytes : int
        Of the process that builds the tree.

    Returns
    -------
    PairTree

    Raises
    ------
    InputError
        When there are too many maps for the exact tree, and the metric allows no other.
    """
    members = np.flatnonzero(~pairs.undefined)
    exact = pairs.has_matrix and len(members) <= largest_exact(memory_bytes)
    if not exact and not rows.options.is_inner_product:
        raise InputError(
            f"--metric fsc-resolution: {len(members)} maps are too many for a tree within the "
            f"memory given, which {largest_exact(memory_bytes)} fit; raise --memory-limit, or use "
            "--metric fsc-mean"
        )

    def build(workspace: Path) -> dict[str, Any]:
        choice = _choose(job, rows, members, options, memory_bytes=memory_bytes)
        if exact:
            distances = tree_distances(
                pairs.condensed(), metric=rows.options.metric, linkage=options.linkage
            )
            tree = _tree(distances, len(members), options)
            told: dict[str, Any] = {"cophenetic_correlation": _cophenetic(tree, distances)}
        else:
            tree = _scaled(choice.tree, rows, options)
            told = _compare(job, rows, members, choice, options, memory_bytes=memory_bytes)
        found = xr.Dataset(
            {
                "linkage": (("merge", "column"), tree.merges),
                "leaf": (("volume",), np.asarray(tree.leaf, dtype=np.int64)),
                "volume_index": (
                    ("volume",),
                    job.ensemble.dataset["volume_index"].values[members],
                ),
            }
        ).merge(choice.evidence, combine_attrs="no_conflicts")
        save_group(workspace / "results.zarr" / "tree", found)
        np.save(workspace / "linkage.npy", tree.merges)
        return {**_verdict(choice, tree), "n_signal": int(choice.n_signal), "exact": exact, **told}

    record = job.results.stage(
        "tree",
        parameters={**vars(options), "exact": exact},
        after=("pairs",),
        build=build,
        replaceable=True,
    )
    dataset = load_group(job.group("tree"))
    tree = Tree(dataset["linkage"].values, dataset["leaf"].values.astype(np.intp), options.linkage)
    return PairTree(tree, members, dataset, json.loads(json.dumps(dict(record.summary))))


def _choose(
    job: Job, rows: Rows, members: np.ndarray, options: PairTreeOptions, *, memory_bytes: int
) -> StateChoice:
    """Look for separate states on the principal components of what is compared."""
    prepared = rows.prepared
    if len(members) < len(prepared):
        prepared = prepared[members]
    n_components = min(DEFAULT_COMPONENTS, len(members) - 1, prepared.shape[1])
    plan = plan_pca(
        prepared.shape,
        chunks=prepared.chunks,
        dtype=prepared.dtype,
        n_components=n_components,
        memory_limit_bytes=memory_bytes,
    )
    job.results.state(pca_work(plan, prepared))
    with job.progress.computing(job.client, label="components") as compute:
        found = pca(
            prepared,
            n_components=n_components,
            method=plan["method"],  # type: ignore[arg-type]
            memory_limit_bytes=memory_bytes,
            seed=options.seed,
            compute=compute,
            persist=job.persist,
        )
    with job.progress.task("clusters"):
        return choose_states(
            found["scores"].values,
            explained_variance=found["eigenvalues"].values,
            total_variance=float(found.attrs["total_variance"]),
            linkage=options.linkage,
            max_exact=min(MOST_WITH_MATRIX, largest_exact(memory_bytes)),
            seed=options.seed,
        )


def _verdict(choice: StateChoice, tree: Tree) -> dict[str, Any]:
    """Say what the groups on the components mean for the tree of pairs, which is another one.

    The tree is cut where it agrees best with the groups; where it cuts the maps otherwise, its
    clusters are not the states that were found.
    """
    groups, everything = choice.labels, np.ones(len(choice.labels), dtype=bool)
    separate, reason = bool(choice.separate_states), choice.reason
    n_clusters = min(choice.n_clusters, tree.n_leaves)
    if separate:
        n_clusters = best_cut(tree, groups, everything)
    agreement = float(adjusted_rand_index(groups, tree.cut(n_clusters)))
    if separate and agreement < _SAME_GROUPS:
        separate = False
        reason = (
            f"Principal components show {choice.n_clusters} separate states, but this tree divides "
            f"the maps otherwise (adjusted Rand index {agreement:.2f}); for the states use "
            "--metric correlation or emhet landscape."
        )
    return {
        "n_clusters": int(n_clusters),
        "separate_states": separate,
        "reason": reason,
        "agreement_with_components": round(agreement, 4),
    }


def _tree(distances: np.ndarray, count: int, options: PairTreeOptions) -> Tree:
    if count < 2:
        return Tree(np.empty((0, 4)), np.arange(count), options.linkage)
    return build_tree_from_distances(distances, linkage=options.linkage)


def _cophenetic(tree: Tree, distances: np.ndarray) -> float | None:
    found = cophenetic_correlation(tree, distances)
    return None if np.isnan(found) else round(found, 4)


def _scaled(tree: Tree, rows: Rows, options: PairTreeOptions) -> Tree:
    """Give the heights of a tree on components the scale of an exact one."""
    merges = tree.merges.copy()
    merges[:, 2] = _from_euclidean(rows, options)(merges[:, 2])
    return Tree(merges, tree.leaf, tree.linkage)


def _from_euclidean(rows: Rows, options: PairTreeOptions) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns distances between prepared rows into those of a tree."""
    metric = rows.options.metric
    if metric == "l2" or (metric == "correlation" and options.linkage == "ward"):
        return lambda distance: distance
    # Rows have unit length, or one of each shell: |a - b|² = 2 (1 - r), or 2 S (1 - mean FSC).
    length = rows.shells.n_shells if metric == "fsc-mean" else 1
    return lambda distance: distance**2 / (2 * length)


def _compare(
    job: Job,
    rows: Rows,
    members: np.ndarray,
    choice: StateChoice,
    options: PairTreeOptions,
    *,
    memory_bytes: int,
) -> dict[str, Any]:
    """Compare the cut with that of the exact tree, on as many maps as that may have."""
    most = min(len(members), int((memory_bytes / _BYTES_PER_PRODUCT) ** 0.5), _MOST_COMPARED)
    chosen = np.sort(np.random.default_rng(options.seed).choice(len(members), most, replace=False))
    compared = rows.prepared[members[chosen]]
    work = distances_work(compared, stage="comparison with the exact tree")
    job.results.state(work)
    with job.progress.computing(job.client, label=work.stage) as compute:
        distances = euclidean_distances(compared, compute=compute)
    distances = _from_euclidean(rows, options)(distances)
    exact = build_tree_from_distances(distances, linkage=options.linkage)
    labels = choice.labels[chosen]
    agreement = adjusted_rand_index(exact.cut(len(np.unique(labels))), labels)
    return {
        "cophenetic_correlation": _cophenetic(exact, distances),
        "agreement_with_exact": round(float(agreement), 4),
        "compared_maps": int(most),
    }
