"""The few directions along which the particles of a set differ: principal components in the images.

What a consensus map leaves of each image is a combination of a few unknown maps, seen at its pose,
with coefficients of its own, and noise (probabilistic PCA, Tipping & Bishop 1999, with a pose and a
CTF for each image as in Punjani & Fleet 2021 and Gilles & Singer 2023). Expectation maximisation
finds maps and coefficients: given the maps, the coefficients of an image are a regression of `q`
unknowns; given the coefficients, every voxel of the maps is one. It needs no random classes, and
finds a state of 5% of the particles where classification from a random start does not.

What an image says of its coefficients are `q` numbers and a matrix (`Evidence`), all that a mixture
in this subspace has to know of it. Each image is judged by components in which it has no part: its
own noise, which is in the maps that were fitted to it, would speak for itself otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.image_blocks import (
    BlockSource,
    ImageBlock,
    Pass,
    complete_plane,
    run_passes,
    spread,
)
from emhet_dask.analysis.many_matrices import beside, invert_symmetric
from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid
from emhet_dask.analysis.support import Support
from emhet_dask.analysis.symmetry import symmetrise_columns

__all__ = [
    "Bounds",
    "Evidence",
    "Subspace",
    "fit_subspace",
    "fit_subspaces",
    "held_out",
    "held_out_sets",
    "image_evidence",
]

Float64 = NDArray[np.float64]

# No shell's prior variance is below this part of the strongest.
_LEAST_PRIOR = 1e-4


@dataclass(frozen=True, eq=False)
class Bounds:
    """What all maps of differences are bound to.

    Attributes
    ----------
    support : Support or None
        Where in the box particles may differ.
    operators : ndarray (operator, 3, 3) or None
        Of the point group that the maps have.
    """

    support: Support | None = None
    operators: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """What images say of their coefficients ``z``: ``log p(image | z) = b·z - z·A z / 2`` + const.

    Attributes
    ----------
    precision : ndarray of float32 (particle, component, component)
        A.
    pull : ndarray of float32 (particle, component)
        b.
    """

    precision: Float32
    pull: Float32

    @property
    def n_components(self) -> int:
        """Return the number of components."""
        return self.pull.shape[1]

    def posterior(self) -> tuple[Float32, Float32]:
        """Return mean and covariance of the coefficients under a standard normal prior."""
        matrices = beside(self.precision)
        matrices[np.diag_indices(self.n_components)] += 1.0
        covariance = np.ascontiguousarray(invert_symmetric(matrices)[0].transpose(2, 0, 1))
        return (covariance @ self.pull[..., None])[..., 0], covariance


@dataclass(frozen=True, eq=False)
class Subspace:
    """Components, and where the images lie on them.

    Attributes
    ----------
    components : ndarray of complex64 (voxel, component)
        The strongest first, for coefficients of variance 1.
    power : ndarray of float64 (component,)
        Of each.
    latents : ndarray of float32 (particle, component)
        Means of the coefficients.
    evidence : Evidence
    """

    components: Complex64
    power: Float64
    latents: Float32
    evidence: Evidence


_FREE = Bounds()


def fit_subspace(
    sources: Sequence[BlockSource], prior: Float64, *, seed: int = 0, **options: Any
) -> Subspace:
    """Find components of one set of images; see `fit_subspaces`."""
    return fit_subspaces([sources], prior, seed=seed, **options)[0]


def fit_subspaces(
    sets: Sequence[Sequence[BlockSource]],
    prior: Float64,
    *,
    grid: SliceGrid,
    n_components: int,
    iterations: int,
    bounds: Bounds = _FREE,
    seed: int = 0,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> list[Subspace]:
    """Find components of sets of images by expectation maximisation, each set for itself.

    Parameters
    ----------
    sets : sequence of sequence of BlockSource
        Of what the consensus leaves of the images.
    prior : array (shell,)
        Variance that the components are expected to have, from 0 to the radius.
    grid : SliceGrid
    n_components : int
    iterations : int
        Each is one pass over the images, as is the evidence at the end.
    bounds : Bounds
    seed : int
        Of the coefficients that the first set begins with; the next one is of the second.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    list of Subspace
    """
    floor = np.maximum(prior, _LEAST_PRIOR * prior.max())
    weight = (1.0 / floor)[np.minimum(grid.voxel_shell, grid.radius)].astype(np.float32)
    fits = [
        _fit(
            sources,
            weight,
            grid=grid,
            n_components=n_components,
            iterations=iterations,
            bounds=bounds,
            seed=seed + number,
        )
        for number, sources in enumerate(sets)
    ]
    # All sets go through the same number of passes, so that each pass is one over all images.
    passes: list[Pass] = [next(fit) for fit in fits]
    found: list[Subspace] = []
    while not found:
        results = run_passes(passes, radius=grid.radius, compute=compute)
        passes = []
        for fit, result in zip(fits, results, strict=True):
            try:
                passes.append(fit.send(result))
            except StopIteration as end:
                found.append(end.value)
    return found


def _fit(
    sources: Sequence[BlockSource],
    weight: Float32,
    *,
    grid: SliceGrid,
    n_components: int,
    iterations: int,
    bounds: Bounds,
    seed: int,
) -> Generator[Pass, tuple[Any, Any], Subspace]:
    """Find components: asks for passes over the images, and is sent what they gave."""
    count = sum(source.n_particles for source in sources)
    random = np.random.default_rng(seed)
    mean = random.normal(size=(count, n_components)).astype(np.float32)
    sums, _ = yield Pass(sources, _first_sums, own=spread(mean, sources))
    before, back = np.zeros(0, dtype=np.complex64), np.eye(n_components, dtype=np.float32)
    for _ in range(iterations):
        before, _ = _solve(sums, weight, grid, bounds)
        (*sums, moment), _ = yield Pass(sources, _expect_and_sum, (before,))
        back = np.linalg.inv(_standard(moment / count, before)).astype(np.float32)
        sums = _turned(sums, back)
    components, inverse = _solve(sums, weight, grid, bounds)
    shared = (before, back, components, inverse)
    _, (precision, pull) = yield Pass(sources, _evidence_of_block, shared)
    evidence = Evidence(precision, pull)
    return Subspace(
        components,
        np.square(np.abs(components)).sum(axis=0, dtype=np.float64),
        evidence.posterior()[0],
        evidence,
    )


def held_out(
    sources: Sequence[BlockSource],
    components: Complex64,
    *,
    grid: SliceGrid,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Evidence:
    """Return what images say of their coefficients on components made without them.

    Parameters
    ----------
    sources : sequence of BlockSource
    components : array (voxel, component)
    grid : SliceGrid
    compute : callable
        Like `dask.compute`.
    """
    return held_out_sets([sources], [components], grid=grid, compute=compute)[0]


def held_out_sets(
    sets: Sequence[Sequence[BlockSource]],
    components: Sequence[Complex64],
    *,
    grid: SliceGrid,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> list[Evidence]:
    """Return as `held_out`, for sets of images with components of each."""
    passes = [
        Pass(sources, _held_out_of_block, (given,))
        for sources, given in zip(sets, components, strict=True)
    ]
    found = run_passes(passes, radius=grid.radius, compute=compute)
    return [Evidence(precision, pull) for _, (precision, pull) in found]


# One block ----------------------------------------------------------------------------------------


def _first_sums(block: ImageBlock, mean: Float32) -> tuple[tuple[Any, ...], tuple[()]]:
    outer = mean[:, :, None] * mean[:, None, :]
    return _sums(block, mean, outer), ()


def _expect_and_sum(
    block: ImageBlock, _: None, components: Complex64
) -> tuple[tuple[Any, ...], tuple[()]]:
    """Find the coefficients of a block's images, and add up what the next components need."""
    mean, covariance = image_evidence(block.predict(components), block.slices).posterior()
    second = covariance + mean[:, :, None] * mean[:, None, :]
    return (*_sums(block, mean, second), second.sum(axis=0, dtype=np.float64)), ()


def _sums(block: ImageBlock, mean: Float32, second: Float32) -> tuple[Float32, Float32]:
    """Back-project the images times coefficients, and CTF² times their second moments."""
    q = mean.shape[1]
    upper = np.triu_indices(q)
    columns = np.empty((*block.transfer.shape, 2 * q + len(upper[0])), dtype=np.float32)
    weighted = block.slices * block.transfer
    np.multiply(weighted.real[..., None], mean[:, None, :], out=columns[..., :q])
    imaginary = np.where(block.operator.mate, -weighted.imag, weighted.imag)
    np.multiply(imaginary[..., None], mean[:, None, :], out=columns[..., q : 2 * q])
    moments = second[:, None, upper[0], upper[1]]
    np.multiply(np.square(block.transfer)[..., None], moments, out=columns[..., 2 * q :])
    sums = block.operator.weights.T @ columns.reshape(-1, columns.shape[-1])
    return np.ascontiguousarray(sums[:, : 2 * q]), np.ascontiguousarray(sums[:, 2 * q :])


def image_evidence(predicted: Complex64, slices: Complex64) -> Evidence:
    """Return what images say of the coefficients of predicted images (particle, pixel, component).

    Parameters
    ----------
    predicted : array
        Of each component, with CTF, over the noise.
    slices : array (particle, pixel)
        What the consensus leaves of the images, over the noise.
    """
    count, _, q = predicted.shape
    # Real and imaginary parts one after the other: real products take half as long.
    flat = predicted.view(np.float32).reshape(count, -1, q, 2).swapaxes(2, 3).reshape(count, -1, q)
    data = slices.view(np.float32).reshape(count, 1, -1)
    precision = 2.0 * (flat.swapaxes(1, 2) @ flat)
    pull = 2.0 * (data @ flat)[:, 0]
    return Evidence(precision, pull)


def _held_out_of_block(
    block: ImageBlock, _: None, components: Complex64
) -> tuple[tuple[()], tuple[Float32, Float32]]:
    found = image_evidence(block.predict(components), block.slices)
    return (), (found.precision, found.pull)


def _evidence_of_block(
    block: ImageBlock,
    _: None,
    before: Complex64,
    back: Float32,
    components: Complex64,
    inverse: Float32,
) -> tuple[tuple[()], tuple[Float32, Float32]]:
    """Return the evidence of a block's images, each by components in which it has no part.

    Without an image the components at a voxel are, to first order, less by ``c w / H`` times
    ``z e - c C v``: w is its weight there, H the matrix that was solved, e what the image keeps
    beyond its mean z, and C the covariance of that. z and C are those that the components were
    made with: by the ones before, turned back.
    """
    mean, covariance = image_evidence(block.predict(before), block.slices).posterior()
    mean, covariance = mean @ back.T, np.matmul(back, covariance @ back.T)
    q = mean.shape[1]
    looked_up = block.operator.project(components)
    transfer = block.transfer[..., None]
    rest = block.slices - np.einsum("npq,nq->np", looked_up, mean) * block.transfer
    own_part = mean[:, None, :] * rest[..., None]
    own_part -= transfer * np.einsum("nab,npb->npa", covariance, looked_up)
    own_part *= (block.transfer * block.spread_of_self())[..., None]
    upper = np.triu_indices(q)
    packed = block.look_up(inverse)
    matrix = np.empty((*packed.shape[:2], q, q), dtype=np.float32)
    matrix[..., upper[0], upper[1]] = packed
    matrix[..., upper[1], upper[0]] = packed
    others = looked_up - np.einsum("npab,npb->npa", matrix, own_part)
    found = image_evidence(np.ascontiguousarray(others * transfer), block.slices)
    return (), (found.precision, found.pull)


# All blocks ---------------------------------------------------------------------------------------


def _solve(
    sums: Sequence[Any],
    weight: Float32,
    grid: SliceGrid,
    bounds: Bounds,
) -> tuple[Complex64, Float32]:
    """Solve for the components voxel by voxel.

    Returns
    -------
    components : (voxel, component)
    inverse : (voxel, upper triangle)
        Of the matrices that were solved.
    """
    data, second = sums
    q = data.shape[1] // 2
    rows, columns = np.triu_indices(q)
    values = np.empty((len(data), q), dtype=np.complex64)
    values.real, values.imag = data[:, :q], data[:, q:]
    values, second = complete_plane(values, grid), complete_plane(second.copy(), grid)
    if bounds.operators is not None and len(bounds.operators) > 1:
        values = symmetrise_columns(values, grid, bounds.operators)
        second = symmetrise_columns(second, grid, bounds.operators)
    inside = np.flatnonzero(grid.voxel_radius <= grid.radius + 1)
    matrix = np.empty((q, q, len(inside)), dtype=np.float32)
    matrix[rows, columns] = matrix[columns, rows] = second[inside].T
    matrix[np.diag_indices(q)] += weight[inside]
    inverse = invert_symmetric(matrix)[0]
    components = np.zeros((len(data), q), dtype=np.complex64)
    components[inside] = (inverse * values[inside].T).sum(axis=1).T
    packed = np.zeros((len(data), len(rows)), dtype=np.float32)
    packed[inside] = inverse[rows, columns].T
    if bounds.support is not None:
        # What is left of the noise inside is left of an image's part in it, too.
        components = bounds.support.keep(components)
        packed *= np.float32(bounds.support.share)
    return components, packed


def _standard(second: Float64, components: Complex64) -> Float64:
    """Return the matrix whose inverse gives coefficients variance 1, on orthogonal components."""
    values, vectors = np.linalg.eigh(second)
    root = (vectors * np.sqrt(values)) @ vectors.T
    overlap = (components.conj().T @ components).real.astype(np.float64)
    _, turns = np.linalg.eigh(root @ overlap @ root)
    return root @ turns[:, ::-1]


def _turned(sums: Sequence[Any], back: Float32) -> tuple[Float32, Float32]:
    """Return the sums for coefficients that are multiplied by a matrix."""
    data, packed = sums
    q = len(back)
    rows, columns = np.triu_indices(q)
    turned = np.concatenate([data[:, :q] @ back.T, data[:, q:] @ back.T], axis=1)
    # The map from one packed symmetric matrix to the other is linear.
    change = np.empty((len(rows), len(rows)), dtype=np.float32)
    for at, (a, b) in enumerate(zip(rows, columns, strict=True)):
        unit = np.zeros((q, q), dtype=np.float32)
        unit[a, b] = unit[b, a] = 1.0
        change[at] = (back @ unit @ back.T)[rows, columns]
    return turned, packed @ change
