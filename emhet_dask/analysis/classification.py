"""Classes of particle images at given poses, by regularised maximum likelihood (Scheres 2012).

A class is the consensus map plus a difference of its own. An iteration compares every image with
every class in one pass over the images, and adds up, weighted by the probabilities that this gives,
what the next differences are made of. Differences are expected to be small where none was seen so
far: the variance of each shell is what the data say it is (type-II maximum likelihood, where
RELION's spectra of signal to noise are of whole maps), times a factor of the user's.

Every image is judged by maps in which it has no part. A map follows the noise of the images that it
was made of, so that they would stay where they are, the more so the higher the resolution and the
smaller the class. What a map predicts of an image without that image itself follows from the weight
of the image in it, as in any linear smoother (leave-one-out), and how uncertain the prediction is
from the weights of all. Likelihoods are therefore those of images that a model has not seen: they
compare between starts and numbers of classes, and a class that only follows noise lowers them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.image_blocks import (
    BlockSource,
    ImageBlock,
    complete_plane,
    run_pass,
    spread,
)
from emhet_dask.analysis.projection import SCATTER_OF_SUMS, Complex64, Float32, SliceGrid
from emhet_dask.analysis.support import Support
from emhet_dask.analysis.symmetry import symmetrise_columns

__all__ = [
    "ClassSums",
    "Classes",
    "Judgement",
    "add_up",
    "classes_of",
    "informative_shell",
    "judge",
    "next_prior",
]

Float64 = NDArray[np.float64]

# An image that makes most of a voxel alone: no more than this of it is taken out.
_MOST_OWN = 0.9
_LEAST_SHARE = 1e-12
_LEAST_PRIOR = 1e-6
_NO_PRIOR = 1e-30
# The power of noise that was added up and is looked up again, over what it is in itself (a cubic
# B-spline: the integral of its square over its middle, cubed).
_SCATTER_OF_LOOK_UP = (151 / 315 / (2 / 3)) ** 3


@dataclass(frozen=True, eq=False)
class ClassSums:
    """What the differences of classes are made of.

    Attributes
    ----------
    grid : SliceGrid
    data : ndarray of complex64 (voxel, class)
        Sums of slices times CTF and probability, over the noise.
    weight : ndarray of float32 (voxel, class)
        Sums of CTF² times probability, over the noise.
    shares : ndarray of float64 (class,)
    """

    grid: SliceGrid
    data: Complex64
    weight: Float32
    shares: Float64


@dataclass(frozen=True, eq=False)
class Classes:
    """Differences of classes from the consensus.

    Attributes
    ----------
    grid : SliceGrid
    difference : ndarray of complex64 (voxel, class)
    variance : ndarray of float32 (voxel, class)
        How uncertain each voxel is.
    shares : ndarray of float64 (class,)
    """

    grid: SliceGrid
    difference: Complex64
    variance: Float32
    shares: Float64

    @property
    def n_classes(self) -> int:
        """Return the number of classes."""
        return len(self.shares)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a pass over the images found.

    Attributes
    ----------
    posteriors : ndarray of float32 (particle, class)
    log_likelihood : ndarray of float64 (particle,)
        Of each image by maps that it had no part in, over that of the consensus.
    noise : ndarray of float64 (shell,)
        Variance of what the classes leave of the images, 1 where the noise is as the sources
        say.
    """

    posteriors: Float32
    log_likelihood: Float64
    noise: Float64


def add_up(
    sources: Sequence[BlockSource],
    posteriors: Float32,
    *,
    grid: SliceGrid,
    noise: Float64,
    operators: NDArray[np.floating] | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> ClassSums:
    """Add up what classes are made of, from probabilities.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of what the consensus leaves of the images.
    posteriors : array (particle, class)
    grid : SliceGrid
    noise : array (shell,)
        Variance of the noise of what the sources give; 1 where it is as they say.
    operators : array (operator, 3, 3), optional
        Of the point group that every class has.
    compute : callable
        Like `dask.compute`.
    """
    weights = np.asarray(posteriors, dtype=np.float32)
    (packed,), _ = run_pass(
        sources,
        _sums_of_block,
        np.asarray(noise, dtype=np.float32),
        radius=grid.radius,
        own=spread(weights, sources),
        compute=compute,
    )
    sums = _unpacked(packed, weights, grid)
    if operators is None or len(operators) == 1:
        return sums
    return ClassSums(
        grid,
        symmetrise_columns(sums.data, grid, operators),
        symmetrise_columns(sums.weight, grid, operators),
        sums.shares,
    )


def classes_of(sums: ClassSums, prior: Float64, *, support: Support | None = None) -> Classes:
    """Solve for the differences of classes.

    Parameters
    ----------
    sums : ClassSums
    prior : array (shell,)
        Variance that differences are expected to have, from 0 to the radius.
    support : Support, optional
        Where in the box classes may differ; what noise there is elsewhere is left out.
    """
    heavy = _prior_weight(sums.grid, prior)[:, None]
    total = sums.weight + heavy
    difference, variance = sums.data / total, 1.0 / total
    if support is not None:
        difference, variance = support.keep(difference), variance * np.float32(support.share)
    return Classes(sums.grid, difference, variance, sums.shares)


def next_prior(sums: ClassSums, *, focus: Support | None = None) -> Float64:
    """Return the variance (shell,) of differences: their power, less that of noise.

    Classes count by their sizes; a shell where noise has more power has no variance.

    Parameters
    ----------
    sums : ClassSums
    focus : Support, optional
        Power inside alone, where the noise of the rest of the box, and what else varies there, do
        not hide it.
    """
    grid = sums.grid
    inside = grid.voxel_radius <= grid.radius
    shell = grid.voxel_shell[inside]
    weight = np.maximum(sums.weight[inside], 1e-20)
    seen = weight > 1e-3 * weight.mean()
    if focus is None:
        power = np.square(np.abs(sums.data[inside])) / weight - SCATTER_OF_SUMS
    else:
        means = np.zeros_like(sums.data)
        means[inside] = np.where(seen, sums.data[inside] / weight, 0)
        kept = focus.keep(means)[inside]
        power = np.square(np.abs(kept)) * weight - SCATTER_OF_SUMS * focus.share
    power = np.where(seen, power, 0.0)
    signal = np.bincount(shell, weights=power.sum(axis=1), minlength=grid.radius + 1)
    total = np.bincount(
        shell, weights=np.where(seen, weight, 0.0).sum(axis=1), minlength=grid.radius + 1
    )
    return np.maximum(signal / np.maximum(total, 1e-20), 0.0)


def informative_shell(sums: ClassSums, prior: Float64) -> int:
    """Return the last shell in which a class, of mean weight, differs by more than its noise."""
    used = sums.shares > _LEAST_SHARE
    grid = sums.grid
    weight = shell_mean(sums.weight[:, used].mean(axis=1), grid)
    ratio = prior * grid.padding**3 * weight
    return int(np.flatnonzero(ratio >= 1.0).max(initial=0))


def judge(
    sources: Sequence[BlockSource],
    classes: Classes,
    posteriors: Float32,
    *,
    noise: Float64,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Judgement:
    """Compare every image with every class.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of what the consensus leaves of the images.
    classes : Classes
    posteriors : array (particle, class)
        With which the classes were made.
    noise : array (shell,)
        Variance of the noise of what the sources give; 1 where it is as they say.
    compute : callable
        Like `dask.compute`.
    """
    (squares,), (found, log) = run_pass(
        sources,
        _judge_block,
        classes,
        np.asarray(noise, dtype=np.float32),
        radius=classes.grid.radius,
        own=spread(np.asarray(posteriors, dtype=np.float32), sources),
        compute=compute,
    )
    grid = classes.grid
    pixels = np.bincount(grid.shell, minlength=grid.radius + 1) * len(log)
    return Judgement(
        posteriors=found,
        log_likelihood=log,
        noise=np.where(np.arange(grid.radius + 1) > 0, noise * squares / pixels, 1.0),
    )


# One block ----------------------------------------------------------------------------------------


def _sums_of_block(
    block: ImageBlock, weights: Float32, noise: Float32
) -> tuple[tuple[Float32], tuple[()]]:
    return (_back_projected(block, weights, (1.0 / noise)[block.grid.shell]),), ()


def _judge_block(
    block: ImageBlock, weights: Float32, classes: Classes, noise: Float32
) -> tuple[tuple[Float64], tuple[Float32, Float64]]:
    precision = (1.0 / noise)[block.grid.shell]
    log, squares = _likelihood(block, weights, classes, precision)
    found, total = _posterior(log, classes.shares)
    by_pixel = np.einsum("nk,npk->p", found, squares, dtype=np.float64)
    by_shell = np.zeros(block.grid.radius + 1)
    np.add.at(by_shell, block.grid.shell, by_pixel)
    return (by_shell,), (found, total)


def _likelihood(
    block: ImageBlock,
    weights: Float32,
    classes: Classes,
    precision: Float32,
) -> tuple[Float64, Float32]:
    """Return the log-likelihood of each image (particle, class), and squares of what is left.

    With ``y`` an image, ``m`` what the class predicts of it, ``v`` the variance of that and ``w``
    the image's weight in the class, the class without the image predicts ``(m - h y) / (1 - h)``
    with variance ``v / (1 - h)``, where ``h = w v``. Noise has variance 1.
    """
    root = np.sqrt(precision)
    transfer = (block.transfer * root)[..., None]
    data = (block.slices * root)[..., None]
    uncertain = block.look_up(classes.variance)
    uncertain *= np.square(transfer) * block.spread_of_self()[..., None]
    own = np.minimum(weights[:, None, :] * uncertain, _MOST_OWN)
    left = data - block.operator.project(classes.difference) * transfer
    rest = 1.0 / (1.0 - own)
    # y - (m - h y) / (1 - h) = (y - m) / (1 - h)
    squares = (np.square(left.real) + np.square(left.imag)) * np.square(rest)
    spare = 1.0 + np.float32(_SCATTER_OF_LOOK_UP) * uncertain * rest
    squares /= spare
    log = -squares.sum(axis=1, dtype=np.float64) - np.log(spare).sum(axis=1, dtype=np.float64)
    # Over what the consensus leaves, with the noise as the sources say: the same whatever the
    # classes, the noise that they leave, and the shells that are compared.
    background = np.square(np.abs(block.slices)).sum(axis=1, dtype=np.float64)
    background += np.log(precision).sum(dtype=np.float64)
    return log + background[:, None], squares


def _posterior(log: Float64, shares: Float64) -> tuple[Float32, Float64]:
    with np.errstate(divide="ignore"):
        weighted = log + np.where(shares > _LEAST_SHARE, np.log(shares), -np.inf)
    top = weighted.max(axis=1, keepdims=True)
    weights = np.exp(weighted - top)
    total = weights.sum(axis=1, keepdims=True)
    return (weights / total).astype(np.float32), (top + np.log(total))[:, 0]


def _back_projected(block: ImageBlock, weights: Float32, precision: Float32) -> Float32:
    """Add up slices times CTF, real and imaginary, and CTF², by class: (voxel, 3 classes)."""
    count = weights.shape[1]
    transfer = block.transfer * precision
    weighted = block.slices * transfer
    imaginary = np.where(block.operator.mate, -weighted.imag, weighted.imag)
    columns = np.empty((*block.transfer.shape, 3 * count), dtype=np.float32)
    for at, each in enumerate((weighted.real, imaginary, block.transfer * transfer)):
        np.multiply(
            each[..., None], weights[:, None, :], out=columns[..., at * count : (at + 1) * count]
        )
    return np.asarray(block.operator.weights.T @ columns.reshape(-1, 3 * count))


# All blocks ---------------------------------------------------------------------------------------


def _unpacked(packed: Float32, weights: Float32, grid: SliceGrid) -> ClassSums:
    count = weights.shape[1]
    data = np.empty((len(packed), count), dtype=np.complex64)
    data.real, data.imag = packed[:, :count], packed[:, count : 2 * count]
    return ClassSums(
        grid,
        complete_plane(data, grid),
        complete_plane(np.ascontiguousarray(packed[:, 2 * count :]), grid),
        weights.mean(axis=0, dtype=np.float64),
    )


def _prior_weight(grid: SliceGrid, prior: Float64) -> Float32:
    # Classes that differ nowhere by more than noise have no variance at all.
    floor = np.maximum(prior, max(_LEAST_PRIOR * float(np.max(prior)), _NO_PRIOR))
    # A padded voxel has so many times fewer slices than one of the box.
    floor = floor * grid.padding**3
    return (1.0 / floor)[np.minimum(grid.voxel_shell, grid.radius)].astype(np.float32)
