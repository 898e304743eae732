"""What every method of PCA starts from, shares and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray

from emhet_dask.analysis import pca_kernels as kernels
from emhet_dask.analysis.bands import Block, compute_all, row_bands, tree
from emhet_dask.errors import InputError

__all__ = [
    "Centred",
    "Decomposition",
    "Held",
    "Problem",
    "inverse_root",
    "node",
    "refuse_faulty",
    "squared_residual",
    "unit",
]


@dataclass(frozen=True)
class Problem:
    """The matrix and what goes with it.

    Attributes
    ----------
    matrix : dask array (volume, voxel)
    weights : array (volume,)
    inverse_scale : array (volume,) or None
        Multiplies each row.
    seed : int
    compute, persist : callable
        Like `dask.compute` and `dask.persist`; all work goes through them.
    """

    matrix: da.Array
    weights: NDArray[np.float64]
    inverse_scale: NDArray[np.float32] | None
    seed: int
    compute: Callable[..., tuple[Any, ...]]
    persist: Callable[..., tuple[Any, ...]]

    def run_all(self, tasks: Sequence[Delayed]) -> tuple[Any, ...]:
        """Compute delayed values."""
        return compute_all(self.compute, tasks)

    def run(self, task: Delayed) -> Any:
        """Compute one delayed value."""
        return self.run_all([task])[0]

    def hold(self, tasks: Sequence[Delayed]) -> tuple[Delayed, ...]:
        """Compute delayed values and leave them where they were made."""
        return compute_all(self.persist, tasks)

    def factors(self) -> dict[str, Delayed]:
        """Return weights and scale as single nodes of the graph, however many tasks use them."""
        return {"weights": node(self.weights), "inverse_scale": node(self.inverse_scale)}


@dataclass
class Decomposition:
    """What every method returns.

    Attributes
    ----------
    values : array (component,)
        Eigenvalues of the scatter matrix, largest first.
    components : array (component, voxel)
        Unit vectors; zero where there is no variance left.
    scores : array (volume, component)
    residual : array (volume,)
        Squared length of what the components leave of each centred row.
    mean : array (voxel,)
    total : float
        Trace of the scatter matrix.
    spectrum : array (eigen,)
        All eigenvalues that came for free, largest first; at least `values`.
    errors : array (component,)
        How far each value may be below the true one.
    passes : int
        How often the matrix was read.
    """

    values: NDArray[np.float64]
    components: NDArray[np.float32]
    scores: NDArray[np.float32]
    residual: NDArray[np.float64]
    mean: NDArray[np.float64]
    total: float
    spectrum: NDArray[np.float64]
    errors: NDArray[np.float64]
    passes: int


@dataclass(frozen=True)
class Held:
    """Rows that stay in memory, scaled, each band about its own mean.

    Attributes
    ----------
    bands : list of Block
    means : array (band, voxel)
    weights : array (band,)
        Sum of the weights of each band's rows.
    """

    bands: list[Block]
    means: NDArray[np.float64]
    weights: NDArray[np.float64]


class Centred:
    """The centred, scaled rows: read anew at every use, or held in memory."""

    def __init__(
        self, problem: Problem, mean: NDArray[np.float64], *, held: Held | None = None
    ) -> None:
        self._problem = problem
        self._factors = problem.factors()
        self._between: NDArray[np.float32] | None = None
        if held is None:
            self._bands = row_bands(problem.matrix)
            self._means: list[Delayed] = [node(mean.astype(np.float32))] * len(self._bands)
            return
        # The scatter about the common mean is that about the bands' own, and that of their means.
        shifts = held.means - mean
        self._bands = held.bands
        self._means = [node(-shift.astype(np.float32)) for shift in shifts]
        self._between = (np.sqrt(held.weights)[:, None] * shifts).astype(np.float32)
        self._factors["inverse_scale"] = node(None)

    def apply_covariance(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Apply the scatter matrix to vectors (vector, voxel)."""
        task = dask.delayed(kernels.apply_covariance, pure=False)
        shared, between = node(vectors), self._between
        means = self._means if between is None else [None] * len(self._bands)
        parts = [
            task(band.part, band.span, mean, shared, **self._factors)
            for band, mean in zip(self._bands, means, strict=True)
        ]
        image = np.asarray(self._problem.run(tree(parts, kernels.sum_parts)), dtype=np.float64)
        return image if between is None else image + (vectors @ between.T) @ between

    def project(
        self, components: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return the coordinates (volume, component) of all rows, and what they leave of each."""
        task = dask.delayed(kernels.project, pure=False)
        shared, scale = node(components), self._factors["inverse_scale"]
        parts = [
            task(band.part, band.span, mean, shared, inverse_scale=scale)
            for band, mean in zip(self._bands, self._means, strict=True)
        ]
        projected = self._problem.run_all(parts)
        scores = np.concatenate([part.scores for part in projected])
        return scores, squared_residual(
            np.concatenate([part.squares for part in projected]), scores
        )


def squared_residual(squares: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.float64]:
    """Squared length (volume,) of what scores leave of rows whose squared lengths are given."""
    wide = scores.astype(np.float64)
    return np.maximum(squares - np.einsum("ij,ij->i", wide, wide), 0.0)


def inverse_root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One over the root of each eigenvalue, 0 where it is not above rounding."""
    floor = np.finfo(np.float32).eps * values.max(initial=0.0)
    return np.where(values > floor, 1.0 / np.sqrt(np.maximum(values, np.finfo(float).tiny)), 0.0)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring rows to length 1; those of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def refuse_faulty(numbers: Any) -> None:
    """Raise an InputError that names these volumes, if any."""
    rows = sorted(int(number) for number in numbers)
    if rows:
        shown = ", ".join(str(row) for row in rows[:20]) + (", …" if len(rows) > 20 else "")
        raise InputError(
            f"{len(rows)} of the volumes hold NaN or infinity (numbered from 0: {shown}); "
            "leave them out or repair them"
        )


def node(value: Any) -> Delayed:
    """Put a value into the graph once; traversing or hashing a large array would cost time."""
    return dask.delayed(value, traverse=False, pure=False, name=None)
