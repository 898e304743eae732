"""Agglomerative clustering of volumes: the tree, its cuts, and how well it keeps the distances.

The tree comes from fastcluster where that is installed and from SciPy otherwise; both give the same
one. Past the size where all pairs fit into memory, nearby points are first gathered in micro-
clusters, whose tree is then built with their sizes.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.analysis.microclusters import micro_clusters, weighted_merges
from emhet_dask.errors import InputError

__all__ = [
    "DEFAULT_MAX_EXACT",
    "Linkage",
    "Tree",
    "build_tree",
    "build_tree_from_distances",
    "cophenetic_correlation",
    "finite_table",
    "micro_cluster_agreement",
    "renumber",
]

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]
Linkage = Literal["average", "ward", "complete", "single"]

# Condensed distances of 20,000 points take 1.6 GB.
DEFAULT_MAX_EXACT = 20_000
_N_MICRO = 4_000


@dataclass(frozen=True)
class Tree:
    """A tree of merges over leaves, each of which holds one volume or, past a size, several.

    Attributes
    ----------
    merges : array (leaf - 1, 4)
        As SciPy's linkage matrix: the two nodes that merge, the height, and the count of volumes.
    leaf : array (volume,)
        Leaf that each volume belongs to; ``0, 1, 2, …`` in an exact tree.
    linkage : str
        How the distance between clusters is measured.
    """

    merges: Array
    leaf: Labels
    linkage: str

    @property
    def exact(self) -> bool:
        """Whether every volume is a leaf of its own."""
        return self.n_leaves == len(self.leaf)

    @property
    def n_leaves(self) -> int:
        """Number of leaves, the largest number of clusters."""
        return len(self.merges) + 1

    @cached_property
    def children(self) -> Labels:
        """Both children (merge, 2) of every merge."""
        return self.merges[:, :2].astype(np.intp)

    def cut(self, n_clusters: int) -> Labels:
        """Return the cluster (volume,) of each volume for a given number of clusters.

        Clusters are numbered from 0 by decreasing size, equal sizes by their first member.

        Raises
        ------
        InputError
            Where there are fewer leaves than clusters asked for, or fewer than one is asked for.
        """
        if not 1 <= n_clusters <= self.n_leaves:
            raise InputError(
                f"n_clusters: found {n_clusters}, need 1 to {self.n_leaves} for "
                f"{len(self.leaf)} volumes"
            )
        return renumber(self.nodes_at(n_clusters)[self.leaf])

    def cut_at(self, distance: float) -> Labels:
        """Return the cluster (volume,) of each volume when merges above a height are undone."""
        return self.cut(1 + int(np.sum(self.merges[:, 2] > distance)))

    def cut_height(self, n_clusters: int) -> float:
        """Return a height between the last merge that a cut keeps and the first that it undoes."""
        heights = np.concatenate([[0.0], self.merges[:, 2], [np.inf]])
        last = self.n_leaves - n_clusters
        below, above = heights[last], heights[last + 1]
        return float(below if np.isinf(above) else 0.5 * (below + above))

    def nodes_at(self, n_clusters: int) -> Labels:
        """Return the node (leaf,) of the tree that holds each leaf once `n_clusters` are left."""
        n = self.n_leaves
        owner = np.arange(2 * n - 1)
        # Merges are sorted by height, so a parent is always settled before its children.
        for merge in range(n - n_clusters - 1, -1, -1):
            owner[self.children[merge]] = owner[n + merge]
        return owner[:n]


def build_tree(
    points: npt.ArrayLike,
    *,
    linkage: Linkage = "ward",
    max_exact: int = DEFAULT_MAX_EXACT,
    n_micro: int = _N_MICRO,
    seed: int = 0,
) -> Tree:
    """Build the tree of points under the Euclidean distance.

    Parameters
    ----------
    points : array (volume, component)
        Coordinates, such as scores on principal components. Particle weights do not enter: a
        volume is a volume.
    linkage : {"ward", "average", "complete", "single"}
        How the distance between clusters is measured.
    max_exact : int
        Up to so many volumes the tree is exact.
    n_micro : int
        Beyond, so many micro-clusters are its leaves.
    seed : int
        Of the choice of micro-clusters.

    Raises
    ------
    InputError
        Where the points are not a table of finite numbers, or the linkage is unknown.
    """
    points = finite_table(points, name="points")
    _check_linkage(linkage)
    n = len(points)
    if n == 1:
        return Tree(np.empty((0, 4)), np.zeros(1, dtype=np.intp), linkage)
    if n <= max_exact:
        return Tree(_merge_points(points, linkage), np.arange(n), linkage)
    leaf = micro_clusters(points, n_clusters=min(n_micro, n), seed=seed)
    return _tree_of_leaves(points, leaf, linkage)


def build_tree_from_distances(condensed: npt.ArrayLike, *, linkage: Linkage = "average") -> Tree:
    """Build the exact tree from the distances of all pairs, in SciPy's condensed order.

    Raises
    ------
    InputError
        Where the length is not that of all pairs, a distance is negative or not finite, or the
        linkage is unknown.
    """
    distances = np.asarray(condensed, dtype=np.float64)
    _check_linkage(linkage)
    n = round(0.5 + (0.25 + 2.0 * distances.size) ** 0.5)
    if distances.ndim != 1 or not distances.size or n * (n - 1) // 2 != distances.size:
        raise InputError(
            f"distances: found an array of shape {distances.shape}, need all n(n-1)/2 pairs"
        )
    if not np.all(np.isfinite(distances)) or distances.min() < 0:
        raise InputError("distances: found a negative or infinite value or NaN, need 0 or more")
    merges = _merge_distances(distances, linkage)
    return Tree(merges, np.arange(len(merges) + 1), linkage)


def renumber(labels: npt.ArrayLike) -> Labels:
    """Renumber clusters from 0 by decreasing size; of equal sizes, the one that begins first.

    Parameters
    ----------
    labels : array (volume,)
        Any numbers.
    """
    labels = np.asarray(labels)
    _, first, inverse, size = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(size), dtype=np.intp)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[inverse]


def cophenetic_correlation(
    tree: Tree, points: npt.ArrayLike, *, max_points: int = 2_000, seed: int = 0
) -> float:
    """Correlate the distances of pairs with the heights at which the tree joins them.

    Parameters
    ----------
    tree : Tree
    points : array (volume, component) or (pair,)
        What the tree was built from: coordinates, or condensed distances.
    max_points : int
        Of more volumes than this, a random choice of so many is compared.
    seed : int
        Of that choice.

    Returns
    -------
    float
        From -1 to 1; NaN for fewer than three volumes.
    """
    points = np.asarray(points, dtype=np.float64)
    n = len(tree.leaf)
    if n < 3:
        return float("nan")
    chosen = np.arange(n)
    if n > max_points:
        chosen = np.sort(np.random.default_rng(seed).choice(n, max_points, replace=False))
    condensed = points.ndim == 1
    distances = _pick_condensed(points, chosen, n) if condensed else pdist(points[chosen])
    heights = _joining_heights(tree, chosen)
    if np.ptp(distances) == 0 or np.ptp(heights) == 0:
        return float("nan")
    return float(np.corrcoef(distances, heights)[0, 1])


def micro_cluster_agreement(
    points: npt.ArrayLike,
    *,
    n_clusters: int,
    linkage: Linkage = "ward",
    max_exact: int = DEFAULT_MAX_EXACT,
    n_micro: int = _N_MICRO,
    seed: int = 0,
) -> float:
    """Compare the cut of the micro-cluster tree with that of the exact one (adjusted Rand index).

    Both trees are built from the same volumes: all of them, or as many chosen at random as the
    exact tree may have, with micro-clusters of the same mean size as for all.

    Parameters
    ----------
    points, linkage, max_exact, n_micro, seed
        As `build_tree`.
    n_clusters : int
        Where both trees are cut.
    """
    points = finite_table(points, name="points")
    share = min(1.0, n_micro / len(points))
    if len(points) > max_exact:
        chosen = np.random.default_rng(seed).choice(len(points), max_exact, replace=False)
        points = points[np.sort(chosen)]
    leaf = micro_clusters(points, n_clusters=max(n_clusters, round(share * len(points))), seed=seed)
    approximate = _tree_of_leaves(points, leaf, linkage).cut(n_clusters)
    exact = Tree(_merge_points(points, linkage), np.arange(len(points)), linkage).cut(n_clusters)
    return float(adjusted_rand_index(exact, approximate))


def finite_table(values: npt.ArrayLike, *, name: str) -> Array:
    """Return coordinates (volume, dimension) as contiguous float64, or say what is wrong with them.

    Raises
    ------
    InputError
        Where they are not a table of finite numbers with at least one row and one column.
    """
    table = np.ascontiguousarray(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"{name}: found shape {table.shape}, need volume × component")
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        raise InputError(
            f"{name}: {bad.size} of {len(table)} volumes hold NaN or infinity, "
            f"the first is volume {bad[0]}"
        )
    return table


def _joining_heights(tree: Tree, chosen: Labels) -> Array:
    """Heights (pair,) at which the tree joins the chosen volumes, in condensed order."""
    heights = np.zeros((len(chosen), len(chosen)))
    members: dict[int, Labels] = {}
    order = np.argsort(tree.leaf[chosen], kind="stable")
    leaves, start = np.unique(tree.leaf[chosen][order], return_index=True)
    members.update(zip(leaves.tolist(), np.split(order, start[1:]), strict=True))
    empty = np.empty(0, dtype=np.intp)
    for merge, (a, b) in enumerate(tree.children):
        left, right = members.pop(a, empty), members.pop(b, empty)
        if left.size and right.size:
            heights[np.ix_(left, right)] = tree.merges[merge, 2]
            heights[np.ix_(right, left)] = tree.merges[merge, 2]
        if left.size or right.size:
            members[tree.n_leaves + merge] = np.concatenate([left, right])
    return squareform(heights, checks=False)


def _pick_condensed(condensed: Array, chosen: Labels, n: int) -> Array:
    i, j = np.triu_indices(len(chosen), 1)
    a, b = chosen[i], chosen[j]
    return condensed[n * a - a * (a + 1) // 2 + b - a - 1]


def _tree_of_leaves(points: Array, leaf: Labels, linkage: Linkage) -> Tree:
    size = np.bincount(leaf)
    centre = np.stack([np.bincount(leaf, column) for column in points.T], axis=1) / size[:, None]
    return Tree(weighted_merges(centre, size, linkage=linkage), leaf, linkage)


def _merge_points(points: Array, linkage: Linkage) -> Array:
    fastcluster = _fastcluster()
    if fastcluster is not None and linkage in ("ward", "single"):
        # These two need no table of distances, so memory stays that of the points.
        return np.asarray(fastcluster.linkage_vector(points, method=linkage))
    return _merge_distances(pdist(points), linkage)


def _merge_distances(condensed: Array, linkage: Linkage) -> Array:
    fastcluster = _fastcluster()
    engine = hierarchy if fastcluster is None else fastcluster
    return np.asarray(engine.linkage(condensed, method=linkage))


def _fastcluster() -> Any:
    try:
        return importlib.import_module("fastcluster")
    except ImportError:
        return None


def _check_linkage(linkage: str) -> None:
    if linkage not in get_args(Linkage):
        raise InputError(f"linkage: found {linkage!r}, need one of {', '.join(get_args(Linkage))}")
