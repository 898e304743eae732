"""Principal components in one reading and bounded memory, with a bound on their error."""

from __future__ import annotations

import dask
import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from emhet_dask.analysis import pca_kernels as kernels
from emhet_dask.analysis.bands import row_bands, tree
from emhet_dask.analysis.pca_problem import (
    Centred,
    Decomposition,
    Problem,
    inverse_root,
    refuse_faulty,
    squared_residual,
    unit,
)

__all__ = ["incremental"]


def incremental(problem: Problem, n_components: int, *, rank: int) -> Decomposition:
    """Decompose in one reading and bounded memory, project in a second, and bound the error.

    Bands are reduced to `rank` directions and merged. The eigenvalues reported are those of the
    matrix seen in the directions kept (Rayleigh–Ritz), never above the exact ones. The
    sum of what the truncations dropped bounds the distance from below (Weyl).
    """
    bands = row_bands(problem.matrix)
    sketch_task = dask.delayed(kernels.sketch_band, pure=False)
    merge = _MergeSketches(rank)
    factors = problem.factors()
    sketch = problem.run(
        tree([sketch_task(band.part, band.span, rank=rank, **factors) for band in bands], merge)
    )
    refuse_faulty(sketch.faulty)
    sketched, directions = _right_vectors(sketch.roots)
    along, outside = Centred(problem, sketch.mean).project(directions)
    scores = along.astype(np.float64)
    ritz, rotation = linalg.eigh((scores * problem.weights[:, None]).T @ scores)
    values, rotation = ritz[::-1][:n_components], rotation[:, ::-1][:, :n_components]
    values = np.maximum(values, 0.0)
    components = unit(rotation.T.astype(np.float32) @ directions)
    components[inverse_root(values) == 0] = 0.0
    kept = scores @ rotation
    lengths = outside + np.einsum("ij,ij->i", scores, scores)
    return Decomposition(
        values,
        components,
        kept.astype(np.float32),
        squared_residual(lengths, kept),
        sketch.mean,
        sketch.squares,
        values,
        np.maximum(sketched[:n_components] + sketch.discarded - values, 0.0),
        passes=2,
    )


class _MergeSketches:
    """`kernels.merge_sketches` at one rank; a class, since a worker must be able to unpickle it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __call__(self, states: list[kernels.Sketch]) -> kernels.Sketch:
        return kernels.merge_sketches(states, rank=self.rank)


def _right_vectors(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Squared singular values and right singular vectors of a wide matrix, largest first."""
    values, vectors = linalg.eigh((rows @ rows.T).astype(np.float64))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    turned = (vectors * inverse_root(values)).T.astype(np.float32) @ rows
    return values, unit(turned)
