"""Principal components of a volume × voxel matrix, by the method that its shape asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypedDict, get_args

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.bands import STRIP_COLUMNS, as_matrix, band_rows, check_weights
from emhet_dask.analysis.pca_exact import covariance, gram
from emhet_dask.analysis.pca_incremental import incremental
from emhet_dask.analysis.pca_krylov import oversampled, randomized
from emhet_dask.analysis.pca_problem import Decomposition, Problem
from emhet_dask.errors import InputError

__all__ = ["DEFAULT_COMPONENTS", "Method", "PCAPlan", "degrees_of_freedom", "pca", "plan_pca"]

Method = Literal["auto", "gram", "covariance", "randomized", "incremental"]

DEFAULT_COMPONENTS = 20
DEFAULT_MEMORY_BYTES = 2 << 30
# Beyond this side the exact methods' eigenproblem costs more than all passes of the randomised one.
_LARGEST_EXACT = 4096
_MOST_VECTORS = 640


class PCAPlan(TypedDict):
    """What a PCA will cost, known before anything is read."""

    method: str
    peak_bytes: int  # memory of the largest task, its inputs included
    client_bytes: int  # memory where the small eigenproblem is solved
    held_bytes: int  # of the matrix, kept in memory between passes; 0: every pass reads it
    passes: int  # readings of the matrix (for "randomized", what is usual)
    flops: float
    tasks: int


def pca(
    array: Any,
    *,
    n_components: int | None = None,
    weights: ArrayLike | None = None,
    method: Method = "auto",
    scale: ArrayLike | None = None,
    seed: int = 0,
    tolerance: float = 5e-4,
    memory_limit_bytes: int = DEFAULT_MEMORY_BYTES,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
    persist: Callable[..., tuple[Any, ...]] = dask.persist,
) -> xr.Dataset:
    """Principal components of the rows of a matrix, weighted where wished.

    Parameters
    ----------
    array : array (volume, voxel)
        dask, NumPy or labelled; float32, float16 or another real type. Products are in float32,
        sums over blocks in float64.
    n_components : int, optional
        How many; by default 20, or as many as there are if fewer.
    weights : array (volume,), optional
        How often each volume counts. Whole numbers give what repeated rows would give. A volume
        of weight 0 gets scores but has no say.
    method : {"auto", "gram", "covariance", "randomized", "incremental"}
        ``gram`` (few volumes) and ``covariance`` (few voxels) are exact; ``randomized`` iterates
        until no eigenvalue asked for moves by more than `tolerance`; ``incremental`` decomposes in
        one reading with bounded memory. ``auto`` chooses by shape and memory.
    scale : array (volume,), optional
        Each volume is divided by its factor before anything else.
    seed : int
        Of the randomised start.
    tolerance : float
        Relative, of every eigenvalue of ``randomized``.
    memory_limit_bytes : int
        Of one worker. A method that needs more is refused (or not chosen).
    compute, persist : callable
        Like `dask.compute` and `dask.persist`, through which all work goes. Only ``randomized``
        persists the matrix, and only if `memory_limit_bytes` allows it.

    Returns
    -------
    xarray.Dataset
        ``scores`` (volume, component), ``components`` (component, voxel; unit vectors whose
        largest entry is positive), ``explained_variance`` and ``explained_variance_ratio``
        (component), ``explained_variance_error`` (component): how far a value may be below the
        exact one, ``residual`` (volume): squared length of what the components leave of a centred
        volume, ``mean`` (voxel), ``eigenvalues`` (eigen): all that the method yields, at least
        the explained variances. Attributes: ``method``, ``total_variance``,
        ``degrees_of_freedom``, ``error`` (what ``explained_variance_error`` is), ``passes``.

    Raises
    ------
    InputError
        When `n_components` is below 1 or above the rank possible, weights or scale have another
        length or impossible values, volumes hold NaN or infinity, or memory does not suffice.
    """
    matrix = as_matrix(array)
    counts = check_weights(weights, matrix.shape[0])
    wanted = _check_components(n_components, counts, matrix.shape[1])
    plan = plan_pca(
        matrix.shape,
        chunks=matrix.chunks,
        dtype=matrix.dtype,
        method=method,
        n_components=wanted,
        memory_limit_bytes=memory_limit_bytes,
    )
    factors = _inverse_scale(scale, matrix.shape[0])
    problem = Problem(matrix, counts, factors, seed, compute, persist)
    found = _decompose(problem, wanted, plan, tolerance, memory_limit_bytes)
    return _dataset(found, plan["method"], degrees_of_freedom(counts))


def plan_pca(
    shape: tuple[int, int],
    *,
    chunks: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    dtype: Any = np.float32,
    method: Method = "auto",
    n_components: int = DEFAULT_COMPONENTS,
    memory_limit_bytes: int = DEFAULT_MEMORY_BYTES,
) -> PCAPlan:
    """Choose a method and say what it will cost.

    Parameters
    ----------
    shape : (int, int)
        (volume, voxel).
    chunks : tuple of tuples of int, optional
        As in ``dask.array.Array.chunks``; by default one band of rows after another.
    dtype : dtype
        Of the matrix as stored.
    method : str
        See `pca`.
    n_components : int
    memory_limit_bytes : int
        Of one worker.

    Returns
    -------
    dict
        See `PCAPlan`. A worker with several threads runs as many tasks at once.

    Raises
    ------
    InputError
        When the method is unknown, or it (with ``auto``: any) does not fit the memory.
    """
    if method not in get_args(Method):
        raise InputError(f"method {method!r}: one of {', '.join(get_args(Method))} is known")
    itemsize = np.dtype(dtype).itemsize
    if chunks is None:
        chunks = ((min(shape[0], 1024),), (shape[1],))
    order = _preferred(shape) if method == "auto" else [method]
    plans = [_plan(name, shape, chunks, itemsize, n_components) for name in order]
    for plan in plans:
        spare = memory_limit_bytes - plan["peak_bytes"] - plan["client_bytes"]
        if spare >= 0:
            whole = 4 * shape[0] * shape[1]
            if plan["method"] == "randomized" and whole <= spare:
                plan["held_bytes"], plan["passes"] = whole, 1
            return plan
    least = min(plans, key=lambda plan: plan["peak_bytes"] + plan["client_bytes"])
    raise InputError(
        f"PCA of {shape[0]} × {shape[1]} by {least['method']} needs "
        f"{(least['peak_bytes'] + least['client_bytes']) / 2**30:.2f} GiB, more than the memory "
        f"limit of {memory_limit_bytes / 2**30:.2f} GiB; raise the limit or use a smaller mask"
    )


def degrees_of_freedom(weights: NDArray[np.float64]) -> float:
    """Return what the scatter matrix is divided by.

    Whole numbers count repeated rows: their sum less 1. Others are shares, for which the unbiased
    divisor is ``Σw − Σw² / Σw``; with equal weights of 1 both are the number of volumes less 1.
    """
    total = float(weights.sum())
    if np.all(weights == np.round(weights)):
        return total - 1.0
    return total - float(weights @ weights) / total


def _preferred(shape: tuple[int, int]) -> list[str]:
    n_volumes, n_voxels = shape
    order = []
    if min(n_volumes, n_voxels) <= _LARGEST_EXACT:
        order.append("gram" if n_volumes <= n_voxels else "covariance")
    return [*order, "randomized", "incremental"]


def _plan(
    name: str,
    shape: tuple[int, int],
    chunks: tuple[tuple[int, ...], tuple[int, ...]],
    itemsize: int,
    n_components: int,
) -> PCAPlan:
    n_volumes, n_voxels = shape
    cells = float(n_volumes) * n_voxels
    if name == "gram":
        width = min(STRIP_COLUMNS, n_voxels)
        # Strips that are cut out of bands wait for the last band: the whole matrix is held.
        held = n_volumes * (width if chunks[1][0] <= 4 * width else n_voxels) * itemsize
        return PCAPlan(
            method=name,
            peak_bytes=held + n_volumes * width * (itemsize + 4) + 20 * n_volumes**2,
            client_bytes=32 * n_volumes**2,
            held_bytes=0,
            passes=2,
            flops=cells * n_volumes,
            tasks=2 * -(-n_voxels // STRIP_COLUMNS),
        )
    rows = min(band_rows(chunks[0], n_voxels), n_volumes)
    bands = -(-n_volumes // rows)
    # A band that is put together from narrower chunks exists twice for a moment.
    band = rows * n_voxels * itemsize * (1 if len(chunks[1]) == 1 else 2)
    if name == "covariance":
        return PCAPlan(
            method=name,
            peak_bytes=band + 4 * rows * n_voxels + 28 * n_voxels**2,
            client_bytes=24 * n_voxels**2,
            held_bytes=0,
            passes=2,
            flops=cells * n_voxels,
            tasks=2 * bands,
        )
    if name == "randomized":
        block = oversampled(n_components, shape, hold=False)
        usual = 18
        return PCAPlan(
            method=name,
            peak_bytes=band + 4 * rows * n_voxels + 40 * block * n_voxels,
            client_bytes=4 * n_voxels * (_fewest_vectors(block) + 6 * block),
            held_bytes=0,
            passes=usual,
            flops=4 * cells * block * usual,
            tasks=usual * bands,
        )
    rank = _sketch_rank(n_components, shape)
    return PCAPlan(
        method=name,
        peak_bytes=band + 4 * n_voxels * (8 * rank + 5),
        client_bytes=12 * n_voxels * rank,
        held_bytes=0,
        passes=2,
        flops=8 * cells * rank,
        tasks=2 * bands,
    )


def _fewest_vectors(block: int) -> int:
    return 6 * block


def _sketch_rank(n_components: int, shape: tuple[int, ...]) -> int:
    return min(max(3 * n_components, 64), *shape)


def _decompose(
    problem: Problem,
    n_components: int,
    plan: PCAPlan,
    tolerance: float,
    memory_limit_bytes: int,
) -> Decomposition:
    shape = problem.matrix.shape
    if plan["method"] == "gram":
        return gram(problem, n_components)
    if plan["method"] == "covariance":
        return covariance(problem, n_components)
    if plan["method"] == "randomized":
        hold = plan["held_bytes"] > 0
        affordable = memory_limit_bytes // (16 * shape[1])  # a quarter of the memory, in float32
        least = _fewest_vectors(oversampled(n_components, shape, hold=hold))
        return randomized(
            problem,
            n_components,
            tolerance=tolerance,
            most_vectors=max(least, min(_MOST_VECTORS, affordable)),
            hold=hold,
        )
    return incremental(problem, n_components, rank=_sketch_rank(n_components, shape))


_ERRORS = {
    "gram": "rounding of float32",
    "covariance": "rounding of float32",
    "randomized": "estimate from the convergence",
    "incremental": "bound from the variance discarded",
}


def _dataset(
    found: Decomposition, method: str, freedom: float
) -> xr.Dataset:  # fmt: skip
    largest = np.argmax(np.abs(found.components), axis=1)
    signs = np.where(found.components[np.arange(len(largest)), largest] < 0, -1, 1)
    signs = signs.astype(np.float32)
    share = found.values / found.total if found.total > 0 else np.zeros_like(found.values)
    return xr.Dataset(
        {
            "scores": (("volume", "component"), found.scores * signs),
            "components": (("component", "voxel"), found.components * signs[:, None]),
            "explained_variance": (("component",), found.values / freedom),
            "explained_variance_ratio": (("component",), share),
            "explained_variance_error": (("component",), found.errors / freedom),
            "residual": (("volume",), found.residual),
            "mean": (("voxel",), found.mean.astype(np.float32)),
            "eigenvalues": (("eigen",), found.spectrum / freedom),
        },
        attrs={
            "method": method,
            "error": _ERRORS[method],
            "total_variance": found.total / freedom,
            "degrees_of_freedom": freedom,
            "passes": found.passes,
        },
    )


def _check_components(n_components: int | None, weights: NDArray[np.float64], n_voxels: int) -> int:
    counted = int(np.count_nonzero(weights))
    largest = min(counted - 1, n_voxels)
    if largest < 1:
        raise InputError(
            f"PCA needs 2 volumes that count and 1 voxel; found {counted} and {n_voxels}"
        )
    if n_components is None:
        return min(DEFAULT_COMPONENTS, largest)
    if not 1 <= n_components <= largest:
        raise InputError(
            f"n_components {n_components}: {counted} volumes and {n_voxels} voxels allow 1 to "
            f"{largest} components"
        )
    return int(n_components)


def _inverse_scale(scale: ArrayLike | None, n_volumes: int) -> NDArray[np.float32] | None:
    if scale is None:
        return None
    factors = np.asarray(scale, dtype=np.float64)
    if factors.shape != (n_volumes,):
        raise InputError(
            f"scale: found an array of shape {factors.shape}; one factor for each of the "
            f"{n_volumes} volumes is needed"
        )
    faulty = np.flatnonzero(~(np.isfinite(factors) & (factors > 0)))
    if faulty.size:
        raise InputError(
            f"scale: volume {faulty[0]} has the factor {factors[faulty[0]]}; it must be above 0"
        )
    return (1.0 / factors).astype(np.float32)
