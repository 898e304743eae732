"""Exact principal components: from the Gram matrix (few volumes) or the covariance (few voxels)."""

from __future__ import annotations

import dask
import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse.linalg import eigsh

from emhet_dask.analysis import pca_kernels as kernels
from emhet_dask.analysis.bands import chain, column_strips, row_bands
from emhet_dask.analysis.pca_problem import (
    Centred,
    Decomposition,
    Problem,
    inverse_root,
    node,
    refuse_faulty,
    squared_residual,
    unit,
)

__all__ = ["FULL_SPECTRUM", "N_CHAINS", "covariance", "gram", "top_eigenpairs"]

# Up to this size LAPACK gives the whole spectrum in about a second; beyond, Lanczos gives the top.
FULL_SPECTRUM = 1500
# Runs of blocks that are summed beside each other; each holds one matrix of the size of the result.
N_CHAINS = 4


def gram(problem: Problem, n_components: int) -> Decomposition:
    """Exact, for few volumes: eigenvectors of the inner products of the centred rows."""
    strips = column_strips(problem.matrix)
    factors = problem.factors()
    state = problem.run(
        chain(strips, kernels.gram_step, kernels.merge_grams, n_chains=N_CHAINS, **factors)
    )
    refuse_faulty(np.flatnonzero(state.faulty))
    root = np.sqrt(problem.weights)
    scatter = state.products * root[:, None] * root[None, :]
    values, vectors, spectrum = top_eigenpairs(scatter, n_components, seed=problem.seed)
    coefficients = root[:, None] * vectors * inverse_root(values)
    scores = state.products @ coefficients
    task = dask.delayed(kernels.strip_components, pure=False)
    shared = node(np.ascontiguousarray(coefficients.T, dtype=np.float32))
    parts = problem.run_all([task(strip.part, shared, **factors) for strip in strips])
    components = unit(np.concatenate(parts, axis=1))
    return Decomposition(
        values,
        components,
        scores.astype(np.float32),
        squared_residual(np.diagonal(state.products), scores),
        np.concatenate(state.means),
        float(np.trace(scatter)),
        spectrum,
        _rounding(values, spectrum),
        passes=2,
    )


def covariance(problem: Problem, n_components: int) -> Decomposition:
    """Exact, for few voxels: eigenvectors of the covariance of the columns."""
    state = problem.run(
        chain(
            row_bands(problem.matrix),
            kernels.covariance_step,
            kernels.merge_covariances,
            n_chains=N_CHAINS,
            **problem.factors(),
        )
    )
    refuse_faulty(state.faulty)
    values, vectors, spectrum = top_eigenpairs(state.products, n_components, seed=problem.seed)
    components = np.ascontiguousarray(vectors.T, dtype=np.float32)
    components[inverse_root(values) == 0] = 0.0
    scores, residual = Centred(problem, state.mean).project(components)
    return Decomposition(
        values,
        components,
        scores,
        residual,
        state.mean,
        float(np.trace(state.products)),
        spectrum,
        _rounding(values, spectrum),
        passes=2,
    )


def top_eigenpairs(
    scatter: NDArray[np.float64], n_components: int, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest eigenvalues and vectors of a symmetric matrix, and the spectrum known."""
    size = len(scatter)
    if size <= max(FULL_SPECTRUM, 4 * n_components):
        values, vectors = linalg.eigh(scatter)
    else:
        start = np.random.default_rng(seed).normal(size=size)  # ARPACK's own differs each time
        values, vectors = eigsh(scatter, n_components, which="LA", v0=start, ncv=4 * n_components)
    order = np.argsort(values)[::-1]
    spectrum = np.maximum(values[order], 0.0)
    return spectrum[:n_components], vectors[:, order[:n_components]], spectrum


def _rounding(values: NDArray[np.float64], spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what products in single precision may cost."""
    return np.full(len(values), np.finfo(np.float32).eps * float(spectrum.max(initial=0.0)))
