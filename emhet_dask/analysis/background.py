"""What maps hold where nothing of the molecule is: how strong it is, and how far it reaches.

Noise that is low-passed like a map makes neighbouring voxels depend on one another, as truly as
those of a subunit do. Voxels tell of structure only when they are farther apart than that reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emhet_dask.errors import InputError

__all__ = ["Background", "measure_background"]

Float64 = NDArray[np.float64]

# The quietest voxels of the box: the molecule fills less than the rest.
_QUIET = 0.25
# Fewer than these voxels, or volumes, measure nothing.
_FEWEST_VOXELS = 512
_FEWEST_VOLUMES = 8
# Correlations are looked at up to this part of the box, and reach at least so many voxels.
_FARTHEST = 1 / 8
_NEAREST = 2.0
# A Gaussian correlation that falls to 1/e at some distance is 0.002 at so many times that.
_TIMES = 2.5


@dataclass(frozen=True, eq=False)
class Background:
    """Background of an ensemble of maps.

    Attributes
    ----------
    std : float
        Standard deviation of the density, over the volumes; 0 where there is no background.
    length : float
        Distance in voxels beyond which background makes no pair of voxels look associated.
    correlation : array (lag,)
        Mean correlation of two background voxels, by their distance in whole voxels, from 0.
    limit : float
        Correlation that is too small to be seen in so many volumes.
    reached : bool
        Whether the correlation falls below the limit within an eighth of the box. If not, as with
        maps from a decoder, whose background drifts as a whole, `length` is 2.5 times the distance
        at which it falls to 1/e.
    """

    std: float
    length: float
    correlation: Float64
    limit: float
    reached: bool = True


def measure_background(volumes: Iterable[NDArray[Any]], *, n_volumes: int) -> Background:
    """Measure the background on a sample of volumes.

    Background is the quarter of the voxels that varies least over the sample. The correlation of
    two of its voxels is averaged over volumes, places and directions, by Fourier transforms of the
    residuals (Wiener–Khinchin, with the number of pairs at each lag from the transform of the
    mask); voxels near the faces are left out, so that no pair is one across the box.

    Parameters
    ----------
    volumes : iterable of array (z, y, x)
        Gone through twice; one volume is held at a time.
    n_volumes : int
        In which associations will be looked for. Their estimates scatter by ``1 / √n``; half of
        that is the limit.

    Returns
    -------
    Background
        Two voxels long at least; so long, with `std` 0, where fewer than 8 volumes or no
        background voxels are left (maps that were masked).

    Raises
    ------
    InputError
        When there is no volume, or they differ in shape.
    """
    mean, std, count = _moments(volumes)
    limit = 0.5 / float(np.sqrt(n_volumes))
    farthest = max(int(min(mean.shape) * _FARTHEST), int(_NEAREST) + 1)
    quiet = _quiet_voxels(std, margin=-(-farthest // 2))
    if count < _FEWEST_VOLUMES or np.count_nonzero(quiet) < _FEWEST_VOXELS:
        return Background(0.0, _NEAREST, np.ones(1), limit)
    correlation = _correlation(volumes, mean, quiet, farthest)
    length, reached = _falls_below(correlation, limit)
    if not reached:
        length = min(length, _TIMES * _falls_below(correlation, float(np.exp(-1)))[0])
    level = float(np.sqrt(np.mean(std[quiet] ** 2)))
    return Background(level, max(length, _NEAREST), correlation, limit, reached)


def _moments(volumes: Iterable[NDArray[Any]]) -> tuple[Float64, Float64, int]:
    """Return mean and standard deviation of each voxel (z, y, x), and the number of volumes."""
    total = squares = None
    count = 0
    for volume in volumes:
        values = np.asarray(volume, dtype=np.float64)
        if total is None or squares is None:
            first, total, squares = values, np.zeros_like(values), np.zeros_like(values)
        if values.shape != total.shape:
            raise InputError(f"volumes differ in shape: {total.shape} and {values.shape}")
        shifted = values - first  # the first volume, for the sake of rounding
        total += shifted
        squares += shifted**2
        count += 1
    if total is None or squares is None:
        raise InputError("no volume to measure the background of")
    variance = (squares - total**2 / count) / max(count - 1, 1)
    return first + total / count, np.sqrt(np.maximum(variance, 0)), count


def _quiet_voxels(std: Float64, *, margin: int) -> NDArray[np.bool_]:
    inner = (slice(margin, -margin),) * 3
    quiet = np.zeros(std.shape, dtype=bool)
    moving = std[inner] > 0
    if not moving.any():
        return quiet
    limit = np.quantile(std[inner][moving], _QUIET)
    quiet[inner] = moving & (std[inner] <= limit)
    return quiet


def _correlation(
    volumes: Iterable[NDArray[Any]], mean: Float64, quiet: NDArray[np.bool_], farthest: int
) -> Float64:
    """Return the correlation at distances of 0 to `farthest` voxels."""
    power = np.zeros((*mean.shape[:2], mean.shape[2] // 2 + 1))
    for volume in volumes:
        residual = np.where(quiet, volume - mean, 0.0).astype(np.float32)
        power += np.abs(scipy.fft.rfftn(residual)) ** 2
    products = scipy.fft.irfftn(power, s=mean.shape)
    pairs = scipy.fft.irfftn(np.abs(scipy.fft.rfftn(quiet.astype(np.float64))) ** 2, s=mean.shape)
    axes = [np.fft.fftfreq(side, 1 / side) for side in mean.shape]
    lag = np.sqrt(sum(grid**2 for grid in np.meshgrid(*axes, indexing="ij", sparse=True)))
    near = lag <= farthest + 0.5
    shell = np.rint(lag[near]).astype(np.intp)
    total = np.bincount(shell, weights=products[near])[: farthest + 1]
    number = np.bincount(shell, weights=pairs[near])[: farthest + 1]
    covariance = np.divide(total, number, out=np.zeros_like(total), where=number > 0.5)
    return np.asarray(covariance / covariance[0])


def _falls_below(correlation: Float64, limit: float) -> tuple[float, bool]:
    """Return the distance at which the correlation first falls below the limit, between lags."""
    below = np.flatnonzero(correlation < limit)
    if not len(below):
        return float(len(correlation) - 1), False
    lag = int(below[0])
    before, after = correlation[lag - 1], correlation[lag]
    return float(lag - 1 + (before - limit) / (before - after)), True
