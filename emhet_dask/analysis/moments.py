"""Weighted mean and standard deviation of volumes, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Moments", "accumulate", "finish", "merge", "merge_all"]


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


def accumulate(block: NDArray[Any], weights: ArrayLike | None = None) -> Moments:
    """Moments of a block of volumes (or of rows of a matrix).

    Sums are of distances from the first volume that counts, in float64, so that a mean far from
    zero costs no precision. Memory beside the block: four volumes of float64.

    Parameters
    ----------
    block : array (volume, ...)
        At least one volume.
    weights : array (volume,), optional
        By default 1 each. A volume of weight 0 is not looked at.

    Returns
    -------
    Moments
    """
    counts = np.ones(len(block)) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = np.flatnonzero(counts)
    shape = block.shape[1:]
    sums, squares = np.zeros(shape), np.zeros(shape)
    if counted.size == 0:
        return Moments(0.0, sums, squares)
    origin = block[counted[0]].astype(np.float64)
    distance, product = np.empty(shape), np.empty(shape)
    for index in counted[1:]:
        np.subtract(block[index], origin, out=distance)
        np.multiply(distance, counts[index], out=product)
        sums += product
        product *= distance
        squares += product
    weight = float(counts.sum())
    squares -= sums**2 / weight
    np.maximum(squares, 0.0, out=squares)
    return Moments(weight, origin + sums / weight, squares)


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
