"""The store of all pairs of rows of a matrix: filled block by block, continued after a kill.

The arithmetic is not known here: a kernel, from the science, is handed in. What is stored is read
by `emhet_dask.ensemble.pair_matrix`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import dask
import numpy as np
import zarr
from dask.delayed import Delayed

from emhet_dask.ensemble.rows import StoredRows
from emhet_dask.ensemble.store import open_array, open_group
from emhet_dask.ensemble.triangle import (
    Part,
    Triangle,
    all_blocks,
    create_array,
    plan_blocks,
    seal,
    write_parts,
)
from emhet_dask.variables import RESULTS

__all__ = ["Keep", "Kernel", "PairsLayout", "finish_pairs", "plan_pairs", "write_pairs"]

Keep = Literal["all", "neighbours"]

# A side of 4,096 reads and prepares rows in 7% of the time that their products take.
_LARGEST_SIDE = 4096
_SIDE_STEP = 1024
_SMALLEST_SIDE = 128
# Bands where the rows allow it, so that there are blocks enough to share out.
_BANDS = 7
_CHUNK = 1024
# Columns of a strip, and what a task needs beside the block and two strips (a read band of
# float16 and its float32, a tile, rows that are searched).
_STRIP_COLUMNS = 2048
_OVERHEAD_BYTES = 48 << 20
# The last one is the record that a block is finished.
_PARTS = ("block_neighbour", "block_similarity", "block_histogram")


class Kernel(Protocol):
    """What the store asks of the arithmetic; `emhet_dask.analysis.pair_kernels` has it."""

    @property
    def metric(self) -> str:
        """Return the name of the metric."""

    @property
    def arrays(self) -> int:
        """Return how many arrays of the size of a block exist at once."""

    @property
    def bins(self) -> Any:
        """Return the bins of the histogram."""

    @property
    def undefined(self) -> np.ndarray:
        """Tell which rows have no value, shape (row,)."""

    @property
    def diagonal(self) -> float:
        """Return the value of a row and itself."""

    def block(self, read: Any, rows: slice, others: slice) -> np.ndarray:
        """Return all values of two bands of rows, NaN where undefined."""

    def summarise(self, block: np.ndarray, rows: slice, others: slice, n_best: int) -> Any:
        """Return neighbours of the rows and of the others, and counts; the block is lost."""

    def merge(self, index: np.ndarray, value: np.ndarray, n_best: int) -> Any:
        """Return the nearest among the neighbours that several blocks found."""


@dataclass(frozen=True)
class PairsLayout:
    """How all pairs are cut into blocks.

    Attributes
    ----------
    n_rows, n_columns : int
    side : int
        Rows in a band; a block is so many rows against as many.
    task_bytes : int
        Memory that one task takes.
    """

    n_rows: int
    n_columns: int
    side: int
    task_bytes: int

    @property
    def triangle(self) -> Triangle:
        """Return the blocks of all pairs."""
        return Triangle(self.n_rows, self.side)

    @property
    def bands(self) -> list[slice]:
        """Return the rows of each band."""
        return self.triangle.bands

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Return both bands of each block of the upper triangle, row by row."""
        return self.triangle.blocks


def plan_pairs(n_rows: int, n_columns: int, memory_bytes: int, *, arrays: int = 1) -> PairsLayout:
    """Choose the blocks, by shape and memory alone, so that results never depend on workers.

    Parameters
    ----------
    n_rows, n_columns : int
    memory_bytes : int
        That one task may take; from about 300 MB on, more makes no difference.
    arrays : int
        Arrays of a block's size that the kernel holds at once (``kernel.arrays``).

    Returns
    -------
    PairsLayout
        Blocks of 128 to 4,096 rows a side; the smallest where memory does not suffice even for
        that, as ``task_bytes`` then says.
    """
    wanted = -(-n_rows // (_BANDS * _SIDE_STEP)) * _SIDE_STEP
    side = min(wanted, _LARGEST_SIDE)
    while side > _SMALLEST_SIDE and _task_bytes(side, n_columns, arrays) > memory_bytes:
        side -= _SIDE_STEP if side > _SIDE_STEP else side // 2
    side = min(side, n_rows)
    return PairsLayout(n_rows, n_columns, side, _task_bytes(side, n_columns, arrays))


def _task_bytes(side: int, n_columns: int, arrays: int) -> int:
    strips = 2 * side * min(n_columns, _STRIP_COLUMNS)
    return 4 * (arrays * side * side + strips) + _OVERHEAD_BYTES


def write_pairs(
    path: str,
    rows: StoredRows,
    *,
    kernel: Kernel,
    layout: PairsLayout,
    key: str,
    keep: Keep = "neighbours",
    n_neighbours: int = 10,
) -> list[Delayed]:
    """Plan the comparison of all pairs; nothing is read yet.

    Parameters
    ----------
    path : str
        Group of its own. Blocks that an earlier call with the same `key` and layout finished are
        kept; anything else is replaced.
    rows : StoredRows
    kernel : Kernel
    layout : PairsLayout
    key : str
        Of everything that the values depend on.
    keep : {"all", "neighbours"}
        Whether the matrix itself is kept; nearest neighbours and the histogram always are.
    n_neighbours : int
        Of each row.

    Returns
    -------
    list of dask.delayed.Delayed
        One for each block that is not there yet, to be computed in any order, with one BLAS thread
        each; then comes `finish_pairs`.
    """
    n_neighbours = max(1, min(n_neighbours, layout.n_rows - 1))
    side, bins = layout.side, len(kernel.bins.edges) - 1

    def create(group: zarr.Group) -> None:
        chunk = _CHUNK if side % _CHUNK == 0 else side
        shape = (layout.n_rows,) * 2
        create_array(
            group, RESULTS["similarity"], shape, (chunk,) * 2, "float32", shards=(side, side)
        )

    shapes = ((2 * side, n_neighbours), (2 * side, n_neighbours), (bins,))
    parts = [
        Part(RESULTS[name], shape, dtype)
        for name, shape, dtype in zip(_PARTS, shapes, ("int32", "float32", "int64"), strict=True)
    ]
    return plan_blocks(
        path,
        layout.triangle,
        _fill,
        rows,
        dask.delayed(kernel, pure=False, traverse=False),  # once, not once for each task
        parts=parts,
        facts={
            "key": key,
            "metric": str(kernel.metric),
            "keep": keep,
            "side": side,
            "n_rows": layout.n_rows,
            "n_neighbours": n_neighbours,
        },
        label="pairs",
        create=create if keep == "all" else None,
    )


def finish_pairs(path: str, *, kernel: Kernel) -> None:
    """Merge what the blocks left behind, band by band, and say that all is there.

    Parameters
    ----------
    path : str
        A store whose tasks are all done; a finished one is left as it is.
    kernel : Kernel
    """
    group = open_group(path, mode="r+")
    if group.attrs.get("complete"):
        seal(group, {}, _PARTS)
        return
    triangle = Triangle(int(str(group.attrs["n_rows"])), int(str(group.attrs["side"])))
    n_best = int(str(group.attrs["n_neighbours"]))
    group = all_blocks(path, triangle, _PARTS[-1])
    indices, values, counts = (open_array(group, name) for name in _PARTS)
    total = np.zeros(counts.shape[1], dtype=np.int64)
    for number in range(len(triangle.blocks)):
        total += np.asarray(counts[number])
    neighbour = np.empty((triangle.n_rows, n_best), dtype=np.int32)
    similarity = np.empty((triangle.n_rows, n_best), dtype=np.float32)
    for band, span in enumerate(triangle.bands):
        index, value = [], []
        for number, half in triangle.blocks_of(band):
            first = half * triangle.side
            rows = slice(first, first + span.stop - span.start)
            index.append(np.asarray(indices[number, rows]))
            value.append(np.asarray(values[number, rows]))
        neighbour[span], similarity[span] = kernel.merge(
            np.concatenate(index, axis=1), np.concatenate(value, axis=1), n_best
        )
    merged: dict[str, np.ndarray] = {
        "neighbour": neighbour,
        "neighbour_similarity": similarity,
        "histogram": total,
        "histogram_edges": np.asarray(kernel.bins.edges),
        "undefined": np.asarray(kernel.undefined),
    }
    seal(group, {RESULTS[name]: found for name, found in merged.items()}, _PARTS)


def _fill(
    path: str, read: StoredRows, kernel: Kernel, number: int, bands: tuple[slice, slice]
) -> int:
    """Compute one block and write what is kept of it, the record that it is finished last."""
    group = open_group(path, mode="r+")
    rows, others = bands
    block = kernel.block(read, rows, others)
    if "similarity" in group:
        # What is not there was lost: also where nothing is defined, something is written.
        whole = open_array(group, "similarity").with_config({"write_empty_chunks": True})
        whole[rows, others] = block
    _, *shape = open_array(group, _PARTS[0]).shape
    found = kernel.summarise(block, rows, others, shape[1])
    index = np.full(shape, -1, dtype=np.int32)
    value = np.full(shape, np.nan, dtype=np.float32)
    for first, (which, what) in ((0, found[:2]), (shape[0] // 2, found[2:4])):
        index[first : first + len(which)] = which
        value[first : first + len(what)] = what
    return write_parts(path, number, dict(zip(_PARTS, (index, value, found[4]), strict=True)))
