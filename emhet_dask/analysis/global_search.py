"""Poses from nowhere: all orientations and shifts of each image against maps, at coarse sampling.

At few Fourier shells an even grid of all orientations is small enough to be tried as a whole. With
the CTF given to the image instead of the map, ``Re <y, c s> = Re <c y, s>``, the slices ``s`` of
the maps are the same for all images, and comparing every image at every shift with every slice is
one matrix product; what a slice has of power under an image's CTF, ``|c s|²``, is another one. The
best orientations that lie apart are then refined on ever finer grids around each (Scheres 2012
calls that adaptive oversampling), at as many shells as there are.

Where nothing is known of the grey scale of a map, its amplitude is found for each image and pose,
which leaves ``<y, c s>² / |c s|²``: what RELION's ``--firstiter_cc`` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.image_blocks import BlockSource, ImageBlock, run_pass, spread
from emhet_dask.analysis.local_search import (
    SPREAD_OF_RANGE,
    Images,
    Poses,
    angles_of,
    ball_grid,
    gain,
)
from emhet_dask.analysis.projection import (
    Complex64,
    Float32,
    SliceGrid,
    cropped,
    particles_per_operator,
    plan_slices,
    shift_ramps,
    slice_operator,
)
from emhet_dask.analysis.rotations import even_rotations, rotation_count

__all__ = ["Scan", "coarse_radius", "orientations", "search_bytes", "search_everywhere"]

Float64 = NDArray[np.float64]

# Best orientations of the coarse grid that are refined, no two of them within a spacing, from so
# many of the best.
_CANDIDATES = 8
_LISTED = 96
# Steps of the grids that follow, over the spacing; all candidates are in the first.
_STEPS = (0.5, 0.25, 0.125)
# Turning by half a spacing moves coefficients by this part of a Fourier pixel at most.
_MOST_MOVED = 0.5
# Of scores that are looked at in one go.
_SCORES = 1 << 22


@dataclass(frozen=True, eq=False)
class Scan:
    """What is tried.

    Attributes
    ----------
    spacing_degrees : float
        Of the grid of orientations.
    reach_pixels : float
        Farthest shift.
    operators : ndarray (operator, 3, 3) or None
        Of the point group.
    free_scale : bool
        Nothing is known of the grey scale of the maps.
    """

    spacing_degrees: float
    reach_pixels: float
    operators: Float64 | None = None
    free_scale: bool = False


@dataclass(frozen=True, eq=False)
class _Maps:
    """Transforms (voxel, map) up to all shells and to the coarse ones, and shares (map,)."""

    fine: Complex64
    coarse: Complex64
    shares: Float64


@dataclass(frozen=True, eq=False)
class _Table:
    """Slices of all maps in all orientations.

    slices (turn * map, 2 * pixel), real and imaginary parts in turn; power (pixel, turn * map).
    """

    slices: Float32
    power: Float32
    n_maps: int


def orientations(spacing_degrees: float, operators: Float64 | None = None) -> Float64:
    """Return an even grid of all orientations that a point group leaves different.

    Parameters
    ----------
    spacing_degrees : float
        As of `emhet_dask.analysis.rotations.rotation_count`.
    operators : array (operator, 3, 3), optional
        Of the point group.

    Returns
    -------
    ndarray of float64 (turn, 3, 3)
        Of those that show the same view, the one that turns least.
    """
    turns = even_rotations(rotation_count(spacing_degrees))
    if operators is None or len(operators) == 1:
        return turns
    traces = np.einsum("nij,oji->no", turns, operators)
    own = np.trace(turns, axis1=1, axis2=2)
    return np.asarray(turns[own >= traces.max(axis=1) - 1e-9])


def coarse_radius(spacing_degrees: float) -> int:
    """Return the shells at which orientations so far apart leave none out that would fit."""
    return max(1, round(_MOST_MOVED / (0.5 * np.deg2rad(spacing_degrees))))


def search_bytes(scan: Scan, *, box: int, radius: int, n_maps: int) -> tuple[int, int]:
    """Return what all tasks share, and what one of them takes besides its block, at most.

    Parameters
    ----------
    scan : Scan
    box, radius : int
        In pixels and shells.
    n_maps : int

    Returns
    -------
    shared, own : int
        In bytes; the table of slices while it is made, and scores with their order.
    """
    coarse = plan_slices(box, radius=min(coarse_radius(scan.spacing_degrees), radius))
    seen = len(orientations(scan.spacing_degrees, scan.operators)) * n_maps
    # Slices, their power with what it is added up from; single precision, places of eight bytes.
    return 24 * seen * coarse.n_pixels, 32 * max(_SCORES, seen)


def search_everywhere(
    sources: Sequence[BlockSource],
    groups: Sequence[NDArray[np.int64]],
    noise: Float64,
    maps: Complex64,
    *,
    given: Poses,
    scan: Scan,
    grid: SliceGrid,
    shares: Float64 | None = None,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> tuple[Poses, Float64]:
    """Find the likeliest poses of all.

    Parameters
    ----------
    sources : sequence of BlockSource
        Of images as they are, at the given shifts; their orientations are not looked at.
    groups : sequence of array (particle,)
        Of each block, from 0: whose noise images have.
    noise : array (group, shell)
        Amplitude.
    maps : array (voxel, map)
        Transforms; images may show any of them.
    given : Poses
        Shifts around which the prior is, normal with a standard deviation of a third of the range.
    scan : Scan
    grid : SliceGrid
        Shells that are compared.
    shares : array (map,), optional
        Part of the images that show each map; the same for all by default.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    poses : Poses
    scores : ndarray of float64 (particle,)
        Log-likelihood of the best pose over that of an empty map.
    """
    coarse = plan_slices(grid.box, radius=min(coarse_radius(scan.spacing_degrees), grid.radius))
    turns = orientations(scan.spacing_degrees, scan.operators)
    inner = _inner(grid, coarse)
    count = maps.shape[1]
    blurred = np.stack([cropped(each, grid, coarse) for each in maps.T], axis=1)
    table = dask.delayed(_table, pure=False, traverse=False)(blurred, coarse, turns)
    shifts = ball_grid(2, step=1.0, steps=max(1, round(scan.reach_pixels / _shift_step(coarse))))
    shifts *= scan.reach_pixels / max(1.0, float(np.abs(shifts).max()))
    amplitudes = [np.asarray(noise[each], dtype=np.float32) for each in groups]
    _, (found, scores) = run_pass(
        sources,
        _search_block,
        _Maps(maps, blurred, np.full(count, 1.0 / count) if shares is None else shares),
        table,
        _Plan(turns, shifts, coarse, inner, scan),
        radius=grid.radius,
        own=list(zip(spread(given.shifts, sources), amplitudes, strict=True)),
        compute=compute,
    )
    return Poses(found[:, :3], found[:, 3:]), scores


def _shift_step(coarse: SliceGrid) -> float:
    """Return the shift in pixels that turns the phases of the last shell by a quarter."""
    return max(1.0, coarse.box / coarse.radius / 4.0)


def _table(maps: Complex64, coarse: SliceGrid, turns: Float64) -> _Table:
    count = maps.shape[1]
    slices = np.empty((len(turns), count, coarse.n_pixels), dtype=np.complex64)
    size = particles_per_operator(coarse)
    for at in range(0, len(turns), size):
        part = slice_operator(turns[at : at + size], coarse).project(maps)
        slices[at : at + size] = part.swapaxes(1, 2)
    flat = slices.reshape(len(turns) * count, -1)
    power = np.square(flat.real.T) + np.square(flat.imag.T)
    return _Table(flat.view(np.float32), np.ascontiguousarray(power), count)


def _inner(grid: SliceGrid, coarse: SliceGrid) -> NDArray[np.int64]:
    """Return the pixels of a grid that a coarser one has, in the order of that."""
    places = {place: number for number, place in enumerate(zip(grid.x, grid.y, strict=True))}
    return np.array([places[place] for place in zip(coarse.x, coarse.y, strict=True)])


# One block ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is tried: turns (turn, 3, 3) times shifts (shift, 2) at the shells of a coarse grid.

    The pixels of that grid are those of the images' grid that `inner` (pixel,) lists.
    """

    turns: Float64
    shifts: Float64
    coarse: SliceGrid
    inner: NDArray[np.int64]
    scan: Scan

    def prior(self, shifts: Float64) -> Float64:
        """Return the logarithm of the prior of shifts (..., 2) from the given ones."""
        off = shifts / (SPREAD_OF_RANGE * self.scan.reach_pixels)
        return np.asarray(-0.5 * np.square(off).sum(axis=-1))


def _search_block(
    block: ImageBlock,
    own: tuple[Float64, Float32],
    maps: _Maps,
    table: _Table,
    plan: _Plan,
) -> tuple[tuple[()], tuple[Float64, Float64]]:
    given, amplitude = own
    grid = block.grid
    over = np.where(grid.shell > 0, 1.0 / amplitude[:, grid.shell], 0.0).astype(np.float32)
    shares = np.tile(np.log(np.maximum(maps.shares, 1e-30)), (len(given), 1))
    images = Images(block.slices * over, block.transfer * over, shares, grid, plan.scan.free_scale)
    size = max(1, _SCORES // (len(plan.turns) * table.n_maps))
    parts = []
    for at in range(0, len(given), size):
        some = images[np.arange(at, min(at + size, len(given)))]
        turns, moved = _candidates(some, table, plan)
        parts.append(_refined(some, turns, moved, maps, plan))
    angles, shifts, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    return (), (np.concatenate([angles, given + shifts], axis=1), scores)


def _candidates(images: Images, table: _Table, plan: _Plan) -> tuple[Float64, Float64]:
    """Return turns (particle, candidate, 3, 3) and shifts (particle, candidate, 2)."""
    transfer = images.transfer[:, plan.inner]
    ramps = shift_ramps(plan.shifts, plan.coarse)
    seen = (images.slices[:, plan.inner] * transfer)[:, None] * ramps
    rows = np.ascontiguousarray(seen.swapaxes(0, 1)).view(np.float32)
    best = rows[0] @ table.slices.T
    fit = np.empty_like(best)
    for each in rows[1:]:
        np.matmul(each, table.slices.T, out=fit)
        np.maximum(best, fit, out=best)
    power = np.square(transfer) @ table.power
    scores = gain(best, power, free_scale=plan.scan.free_scale)
    scores = scores.reshape(len(scores), -1, table.n_maps)
    scores += images.log_shares[:, None].astype(np.float32)
    maps = scores.argmax(axis=2)
    chosen = _apart(scores.max(axis=2), plan)
    # The shift of each; the one that the prior speaks for matters only among these.
    few = chosen * table.n_maps + np.take_along_axis(maps, chosen, axis=1)
    products = np.einsum("snp,ncp->ncs", rows, table.slices[few], optimize=True)
    there = np.take_along_axis(power, few, axis=1)[..., None]
    fits = gain(products, there, free_scale=plan.scan.free_scale) + plan.prior(plan.shifts)
    return plan.turns[chosen], plan.shifts[fits.argmax(axis=2)]


def _apart(scores: Float32, plan: _Plan) -> NDArray[np.int64]:
    """Return the best turns (particle, candidate) of which none is within a spacing of another."""
    listed = min(_LISTED, scores.shape[1])
    top = np.argpartition(-scores, listed - 1, axis=1)[:, :listed]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    flat = plan.turns[top].reshape(len(top), listed, 9)
    near = flat @ flat.swapaxes(1, 2) > 1.0 + 2.0 * np.cos(np.deg2rad(plan.scan.spacing_degrees))
    free = np.ones(top.shape, dtype=bool)
    found = np.empty((len(top), min(_CANDIDATES, listed)), dtype=np.int64)
    each = np.arange(len(top))
    for number in range(found.shape[1]):
        # Where none is left, the best one again.
        first = free.argmax(axis=1)
        found[:, number] = top[each, first]
        free &= ~near[each, first]
    return found


def _refined(
    images: Images, turns: Float64, moved: Float64, maps: _Maps, plan: _Plan
) -> tuple[Float64, Float64, Float64]:
    """Refine candidates; return angles, shifts and scores of the best one of each image."""
    count, n_candidates = turns.shape[:2]
    blurred = replace(
        images,
        slices=images.slices[:, plan.inner],
        transfer=images.transfer[:, plan.inner],
        grid=plan.coarse,
    )
    each = np.repeat(np.arange(count), n_candidates)
    turns, moved = turns.reshape(-1, 3, 3), moved.reshape(-1, 2)
    turns, moved, _ = _step(blurred[each], turns, moved, maps.coarse, plan, part=_STEPS[0])
    turns, moved, scores = _step(images[each], turns, moved, maps.fine, plan, part=0.0)
    best = scores.reshape(count, n_candidates).argmax(axis=1)
    chosen = np.arange(count) * n_candidates + best
    turns, moved = turns[chosen], moved[chosen]
    for part in _STEPS[1:]:
        turns, moved, scores = _step(images, turns, moved, maps.fine, plan, part=part)
    return angles_of(turns), moved, scores


def _step(
    images: Images, turns: Float64, moved: Float64, maps: Complex64, plan: _Plan, *, part: float
) -> tuple[Float64, Float64, Float64]:
    """Return the best turns, shifts and their scores near those that are given.

    Within `part` of the steps of the coarse grid; where that is 0, at the given ones.
    """
    reach = int(part > 0)
    vectors = ball_grid(3, step=np.deg2rad(part * plan.scan.spacing_degrees), steps=reach)
    around = ball_grid(2, step=part * _shift_step(plan.coarse), steps=reach)
    nearby = Rotation.from_rotvec(vectors).as_matrix()
    size = max(1, particles_per_operator(images.grid) // len(nearby))
    parts = []
    for at in range(0, len(turns), size):
        rows = np.arange(at, min(at + size, len(turns)))
        trial, shifts = nearby @ turns[rows, None], moved[rows, None] + around
        fit = images[rows].fit(maps, trial, shifts) + plan.prior(shifts)[:, None]
        flat = fit.reshape(len(rows), -1)
        best = flat.argmax(axis=1)
        turn, shift = np.divmod(best, len(around))
        each = np.arange(len(rows))
        parts.append((trial[each, turn], shifts[each, shift], flat[each, best]))
    found = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return found[0], found[1], found[2]
