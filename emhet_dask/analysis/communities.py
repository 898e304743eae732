"""Groups of voxels in the graph of strongest associations.

Louvain's method (Blondel et al., J. Stat. Mech. P10008, 2008), as scikit-network has it, at several
resolutions. Kept is the finest at which communities hardly change when a fifth of the edges is left
out: what is then still cut into parts comes and goes together, and is put together for that
(`emhet_dask.analysis.blocks`), while nothing can take apart again what is too coarse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from emhet_dask.analysis.agreement import adjusted_rand_index

__all__ = ["Communities", "association_graph", "communities"]

Labels = NDArray[np.int64]

# With the strongest 32 edges of each voxel, blocks come whole up to about 1, in parts above.
_RESOLUTIONS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
_DRAWS = 4
_LEFT_OUT = 0.2
# Adjusted Rand index from which communities count as the same; less than the best by so much where
# none reaches it.
_STABLE = 0.9
_NEAR_BEST = 0.02
# Communities of fewer voxels are not counted.
_COUNTED = 6


@dataclass(frozen=True, eq=False)
class Communities:
    """Communities of voxels at the finest resolution that is stable.

    Attributes
    ----------
    labels : array of int64 (voxel,)
        From 0, the largest first; -1 for a voxel without an edge.
    resolution : float
    stability : pandas.DataFrame
        Of the resolutions that were tried, the finest first to be tried and the last to be listed:
        ``resolution``, ``communities`` (of 6 voxels or more) and ``stability``, the mean adjusted
        Rand index of the communities and those of four fifths of the edges.
    """

    labels: Labels
    resolution: float
    stability: pd.DataFrame


def association_graph(neighbour: NDArray[np.int32], phi: NDArray[np.float32]) -> csr_matrix:
    """Make the graph of each voxel's strongest edges.

    Parameters
    ----------
    neighbour : array of int (voxel, rank)
        -1: none.
    phi : array (voxel, rank)
        Weights.

    Returns
    -------
    scipy.sparse.csr_matrix (voxel, voxel)
        Symmetric: an edge is there when either voxel has it among its own.
    """
    n_voxels, n_best = neighbour.shape
    voxel = np.repeat(np.arange(n_voxels, dtype=np.int32), n_best)
    other, weight = neighbour.reshape(-1), phi.reshape(-1)
    known = other >= 0
    edges = csr_matrix(
        (weight[known].astype(np.float64), (voxel[known], other[known])),
        shape=(n_voxels, n_voxels),
    )
    return csr_matrix(edges.maximum(edges.T))


def communities(
    neighbour: NDArray[np.int32], phi: NDArray[np.float32], *, seed: int = 0
) -> Communities:
    """Group voxels by their strongest positive associations.

    Parameters
    ----------
    neighbour, phi : arrays (voxel, rank)
        As `associations` gives them for the positive tail.
    seed : int

    Returns
    -------
    Communities
    """
    graph = association_graph(neighbour, phi)
    linked = np.flatnonzero(np.diff(graph.indptr))
    labels = np.full(len(neighbour), -1, dtype=np.int64)
    if not len(linked):
        return Communities(labels, _RESOLUTIONS[0], _table([], [], []))
    graph = csr_matrix(graph[linked][:, linked])
    thinned = [_thinned(graph, np.random.default_rng([seed, draw])) for draw in range(_DRAWS)]
    tried = []
    for resolution in reversed(_RESOLUTIONS):
        whole = _louvain(graph, resolution, seed)
        parts = [_louvain(part, resolution, seed) for part in thinned]
        stable = float(np.mean([adjusted_rand_index(whole, part) for part in parts]))
        tried.append((resolution, whole, stable))
        if stable >= _STABLE:  # what is coarser need not be looked at
            break
    tried.reverse()
    resolutions, found, stabilities = (list(each) for each in zip(*tried, strict=True))
    counts = [int(np.count_nonzero(np.bincount(whole) >= _COUNTED)) for whole in found]
    best = _finest_stable(stabilities)
    labels[linked] = found[best]
    return Communities(labels, resolutions[best], _table(resolutions, counts, stabilities))


def _louvain(graph: csr_matrix, resolution: float, seed: int) -> Labels:
    if not graph.nnz:
        return np.arange(graph.shape[0])
    # Imported here: it takes a third of a second, which other commands do without.
    from sknetwork.clustering import Louvain  # noqa: PLC0415

    found = Louvain(resolution=resolution, random_state=seed).fit_predict(graph)
    return np.asarray(found, dtype=np.int64)


def _thinned(graph: csr_matrix, rng: np.random.Generator) -> csr_matrix:
    """Leave out a fifth of the edges, both directions of each."""
    upper = graph.tocoo()
    chosen = (upper.row < upper.col) & (rng.random(upper.nnz) >= _LEFT_OUT)
    half = csr_matrix(
        (upper.data[chosen], (upper.row[chosen], upper.col[chosen])), shape=graph.shape
    )
    return csr_matrix(half + half.T)


def _finest_stable(stable: list[float]) -> int:
    enough = min(_STABLE, max(stable) - _NEAR_BEST)
    return max(index for index, value in enumerate(stable) if value >= enough)


def _table(resolutions: object, counts: object, stable: object) -> pd.DataFrame:
    return pd.DataFrame({"resolution": resolutions, "communities": counts, "stability": stable})
