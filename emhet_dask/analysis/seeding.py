"""Where a classification begins: states that two halves of the particles agree on.

Each half of the images gets its own subspace, and mixtures of 1, 2, … states in it. The other half
is then judged by these: it had no part in them, so that its likelihood falls as soon as a state is
cut in two that is one. The number of states is that of the highest likelihood of images not seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.image_blocks import BlockSource
from emhet_dask.analysis.mixture import Mixture, fit_mixtures, posteriors
from emhet_dask.analysis.projection import Float32, SliceGrid
from emhet_dask.analysis.subspace import (
    Bounds,
    Evidence,
    Subspace,
    fit_subspaces,
    held_out_sets,
)

__all__ = ["HalfFit", "Start", "find_start"]

Float64 = NDArray[np.float64]

_ITERATIONS = 15
# Standard errors by which coefficients of images not seen vary beyond noise, for a component to be
# looked at; what follows noise alone stays below.
_LEAST_EXCESS = 8.0
_FEWEST_COMPONENTS = 2
# Standard errors by which one class more has to be likelier.
_LEAST_GAIN = 3.0
_FREE = Bounds()
# Mixtures are fitted in steps of microseconds: two threads of one process would take longer for it,
# waiting for Python's lock, than one after the other.
_ALONE = threading.Lock()


@dataclass(frozen=True, eq=False)
class HalfFit:
    """What one half of the images gave.

    Attributes
    ----------
    subspace : Subspace
    excess : ndarray of float64 (component,)
        How much more the other half's coefficients vary than noise does, in standard errors.
    n_components : int
        That were looked at.
    mixtures : list of Mixture
        Of 1, 2, … classes.
    unseen : ndarray of float64 (mixture, particle)
        Log-likelihood of each image of the other half.
    """

    subspace: Subspace
    excess: Float64
    n_components: int
    mixtures: list[Mixture]
    unseen: Float64


@dataclass(frozen=True, eq=False)
class Start:
    """Classes to begin with.

    Attributes
    ----------
    posteriors : ndarray of float32 (particle, class)
    log_likelihood : ndarray of float64 (number,)
        Of images not seen, for 1, 2, … classes, over that of one.
    n_supported : int
        Classes that the images speak for.
    halves : tuple of HalfFit
    """

    posteriors: Float32
    log_likelihood: Float64
    n_supported: int
    halves: tuple[HalfFit, HalfFit]


def find_start(
    halves: tuple[Sequence[BlockSource], Sequence[BlockSource]],
    prior: Float64,
    *,
    grid: SliceGrid,
    n_classes: int | None,
    most: int,
    n_components: int,
    restarts: int,
    seed: int,
    bounds: Bounds = _FREE,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Start:
    """Find classes to begin with.

    Parameters
    ----------
    halves : two sequences of BlockSource
        Block by block, the particles of even and of odd rows.
    prior : array (shell,)
        Variance that components are expected to have.
    grid : SliceGrid
    n_classes : int, optional
        At most; by default as many as the images speak for, up to `most`.
    most : int
        Largest number that is tried.
    n_components : int
    restarts : int
        Random starts of each number of classes.
    seed : int
    bounds : Bounds
    compute : callable
        Like `dask.compute`.
    """
    subspaces = fit_subspaces(
        halves,
        prior,
        grid=grid,
        n_components=n_components,
        iterations=_ITERATIONS,
        bounds=bounds,
        seed=seed,
        compute=compute,
    )
    # Sets in the same order in every pass, so that workers have kept their blocks.
    others = held_out_sets(
        halves,
        [subspace.components for subspace in subspaces[::-1]],
        grid=grid,
        compute=compute,
    )[::-1]
    excesses = [_excess(other) for other in others]
    counts = [_worth_looking(excess) for excess in excesses]
    fit = dask.delayed(_fit_alone, pure=False, traverse=False)
    fitted = compute(
        *(
            fit(_first(subspace.evidence, count), most=most, restarts=restarts, seed=seed + number)
            for number, (subspace, count) in enumerate(zip(subspaces, counts, strict=True))
        )
    )
    fits = []
    for subspace, other, excess, count, mixtures in zip(
        subspaces, others, excesses, counts, fitted, strict=True
    ):
        unseen = [posteriors(_first(other, count), mixture)[1] for mixture in mixtures]
        fits.append(HalfFit(subspace, excess, count, mixtures, np.array(unseen)))
    not_seen = np.concatenate([fit.unseen for fit in fits], axis=1)
    total = not_seen.sum(axis=1)
    supported = _supported(not_seen)
    chosen = supported if n_classes is None else min(n_classes, supported)
    # The half whose classes explain the other one better, for its size.
    gains = [float((half.unseen[chosen - 1] - half.unseen[0]).mean()) for half in fits]
    best = int(np.argmax(gains))
    found = _joined(fits[best], others[best], chosen, best, halves)
    return Start(found, total - total[0], supported, (fits[0], fits[1]))


def _fit_alone(evidence: Evidence, **options: Any) -> list[Mixture]:
    with _ALONE:
        return fit_mixtures(evidence, **options)


def _supported(unseen: Float64) -> int:
    """Return the number of classes that images not seen speak for.

    The likeliest, or fewer where the last class gains less than it might by chance, given how
    gains vary among images.
    """
    best = int(np.argmax(unseen.sum(axis=1)))
    while best:
        gain = unseen[best] - unseen[best - 1]
        if gain.sum() > _LEAST_GAIN * gain.std() * np.sqrt(len(gain)):
            break
        best -= 1
    return best + 1


def _excess(other: Evidence) -> Float64:
    own = np.einsum("naa->na", other.precision).astype(np.float64)
    beyond = np.square(other.pull.astype(np.float64)) - own
    return beyond.sum(axis=0) / np.sqrt(2.0 * np.square(own).sum(axis=0))


def _worth_looking(excess: Float64) -> int:
    high = np.flatnonzero(excess > _LEAST_EXCESS)
    last = int(high[-1]) + 1 if len(high) else 0
    return min(max(last, _FEWEST_COMPONENTS), len(excess))


def _first(evidence: Evidence, count: int) -> Evidence:
    return Evidence(evidence.precision[:, :count, :count], evidence.pull[:, :count])


def _joined(
    fit: HalfFit,
    other: Evidence,
    n_classes: int,
    which: int,
    halves: tuple[Sequence[BlockSource], Sequence[BlockSource]],
) -> Float32:
    """Return the posteriors of all images, in their order, by the classes of one half."""
    mixture = fit.mixtures[n_classes - 1]
    own, _ = posteriors(_first(fit.subspace.evidence, fit.n_components), mixture)
    unseen, _ = posteriors(_first(other, fit.n_components), mixture)
    by_half = (own, unseen) if which == 0 else (unseen, own)
    total = sum(len(each) for each in by_half)
    found = np.empty((total, n_classes), dtype=np.float32)
    at, starts = 0, [0, 0]
    for even, odd in zip(*halves, strict=True):
        count = even.n_particles + odd.n_particles
        for parity, source in enumerate((even, odd)):
            rows = slice(starts[parity], starts[parity] + source.n_particles)
            found[at + parity : at + count : 2] = by_half[parity][rows]
            starts[parity] += source.n_particles
        at += count
    return found
