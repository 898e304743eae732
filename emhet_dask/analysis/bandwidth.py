"""How wide a kernel is, from binned points."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.optimize import brentq

__all__ = ["bandwidth_of", "spread_of"]

Array = npt.NDArray[np.float64]


def bandwidth_of(counts: npt.ArrayLike, extent: float, n_points: float) -> float:
    """Return the width of a Gaussian kernel by the improved Sheather–Jones rule.

    Z. I. Botev, J. F. Grotowski, D. P. Kroese: Kernel density estimation via diffusion. Annals of
    Statistics 38 (2010) 2916–2957, algorithm 1. Where its equation has no root, Scott's rule.

    Parameters
    ----------
    counts : array (bin,)
        Of points, or their weights, in even bins; best some thousands.
    extent : float
        From the first end of the bins to the last.
    n_points : float
        Number of points; with weights, ``(sum w)² / sum w²``.

    Returns
    -------
    float
        Standard deviation, in the unit of `extent`.
    """
    counts = np.asarray(counts, dtype=np.float64)
    share = counts / counts.sum()
    squares = np.arange(1, len(share), dtype=np.float64) ** 2
    cosines = (dct(share)[1:] / 2) ** 2

    def excess(time: float) -> float:
        return time - _plug_in(time, n_points, squares, cosines)

    # The smallest root: beyond it the equation is met by over-smooth estimates too.
    times = np.concatenate([[0.0], np.geomspace(1e-8, 0.1, 60)])
    values = [excess(time) for time in times]
    for left, right, before, after in zip(times, times[1:], values, values[1:], strict=False):
        if before < 0 <= after:
            return float(np.sqrt(brentq(excess, left, right)) * extent)
    centres = (np.arange(len(share)) + 0.5) / len(share) * extent
    return spread_of(share, centres) * float(n_points) ** (-1 / 5)


def _plug_in(time: float, n_points: float, squares: Array, cosines: Array) -> float:
    """Return the function ``xi gamma^[7]`` of Botev and others, equation (30)."""
    stages = 7
    functional = _derivative_norm(stages, time, squares, cosines)
    for stage in range(stages - 1, 1, -1):
        odd = math.prod(range(1, 2 * stage, 2)) / math.sqrt(2 * math.pi)
        factor = (1 + 0.5 ** (stage + 0.5)) / 3
        if functional <= 0:
            return 0.0
        pilot = (2 * factor * odd / (n_points * functional)) ** (2 / (3 + 2 * stage))
        functional = _derivative_norm(stage, pilot, squares, cosines)
    if functional <= 0:
        return 0.0
    return float((2 * n_points * math.sqrt(math.pi) * functional) ** (-2 / 5))


def _derivative_norm(order: int, time: float, squares: Array, cosines: Array) -> float:
    damped = np.exp(order * np.log(squares) - squares * np.pi**2 * time)
    return float(2 * np.pi ** (2 * order) * (damped @ cosines))


def spread_of(share: Array, centres: Array) -> float:
    """Return the standard deviation, or what the quartiles say where that is less.

    Parameters
    ----------
    share : ndarray (bin,)
        Summing up to 1.
    centres : ndarray (bin,)
    """
    mean = share @ centres
    deviation = math.sqrt(max(float(share @ (centres - mean) ** 2), 0.0))
    quartiles = np.interp([0.25, 0.75], np.cumsum(share), centres)
    robust = float(quartiles[1] - quartiles[0]) / 1.349
    return min(deviation, robust) if robust > 0 else deviation
