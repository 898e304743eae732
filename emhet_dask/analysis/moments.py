"""Weighted mean and standard deviation of volumes, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Moments", "accumulate", "finish", "merge", "merge_all"]

# Voxels that are summed at a time: their temporaries stay in the cache.
_PIECE = 1 << 14
# So many distances are added in float32, four times as fast, before they enter the sums in float64:
# few enough to cost less than the rounding of the volumes themselves.
_IN_SINGLE = 16


@dataclass(frozen=True)
class Moments:
    """Sums over some volumes.

    Attributes
    ----------
    weight : float
        Sum of the weights.
    mean : array, shape of one volume, float64
        Weighted mean; zeros where `weight` is 0.
    squares : array, shape of one volume, float64
        Weighted sum of squared distances from `mean`.
    """

    weight: float
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


def accumulate(volumes: Iterable[NDArray[Any]], weights: ArrayLike | None = None) -> Moments:
    """Moments of volumes (or of rows of a matrix) that come one after another.

    Sums are of distances from the first volume that counts, so that a mean far from zero costs no
    precision, and in float64 but for runs of a few volumes. Memory: four volumes of float64,
    however many come.

    Parameters
    ----------
    volumes : iterable of arrays of one shape
        At least one; an array (volume, ...) is as good.
    weights : array (volume,), optional
        By default 1 each. A volume of weight 0 is not looked at.

    Returns
    -------
    Moments
    """
    counts = repeat(1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    sums: _Sums | None = None
    shape: tuple[int, ...] = ()
    for volume, count in zip(volumes, counts, strict=weights is not None):
        shape = volume.shape
        if count == 0:
            continue
        if sums is None:
            sums = _Sums(volume)
        sums.add(volume, float(count))
    if sums is None:
        return Moments(0.0, np.zeros(shape), np.zeros(shape))
    return sums.moments()


class _Sums:
    """Weighted sums of distances from one volume, and of their squares."""

    def __init__(self, origin: NDArray[Any]) -> None:
        self._origin = origin.reshape(-1).astype(np.float32)
        self._shape = origin.shape
        self._weight = 0.0
        self._double = np.zeros((2, origin.size))
        self._single = np.zeros((2, origin.size), dtype=np.float32)
        self._pending = 0

    def add(self, volume: NDArray[Any], count: float) -> None:
        values = volume.reshape(-1)
        scale = np.float32(count)
        for start in range(0, len(values), _PIECE):
            piece = slice(start, start + _PIECE)
            distance = np.subtract(values[piece], self._origin[piece], dtype=np.float32)
            product = distance if count == 1 else distance * scale
            self._single[0, piece] += product
            self._single[1, piece] += product * distance
        self._weight += count
        self._pending += 1
        if self._pending == _IN_SINGLE:
            self._flush()

    def moments(self) -> Moments:
        self._flush()
        total, squares = self._double
        mean = self._origin + total / self._weight
        spread = np.maximum(squares - total**2 / self._weight, 0.0)
        return Moments(self._weight, mean.reshape(self._shape), spread.reshape(self._shape))

    def _flush(self) -> None:
        self._double += self._single
        self._single[...] = 0.0
        self._pending = 0


def merge(first: Moments, second: Moments) -> Moments:
    """Moments of the volumes of both, by the update of Chan, Golub and LeVeque (1979)."""
    weight = first.weight + second.weight
    if weight == 0:
        return first
    shift = second.mean - first.mean
    return Moments(
        weight,
        first.mean + (second.weight / weight) * shift,
        first.squares + second.squares + (first.weight * second.weight / weight) * shift**2,
    )


def merge_all(parts: Sequence[Moments]) -> Moments:
    """Merge in the order given."""
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    return merged


def finish(moments: Moments) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean and the standard deviation.

    The deviation is the root of the weighted mean of the squared distances (nothing is taken off
    the divisor); both are NaN where no volume counts.
    """
    if moments.weight == 0:
        nothing = np.full(moments.mean.shape, np.nan, dtype=np.float32)
        return nothing, nothing.copy()
    deviation = np.sqrt(moments.squares / moments.weight)
    return moments.mean.astype(np.float32), deviation.astype(np.float32)
