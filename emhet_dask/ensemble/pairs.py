"""The store of all pairs: filled block by block, continued after a kill, read as one matrix.

A block is the pairs of two bands of rows; a task computes one, from rows that it reads itself, so
that what a task holds is known and bands are never kept for others. What a block leaves behind is
written in a fixed order, its histogram last: a block with a histogram is finished and never
computed again. At the end the parts are merged, in the order of the blocks.

The arithmetic is not known here: a kernel, from the science, is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.delayed import Delayed
from zarr.codecs import Crc32cCodec

from emhet_dask.ensemble.rows import StoredRows
from emhet_dask.ensemble.store import has_chunk, open_array, open_group, put_array
from emhet_dask.errors import InputError
from emhet_dask.variables import RESULTS, check, describe

__all__ = [
    "Keep",
    "Kernel",
    "PairsLayout",
    "condensed",
    "finish_pairs",
    "open_pairs",
    "plan_pairs",
    "read_rows",
    "write_pairs",
]

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
    def bands(self) -> list[slice]:
        """Return the rows of each band."""
        return [
            slice(start, min(start + self.side, self.n_rows))
            for start in range(0, self.n_rows, self.side)
        ]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Return both bands of each block of the upper triangle, row by row."""
        count = len(self.bands)
        return [(i, j) for i in range(count) for j in range(i, count)]


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
    facts: dict[str, Any] = {
        "key": key,
        "metric": str(kernel.metric),
        "keep": keep,
        "side": layout.side,
        "n_rows": layout.n_rows,
        "n_neighbours": n_neighbours,
    }
    group, fresh = _group(path, facts)
    if group.attrs.get("complete"):
        return []
    if fresh:
        _create(group, kernel, layout, keep, n_neighbours)
        group.attrs.update(facts)  # last: with these, the arrays are known to be there
    counts = open_array(group, "block_histogram")
    fill = dask.delayed(_fill, pure=False)
    shared = dask.delayed(kernel, pure=False, traverse=False)  # once, not once for each task
    bands = layout.bands
    left = [
        (number, i, j)
        for number, (i, j) in enumerate(layout.blocks)
        if fresh or not has_chunk(counts, number, 0)
    ]
    # Blocks on the diagonal, half the work of others, come last: workers end together.
    left.sort(key=lambda block: block[1] == block[2])
    return [
        fill(
            path,
            rows,
            shared,
            number,
            (bands[i], bands[j]),
            dask_key_name=f"pairs-{order:06d}-{uuid4().hex}",
        )
        for order, (number, i, j) in enumerate(left)
    ]


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
        _drop_parts(group)
        return
    layout = _stored_layout(group)
    n_best = int(str(group.attrs["n_neighbours"]))
    counts = open_array(group, "block_histogram")
    missing = [n for n in range(len(layout.blocks)) if not has_chunk(counts, n, 0)]
    if missing:
        raise ValueError(f"{path}: {len(missing)} of {len(layout.blocks)} blocks are not written")
    total = np.zeros(counts.shape[1], dtype=np.int64)
    for number in range(len(layout.blocks)):
        total += np.asarray(counts[number])
    indices, values = open_array(group, "block_neighbour"), open_array(group, "block_similarity")
    neighbour = np.empty((layout.n_rows, n_best), dtype=np.int32)
    similarity = np.empty((layout.n_rows, n_best), dtype=np.float32)
    for band, span in enumerate(layout.bands):
        length = span.stop - span.start
        index, value = [], []
        for number, (i, j) in enumerate(layout.blocks):
            if band in (i, j):
                first = 0 if band == i else layout.side
                index.append(np.asarray(indices[number, first : first + length]))
                value.append(np.asarray(values[number, first : first + length]))
        neighbour[span], similarity[span] = kernel.merge(
            np.concatenate(index, axis=1), np.concatenate(value, axis=1), n_best
        )
    _put(group, "neighbour", neighbour)
    _put(group, "neighbour_similarity", similarity)
    _put(group, "histogram", total)
    _put(group, "histogram_edges", np.asarray(kernel.bins.edges))
    _put(group, "undefined", np.asarray(kernel.undefined))
    group.attrs["complete"] = True
    _drop_parts(group)


def open_pairs(path: str) -> xr.Dataset:
    """Open a finished store of pairs.

    Parameters
    ----------
    path : str

    Returns
    -------
    xarray.Dataset
        ``neighbour`` and ``neighbour_similarity`` (volume, rank), ``histogram`` (bin),
        ``histogram_edges`` (edge), ``undefined`` (volume) and, where all was kept, ``similarity``
        (volume, volume_b), lazy and symmetric. Attribute ``metric``.

    Raises
    ------
    InputError
        When there is none, or it is not finished.
    """
    group = _finished(path)
    small = ("neighbour", "neighbour_similarity", "histogram", "histogram_edges", "undefined")
    dataset = xr.Dataset(
        {name: (RESULTS[name].dims, np.asarray(open_array(group, name)[...])) for name in small},
        attrs={"metric": str(group.attrs["metric"])},
    )
    if "similarity" in group:
        dataset["similarity"] = (RESULTS["similarity"].dims, _symmetric(group))
    check(dataset, RESULTS, what=path)
    return describe(dataset, RESULTS)


def read_rows(path: str, start: int, stop: int) -> np.ndarray:
    """Read whole rows of the matrix.

    Parameters
    ----------
    path : str
        A finished store that keeps all.
    start, stop : int

    Returns
    -------
    ndarray of float32 (stop - start, volume)

    Raises
    ------
    InputError
        When the store is not finished or keeps neighbours alone.
    """
    group = _finished(path)
    stored = _matrix(group, path)
    layout = _stored_layout(group)
    rows = np.empty((stop - start, layout.n_rows), dtype=np.float32)
    for span in layout.bands:
        first, last = max(start, span.start), min(stop, span.stop)
        if first < last:
            part = rows[first - start : last - start]
            part[:, span.start :] = stored[first:last, span.start :]
            if span.start:
                part[:, : span.start] = np.asarray(stored[: span.start, first:last]).T
    return rows


def condensed(path: str, *, dtype: Any = np.float32) -> np.ndarray:
    """Read all pairs, each once, in SciPy's condensed order.

    Parameters
    ----------
    path : str
        A finished store that keeps all.
    dtype : optional
        Of the result, which is n (n − 1) / 2 long.

    Returns
    -------
    ndarray (pair,)

    Raises
    ------
    InputError
        When the store is not finished or keeps neighbours alone.
    """
    group = _finished(path)
    stored = _matrix(group, path)
    n = stored.shape[0]
    pairs = np.empty(n * (n - 1) // 2, dtype=dtype)
    position = 0
    step = min(stored.chunks[0], _CHUNK)
    for start in range(0, n, step):
        rows = np.asarray(stored[start : start + step, start:])
        for row in range(len(rows)):
            right = rows[row, row + 1 :]
            pairs[position : position + len(right)] = right
            position += len(right)
    return pairs


def _fill(
    path: str, read: StoredRows, kernel: Kernel, number: int, bands: tuple[slice, slice]
) -> int:
    """Compute one block and write what is kept of it, the record that it is finished last."""
    group = open_group(path, mode="r+")
    rows, others = bands
    block = kernel.block(read, rows, others)
    if "similarity" in group:
        open_array(group, "similarity")[rows, others] = block
    indices, values = open_array(group, "block_neighbour"), open_array(group, "block_similarity")
    side, n_best = indices.shape[1] // 2, indices.shape[2]
    found = kernel.summarise(block, rows, others, n_best)
    index = np.full((2 * side, n_best), -1, dtype=np.int32)
    value = np.full((2 * side, n_best), np.nan, dtype=np.float32)
    for first, (which, what) in ((0, found[:2]), (side, found[2:4])):
        index[first : first + len(which)] = which
        value[first : first + len(what)] = what
    indices[number] = index
    values[number] = value
    open_array(group, "block_histogram")[number] = found[4]
    return number


def _group(path: str, facts: dict[str, Any]) -> tuple[zarr.Group, bool]:
    """Return the group to fill, and whether it is empty."""
    try:
        group = zarr.open_group(path, mode="r+", zarr_format=3)
        if all(group.attrs.get(name) == value for name, value in facts.items()):
            return group, False
        # Killed while it is emptied, it must not pass for what it was.
        group.attrs.update({"key": None, "complete": False})
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        pass
    if "://" not in path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    return zarr.open_group(path, mode="w", zarr_format=3), True


def _create(
    group: zarr.Group, kernel: Kernel, layout: PairsLayout, keep: Keep, n_neighbours: int
) -> None:
    n, side, count = layout.n_rows, layout.side, len(layout.blocks)
    if keep == "all":
        chunk = _CHUNK if side % _CHUNK == 0 else side
        _array(group, "similarity", (n, n), (chunk, chunk), "float32", shards=(side, side))
    shape = (count, 2 * side, n_neighbours)
    _array(group, "block_neighbour", shape, (1, *shape[1:]), "int32")
    _array(group, "block_similarity", shape, (1, *shape[1:]), "float32")
    bins = len(kernel.bins.edges) - 1
    _array(group, "block_histogram", (count, bins), (1, bins), "int64")


def _array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    *,
    shards: tuple[int, ...] | None = None,
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        # No block leaves only this behind: a part that is not stored is one that was not written.
        fill_value=float("nan") if dtype == "float32" else -1,
        compressors=(Crc32cCodec(),),
        dimension_names=RESULTS[name].dims,
        attributes={**RESULTS[name].attributes()},
    )


def _drop_parts(group: zarr.Group) -> None:
    for name in _PARTS:
        if name in group:
            del group[name]


def _put(group: zarr.Group, name: str, values: np.ndarray) -> None:
    variable = RESULTS[name]
    put_array(group, name, values, variable.dims, attributes=variable.attributes())


def _finished(path: str) -> zarr.Group:
    group = open_group(path)
    if not group.attrs.get("complete"):
        raise InputError(f"{path}: not all pairs are compared; run the same command again")
    return group


def _stored_layout(group: zarr.Group) -> PairsLayout:
    n_rows, side = int(str(group.attrs["n_rows"])), int(str(group.attrs["side"]))
    return PairsLayout(n_rows, 0, side, 0)


def _matrix(group: zarr.Group, path: str) -> zarr.Array:
    if "similarity" not in group:
        raise InputError(f"{path}: keeps nearest neighbours alone, not the matrix of all pairs")
    return open_array(group, "similarity")


def _symmetric(group: zarr.Group) -> da.Array:
    """Return the whole matrix, lazy; blocks below the diagonal are transposes of those above."""
    layout = _stored_layout(group)
    stored = da.from_array(
        open_array(group, "similarity"), chunks=(layout.side,) * 2, inline_array=True
    )
    count = range(len(layout.bands))
    return da.block(
        [[stored.blocks[i, j] if i <= j else stored.blocks[j, i].T for j in count] for i in count]
    )
