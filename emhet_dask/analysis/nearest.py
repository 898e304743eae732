"""Which of some volumes each particle is nearest to in latent space."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from emhet_dask.errors import InputError

__all__ = ["nearest_volume"]


def nearest_volume(particles: ArrayLike, volumes: ArrayLike) -> NDArray[np.int64]:
    """Return the volume whose latent is nearest to that of each particle, by Euclidean distance.

    Parameters
    ----------
    particles : array (particle, latent_dim)
    volumes : array (volume, latent_dim)

    Returns
    -------
    array (particle,)
        int64. Of several volumes at one point, the first.

    Raises
    ------
    InputError
        When the two have different dimensions, or there is no volume.
    """
    looked_up = np.asarray(particles, dtype=np.float64)
    among = np.asarray(volumes, dtype=np.float64)
    if looked_up.ndim != 2 or among.ndim != 2 or looked_up.shape[1] != among.shape[1]:
        raise InputError(
            f"latents of particles have the shape {looked_up.shape} and those of volumes "
            f"{among.shape}; expected rows of the same dimension"
        )
    if not len(among):
        raise InputError("latents of volumes: found none, expected at least one")
    # Volumes at one point would share its particles by chance.
    points, first = np.unique(among, axis=0, return_index=True)
    _, found = cKDTree(points).query(looked_up)
    return first[found].astype(np.int64)
