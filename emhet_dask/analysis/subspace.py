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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.image_blocks import (
    BlockSource,
    ImageBlock,
    complete_plane,
    run_pass,
    spread,
)
from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid
from emhet_dask.analysis.support import Support
from emhet_dask.analysis.symmetry import symmetrise_columns

__all__ = ["Bounds", "Evidence", "Subspace", "fit_subspace", "held_out", "image_evidence"]

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
        unit = np.eye(self.n_components, dtype=np.float32)
        covariance = np.linalg.inv(self.precision + unit)
        return np.einsum("nab,nb->na", covariance, self.pull), covariance


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
    sources: Sequence[BlockSource],
    prior: Float64,
    *,
    grid: SliceGrid,
    n_components: int,
    iterations: int,
    latents: Float32 | None = None,
    bounds: Bounds = _FREE,
    seed: int = 0,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> Subspace:
    """Find components by expectation maximisation.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of what the consensus leaves of the images.
    prior : array (shell,)
        Variance that the components are expected to have, from 0 to the radius.
    grid : SliceGrid
    n_components : int
    iterations : int
        Each is one pass over the images, as is the evidence at the end.
    latents : array (particle, component), optional
        Coefficients to begin with; random by default.
    bounds : Bounds
    seed : int
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    Subspace
    """
    count = sum(source.n_particles for source in sources)
    floor = np.maximum(prior, _LEAST_PRIOR * prior.max())
    weight = (1.0 / floor)[np.minimum(grid.voxel_shell, grid.radius)].astype(np.float32)
    random = np.random.default_rng(seed).normal(size=(count, n_components))
    mean = np.asarray(random if latents is None else latents, dtype=np.float32)
    covariance = np.zeros((count, n_components, n_components), dtype=np.float32)
    sums, _ = run_pass(
        sources,
        _first_sums,
        radius=grid.radius,
        own=spread(mean, sources),
        compute=compute,
    )
    turn = np.eye(n_components)
    for _ in range(iterations):
        components, _ = _solve(sums, weight, grid, bounds)
        sums, (mean, covariance) = run_pass(
            sources,
            _expect_and_sum,
            components,
            radius=grid.radius,
            compute=compute,
        )
        turn = _standard(mean, covariance, components)
        back = np.linalg.inv(turn).astype(np.float32)
        mean = mean @ back.T
        sums = _turned(sums, back)
    components, inverse = _solve(sums, weight, grid, bounds)
    covariance = np.einsum("ab,nbc,dc->nad", back, covariance, back)
    (), (precision, pull) = run_pass(
        sources,
        _evidence_of_block,
        components,
        inverse,
        radius=grid.radius,
        own=list(zip(spread(mean, sources), spread(covariance, sources), strict=True)),
        compute=compute,
    )
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
    _, (precision, pull) = run_pass(
        sources, _held_out_of_block, components, radius=grid.radius, compute=compute
    )
    return Evidence(precision, pull)


# One block ----------------------------------------------------------------------------------------


def _first_sums(block: ImageBlock, mean: Float32) -> tuple[tuple[Any, ...], tuple[()]]:
    outer = mean[:, :, None] * mean[:, None, :]
    return _sums(block, mean, outer), ()


def _expect_and_sum(
    block: ImageBlock, _: None, components: Complex64
) -> tuple[tuple[Any, ...], tuple[Float32, Float32]]:
    """Find the coefficients of a block's images, and add up what the next components need."""
    predicted = block.predict(components)
    mean, covariance = image_evidence(predicted, block.slices).posterior()
    second = covariance + mean[:, :, None] * mean[:, None, :]
    return _sums(block, mean, second), (mean, covariance)


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
    block: ImageBlock, own: tuple[Float32, Float32], components: Complex64, inverse: Float32
) -> tuple[tuple[()], tuple[Float32, Float32]]:
    """Return the evidence of a block's images, each by components in which it has no part.

    Without an image the components at a voxel are, to first order, less by ``c w / H`` times
    ``z e - c C v``: w is its weight there, H the matrix that was solved, e what the image keeps
    beyond its mean z, and C the covariance of that.
    """
    mean, covariance = own
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
    sums: tuple[Any, ...],
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
    matrix = np.empty((len(inside), q, q), dtype=np.float32)
    matrix[:, rows, columns] = second[inside]
    matrix[:, columns, rows] = second[inside]
    matrix[:, range(q), range(q)] += weight[inside, None]
    inverse = np.linalg.inv(matrix)
    components = np.zeros((len(data), q), dtype=np.complex64)
    components[inside] = np.einsum("vab,vb->va", inverse, values[inside])
    packed = np.zeros((len(data), len(rows)), dtype=np.float32)
    packed[inside] = inverse[:, rows, columns]
    if bounds.support is not None:
        # What is left of the noise inside is left of an image's part in it, too.
        components = bounds.support.keep(components)
        packed *= np.float32(bounds.support.share)
    return components, packed


def _standard(mean: Float32, covariance: Float32, components: Complex64) -> Float64:
    """Return the matrix whose inverse gives coefficients variance 1, on orthogonal components."""
    second = covariance.mean(axis=0, dtype=np.float64)
    second += np.einsum("na,nb->ab", mean, mean, dtype=np.float64) / len(mean)
    values, vectors = np.linalg.eigh(second)
    root = (vectors * np.sqrt(values)) @ vectors.T
    overlap = (components.conj().T @ components).real.astype(np.float64)
    _, turns = np.linalg.eigh(root @ overlap @ root)
    return root @ turns[:, ::-1]


def _turned(sums: tuple[Any, ...], back: Float32) -> tuple[Float32, Float32]:
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
