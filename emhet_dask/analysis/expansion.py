"""Which voxels go with which blocks: edges from each voxel to the voxels of each block.

A voxel that is in no block yet joins one when it is significantly associated with a fair share of
its voxels. Those nearer than the background correlates say nothing, and are not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.association import Association, phi_coefficient
from emhet_dask.analysis.bands import compute_all
from emhet_dask.analysis.binarised import Occupied
from emhet_dask.analysis.contingency import SIDE
from emhet_dask.analysis.near_pairs import NearPairs
from emhet_dask.analysis.tile_kernels import count_far
from emhet_dask.errors import InputError

__all__ = ["linked_fractions"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Voxels = NDArray[np.intp]
Compute = Callable[..., tuple[Any, ...]]

# Voxels of blocks that are counted at a time, whatever the band of others: sums are the same.
_MEMBERS = 2048
_PIECE_ROWS = 64


class _Members(NamedTuple):
    """Voxels of blocks, block by block."""

    voxels: Voxels
    block: Voxels  # from 0


def linked_fractions(
    occupied: Occupied,
    tests: Association,
    voxels: ArrayLike,
    block_voxels: ArrayLike,
    block_of: ArrayLike,
    *,
    near: NearPairs | None = None,
    side: int = SIDE,
    compute: Compute = dask.compute,
) -> xr.Dataset:
    """Count the edges from each voxel to the far voxels of each block.

    Parameters
    ----------
    occupied : Packed or stored bits
    tests : Association
        Of one setting.
    voxels : array of int (voxel,)
        Those to test, among the voxels of `occupied`.
    block_voxels, block_of : arrays of int (member,)
        Voxels that are in blocks, each once, and the number of the block.
    near : NearPairs, optional
        Pairs that are not tested, nor is a voxel and itself.
    side : int
        Voxels of a task; the answer is the same with any.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    xarray.Dataset
        ``tested`` (voxel, block), the far voxels of the block; ``linked`` (voxel, block), how many
        of these are significantly occupied together with the voxel; ``phi`` (voxel, block), the
        mean association with all of these, float32, NaN where there is none. Coordinates ``voxel``
        and ``block``, rising.

    Raises
    ------
    InputError
        When there are more or fewer `block_of` than `block_voxels`, or none.
    """
    asked, members = np.asarray(voxels, dtype=np.intp), np.asarray(block_voxels, dtype=np.intp)
    numbers = np.asarray(block_of)
    if members.shape != numbers.shape or members.ndim != 1 or not len(members):
        raise InputError(
            f"block_of has shape {numbers.shape}, block_voxels {members.shape}; one number for "
            "each voxel of a block is needed"
        )
    blocks, place = np.unique(numbers, return_inverse=True)
    order = np.lexsort((members, place))
    task = dask.delayed(_link_band, pure=False)
    shared = [
        dask.delayed(each, pure=False, traverse=False)
        for each in (occupied, tests, _Members(members[order], place[order]), near)
    ]
    bands = [asked[start : start + side] for start in range(0, len(asked), side)]
    parts = compute_all(compute, [task(band, *shared) for band in bands])
    empty = np.empty((3, 0, len(blocks)))
    tested, linked, total = np.concatenate([empty, *parts], axis=1)
    mean = np.divide(total, tested, out=np.full_like(total, np.nan), where=tested > 0)
    dims = ("voxel", "block")
    return xr.Dataset(
        {
            "tested": (dims, tested.astype(np.int32)),
            "linked": (dims, linked.astype(np.int32)),
            "phi": (dims, mean.astype(np.float32)),
        },
        coords={"voxel": asked, "block": blocks},
    )


def _link_band(
    voxels: Voxels,
    occupied: Occupied,
    tests: Association,
    members: _Members,
    near: NearPairs | None,
) -> Float64:
    """Return numbers tested and linked, and sums of phi, (3, voxel, block)."""
    found = np.zeros((3, len(voxels), int(members.block[-1]) + 1))
    for start in range(0, len(members.voxels), _MEMBERS):
        run = slice(start, start + _MEMBERS)
        others, blocks = members.voxels[run], members.block[run]
        counts = count_far(occupied, voxels, others, near)
        _, starts = np.unique(blocks, return_index=True)
        table, row, column = tests.critical(voxels, others, "positive")
        for first in range(0, len(voxels), _PIECE_ROWS):
            rows = slice(first, first + _PIECE_ROWS)
            both = counts[rows]
            both[voxels[rows, None] == others] = np.nan
            far = ~np.isnan(both)
            linked = both >= np.take(table[row[rows]], column, axis=1)
            phi = phi_coefficient(
                both, tests.margins[voxels[rows], None], tests.margins[others], tests.n_volumes
            )
            for number, values in enumerate((far, linked, np.where(far, phi, 0.0))):
                sums = np.add.reduceat(values, starts, axis=1, dtype=np.float64)
                found[number][rows, blocks[starts]] += sums
    return found
