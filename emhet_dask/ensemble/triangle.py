"""All pairs of two rows, block by block of the upper triangle, continued after a kill.

A block is the pairs of two bands of rows; a task computes one, from rows that it reads itself, so
that what a task holds is known and bands are never kept for others. What a block leaves behind, its
parts, is written in a fixed order: a block with the last of them is finished and never computed
again. At the end parts are merged, in the order of the blocks.

What the pairs are of, and what is left of a block, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask
import numpy as np
import zarr
from dask.delayed import Delayed
from zarr.codecs import Crc32cCodec, ZstdCodec

from emhet_dask.ensemble.keyed import keyed_group
from emhet_dask.ensemble.store import has_chunk, open_array, open_group, put_array
from emhet_dask.errors import InputError
from emhet_dask.variables import Variable

__all__ = [
    "Part",
    "Triangle",
    "all_blocks",
    "create_array",
    "finished_group",
    "plan_blocks",
    "seal",
    "write_parts",
]

_COMPRESSED = (ZstdCodec(level=1), Crc32cCodec())
_PLAIN = (Crc32cCodec(),)


@dataclass(frozen=True)
class Triangle:
    """The upper triangle of all pairs, cut into blocks.

    Attributes
    ----------
    n_rows : int
    side : int
        Rows in a band.
    """

    n_rows: int
    side: int

    @property
    def bands(self) -> list[slice]:
        """Return the rows of each band."""
        return [
            slice(start, min(start + self.side, self.n_rows))
            for start in range(0, self.n_rows, self.side)
        ]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Return both bands of each block, row by row."""
        count = len(self.bands)
        return [(i, j) for i in range(count) for j in range(i, count)]

    def blocks_of(self, band: int) -> list[tuple[int, int]]:
        """Return the numbers of the blocks of a band, and 0 where it is their first, or 1."""
        return [
            (number, 0 if band == i else 1)
            for number, (i, j) in enumerate(self.blocks)
            if band in (i, j)
        ]


@dataclass(frozen=True)
class Part:
    """What every block leaves behind, as an array with one entry for each block.

    Attributes
    ----------
    variable : Variable
        Name, dimensions (of which the first is the block) and meaning.
    shape : tuple of int
        Of what one block leaves.
    dtype : str
        Of floats NaN, of others -1, stands for what was not written.
    chunks : tuple of int, optional
        Of what one block leaves; by default it is one.
    compressed : bool
    """

    variable: Variable
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None = None
    compressed: bool = False


def plan_blocks(
    path: str,
    triangle: Triangle,
    fill: Callable[..., int],
    *arguments: Any,
    parts: Sequence[Part],
    facts: Mapping[str, Any],
    label: str,
    create: Callable[[zarr.Group], None] | None = None,
) -> list[Delayed]:
    """Plan the blocks that are not there yet; nothing is computed.

    Parameters
    ----------
    path : str
        Group of its own. Blocks that an earlier call with the same `facts` finished are kept;
        anything else is replaced.
    triangle : Triangle
    fill : callable
        ``fill(path, *arguments, number, (rows, others))`` computes a block and writes its parts,
        the last of `parts` last.
    *arguments
        Plain or delayed.
    parts : sequence of Part
        The last is the record, of one chunk; no block leaves only what stands for nothing in it.
    facts : mapping
        JSON values that blocks depend on; kept as attributes.
    label : str
        First word of the names of the tasks.
    create : callable, optional
        Makes what else the group needs.

    Returns
    -------
    list of dask.delayed.Delayed
        One for each block that is left, to be computed in any order.
    """
    group, fresh = keyed_group(path, facts)
    if group.attrs.get("complete"):
        return []
    if fresh:
        if create is not None:
            create(group)
        for part in parts:
            create_array(
                group,
                part.variable,
                (len(triangle.blocks), *part.shape),
                (1, *(part.chunks or part.shape)),
                part.dtype,
                compressed=part.compressed,
            )
        group.attrs.update(facts)  # last: with these, the arrays are known to be there
    record = open_array(group, parts[-1].variable.name)
    bands = triangle.bands
    left = [
        (number, i, j)
        for number, (i, j) in enumerate(triangle.blocks)
        if fresh or not _has_record(record, number)
    ]
    # Blocks on the diagonal, half the work of others, come last: workers end together.
    left.sort(key=lambda block: block[1] == block[2])
    task = dask.delayed(fill, pure=False)
    return [
        task(
            path,
            *arguments,
            number,
            (bands[i], bands[j]),
            dask_key_name=f"{label}-{order:06d}-{uuid4().hex}",
        )
        for order, (number, i, j) in enumerate(left)
    ]


def write_parts(path: str, number: int, parts: Mapping[str, np.ndarray]) -> int:
    """Write what a block leaves behind, in the order given: the record is the last.

    Parameters
    ----------
    path : str
    number : int
        Of the block.
    parts : mapping of str to ndarray

    Returns
    -------
    int
        The number.
    """
    group = open_group(path, mode="r+")
    for name, values in parts.items():
        open_array(group, name)[number] = values
    return number


def all_blocks(path: str, triangle: Triangle, record: str) -> zarr.Group:
    """Return the group of a store whose blocks are all written, to merge their parts.

    Parameters
    ----------
    path : str
    triangle : Triangle
    record : str
        Name of the last part.

    Raises
    ------
    ValueError
        When blocks are missing.
    """
    group = open_group(path, mode="r+")
    written = open_array(group, record)
    count = len(triangle.blocks)
    missing = sum(not _has_record(written, number) for number in range(count))
    if missing:
        raise ValueError(f"{path}: {missing} of {count} blocks are not written")
    return group


def seal(group: zarr.Group, merged: Mapping[Variable, np.ndarray], parts: Sequence[str]) -> None:
    """Write what parts were merged to, say that all is there, and remove the parts.

    Parameters
    ----------
    group : zarr.Group
    merged : mapping of Variable to ndarray
    parts : sequence of str
        Their names; where a kill left some of a complete store, an empty `merged` removes them.
    """
    for variable, values in merged.items():
        put_array(group, variable.name, values, variable.dims, attributes=variable.attributes())
    if not group.attrs.get("complete"):
        group.attrs["complete"] = True
    for name in parts:
        if name in group:
            del group[name]


def finished_group(path: str) -> zarr.Group:
    """Open a store whose parts are merged.

    Raises
    ------
    InputError
        When there is none, or it is not finished.
    """
    group = open_group(path)
    if not group.attrs.get("complete"):
        raise InputError(f"{path}: not all pairs are compared; run the same command again")
    return group


def create_array(
    group: zarr.Group,
    variable: Variable,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    *,
    shards: tuple[int, ...] | None = None,
    compressed: bool = False,
) -> None:
    """Make an array in which what is not stored was not written, or is nothing.

    Parameters
    ----------
    group : zarr.Group
    variable : Variable
    shape, chunks : tuple of int
    dtype : str
    shards : tuple of int, optional
    compressed : bool
    """
    group.create_array(
        variable.name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=float("nan") if np.dtype(dtype).kind == "f" else -1,
        compressors=_COMPRESSED if compressed else _PLAIN,
        dimension_names=variable.dims,
        attributes={**variable.attributes()},
    )


def _has_record(record: zarr.Array, number: int) -> bool:
    return has_chunk(record, number, *(0,) * (len(record.shape) - 1))
