"""Principal components of a matrix that is large both ways: randomised block Krylov iteration."""

from __future__ import annotations

import dask
import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from emhet_dask.analysis import pca_kernels as kernels
from emhet_dask.analysis.bands import Block, row_bands, tree
from emhet_dask.analysis.pca_problem import (
    Centred,
    Decomposition,
    Held,
    Problem,
    inverse_root,
    refuse_faulty,
    unit,
)

__all__ = ["oversampled", "randomized"]

_MOST_PASSES = 60
# A direction shorter than this part of the vector it was made from is rounding.
_ROUNDING = 16 * float(np.finfo(np.float32).eps)


def randomized(
    problem: Problem, n_components: int, *, tolerance: float, most_vectors: int, hold: bool
) -> Decomposition:
    """Block Krylov iteration with oversampling, until the eigenvalues stand still.

    Each pass applies the scatter matrix to a block of vectors and keeps all earlier blocks
    (Musco and Musco, NeurIPS 2015), for which eigenvalues in the dense floor of the noise converge
    in some fifteen passes instead of hundreds. Past `most_vectors` the basis collapses onto its
    best directions (thick restart; Wu and Simon, 2000). With `hold` the matrix is read once and
    stays in memory.

    The error of an eigenvalue is that of the geometric series which its last two changes begin.
    """
    block = oversampled(n_components, problem.matrix.shape, hold=hold)
    moments, held = _moments(problem, n_vectors=block, hold=hold)
    centred = Centred(problem, moments.mean, held=held)
    basis = _KrylovBasis(moments.start, most_vectors=max(most_vectors, 4 * block))
    history: list[NDArray[np.float64]] = []
    errors = np.full(n_components, np.inf)
    while len(basis.newest) and len(history) < _MOST_PASSES and not np.all(errors <= tolerance):
        basis.extend(centred.apply_covariance(basis.newest))
        history.append(basis.values(n_components))
        errors = _remaining(history)
    if not len(basis.newest):  # nothing lies outside: the values are exact
        errors = np.zeros(n_components)
    values, components = basis.pairs(n_components)
    components[inverse_root(values) == 0] = 0.0
    scores, residual = centred.project(components)
    return Decomposition(
        values,
        components,
        scores,
        residual,
        moments.mean,
        moments.squares,
        values,
        errors * values,
        passes=1 if hold else len(history) + 2,
    )


def oversampled(n_components: int, shape: tuple[int, ...], *, hold: bool) -> int:
    """Return the vectors in a block, in multiples of 8.

    Wider blocks need fewer passes but more arithmetic: they pay where a pass means reading.
    """
    more = 4 if hold else max(8, n_components // 2)
    return min(-(-(n_components + more) // 8) * 8, *shape)


class _KrylovBasis:
    """Orthonormal rows that span the Krylov space so far, and the scatter matrix within it."""

    def __init__(self, start: NDArray[np.float64], *, most_vectors: int) -> None:
        n_voxels = start.shape[1]
        self._n_kept = 2 * len(start)
        self._rows = np.empty((min(most_vectors, n_voxels), n_voxels), dtype=np.float32)
        self._within = np.zeros((len(self._rows), len(self._rows)))
        self._size = 0  # rows whose image is known
        self.newest = self._orthonormal(start.astype(np.float32))

    def extend(self, image: NDArray[np.float64]) -> None:
        """Take the image of `newest` under the scatter matrix; `newest` is empty at the end."""
        old, size = self._size, self._size + len(self.newest)
        self._rows[old:size] = self.newest
        image32 = image.astype(np.float32)
        block = (self._rows[:size] @ image32.T).astype(np.float64)
        self._within[:size, old:size] = block
        self._within[old:size, :old] = block[:old].T
        self._size = size
        self.newest = self._orthonormal(image32)
        if len(self.newest) and self._size + len(self.newest) > len(self._rows):
            self._collapse()

    def values(self, n_components: int) -> NDArray[np.float64]:
        """Ritz values, largest first; zeros where the space is exhausted."""
        n_found = min(n_components, self._size)
        values = np.zeros(n_components)
        if n_found:
            last = [self._size - n_found, self._size - 1]
            values[:n_found] = linalg.eigvalsh(self._symmetric(), subset_by_index=last)[::-1]
        return np.maximum(values, 0.0)

    def pairs(self, n_components: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Ritz values and vectors, largest first; zeros where the space is exhausted."""
        n_found = min(n_components, self._size)
        components = np.zeros((n_components, self._rows.shape[1]), dtype=np.float32)
        values = np.zeros(n_components)
        if n_found:
            ritz, vectors = linalg.eigh(self._symmetric())
            values[:n_found] = np.maximum(ritz[::-1][:n_found], 0.0)
            kept = vectors[:, ::-1][:, :n_found].astype(np.float32)
            components[:n_found] = unit(kept.T @ self._rows[: self._size])
        return values, components

    def _collapse(self) -> None:
        n_kept = self._n_kept
        values, vectors = linalg.eigh(self._symmetric())
        kept = vectors[:, ::-1][:, :n_kept].astype(np.float32)
        self._rows[:n_kept] = kept.T @ self._rows[: self._size]
        self._within[:] = 0.0
        self._within[range(n_kept), range(n_kept)] = values[::-1][:n_kept]
        self._size = n_kept

    def _symmetric(self) -> NDArray[np.float64]:
        within = self._within[: self._size, : self._size]
        return 0.5 * (within + within.T)

    def _orthonormal(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows that span what of `block` lies outside the basis.

        Each row counts by its own length, for a direction of noise must not drown beside one of
        signal; twice, for in single precision once is not enough.
        """
        known = self._rows[: self._size]
        block = unit(block)
        for _ in range(2):
            block = block - (block @ known.T) @ known
            wide = block.astype(np.float64)
            squares, vectors = linalg.eigh(wide @ wide.T)
            new = squares > _ROUNDING**2
            block = ((vectors[:, new] / np.sqrt(squares[new])).T @ wide).astype(np.float32)
        room = self._rows.shape[1] - self._size
        return block[max(0, len(block) - room) :]


def _moments(
    problem: Problem, *, n_vectors: int, hold: bool
) -> tuple[kernels.Moments, Held | None]:
    """Read the matrix once; with `hold` its rows stay where they were read."""
    task = dask.delayed(kernels.held_band if hold else kernels.band_moments, pure=False)
    factors, bands = problem.factors(), row_bands(problem.matrix)
    found = [
        task(band.part, band.span, n_vectors=n_vectors, seed=problem.seed, **factors)
        for band in bands
    ]
    if not hold:
        moments: kernels.Moments = problem.run(tree(found, kernels.merge_moments))
        refuse_faulty(moments.faulty)
        return moments, None
    kept = problem.hold([pair[0] for pair in found] + [pair[1] for pair in found])
    parts, rows = kept[: len(bands)], kept[len(bands) :]
    moments, *means = problem.run_all(
        [tree(parts, kernels.merge_moments), *(part.mean for part in parts)]
    )
    refuse_faulty(moments.faulty)
    held = [Block(part, band.span) for part, band in zip(rows, bands, strict=True)]
    weights = np.asarray([problem.weights[band.span].sum() for band in bands])
    return moments, Held(held, np.stack(means), weights)


def _remaining(history: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Estimate the relative error of each value: the rest of a geometric series of changes."""
    if len(history) < 4:
        return np.full(len(history[-1]), np.inf)
    recent = np.maximum(np.stack(history[-4:]), np.finfo(np.float64).tiny)
    changes = np.abs(np.diff(recent, axis=0)) / recent[-1]
    largest = np.maximum(changes.max(axis=1), np.finfo(np.float64).tiny)
    ratio = min(float(np.sqrt(largest[-1] / largest[-3])), 0.95)
    remaining: NDArray[np.float64] = changes[-1] * ratio / (1.0 - ratio)
    return remaining
