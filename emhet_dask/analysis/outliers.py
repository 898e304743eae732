"""Volumes unlike all others: decoding failures, noise, wrong contrast or scale.

A volume is an outlier when it stands alone. Rare states stand apart too, but not alone: three
volumes that agree are never outliers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.special import ndtri

from emhet_dask.analysis.clustering import finite_table
from emhet_dask.analysis.states import signal_components
from emhet_dask.errors import InputError

__all__ = ["find_outliers"]

Array = npt.NDArray[Any]

# Chance that an ensemble without junk has an outlier, were its measures normally distributed.
_FALSE_ALARM = 0.01
# How far from the second nearest volume, in units of the median distance of two volumes.
_FAR = 2.0
# How many times the unexplained power of both nearest volumes.
_UNLIKE = 4.0
# Amplitudes beyond this factor from the median are wrong, however widely they scatter.
_AMPLITUDE = 2.0
_FEWEST = 8
_SAMPLE = 2_000
# The score of an amplitude that is not above zero, which has no logarithm.
_INVERTED = 10.0
_ROUNDING = 1e-3
_TINY = float(np.finfo(float).tiny)


def find_outliers(
    scores: npt.ArrayLike,
    *,
    explained_variance: npt.ArrayLike | None = None,
    total_variance: float | None = None,
    residual: npt.ArrayLike | None = None,
    factor: npt.ArrayLike | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Find the volumes that are unlike all others.

    Three measures, each compared with its own median and median absolute deviation over the
    volumes (on a log scale, at a cutoff that grows with their number), and with a floor below which
    it does not count:

    - ``isolation``: the distance to the second nearest volume along the components above the noise
      floor, over the median distance of two volumes;
    - ``unexplained``: the power outside the components, over that of the two nearest volumes;
    - ``amplitude``: the normalisation factor.

    Parameters
    ----------
    scores : array (volume, component)
        On the principal components, not whitened.
    explained_variance, total_variance
        As `states.choose_states`.
    residual : array (volume,), optional
        Squared length of each volume that the components leave unexplained.
    factor : array (volume,), optional
        Amplitude of each volume relative to the mean map.
    seed : int
        Of the sample of pairs, of more than 2,000 volumes.

    Returns
    -------
    xarray.Dataset
        ``outlier`` (volume), bool; ``score`` (volume), above 1 for outliers; and the measures.
        With fewer than 8 volumes nothing is an outlier.

    Raises
    ------
    InputError
        Where the scores are not a table of finite numbers, or lengths differ.
    """
    scores = finite_table(scores, name="scores")
    n = len(scores)
    measures = {
        "isolation": np.zeros(n),
        "unexplained": np.ones(n),
        "amplitude": np.ones(n),
    }
    score = np.zeros(n)
    if n >= _FEWEST:
        variance = scores.var(axis=0) if explained_variance is None else explained_variance
        n_signal = signal_components(
            variance, n_volumes=n, total_variance=total_variance, most=scores.shape[1]
        )
        points = scores[:, : n_signal or scores.shape[1]]
        distance, nearest = map(np.asarray, cKDTree(points).query(points, k=3))
        typical = max(_typical_distance(points, seed=seed), _TINY)
        measures["isolation"] = distance[:, 2] / typical
        score = _excess(measures["isolation"], floor=_FAR)
        if residual is not None:
            power = _per_volume(residual, n, name="residual")
            # Where the components explain nearly all, what is left is rounding error.
            whole = power + np.sum(scores**2, axis=1)
            power = np.maximum(power, _ROUNDING * np.median(whole) + _TINY)
            measures["unexplained"] = power / power[nearest[:, 1:]].max(axis=1)
            score = np.maximum(score, _excess(measures["unexplained"], floor=_UNLIKE))
        if factor is not None:
            measures["amplitude"] = _per_volume(factor, n, name="factor")
            score = np.maximum(score, _amplitude_excess(measures["amplitude"]))
    columns = {name: ("volume", values) for name, values in measures.items()}
    return xr.Dataset({"outlier": ("volume", score > 1), "score": ("volume", score), **columns})


def _excess(measure: Array, *, floor: float) -> Array:
    """Return by how much (volume,) a positive measure exceeds its cutoff; 1 is at the cutoff."""
    logarithm = np.log(np.maximum(measure, _TINY))
    middle, spread = _robust(logarithm)
    cutoff = max(float(np.exp(min(middle + _sigmas(len(measure)) * spread, 700.0))), floor)
    return measure / cutoff


def _amplitude_excess(factor: Array) -> Array:
    positive = factor > 0
    if not positive.any():
        return np.full(len(factor), _INVERTED)
    logarithm = np.log(factor[positive])
    middle, spread = _robust(logarithm)
    cutoff = max(_sigmas(len(factor)) * spread, float(np.log(_AMPLITUDE)))
    excess = np.full(len(factor), _INVERTED)
    excess[positive] = np.abs(logarithm - middle) / cutoff
    return excess


def _robust(values: Array) -> tuple[float, float]:
    """Return the median, and the standard deviation that the median absolute deviation implies."""
    middle = float(np.median(values))
    return middle, float(np.median(np.abs(values - middle)) / ndtri(0.75))


def _sigmas(n: int) -> float:
    return float(-ndtri(_FALSE_ALARM / n))


def _typical_distance(points: Array, *, seed: int) -> float:
    if len(points) > _SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(points), _SAMPLE, replace=False)
        points = points[np.sort(chosen)]
    return float(np.median(pdist(points)))


def _per_volume(values: npt.ArrayLike, n: int, *, name: str) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"{name}: found shape {values.shape}, need one value for {n} volumes")
    return values
