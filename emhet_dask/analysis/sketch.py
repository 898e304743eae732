"""A few points of a latent space that stand for all particles.

Volumes are decoded at places where particles are, never at a mean of particles, which may lie
where there are none.
"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.nearest import nearest_volume
from emhet_dask.errors import InputError

__all__ = ["count_distinct", "sketch_at", "sketch_kmeans"]

# k-means sees at most so many particles: those of 200,000 that it does not see would make sums of
# squares in 1,000 clusters less than a percent smaller.
_MOST_SEEN = 100_000
# Longer than it was found to take to converge; cryoDRGN stops after 10.
_MAX_ITERATIONS = 100


def sketch_kmeans(latents: ArrayLike, *, n: int, seed: int = 0) -> xr.Dataset:
    """Choose particles that stand for all, by k-means with each centre moved to a particle.

    Of a cluster, the particle next to its centre is taken, so that no two are the same. Of more
    than 100,000 particles so many, drawn at random, find the centres, and all are then given to the
    nearest one.

    Parameters
    ----------
    latents : array (particle, latent_dim)
        Finite.
    n : int
        Clusters.
    seed : int
        Of k-means.

    Returns
    -------
    xarray.Dataset
        As of `sketch_at`, volumes ordered so that neighbours are alike, with ``decoded_particle``
        (volume) too, the particle that was taken.

    Raises
    ------
    InputError
        When there are not so many different latents.

    Notes
    -----
    One thread is used, since with more the last bits of the centres, and so now and then a
    particle, would depend on their number.
    """
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - with scikit-learn, on demand

    points = np.asarray(latents)
    distinct = count_distinct(points)
    if n > distinct:
        raise InputError(f"-n: got {n}, but only {distinct} of {len(points)} latents are different")
    with threadpool_limits(1):
        centres, labels = _kmeans(points, n=n, seed=seed)
        labels = _without_empty(points, centres, labels)
        rows = _medoids(points, centres, labels)
        order = _order(points[rows])
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(n)
    rows = rows[order]
    found = _dataset(points[rows], rank[labels])
    return found.assign(decoded_particle=("volume", rows.astype(np.int64)))


def sketch_at(latents: ArrayLike, *, at: ArrayLike) -> xr.Dataset:
    """Give every particle to the nearest of chosen places in the latent space.

    Parameters
    ----------
    latents : array (particle, latent_dim)
    at : array (volume, latent_dim)
        The order is kept.

    Returns
    -------
    xarray.Dataset
        ``latent`` (volume, latent_dim); ``particle_volume`` (particle), to which volume a particle
        belongs; ``weight`` (volume), how many do, which may be none.
    """
    places = np.asarray(at)
    return _dataset(places, nearest_volume(latents, places))


def count_distinct(latents: ArrayLike) -> int:
    """Return how many rows are different."""
    return len(np.unique(np.asarray(latents), axis=0))


def _dataset(at: NDArray[np.floating], volume: NDArray[np.int64]) -> xr.Dataset:
    weight = np.bincount(volume, minlength=len(at)).astype(np.float64)
    return xr.Dataset(
        {
            "latent": (("volume", "latent_dim"), at),
            "weight": ("volume", weight),
            "particle_volume": ("particle", volume),
        }
    )


def _kmeans(
    points: NDArray[np.floating], *, n: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return centres, and the nearest one of each point."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - takes a second
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    seen = points
    if len(points) > max(_MOST_SEEN, n):
        rows = np.random.default_rng(seed).choice(len(points), max(_MOST_SEEN, n), replace=False)
        seen = points[np.sort(rows)]
        if count_distinct(seen) < n:
            seen = np.unique(points, axis=0)
    # One start: with hundreds of clusters all find sums of squares within a percent.
    kmeans = KMeans(n, n_init=1, max_iter=_MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of empty clusters, which are mended
        centres = kmeans.fit(seen.astype(np.float64)).cluster_centers_
    return centres, nearest_volume(points, centres)


def _without_empty(
    points: NDArray[np.floating], centres: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give every cluster without points the one that lies farthest from its own centre."""
    labels = labels.copy()
    counts = np.bincount(labels, minlength=len(centres))
    for empty in np.flatnonzero(counts == 0):
        distances = np.square(points - centres[labels]).sum(axis=1)
        distances[counts[labels] < 2] = -1.0
        farthest = int(distances.argmax())
        counts[labels[farthest]] -= 1
        counts[empty] = 1
        labels[farthest] = empty
        centres[empty] = points[farthest]
    return labels


def _medoids(
    points: NDArray[np.floating], centres: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the point of each cluster that is next to its centre, the first where several are."""
    distances = np.square(points - centres[labels]).sum(axis=1)
    order = np.lexsort((distances, labels))
    first: NDArray[np.int64] = order[np.searchsorted(labels[order], np.arange(len(centres)))]
    return first


def _order(points: NDArray[np.floating]) -> NDArray[np.int64]:
    """Put points into a row in which neighbours are alike: halve them along their longest axis.

    Steps are a tenth longer than in the order of average linkage, which takes the distances
    between all points.
    """
    found: list[NDArray[np.int64]] = []
    waiting = [np.arange(len(points))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= 2:
            found.append(rows)
            continue
        centred = points[rows].astype(np.float64) - points[rows].mean(axis=0, dtype=np.float64)
        axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        # The sign of an axis is arbitrary.
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        rows = rows[np.argsort(centred @ axis, kind="stable")]
        half = len(rows) // 2
        waiting += [rows[half:], rows[:half]]
    return np.concatenate(found)
