"""The store of co-occupancy: significant pairs of voxels, tile by tile, continued after a kill.

Several settings, pairs of p-values, share the counts of a tile; all arrays have them as their first
dimension. The arithmetic is not known here: kernels, from the science, are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import dask
import numpy as np
import xarray as xr
import zarr
from dask.delayed import Delayed

from emhet_dask.ensemble.occupied import StoredBits
from emhet_dask.ensemble.store import open_array, open_group, read_array
from emhet_dask.ensemble.triangle import (
    Part,
    Triangle,
    all_blocks,
    finished_group,
    plan_blocks,
    seal,
    write_parts,
)
from emhet_dask.variables import EDGES, describe

__all__ = [
    "finish_edges",
    "finish_levels",
    "open_edges",
    "write_edges",
    "write_levels",
]

_TAILS = ("positive", "negative")
# The last one is the record that a tile is finished.
_PARTS = ("tile_neighbour", "tile_phi", "tile_degree")
_NUMBERS = ("n_volumes", "n_pairs", "fewest_volumes")
_HISTOGRAM = "tile_histogram"


class EdgeKernel(Protocol):
    """What the store asks of the tests; `emhet_dask.analysis.tile_kernels` has it."""

    @property
    def settings(self) -> Sequence[Any]:
        """Return the tests of each setting."""

    @property
    def n_best(self) -> int:
        """Return how many edges of each voxel are kept."""

    @property
    def n_pairs(self) -> int:
        """Return how many pairs are tested."""

    @property
    def fewest_volumes(self) -> int:
        """Return with how many volumes a pair can be found at all."""

    @property
    def n_volumes(self) -> int:
        """Return the number of volumes."""

    @property
    def margins(self) -> np.ndarray:
        """Return in how many volumes each voxel is occupied."""

    @property
    def alpha(self) -> np.ndarray:
        """Return the levels (setting, tail) of one test."""

    def tile(self, read: Any, voxels: slice, others: slice) -> Any:
        """Return neighbour, phi and degree (setting, tail, row, …) of the voxels and the others."""

    def merge(self, neighbour: np.ndarray, phi: np.ndarray) -> Any:
        """Return the strongest among the edges that several tiles found."""


class LevelKernel(Protocol):
    """What the store asks of the counting of p-values."""

    @property
    def edges(self) -> np.ndarray:
        """Return edges of bins, (setting, tail, bin)."""

    def tile(self, read: Any, voxels: slice, others: slice) -> np.ndarray:
        """Return pairs in each bin, (setting, tail, bin)."""


def write_edges(
    path: str, bits: StoredBits, *, kernel: EdgeKernel, side: int, key: str
) -> list[Delayed]:
    """Plan the tests of all pairs of voxels; nothing is read yet.

    Parameters
    ----------
    path : str
        Group of its own. Tiles that an earlier call with the same `key` and side finished are
        kept; anything else is replaced.
    bits : StoredBits
    kernel : EdgeKernel
    side : int
        Voxels in a band.
    key : str
        Of everything that the edges depend on.

    Returns
    -------
    list of dask.delayed.Delayed
        One for each tile that is not there yet, to be computed in any order, with one BLAS thread
        each; then comes `finish_edges`.
    """
    triangle = Triangle(len(kernel.margins), side)
    shape = (len(kernel.settings), len(_TAILS), side, kernel.n_best)
    facts = {
        "key": key,
        "n_voxels": triangle.n_rows,
        "side": side,
        "n_best": kernel.n_best,
        "n_settings": len(kernel.settings),
    }
    # Either half of a tile is merged with a band of its own, but the record is whole or not there.
    edges, half = (2, *shape), (1, *shape)
    parts = [
        Part(EDGES["tile_neighbour"], edges, "int32", chunks=half, compressed=True),
        Part(EDGES["tile_phi"], edges, "float32", chunks=half, compressed=True),
        Part(EDGES["tile_degree"], edges[:-1], "int32", compressed=True),
    ]
    shared = dask.delayed(kernel, pure=False, traverse=False)  # once, not once for each task
    return plan_blocks(
        path, triangle, _fill_edges, bits, shared, parts=parts, facts=facts, label="tiles"
    )


def finish_edges(path: str, *, kernel: EdgeKernel) -> None:
    """Merge what the tiles left behind, band by band, and say that all is there.

    Parameters
    ----------
    path : str
        A store whose tasks are all done; a finished one is left as it is.
    kernel : EdgeKernel
    """
    group = open_group(path, mode="r+")
    if group.attrs.get("complete"):
        seal(group, {}, _PARTS)
        return
    triangle = _triangle(group)
    group = all_blocks(path, triangle, _PARTS[-1])
    shape = (len(kernel.settings), len(_TAILS), triangle.n_rows)
    neighbour = np.empty((*shape, kernel.n_best), dtype=np.int32)
    phi = np.empty((*shape, kernel.n_best), dtype=np.float32)
    degree = np.zeros(shape, dtype=np.int64)
    stored = [open_array(group, name) for name in _PARTS]
    for band, span in enumerate(triangle.bands):
        here = (slice(None), slice(None), span)
        length = span.stop - span.start
        blocks = triangle.blocks_of(band)
        found, strength, count = (_of_blocks(each, blocks) for each in stored)
        neighbour[here], phi[here] = kernel.merge(
            *(np.concatenate(each[:, :, :, :length], axis=-1) for each in (found, strength))
        )
        degree[here] = count[..., :length].sum(axis=0, dtype=np.int64)
    merged: dict[str, np.ndarray] = {
        "neighbour": neighbour,
        "phi": phi,
        "degree": degree,
        "margin": np.asarray(kernel.margins),
        "alpha": np.asarray(kernel.alpha),
    }
    group.attrs.update({name: int(getattr(kernel, name)) for name in _NUMBERS})
    seal(group, {EDGES[name]: values for name, values in merged.items()}, _PARTS)


def open_edges(path: str, setting: int = 0) -> xr.Dataset:
    """Open the edges of one setting.

    Parameters
    ----------
    path : str
    setting : int

    Returns
    -------
    xarray.Dataset
        As `emhet_dask.analysis.cooccupancy.associations` gives it: ``neighbour`` and ``phi``
        (tail, voxel, rank), ``degree`` (tail, voxel), ``margin`` (voxel), ``alpha`` (tail), loaded.

    Raises
    ------
    InputError
        When there is none, or it is not finished.
    """
    group = finished_group(path)
    variables: dict[str, Any] = {"margin": (("voxel",), read_array(group, "margin"))}
    for name in ("neighbour", "phi", "degree", "alpha"):
        stored = open_array(group, name)
        variables[name] = (EDGES[name].dims[1:], np.asarray(stored[setting]))
    attributes = {name: group.attrs[name] for name in _NUMBERS}
    return describe(xr.Dataset(variables, coords={"tail": list(_TAILS)}, attrs=attributes), EDGES)


def write_levels(
    path: str, bits: StoredBits, *, kernel: LevelKernel, side: int, key: str
) -> list[Delayed]:
    """Plan the counting of p-values, which Benjamini and Hochberg's levels follow from.

    Parameters and result as of `write_edges`; then comes `finish_levels`.
    """
    triangle = Triangle(bits.n_voxels, side)
    shape = np.asarray(kernel.edges).shape
    facts = {"key": key, "n_voxels": triangle.n_rows, "side": side, "shape": list(shape)}
    return plan_blocks(
        path,
        triangle,
        _fill_levels,
        bits,
        dask.delayed(kernel, pure=False, traverse=False),
        parts=[Part(EDGES[_HISTOGRAM], shape, "int64", compressed=True)],
        facts=facts,
        label="levels",
    )


def finish_levels(path: str) -> np.ndarray:
    """Add up what the tiles counted.

    Parameters
    ----------
    path : str
        A store whose tasks are all done, or a finished one.

    Returns
    -------
    ndarray of int64 (setting, tail, bin)
        For `emhet_dask.analysis.cooccupancy.edge_kernel`.
    """
    group = open_group(path, mode="r+")
    merged: dict[Any, np.ndarray] = {}
    if not group.attrs.get("complete"):
        triangle = _triangle(group)
        counts = open_array(all_blocks(path, triangle, _HISTOGRAM), _HISTOGRAM)
        total = sum(np.asarray(counts[number]) for number in range(len(triangle.blocks)))
        merged[EDGES["p_histogram"]] = np.asarray(total)
    seal(group, merged, (_HISTOGRAM,))
    return read_array(group, "p_histogram")


def _fill_edges(
    path: str, bits: StoredBits, kernel: EdgeKernel, number: int, bands: tuple[slice, slice]
) -> int:
    """Compute a tile and write what is kept of it, the record that it is finished last."""
    found = kernel.tile(bits, *bands)
    shape = open_array(open_group(path), _PARTS[0]).shape[1:]
    neighbour = np.full(shape, -1, dtype=np.int32)
    phi = np.full(shape, np.nan, dtype=np.float32)
    degree = np.zeros(shape[:-1], dtype=np.int32)
    for half, (which, strength, count) in enumerate(found):
        length = count.shape[2]
        neighbour[half, :, :, :length] = which
        phi[half, :, :, :length] = strength
        degree[half, :, :, :length] = count
    return write_parts(path, number, dict(zip(_PARTS, (neighbour, phi, degree), strict=True)))


def _fill_levels(
    path: str, bits: StoredBits, kernel: LevelKernel, number: int, bands: tuple[slice, slice]
) -> int:
    return write_parts(path, number, {_HISTOGRAM: kernel.tile(bits, *bands)})


def _of_blocks(part: zarr.Array, blocks: list[tuple[int, int]]) -> np.ndarray:
    """Read one half of each of some blocks, many chunks at a time: (block, setting, tail, …)."""
    halves = [[number for number, half in blocks if half == which] for which in (0, 1)]
    return np.concatenate(
        [
            np.asarray(part.get_orthogonal_selection((np.array(numbers), which)))
            for which, numbers in enumerate(halves)
            if numbers
        ]
    )


def _triangle(group: zarr.Group) -> Triangle:
    return Triangle(int(str(group.attrs["n_voxels"])), int(str(group.attrs["side"])))
