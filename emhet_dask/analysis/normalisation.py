"""One amplitude per volume: decoded maps of the same state differ by a factor of a few per cent.

The factor is fitted by least squares against the mean map. Over the whole mask that would measure
composition instead (a volume that lacks a subunit has less in common with the mean), so the fit is
over the voxels that all volumes share. On assemblies whose amplitudes scatter by 5 %, what is left
of the scatter afterwards is 1 %; a fit over the whole mask makes it 29 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import Block, as_matrix, check_weights, compute_all, row_bands, tree
from emhet_dask.analysis.moments import Moments, accumulate, merge_all
from emhet_dask.errors import InputError

__all__ = [
    "AmplitudeFit",
    "divisors",
    "fit_amplitudes",
    "normalisation_factors",
    "row_products",
    "shared_voxels",
    "shrinkage",
]

# Standard deviation over the volumes, as a share of the mean, up to which a voxel is shared by all:
# a subunit that one volume in fifty lacks has 0.14. From 0.1 to 0.4 the factors hardly change.
_STEADY = 0.2
# Variance that noise alone has: that of the quietest tenth of the voxels.
_QUIET = 0.1
# The shared voxels carry at least this part of the mean map's power, or all voxels are used.
_LEAST_POWER = 0.05
# Less of the mean map than this is no amplitude: decoded maps differ by some ten per cent.
_LEAST_FACTOR = 0.2


@dataclass(frozen=True)
class AmplitudeFit:
    """What amplitudes are measured by: fitted to an ensemble, good for volumes beyond it.

    Attributes
    ----------
    shape : ndarray of float64 (voxel,)
        Mean map at the voxels that all volumes share, 0 at others.
    mean_raw : float
        Weighted mean of the ensemble's ``<v, shape> / <shape, shape>``.
    repeatability : float
        What is kept of a factor's distance from 1: 0 where all scatter was noise, 1 where none was.
    shared_voxels : float
        Fraction of the voxels that was used.
    """

    shape: NDArray[np.float64]
    mean_raw: float
    repeatability: float
    shared_voxels: float

    def factors(self, products: ArrayLike) -> NDArray[np.float64]:
        """Return the factors of volumes.

        Parameters
        ----------
        products : array (volume,)
            Inner product of each volume with `shape`.
        """
        return self._shrunk(np.asarray(products, dtype=np.float64) / (self.shape @ self.shape))

    def _shrunk(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 + self.repeatability * (raw / self.mean_raw - 1.0)


def normalisation_factors(
    array: Any,
    *,
    weights: ArrayLike | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> xr.DataArray:
    """Amplitude of each volume relative to the mean map, by least squares over shared voxels.

    Parameters
    ----------
    array, weights, compute
        As of `fit_amplitudes`.

    Returns
    -------
    xarray.DataArray
        ``factor`` (volume), float64, with a weighted mean of 1; near 0 or below where a volume has
        nothing in common with the others or its contrast is inverted (see `divisors`).
        Attributes: ``shared_voxels`` (the fraction of the voxels that was used) and
        ``repeatability`` (0: all scatter was noise and every factor is 1; 1: none was).

    Raises
    ------
    InputError
        As `fit_amplitudes`.
    """
    fit, factors = fit_amplitudes(array, weights=weights, compute=compute)
    return xr.DataArray(
        factors,
        dims=("volume",),
        name="factor",
        attrs={"shared_voxels": fit.shared_voxels, "repeatability": fit.repeatability},
    )


def fit_amplitudes(
    array: Any,
    *,
    weights: ArrayLike | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> tuple[AmplitudeFit, NDArray[np.float64]]:
    """Fit what amplitudes are measured by, and measure those of the volumes.

    The factor ``a`` that minimises ``|v - a m|²`` is ``<v, m> / <m, m>``. Noise scatters it, more
    than amplitudes do where maps are noisy; what does not repeat between two halves of the voxels
    is therefore shrunk away.

    Parameters
    ----------
    array : array (volume, voxel)
        Densities inside the mask, voxels in the order of the box; dask, NumPy or labelled. Read
        twice.
    weights : array (volume,), optional
        Of the volumes in the mean.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    fit : AmplitudeFit
    factors : ndarray of float64 (volume,)

    Raises
    ------
    InputError
        When the mean map is zero or not finite, or most volumes have nothing in common with it.
    """
    matrix = as_matrix(array)
    counts = check_weights(weights, matrix.shape[0])
    bands = row_bands(matrix)
    moments = compute_all(compute, [_moments(bands, counts)])[0]
    used = shared_voxels(moments)
    shape = np.where(used, moments.mean, 0.0)
    if not np.isfinite(moments.mean).all() or not shape.any():
        what = "zero" if np.isfinite(moments.mean).all() else "not finite"
        raise InputError(f"volumes cannot be normalised: their mean inside the mask is {what}")
    halves = _halves(shape)
    multiply = dask.delayed(row_products, pure=False)
    shared = dask.delayed(halves.astype(np.float32), traverse=False, pure=False)
    parts = compute_all(compute, [multiply(band.part, shared) for band in bands])
    power = np.einsum("ij,ij->i", halves, halves)
    by_half = np.concatenate(parts) / power
    raw = by_half @ power / power.sum()
    fit = AmplitudeFit(
        shape=shape,
        mean_raw=float(np.average(raw, weights=counts)),
        repeatability=shrinkage(by_half, power=power, weights=counts),
        shared_voxels=float(used.mean()),
    )
    _refuse_inverted(raw / fit.mean_raw)
    return fit, fit._shrunk(raw)


def shared_voxels(moments: Moments) -> NDArray[np.bool_]:
    """Say which voxels all volumes share: what varies there, beside noise, is amplitude.

    Parameters
    ----------
    moments : Moments
        Of the volumes, over the voxels.

    Returns
    -------
    array of bool (voxel,)
        All voxels where the shared ones hold too little of the mean map to be fitted.
    """
    variance = moments.squares / moments.weight
    noise = np.quantile(variance, _QUIET)
    steady: NDArray[np.bool_] = (moments.mean > 0) & (
        variance - noise <= (_STEADY * moments.mean) ** 2
    )
    power = moments.mean**2
    if power[steady].sum() < _LEAST_POWER * power.sum():
        return np.ones_like(steady)
    return steady


def shrinkage(
    by_half: NDArray[np.float64], *, power: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """How much of the factors' variance repeats between two halves of the voxels, 0 to 1.

    Parameters
    ----------
    by_half : array (volume, 2)
        Factors from either half.
    power : array (2,)
        Of the mean map in either half; the factor from both is their mean with these weights.
    weights : array (volume,)
    """
    share = power / power.sum()
    if len(by_half) < 3 or not (share > 0).all():
        return 1.0
    covariance = np.cov(by_half.T, aweights=weights)
    variance = float(share @ covariance @ share)
    if variance <= 0:
        return 1.0
    return float(np.clip(covariance[0, 1] / variance, 0.0, 1.0))


def row_products(band: NDArray[Any], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products (row, vector) of the rows of a band with vectors (vector, voxel)."""
    return (band.astype(np.float32, copy=False) @ vectors.T).astype(np.float64)


def _moments(bands: list[Block], weights: NDArray[np.float64]) -> Any:
    task = dask.delayed(accumulate, pure=False)
    return tree([task(band.part, weights[band.span]) for band in bands], merge_all)


def _halves(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split a map into two (half, voxel) of the same power, near voxels in the same half."""
    power = np.cumsum(shape**2)
    first = power <= 0.5 * power[-1]
    return np.stack([np.where(first, shape, 0.0), np.where(first, 0.0, shape)])


def divisors(factors: ArrayLike) -> NDArray[np.float64]:
    """Return what volumes are divided by: their factor, or 1 where it cannot be an amplitude.

    Division by a factor near zero or below would turn a volume of noise, or one of inverted
    contrast, into the largest of all.

    Parameters
    ----------
    factors : array (volume,)
        From `normalisation_factors`.

    Returns
    -------
    ndarray (volume,)
        All above 0.
    """
    given = np.asarray(factors, dtype=np.float64)
    return np.where(given >= _LEAST_FACTOR, given, 1.0)


def _refuse_inverted(factors: NDArray[np.float64]) -> None:
    faulty = np.flatnonzero(~(factors >= _LEAST_FACTOR))
    if 2 * faulty.size > factors.size:
        raise InputError(
            f"the volumes cannot be normalised: {faulty.size} of {factors.size} have nothing in "
            "common with the mean map; are they of one molecule in one frame? --no-normalize goes "
            "on without"
        )
