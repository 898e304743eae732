"""What all particles have in common: their consensus map at given poses, noise and amplitudes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.gridding import hermitian_sums, shell_mean
from emhet_dask.analysis.image_blocks import BlockSource, ImageBlock, run_pass
from emhet_dask.analysis.projection import SCATTER_OF_SUMS, Complex64, Float32, SliceGrid
from emhet_dask.analysis.support import Support, sphere, support_of
from emhet_dask.analysis.symmetry import symmetrise

__all__ = ["consensus_and_noise", "group_scales"]

Float64 = NDArray[np.float64]

# Factors of amplitude are kept within these multiples of the middle one, as RELION does.
_LEAST_SCALE, _MOST_SCALE = 0.2, 5.0


def consensus_and_noise(
    sources: Sequence[BlockSource],
    groups: Sequence[NDArray[np.int64]],
    *,
    n_groups: int,
    grid: SliceGrid,
    operators: NDArray[np.floating] | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> tuple[Complex64, Float32, Float64]:
    """Reconstruct all particles together, and measure what that leaves of the images.

    Two passes over the images as they are. The first adds up the map, which is then regularised by
    its own spectrum of signal to noise; the second measures the noise of each group of images.

    Parameters
    ----------
    sources : sequence of BlockSource
    groups : sequence of array (particle,)
        Of each block, from 0.
    n_groups : int
    grid : SliceGrid
    operators : array (operator, 3, 3), optional
        Of the point group that the map has.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    transform : ndarray of complex64 (voxel,)
    weight : ndarray of float32 (voxel,)
        Sum of CTF² over the noise.
    noise : ndarray of float64 (group, shell)
        Amplitude.
    """
    (data, weight, power, counts), _ = run_pass(
        sources,
        _sums_of_block,
        n_groups,
        radius=grid.radius,
        own=groups,
        compute=compute,
    )
    data, weight = hermitian_sums(data, weight, grid)
    if operators is not None and len(operators) > 1:
        data, weight = symmetrise(data, weight, grid, operators)
    pixels = counts.astype(np.float64)[:, None] * np.bincount(grid.shell, minlength=grid.radius + 1)
    variance = power / np.maximum(pixels, 1)
    mean = _pooled(variance, counts)
    whole = support_of(sphere(grid.box, diameter=grid.box), grid)
    volume = _regularised(data, weight, mean, whole)
    (left,), _ = run_pass(
        sources,
        _rest_of_block,
        volume,
        n_groups,
        radius=grid.radius,
        own=groups,
        compute=compute,
    )
    variance = left / np.maximum(pixels, 1)
    mean = _pooled(variance, counts)
    variance = np.where(counts[:, None] > 0, np.maximum(variance, 1e-12 * mean.max()), mean)
    shell = np.minimum(grid.voxel_shell, grid.radius)
    return (
        _regularised(data, weight, mean, whole),
        (weight / mean[shell]).astype(np.float32),
        np.sqrt(variance),
    )


def group_scales(
    sources: Sequence[BlockSource],
    groups: Sequence[NDArray[np.int64]],
    volume: Complex64,
    noise: Float64,
    *,
    grid: SliceGrid,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Float64:
    """Return by how much the images of each group are stronger than the map says.

    Least squares, over the noise, of images against the map's: ``Σ Re(y* m) / Σ |m|²`` (Scheres
    2012, as RELION's ``--scale``), over the mean of all particles and kept between a fifth and five
    times of the middle one.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of the images as they are.
    groups : sequence of array (particle,)
        Of each block, from 0.
    volume : array (voxel,)
        Transform of the map.
    noise : array (group, shell)
        Amplitude.
    grid : SliceGrid
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    ndarray of float64 (group,)
        1 for a group without particles.
    """
    (products, powers, counts), _ = run_pass(
        sources, _products_of_block, volume, noise, radius=grid.radius, own=groups, compute=compute
    )
    seen = counts > 0
    found = np.ones(len(counts))
    found[seen] = products[seen] / np.maximum(powers[seen], 1e-30)
    middle = float(np.median(found[seen]))
    found[seen] = np.clip(found[seen], _LEAST_SCALE * middle, _MOST_SCALE * middle)
    found[seen] /= np.average(found[seen], weights=counts[seen])
    return found


def _products_of_block(
    block: ImageBlock, groups: NDArray[np.int64], volume: Complex64, noise: Float64
) -> tuple[tuple[Float64, Float64, NDArray[np.int64]], tuple[()]]:
    seen = block.predict(volume[:, None])[..., 0]
    shell = block.grid.shell
    precision = np.where(shell > 0, 1.0 / np.square(noise[groups])[:, shell], 0.0)
    product = (precision * (block.slices.conj() * seen).real).sum(axis=1)
    power = (precision * np.square(np.abs(seen))).sum(axis=1)
    owned = np.eye(len(noise))[:, groups]
    return (owned @ product, owned @ power, np.bincount(groups, minlength=len(noise))), ()


def _sums_of_block(
    block: ImageBlock, groups: NDArray[np.int64], n_groups: int
) -> tuple[tuple[NDArray[Any], ...], tuple[()]]:
    data, weight = block.operator.back_project(
        block.slices * block.transfer, np.square(block.transfer)
    )
    power = _by_shell(np.square(np.abs(block.slices)), block.grid, groups, n_groups)
    return (data, weight, power, np.bincount(groups, minlength=n_groups)), ()


def _rest_of_block(
    block: ImageBlock, groups: NDArray[np.int64], volume: Complex64, n_groups: int
) -> tuple[tuple[Float64], tuple[()]]:
    rest = block.slices - block.predict(volume[:, None])[..., 0]
    return (_by_shell(np.square(np.abs(rest)), block.grid, groups, n_groups),), ()


def _by_shell(
    squares: Float32, grid: SliceGrid, groups: NDArray[np.int64], n_groups: int
) -> Float64:
    found = np.zeros((n_groups, grid.radius + 1))
    for group in np.unique(groups):
        own = squares[groups == group].sum(axis=0, dtype=np.float64)
        found[group] = np.bincount(grid.shell, own, grid.radius + 1)
    return found


def _pooled(variance: Float64, counts: NDArray[np.int64]) -> Float64:
    return np.maximum((counts[:, None] * variance).sum(axis=0) / counts.sum(), 1e-30)


def _regularised(data: Complex64, weight: Float32, noise: Float64, whole: Support) -> Complex64:
    """Divide sums by weights, with the variance of the map as it is beyond that of noise."""
    grid = whole.grid
    inside = grid.voxel_radius <= grid.radius
    seen = inside & (weight > 1e-3 * float(weight[inside].mean()))
    shell = np.minimum(grid.voxel_shell, grid.radius)
    sigma2 = noise[shell].astype(np.float32)
    power = np.zeros_like(weight)
    power[seen] = np.square(np.abs(data[seen])) / weight[seen] - SCATTER_OF_SUMS * sigma2[seen]
    signal = shell_mean(power, grid)
    total = shell_mean(np.where(seen, weight, 0), grid)
    tau2 = np.maximum(signal / np.maximum(total, 1e-20), 1e-6 * np.max(signal / total.max()))
    tau2 *= grid.padding**3
    prior = sigma2 / tau2[shell].astype(np.float32)
    found = np.zeros_like(data)
    found[inside] = data[inside] / (weight[inside] + prior[inside])
    return whole.keep(found[:, None])[:, 0]
