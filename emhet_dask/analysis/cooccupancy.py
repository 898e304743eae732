"""Which voxels are occupied in the same volumes, more or less often than chance allows.

Of every pair of voxels the volumes in which both are occupied are counted, exactly, in tiles (a
band of voxels against a band of voxels) that are used and forgotten. With the margins, that is the
whole contingency table, and a comparison with a critical count
(`emhet_dask.analysis.hypergeometric`) is the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.association import MOST_MARGINS, TAILS, Association
from emhet_dask.analysis.bands import compute_all
from emhet_dask.analysis.binarised import Occupied, Packed, pack
from emhet_dask.analysis.contingency import SIDE, STRIP_BYTES, Tile, ends_of, pair_tiles
from emhet_dask.analysis.hypergeometric import bonferroni, fewest_volumes
from emhet_dask.analysis.near_pairs import near_pairs
from emhet_dask.analysis.tile_kernels import EdgeKernel, LevelKernel, Strongest, TileEdges
from emhet_dask.errors import InputError

__all__ = ["Correction", "associations", "edge_kernel", "level_kernel", "task_bytes", "tile_side"]

Bits = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Compute = Callable[..., tuple[Any, ...]]
Correction = Literal["bonferroni", "benjamini-hochberg", "none"]

# What tiles leave behind until it is merged.
_BATCH_BYTES = 256 << 20
# Bands where there are voxels enough, so that there are tiles enough to share out.
_BANDS = 7
_SIDE_STEP = 512
_SMALLEST_SIDE = 128


def associations(
    occupied: Any,
    *,
    positive_p: float = 0.01,
    negative_p: float = 0.05,
    correction: Correction = "bonferroni",
    min_enrichment: float = 1.0,
    n_neighbours: int = 32,
    coordinates: ArrayLike | None = None,
    least_distance: float = 0.0,
    side: int = SIDE,
    compute: Compute = dask.compute,
) -> xr.Dataset:
    """Find, for every voxel, those that are occupied together with it, or without it.

    One task for each pair of bands of voxels, from the bits of these two alone; `task_bytes` says
    what it needs, beside the bits of all, which are held once. For bits that are stored there is
    `emhet_dask.ensemble.edges`.

    Parameters
    ----------
    occupied : Packed or array (volume, voxel)
        Voxels that are neither always nor never occupied (`kept_voxels`).
    positive_p, negative_p : float
        Chance of any false edge (Bonferroni), or share of false ones (Benjamini–Hochberg), over
        all pairs that are tested, in each tail.
    correction : {"bonferroni", "benjamini-hochberg", "none"}
        The second counts all p-values first, and so takes another pass over all pairs.
    min_enrichment : float
        See `Association`.
    n_neighbours : int
        Strongest edges of each voxel to keep.
    coordinates : array of int (voxel, axis), optional
        Positions in the box, in voxels.
    least_distance : float
        In voxels; pairs at most so far apart are not tested.
    side : int
        Voxels in a band; the answer is the same with any.
    compute : callable
        Like `dask.compute`; called for the bits and for every batch of tiles.

    Returns
    -------
    xarray.Dataset
        ``neighbour`` (tail, voxel, rank), strongest first, -1: none; ``phi`` (tail, voxel, rank),
        NaN: none; ``degree`` (tail, voxel), all edges, kept or not; ``margin`` (voxel,); ``alpha``
        (tail,), the level of one test; tails are ``positive`` and ``negative``. Attributes
        ``n_volumes``, ``n_pairs``, those that are tested, and ``fewest_volumes``, without which no
        pair can be found.

    Raises
    ------
    InputError
        When there are fewer volumes than can ever reach significance, no pair is so far apart, or
        as `Association` and `emhet_dask.analysis.near_pairs.near_pairs` do.
    """
    packed = occupied if isinstance(occupied, Packed) else pack(occupied, compute=compute)
    settings = [(positive_p, negative_p)]
    distance: dict[str, Any] = {"coordinates": coordinates, "least_distance": least_distance}
    tiles = pair_tiles(packed.n_voxels, side)
    counts = None
    if correction == "benjamini-hochberg":
        levels = level_kernel(packed, settings, **distance)
        counts = sum(_map_tiles(packed, tiles, compute, levels))
    kernel = edge_kernel(
        packed,
        settings,
        correction=correction,
        counts=counts,
        min_enrichment=min_enrichment,
        n_neighbours=n_neighbours,
        **distance,
    )
    found = _InMemory(packed.n_voxels, kernel)
    batch = max(16, _BATCH_BYTES // (32 * side * kernel.n_best))
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        found.merge(part, _map_tiles(packed, part, compute, kernel))
    return xr.Dataset(
        {
            "neighbour": (("tail", "voxel", "rank"), found.neighbour[0]),
            "phi": (("tail", "voxel", "rank"), found.phi[0]),
            "degree": (("tail", "voxel"), found.degree[0]),
            "margin": ("voxel", packed.margins),
            "alpha": ("tail", kernel.alpha[0]),
        },
        coords={"tail": list(TAILS)},
        attrs={
            "n_volumes": packed.n_volumes,
            "n_pairs": kernel.n_pairs,
            "fewest_volumes": kernel.fewest_volumes,
        },
    )


def edge_kernel(
    occupied: Occupied,
    settings: Sequence[tuple[float, float]],
    *,
    correction: Correction = "bonferroni",
    counts: Int64 | None = None,
    min_enrichment: float = 1.0,
    n_neighbours: int = 32,
    coordinates: ArrayLike | None = None,
    least_distance: float = 0.0,
) -> EdgeKernel:
    """Prepare the tests of all pairs, at one or several settings that share the counts.

    Parameters
    ----------
    occupied : Packed or stored bits
        Of which the margins are needed.
    settings : sequence of (float, float)
        ``positive_p`` and ``negative_p`` of each.
    correction, min_enrichment, n_neighbours, coordinates, least_distance
        As for `associations`.
    counts : array of int (setting, tail, bin), optional
        For Benjamini–Hochberg: the sum over all tiles of `level_kernel`.

    Raises
    ------
    InputError
        As `associations` does; there must be volumes enough for every setting.
    """
    if correction not in ("bonferroni", "benjamini-hochberg", "none"):
        raise InputError(
            f"correction {correction!r} is unknown; it must be bonferroni, benjamini-hochberg or "
            "none"
        )
    near = near_pairs(coordinates, least_distance, occupied.n_voxels)
    n_pairs = _count_pairs(occupied.n_voxels, 0 if near is None else near.count, least_distance)
    levels = list(settings)
    if correction == "bonferroni":
        levels = [(bonferroni(a, n_pairs), bonferroni(b, n_pairs)) for a, b in settings]
    needed = _check_volumes(occupied.n_volumes, min(map(min, levels)), n_pairs)
    if correction == "benjamini-hochberg":
        if counts is None:
            raise ValueError("Benjamini-Hochberg needs the p-values of all tiles, counted")
        levels = level_kernel(
            occupied, settings, coordinates=coordinates, least_distance=least_distance
        ).levels(counts)
    margins, n_volumes = occupied.margins, occupied.n_volumes
    return EdgeKernel(
        tuple(Association(margins, n_volumes, a, b, min_enrichment) for a, b in levels),
        max(1, min(n_neighbours, occupied.n_voxels - 1)),
        n_pairs,
        needed,
        near,
    )


def level_kernel(
    occupied: Occupied,
    settings: Sequence[tuple[float, float]],
    *,
    coordinates: ArrayLike | None = None,
    least_distance: float = 0.0,
) -> LevelKernel:
    """Prepare the counting of p-values that Benjamini–Hochberg needs before `edge_kernel`.

    Parameters
    ----------
    occupied, settings, coordinates, least_distance
        As for `edge_kernel`.
    """
    near = near_pairs(coordinates, least_distance, occupied.n_voxels)
    rates = np.array(settings, dtype=np.float64)
    positive, negative = (float(rate) for rate in rates.max(axis=0))
    return LevelKernel(
        rates,
        Association(occupied.margins, occupied.n_volumes, positive, negative),
        _count_pairs(occupied.n_voxels, 0 if near is None else near.count, least_distance),
        near,
    )


def tile_side(
    n_voxels: int,
    n_volumes: int,
    memory_bytes: int,
    *,
    n_settings: int = 1,
    n_neighbours: int = 32,
) -> int:
    """Choose the voxels in a band, by shape and memory alone: results never depend on workers.

    Parameters
    ----------
    n_voxels, n_volumes : int
    memory_bytes : int
        That one task may take; more than some 150 MB makes no difference.
    n_settings, n_neighbours : int

    Returns
    -------
    int
        128 to 2,048; the smallest where memory does not suffice even for that, as `task_bytes`
        then says.
    """
    side = min(-(-n_voxels // (_BANDS * _SIDE_STEP)) * _SIDE_STEP, SIDE)
    while side > _SMALLEST_SIDE and memory_bytes < task_bytes(
        n_volumes, side=side, n_settings=n_settings, n_neighbours=n_neighbours
    ):
        side -= _SIDE_STEP if side > _SIDE_STEP else side // 2
    return max(1, min(side, n_voxels))


def task_bytes(
    n_volumes: int,
    *,
    side: int = SIDE,
    n_margins: int = MOST_MARGINS,
    n_settings: int = 1,
    n_neighbours: int = 32,
) -> int:
    """Return the memory that the task of one tile needs beside the bits of all voxels.

    Counts and strengths of the tile, a strip of either band, the bits of both, tables of critical
    counts, what is kept, and pieces.

    Parameters
    ----------
    n_volumes, side : int
    n_margins : int
        Distinct margins of a band.
    n_settings, n_neighbours : int
    """
    strip = side * min(n_volumes, 8 * STRIP_BYTES)
    tables = (1 + 2 * n_settings) * min(n_margins, side, n_volumes) ** 2
    kept = 2 * n_settings * 4 * side * min(n_neighbours, side) * 2
    bits = 2 * side * (n_volumes // 8)
    return 4 * (2 * side * side + 2 * strip + tables + kept) + bits + (32 << 20)


class _InMemory:
    """The strongest edges of all voxels, so far."""

    def __init__(self, n_voxels: int, kernel: EdgeKernel) -> None:
        shape = (len(kernel.settings), len(TAILS), n_voxels)
        self.neighbour = np.full((*shape, kernel.n_best), -1, dtype=np.int32)
        self.phi = np.full((*shape, kernel.n_best), np.nan, dtype=np.float32)
        self.degree = np.zeros(shape, dtype=np.int64)
        self._kernel = kernel

    def merge(self, tiles: list[Tile], found: Sequence[TileEdges]) -> None:
        """Take in what some tiles left; the order of tiles makes no difference."""
        parts: dict[tuple[int, int], list[Strongest]] = {}
        for tile, edges in zip(tiles, found, strict=True):
            for span, one in zip(tile, edges, strict=True):
                if one.neighbour.shape[2]:  # no others on the diagonal
                    parts.setdefault(ends_of(span), []).append(one)
        for ends, candidates in parts.items():
            band = (slice(None), slice(None), slice(*ends))
            for one in candidates:
                self.degree[band] += one.degree
            self.neighbour[band], self.phi[band] = self._kernel.merge(
                np.concatenate([self.neighbour[band], *(one.neighbour for one in candidates)], -1),
                np.concatenate([self.phi[band], *(one.phi for one in candidates)], -1),
            )


@dataclass(frozen=True, eq=False)
class _TwoBands:
    """Bits of the two bands of a tile."""

    tile: Tile
    bits: tuple[Bits, Bits]

    @property
    def n_bytes(self) -> int:
        return self.bits[0].shape[1]

    def __call__(self, voxels: slice, octets: slice) -> Bits:
        return self.bits[self.tile.index(voxels)][:, octets]


def _map_tiles(
    packed: Packed, tiles: list[Tile], compute: Compute, kernel: EdgeKernel | LevelKernel
) -> tuple[Any, ...]:
    """Compute what a kernel leaves of each tile, from the bits of its own two bands."""
    task = dask.delayed(_tile, pure=False)
    shared = dask.delayed(kernel, pure=False, traverse=False)
    spans = {ends_of(span): span for tile in tiles for span in tile}
    bits = {ends: dask.delayed(packed.bits[span], pure=False) for ends, span in spans.items()}
    tasks = [task((bits[ends_of(a)], bits[ends_of(b)]), (a, b), shared) for a, b in tiles]
    return compute_all(compute, tasks)


def _tile(bits: tuple[Bits, Bits], tile: Tile, kernel: EdgeKernel | LevelKernel) -> Any:
    return kernel.tile(_TwoBands(tile, bits), *tile)


def _count_pairs(n_voxels: int, n_near: int, least_distance: float) -> int:
    every = n_voxels * (n_voxels - 1) // 2
    if n_near and n_near == every:
        raise InputError(
            f"least_distance is {least_distance:g} voxels, but none of the {every} pairs of "
            f"{n_voxels} voxels is farther apart; a shorter distance is needed"
        )
    return every - n_near


def _check_volumes(n_volumes: int, alpha: float, n_pairs: int) -> int:
    needed = fewest_volumes(alpha)
    if n_volumes < needed:
        raise InputError(
            f"{n_volumes} volumes are too few for any of {n_pairs} pairs of voxels to be "
            f"significant at {alpha:.2g} each; {needed} or more are needed"
        )
    return needed
