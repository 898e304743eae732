"""Cut a volume × voxel matrix into bands of rows or strips of columns, and merge in fixed order.

The cuts follow from the matrix and its chunks, never from the number of workers, and parts are
merged in a fixed order: the same chunks give the same bits wherever and whenever they are computed.
Another chunking changes no more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from emhet_dask.errors import InputError

__all__ = [
    "STRIP_COLUMNS",
    "Block",
    "as_matrix",
    "band_rows",
    "chain",
    "check_weights",
    "column_strips",
    "compute_all",
    "row_bands",
    "tree",
]

# A strip of 4,096 volumes in float32 is 32 MiB.
STRIP_COLUMNS = 2048
# Bands of fewer rows waste the matrix products; more rows need more memory and gain nothing.
_FEWEST_ROWS = 128
_MOST_ROWS = 2048
_USUAL_ROWS = 1024
_USUAL_BYTES = 64 << 20


@dataclass(frozen=True)
class Block:
    """One band (or strip) of the matrix, not yet loaded, and the rows (or columns) it spans."""

    part: Delayed
    span: slice


def as_matrix(array: Any) -> da.Array:
    """Take NumPy, dask or a labelled array of two dimensions as a dask array, loading nothing.

    Raises
    ------
    InputError
        When it is not two-dimensional, is empty, or does not hold real numbers.
    """
    data = getattr(array, "data", array) if hasattr(array, "dims") else array
    if not isinstance(data, da.Array):
        data = np.asarray(data)
    if data.ndim != 2 or 0 in data.shape:
        raise InputError(
            f"the matrix has shape {tuple(data.shape)}; it must be (volume, voxel), not empty"
        )
    if data.dtype.kind not in "fiub":
        raise InputError(f"the matrix holds {data.dtype}; it must hold real numbers")
    if isinstance(data, da.Array):
        return data
    return da.from_array(data, chunks=(_usual_rows(data.shape[1]), -1), name=False)


def row_bands(matrix: da.Array) -> list[Block]:
    """Cut into bands of whole rows: the matrix's own where they have a fair size."""
    return _cut(matrix, axis=0, size=band_rows(matrix.chunks[0], matrix.shape[1]))


def band_rows(row_chunks: tuple[int, ...], n_voxels: int) -> int:
    """Return the rows in a band of a matrix with these chunks along its rows."""
    first = row_chunks[0]
    regular = all(rows == first for rows in row_chunks[:-1]) and row_chunks[-1] <= first
    if not regular or first > _MOST_ROWS:
        return _usual_rows(n_voxels)
    return first * max(1, _FEWEST_ROWS // first)


def _usual_rows(n_voxels: int) -> int:
    rows = _USUAL_BYTES // (4 * n_voxels)
    return int(min(max(rows, _FEWEST_ROWS), _USUAL_ROWS))


def column_strips(matrix: da.Array) -> list[Block]:
    """Cut into strips of `STRIP_COLUMNS` whole columns."""
    return _cut(matrix, axis=1, size=STRIP_COLUMNS)


def _cut(matrix: da.Array, *, axis: int, size: int) -> list[Block]:
    length = matrix.shape[axis]
    # By tasks: distributed's own way to rechunk goes through the disk.
    parts = matrix.rechunk({axis: size, 1 - axis: -1}, method="tasks").to_delayed().ravel()
    spans = [slice(start, min(start + size, length)) for start in range(0, length, size)]
    return [Block(part, span) for part, span in zip(parts, spans, strict=True)]


def tree(parts: Sequence[Delayed], merge: Callable[..., Any], *, arity: int = 4) -> Delayed:
    """Merge parts, `arity` neighbours at a time, until one is left; the order is fixed.

    `merge` takes a list of parts, in order, and returns one of the same kind.
    """
    merged = dask.delayed(merge, pure=False)
    level = list(parts)
    while len(level) > 1:
        level = [
            merged(level[start : start + arity]) if len(level[start : start + arity]) > 1
            else level[start]
            for start in range(0, len(level), arity)
        ]  # fmt: skip
    return level[0]


def chain(
    blocks: Sequence[Block],
    step: Callable[..., Any],
    merge: Callable[..., Any],
    *,
    n_chains: int,
    **factors: Any,
) -> Delayed:
    """Fold runs of neighbouring blocks, one block at a time, and merge the runs' results.

    For results so large that only a few may exist at once. ``step(state, part, span, **factors)``
    starts with the state None; `merge` takes a list of states in order.
    """
    stepped = dask.delayed(step, pure=False)
    states: list[Delayed] = []
    for run in np.array_split(np.arange(len(blocks)), min(n_chains, len(blocks))):
        state: Any = None
        for index in run:
            state = stepped(state, blocks[index].part, blocks[index].span, **factors)
        states.append(state)
    return tree(states, merge)


def compute_all(
    compute: Callable[..., tuple[Any, ...]], tasks: Sequence[Delayed]
) -> tuple[Any, ...]:
    """Compute (or persist) delayed values with one BLAS thread a task.

    Where tasks are threads of this process, BLAS threads beside them cost a factor of ten, and the
    order in which they add costs the last bits. Workers elsewhere see to it themselves.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return compute(*tasks)


def check_weights(weights: Any, n_volumes: int) -> NDArray[np.float64]:
    """Return the weights of volumes as float64; ones where there are none.

    Raises
    ------
    InputError
        When their number is not that of the volumes, one is negative or not finite, or all are 0.
    """
    if weights is None:
        return np.ones(n_volumes)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n_volumes,):
        raise InputError(
            f"weights: found an array of shape {values.shape}; "
            f"one number for each of the {n_volumes} volumes is needed"
        )
    faulty = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if faulty.size:
        raise InputError(
            f"weights: volume {faulty[0]} has the weight {values[faulty[0]]}; "
            "a weight is a finite number, 0 or more"
        )
    if not values.any():
        raise InputError("weights: all are 0; at least one volume must count")
    return values
