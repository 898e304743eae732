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
_PIECE = 1 << 15


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

    Sums are of distances from the first volume that counts, in float64, so that a mean far from
    zero costs no precision. Memory: three volumes of float64, however many come.

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
    origin: NDArray[np.float64] | None = None
    shape: tuple[int, ...] = ()
    weight = 0.0
    for volume, count in zip(volumes, counts, strict=weights is not None):
        shape = volume.shape
        if count == 0:
            continue
        weight += float(count)
        if origin is None:
            origin = volume.astype(np.float64).reshape(-1)
            sums, squares = np.zeros(origin.size), np.zeros(origin.size)
        else:
            _add(volume.reshape(-1), float(count), origin, sums, squares)
    if origin is None:
        return Moments(0.0, np.zeros(shape), np.zeros(shape))
    origin += sums / weight
    np.square(sums, out=sums)
    sums /= weight
    squares -= sums
    np.maximum(squares, 0.0, out=squares)
    return Moments(weight, origin.reshape(shape), squares.reshape(shape))


def _add(
    volume: NDArray[Any],
    count: float,
    origin: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Add a volume's distances from `origin`, a piece after another that fits the cache."""
    for start in range(0, len(volume), _PIECE):
        piece = slice(start, start + _PIECE)
        distance = volume[piece] - origin[piece]
        product = distance * count
        sums[piece] += product
        product *= distance
        squares[piece] += product


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
