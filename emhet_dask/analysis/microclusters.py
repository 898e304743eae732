"""Trees of more points than all pairs would fit: micro-clusters first, then a weighted tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform

__all__ = ["merges_of_distances", "micro_clusters", "weighted_merges"]

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

_LLOYD_STEPS = 3


def micro_clusters(points: Array, *, n_clusters: int, seed: int) -> Labels:
    """Gather points (point, dimension) in many small clusters; return the cluster of each.

    The seeds are drawn with a chance that grows with the squared distance to those drawn already
    (k-means++), so that small groups far from the rest get their own.
    """
    from sklearn.cluster import kmeans_plusplus  # noqa: PLC0415 - a second, for many volumes only

    centre = kmeans_plusplus(points, n_clusters, random_state=seed, n_local_trials=1)[0]
    owner = cKDTree(centre).query(points)[1]
    for _ in range(_LLOYD_STEPS):
        owner = np.unique(owner, return_inverse=True)[1]
        size = np.bincount(owner)
        centre = np.stack([np.bincount(owner, c) for c in points.T], axis=1) / size[:, None]
        owner = cKDTree(centre).query(points)[1]
    return np.unique(owner, return_inverse=True)[1].astype(np.intp)


def weighted_merges(centre: Array, size: npt.NDArray[Any], *, linkage: str) -> Array:
    """Build the tree of weighted points by the nearest-neighbour chain (Murtagh 1983).

    The distance between merged clusters follows from those of their parts and their sizes (Lance
    and Williams 1967), beginning with the given sizes. For Ward that is exactly what full
    clustering does once the members of each point have been merged; for average linkage, distances
    between members are replaced by those between centres.

    Parameters
    ----------
    centre : array (leaf, dimension)
        Positions.
    size : array (leaf,)
        Points that each leaf stands for.
    linkage : {"ward", "average", "complete", "single"}
        How the distance between clusters is measured.

    Returns
    -------
    array (leaf - 1, 4)
        SciPy's linkage matrix; the last column counts points, not leaves.
    """
    return merges_of_distances(squareform(pdist(centre)), size, linkage=linkage)


def merges_of_distances(distance: Array, size: npt.NDArray[Any], *, linkage: str) -> Array:
    """Build the tree of weighted points from all their distances; as `weighted_merges`.

    Parameters
    ----------
    distance : array (leaf, leaf)
        Symmetric; used up as working memory.
    size : array (leaf,)
        Points that each leaf stands for.
    linkage : {"ward", "average", "complete", "single"}
        How the distance between clusters is measured.

    Returns
    -------
    array (leaf - 1, 4)
        SciPy's linkage matrix; the last column counts points, not leaves.
    """
    n = len(distance)
    weight = size.astype(np.float64)
    if linkage == "ward":
        distance = 2.0 * distance**2 * np.outer(weight, weight) / np.add.outer(weight, weight)
    np.fill_diagonal(distance, np.inf)
    raw = np.empty((n - 1, 4))
    height = np.zeros(n)
    chain: list[int] = []
    alive = np.ones(n, dtype=bool)
    for merge in range(n - 1):
        if not chain:
            chain.append(int(np.argmax(alive)))
        while True:
            here = chain[-1]
            there = int(np.argmin(distance[here]))
            # A tie with the one before ends the chain, or it would run in a circle.
            if len(chain) > 1 and distance[here, chain[-2]] <= distance[here, there]:
                there = chain[-2]
                break
            chain.append(there)
        del chain[-2:]
        a, b = min(here, there), max(here, there)
        # Where distances are equal, rounding may put a union below its parts.
        height[b] = max(distance[a, b], height[a], height[b])
        raw[merge] = a, b, height[b], weight[a] + weight[b]
        joined = _lance_williams(distance, weight, a, b, linkage)
        alive[a] = False
        distance[a], distance[:, a] = np.inf, np.inf
        joined[~alive] = np.inf
        joined[b] = np.inf
        distance[b], distance[:, b] = joined, joined
        weight[b] += weight[a]
    if linkage == "ward":
        raw[:, 2] = np.sqrt(raw[:, 2])
    return _sorted_merges(raw, n)


def _lance_williams(distance: Array, weight: Array, a: int, b: int, linkage: str) -> Array:
    """Distances (leaf,) of all clusters from the union of two; Ward's are squared."""
    to_a, to_b = distance[a], distance[b]
    if linkage == "single":
        return np.minimum(to_a, to_b)
    if linkage == "complete":
        return np.maximum(to_a, to_b)
    if linkage == "average":
        return (weight[a] * to_a + weight[b] * to_b) / (weight[a] + weight[b])
    total = weight[a] + weight[b] + weight
    return (
        (weight[a] + weight) * to_a + (weight[b] + weight) * to_b - weight * distance[a, b]
    ) / total


def _sorted_merges(raw: Array, n: int) -> Array:
    """Sort merges by height and name the nodes as SciPy does (leaf or n + merge)."""
    raw = raw[np.argsort(raw[:, 2], kind="stable")]
    node = np.arange(n)
    merges = raw.copy()
    for merge, (a, b) in enumerate(raw[:, :2].astype(np.intp)):
        # The union lives on in slot b, whichever of the two a later merge names.
        merges[merge, :2] = sorted((node[a], node[b]))
        node[b] = n + merge
    return merges
