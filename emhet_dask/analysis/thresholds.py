"""From which density on a voxel counts as occupied."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from emhet_dask.errors import InputError

__all__ = ["automatic_level"]

# Above the noise, and between these parts of the densest voxels: protein at the resolution of
# decoded maps begins at about a fifth, and half would leave the core of a subunit alone.
_ABOVE_NOISE = 3.0
_LOWEST, _HIGHEST = 0.2, 0.4


def automatic_level(percentiles: ArrayLike, *, noise: float) -> float:
    """Choose one density above which voxels of all maps count as occupied.

    Parameters
    ----------
    percentiles : array (volume,)
        99.99th percentile of the density of each volume, all on one scale.
    noise : float
        Standard deviation of the background, on the same scale.

    Returns
    -------
    float
        Three standard deviations of the noise, but no less than a fifth and no more than two
        fifths of the median percentile.

    Raises
    ------
    InputError
        When the volumes hold nothing positive.
    """
    densest = float(np.median(np.asarray(percentiles, dtype=np.float64)))
    if not densest > 0:
        raise InputError("--threshold auto: most volumes hold no density above 0; give a number")
    return float(np.clip(_ABOVE_NOISE * noise, _LOWEST * densest, _HIGHEST * densest))
