"""A reference among maps that are not aligned yet, chosen by what no motion changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.spectra import band, coefficients

__all__ = ["most_typical", "shell_profile"]

_SHELLS = 24


def shell_profile(volume: NDArray[np.float32], *, shells: int = _SHELLS) -> NDArray[np.float64]:
    """Return the logarithm of a map's power in each Fourier shell, which no motion changes.

    Parameters
    ----------
    volume : ndarray (z, y, x)
    shells : int
        At most; fewer where the box is smaller.

    Returns
    -------
    ndarray (shells,)
        Relative to the power of all of them.
    """
    here = band(min(shells, (volume.shape[0] - 1) // 2))
    power = here.sums(np.abs(coefficients(volume, here.shells)) ** 2)
    return np.asarray(np.log(np.maximum(power / max(power.sum(), 1e-300), 1e-12)))


def most_typical(profiles: ArrayLike, *, weights: ArrayLike | None = None) -> int:
    """Choose a reference among maps that are not aligned yet.

    Parameters
    ----------
    profiles : array (volume, shells)
        From `shell_profile`.
    weights : array (volume,), optional
        Particles that each map stands for.

    Returns
    -------
    int
        The map whose profile is nearest to the median of all; where weights are known, the one of
        the nearer half with the most particles, which has the least noise.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    away = np.linalg.norm(profiles - np.median(profiles, axis=0), axis=1)
    nearest = np.argsort(away, kind="stable")
    if weights is None:
        return int(nearest[0])
    half = nearest[: (len(nearest) + 1) // 2]
    return int(half[np.argmax(np.asarray(weights, dtype=np.float64)[half])])
