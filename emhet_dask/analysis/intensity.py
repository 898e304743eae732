"""What is measured of every volume while it is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.mask import volume_threshold

__all__ = ["measure"]


def measure(volume: NDArray[np.float32]) -> dict[str, float]:
    """Measure one volume.

    Parameters
    ----------
    volume : ndarray, shape (z, y, x)

    Returns
    -------
    dict
        ``minimum``, ``maximum``, ``mean``, ``std`` and ``percentile_9999``; sums in float64.
        NaN where the volume holds NaN.
    """
    low, high = float(volume.min()), float(volume.max())
    finite = np.isfinite(low) and np.isfinite(high)
    return {
        "minimum": low,
        "maximum": high,
        "mean": float(volume.mean(dtype=np.float64)) if finite else np.nan,
        "std": float(volume.std(dtype=np.float64)) if finite else np.nan,
        "percentile_9999": 2.0 * volume_threshold(volume) if finite else np.nan,
    }
