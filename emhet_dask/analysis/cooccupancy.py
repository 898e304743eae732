"""Which voxels are occupied in the same volumes, more or less often than chance allows.

Of every pair of voxels the volumes in which both are occupied are counted, exactly, in tiles (a
band of voxels against a band of voxels) that are used and forgotten. With the margins, that is the
whole contingency table, and a comparison with a critical count
(`emhet_dask.analysis.hypergeometric`) is the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from emhet_dask.analysis.association import MOST_MARGINS, TAILS, Association, Summary
from emhet_dask.analysis.bands import compute_all
from emhet_dask.analysis.binarised import Packed, pack
from emhet_dask.analysis.contingency import (
    SIDE,
    STRIP_BYTES,
    Tile,
    count_together,
    ends_of,
    pair_tiles,
)
from emhet_dask.analysis.hypergeometric import (
    Tail,
    benjamini_hochberg_of_counts,
    bonferroni,
    fewest_volumes,
    log_p_values,
)
from emhet_dask.analysis.neighbours import merge_best
from emhet_dask.errors import InputError

__all__ = ["Correction", "associations", "task_bytes"]

Bits = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Compute = Callable[..., tuple[Any, ...]]
Correction = Literal["bonferroni", "benjamini-hochberg", "none"]

_BINS_PER_DECADE = 64
# What tiles leave behind until it is merged.
_BATCH_BYTES = 256 << 20


def associations(
    occupied: Any,
    *,
    positive_p: float = 0.01,
    negative_p: float = 0.05,
    correction: Correction = "bonferroni",
    min_enrichment: float = 1.0,
    n_neighbours: int = 32,
    side: int = SIDE,
    compute: Compute = dask.compute,
) -> xr.Dataset:
    """Find, for every voxel, those that are occupied together with it, or without it.

    One task for each pair of bands of voxels, from the bits of these two alone; `task_bytes` says
    what it needs, beside the bits of all, which are held once.

    Parameters
    ----------
    occupied : Packed or array (volume, voxel)
        Voxels that are neither always nor never occupied (`kept_voxels`).
    positive_p, negative_p : float
        Chance of any false edge (Bonferroni), or share of false ones (Benjamini–Hochberg), over
        all pairs, in each tail.
    correction : {"bonferroni", "benjamini-hochberg", "none"}
        The second counts all p-values first, and so takes another pass over all pairs.
    min_enrichment : float
        See `Association`.
    n_neighbours : int
        Strongest edges of each voxel to keep.
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
        ``n_volumes``, ``n_pairs``, and ``fewest_volumes``, without which no pair can be found.

    Raises
    ------
    InputError
        When there are fewer volumes than can ever reach significance, or as `Association` does.
    """
    packed = occupied if isinstance(occupied, Packed) else pack(occupied, compute=compute)
    n_pairs = packed.n_voxels * (packed.n_voxels - 1) // 2
    levels: dict[Tail, float] = {"positive": positive_p, "negative": negative_p}
    if correction not in ("bonferroni", "benjamini-hochberg", "none"):
        raise InputError(
            f"correction {correction!r} is unknown; it must be bonferroni, benjamini-hochberg or "
            "none"
        )
    if correction == "bonferroni":
        levels = {tail: bonferroni(level, n_pairs) for tail, level in levels.items()}
    needed = _check_volumes(packed.n_volumes, min(levels.values()), n_pairs)
    if correction == "benjamini-hochberg":
        levels = _false_discovery_levels(packed, levels, n_pairs, side, compute)
    tests = Association(
        packed.margins, packed.n_volumes, levels["positive"], levels["negative"], min_enrichment
    )
    n_best = max(1, min(n_neighbours, packed.n_voxels - 1))
    tiles = pair_tiles(packed.n_voxels, side)
    strongest = _Strongest(packed.n_voxels, n_best)
    batch = max(16, _BATCH_BYTES // (32 * side * n_best))
    for start in range(0, len(tiles), batch):
        part = tiles[start : start + batch]
        strongest.merge(part, _map_tiles(_summarise_tile, packed, part, compute, tests, n_best))
    return xr.Dataset(
        {
            "neighbour": (("tail", "voxel", "rank"), strongest.index),
            "phi": (("tail", "voxel", "rank"), strongest.phi),
            "degree": (("tail", "voxel"), strongest.degree),
            "margin": ("voxel", packed.margins),
            "alpha": ("tail", [levels[tail] for tail in TAILS]),
        },
        coords={"tail": list(TAILS)},
        attrs={"n_volumes": packed.n_volumes, "n_pairs": n_pairs, "fewest_volumes": needed},
    )


def task_bytes(n_volumes: int, *, side: int = SIDE, n_margins: int = MOST_MARGINS) -> int:
    """Return the memory that the task of one tile needs beside the bits of all voxels.

    Counts and strengths of the tile, a strip of either band, the bits of both, tables of critical
    counts, and pieces.

    Parameters
    ----------
    n_volumes, side : int
    n_margins : int
        Distinct margins of a band.
    """
    strip = side * min(n_volumes, 8 * STRIP_BYTES)
    tables = 3 * min(n_margins, side, n_volumes) ** 2
    return 4 * (2 * side * side + 2 * strip + tables) + 2 * side * (n_volumes // 8) + (32 << 20)


class _Strongest:
    """The strongest edges of all voxels, so far."""

    def __init__(self, n_voxels: int, n_best: int) -> None:
        self.index = np.full((2, n_voxels, n_best), -1, dtype=np.int32)
        self.phi = np.full((2, n_voxels, n_best), np.nan, dtype=np.float32)
        self.degree = np.zeros((2, n_voxels), dtype=np.int64)

    def merge(self, tiles: list[Tile], found: tuple[tuple[Summary, Summary], ...]) -> None:
        """Take in what some tiles left; the order of tiles makes no difference."""
        for tail, sign in enumerate((np.float32(1), np.float32(-1))):
            parts: dict[tuple[int, int], list[tuple[NDArray[np.int32], Float32]]] = {}
            for (voxels, others), summaries in zip(tiles, found, strict=True):
                one = summaries[tail]
                self.degree[tail, voxels] += one.degree
                parts.setdefault(ends_of(voxels), []).append((one.neighbour, one.phi))
                if voxels != others:
                    self.degree[tail, others] += one.other_degree
                    theirs = (one.other_neighbour, one.other_phi)
                    parts.setdefault(ends_of(others), []).append(theirs)
            for ends, candidates in parts.items():
                band = slice(*ends)
                candidates.append((self.index[tail, band], self.phi[tail, band]))
                index, phi = (
                    np.concatenate(each, axis=1) for each in zip(*candidates, strict=True)
                )
                best, value = merge_best(index, sign * phi, self.index.shape[2])
                self.index[tail, band], self.phi[tail, band] = best, sign * value


def _summarise_tile(
    bits: tuple[Bits, Bits], tile: Tile, tests: Association, n_best: int
) -> tuple[Summary, Summary]:
    return tests.summarise(_count_tile(bits, tile), *tile, n_best)


def _histogram_of_tile(
    bits: tuple[Bits, Bits],
    tile: Tile,
    tests: Association,
    edges: dict[Tail, NDArray[np.float64]],
) -> list[Int64]:
    """Count p-values up to each edge and above the one before, for both tails."""
    found = tests.edges(_count_tile(bits, tile), *tile)
    counts = []
    for tail in TAILS:
        chosen = found.phi > 0 if tail == "positive" else found.phi < 0
        i, j = found.voxel[chosen], found.other[chosen]
        log_p = log_p_values(
            found.n_both[chosen], tests.margins[i], tests.margins[j], tests.n_volumes, tail=tail
        )
        place = np.searchsorted(edges[tail], log_p)
        counts.append(np.bincount(place, minlength=len(edges[tail]) + 1)[: len(edges[tail])])
    return counts


def _count_tile(bits: tuple[Bits, Bits], tile: Tile) -> Float32:
    def read(span: slice, octets: slice) -> Bits:
        return bits[tile.index(span)][:, octets]

    return count_together(read, *tile, n_bytes=bits[0].shape[1])


def _false_discovery_levels(
    packed: Packed,
    rates: dict[Tail, float],
    n_pairs: int,
    side: int,
    compute: Compute,
) -> dict[Tail, float]:
    """Find the levels of Benjamini and Hochberg from a histogram of all p-values below the rate.

    No level is below Bonferroni's; where nothing is significant, that one finds nothing either.
    """
    tests = Association(packed.margins, packed.n_volumes, rates["positive"], rates["negative"])
    count = 2 + int(_BINS_PER_DECADE * np.log10(max(n_pairs, 1)))
    edges = {
        tail: np.linspace(np.log(bonferroni(rate, n_pairs)), np.log(rate), count)
        for tail, rate in rates.items()
    }
    tiles = pair_tiles(packed.n_voxels, side)
    found = _map_tiles(_histogram_of_tile, packed, tiles, compute, tests, edges)
    levels: dict[Tail, float] = {}
    for number, (tail, rate) in enumerate(rates.items()):
        total = sum(counts[number] for counts in found)
        level = benjamini_hochberg_of_counts(total, edges[tail], rate, n_tests=n_pairs)
        levels[tail] = max(float(np.exp(level)), bonferroni(rate, n_pairs))
    return levels


def _map_tiles(
    work: Callable[..., Any],
    packed: Packed,
    tiles: list[Tile],
    compute: Compute,
    *arguments: Any,
) -> tuple[Any, ...]:
    """Compute something of each tile, from the bits of its own two bands."""
    task = dask.delayed(work, pure=False)
    shared = [dask.delayed(each, pure=False, traverse=False) for each in arguments]
    spans = {ends_of(span): span for tile in tiles for span in tile}
    bits = {ends: dask.delayed(packed.bits[span], pure=False) for ends, span in spans.items()}
    tasks = [task((bits[ends_of(a)], bits[ends_of(b)]), (a, b), *shared) for a, b in tiles]
    return compute_all(compute, tasks)


def _check_volumes(n_volumes: int, alpha: float, n_pairs: int) -> int:
    needed = fewest_volumes(alpha)
    if n_volumes < needed:
        raise InputError(
            f"{n_volumes} volumes are too few for any of {n_pairs} pairs of voxels to be "
            f"significant at {alpha:.2g} each; {needed} or more are needed"
        )
    return needed
