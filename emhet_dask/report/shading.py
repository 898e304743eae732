"""Pictures of a map's surface at a contour level: rays, soft light, silhouettes; NumPy alone.

Each pixel sends a ray straight into the map, which stops where the density first reaches the level.
The normal there is the density's own gradient, so that the surface is smooth at any enlargement and
no triangles are needed. Crevices are darkened by how much deeper they lie than what is around them
(after Mittring, Finding next gen, SIGGRAPH 2007), and what is further away fades towards the paper.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from scipy import ndimage
from scipy.interpolate import make_interp_spline

__all__ = ["VIEWS", "Glass", "glass", "shaded_blocks", "shaded_view"]

Array = npt.NDArray[Any]

# Where the eye is, and the axes to the right and up. All three are of the right hand: a map and its
# mirror image must not look alike.
VIEWS = {
    "top": "seen from +z: x right, y up",
    "front": "seen from \u2212y: x right, z up",
    "side": "seen from +x: y right, z up",
}

_OVERSAMPLING = 2
_MOST_PLANES = 128
# Directions (depth, up, right) towards the lights, and their strengths.
_LIGHTS = (((-0.70, 0.55, -0.45), 0.62), ((-0.75, -0.15, 0.65), 0.20))
_AMBIENT = 0.38
_GLOSS = 0.10
_FOG = 0.32
_CREVICE = 0.55
_EDGE = 0.75
_DOT = 2e-4
# Glass: how much of it is seen face on and edge on, and before nothing but paper.
_GLASS = "#8d949c"
_GLASS_FACE = 0.06
_GLASS_RIM = 0.55
_GLASS_ON_PAPER = 0.22


def shaded_view(
    volume: npt.ArrayLike, *, level: float, view: str, pixels: int, colour: str
) -> npt.NDArray[np.float64]:
    """Draw the surface of a map, seen along one axis, without perspective.

    Parameters
    ----------
    volume : array (z, y, x)
        A cube.
    level : float
        Density at the surface.
    view : str
        One of `VIEWS`.
    pixels : int
        Side of the picture, which shows the whole cube.
    colour : str
        Of the surface.

    Returns
    -------
    array (pixels, pixels, 4)
        Red, green, blue and opacity, 0 to 1; the first row is the top.
    """
    field = _facing(np.asarray(volume, dtype=np.float32), view)
    fine = _OVERSAMPLING * pixels
    depth = _without_dots(_first_crossing(field, level, fine))
    hit = np.isfinite(depth)
    picture = np.zeros((fine, fine, 4))
    if hit.any():
        picture[..., :3] = _lit(_normals(field, depth), to_rgb(colour))
        _fade(picture, depth, scale=field.shape[0] / fine)
    picture[~hit] = 0
    picture[..., 3] = hit
    return _averaged(picture[::-1])


@dataclass(frozen=True)
class Glass:
    """A transparent surface, as one view sees it: for each of the finer pixels of a picture.

    Attributes
    ----------
    depth : array (pixel, pixel)
        In voxels away from the eye; infinite where there is none.
    colour : array (pixel, pixel, 3)
    opacity : array (pixel, pixel)
        Where something lies behind it.
    """

    depth: Array
    colour: Array
    opacity: Array


def glass(volume: npt.ArrayLike, *, level: float, view: str, pixels: int) -> Glass:
    """Return the surface of a map as glass, clear where it faces the eye; as `shaded_view`."""
    field = _facing(np.asarray(volume, dtype=np.float32), view)
    depth = _without_dots(_first_crossing(field, level, _OVERSAMPLING * pixels))
    normals = _normals(field, depth)
    rim = 1 - np.clip(-normals[..., 0], 0, 1)
    opacity = np.where(np.isfinite(depth), _GLASS_FACE + (_GLASS_RIM - _GLASS_FACE) * rim**3, 0)
    return Glass(depth, _lit(normals, to_rgb(_GLASS)), opacity)


def shaded_blocks(
    volume: npt.ArrayLike,
    *,
    level: float,
    labels: npt.ArrayLike,
    colours: npt.ArrayLike,
    view: str,
    within: Glass,
) -> npt.NDArray[np.float64]:
    """Draw a surface whose parts have their own colours, within glass; as `shaded_view`.

    Parameters
    ----------
    volume : array (z, y, x)
        A cube.
    level : float
        Density at the surface.
    labels : array (z, y, x) of int
        The part that each voxel belongs to, also just outside of the surface.
    colours : array (label, 3)
        Red, green and blue, 0 to 1.
    view : str
        One of `VIEWS`.
    within : Glass
        Of the same view; gives the picture its size.

    Returns
    -------
    array (pixels, pixels, 4)
    """
    field = _facing(np.asarray(volume, dtype=np.float32), view)
    fine = within.depth.shape[0]
    depth = _without_dots(_first_crossing(field, level, fine))
    hit = np.isfinite(depth)
    picture = np.zeros((fine, fine, 4))
    if hit.any():
        part = _nearest_part(_facing(np.asarray(labels), view), _places(depth, field.shape[0]))
        tint = np.zeros((fine, fine, 3))
        tint[hit] = np.asarray(colours)[part]
        picture[..., :3] = _lit(_normals(field, depth), tint)
        _fade(picture, depth, scale=field.shape[0] / fine)
    picture[..., 3] = hit
    before = within.depth < depth
    share = np.where(before, within.opacity, 0)[..., None]
    picture[..., :3] = np.where(
        hit[..., None],
        (1 - share) * picture[..., :3] + share * within.colour,
        within.colour,
    )
    on_paper = np.maximum(_GLASS_ON_PAPER, within.opacity) * np.isfinite(within.depth)
    picture[..., 3] = np.where(hit, 1, on_paper)
    picture[..., :3] *= picture[..., 3:]
    return _averaged(picture[::-1])


def _nearest_part(labels: Array, places: Array) -> Array:
    """Return the label (point,) that has the most of the eight voxels around each place (3, point).

    Voxels count by how near they are, so that borders between parts are smooth.
    """
    size = np.array(labels.shape)[:, None]
    inside = np.clip(places, 0, size - 1)
    first = np.minimum(inside.astype(np.intp), size - 2)
    beyond = inside - first
    corners = np.array(list(product((0, 1), repeat=3)))
    found = np.stack([labels[tuple(first + corner[:, None])] for corner in corners])
    weight = np.stack(
        [np.where(corner[:, None], beyond, 1 - beyond).prod(axis=0) for corner in corners]
    )
    votes = np.stack([np.where(found == one, weight, 0).sum(axis=0) for one in found])
    best: Array = np.take_along_axis(found, votes.argmax(axis=0)[None], axis=0)[0]
    return best


def _facing(volume: Array, view: str) -> Array:
    """Return a map as (depth, up, right), depth growing away from the eye."""
    if view == "top":
        return volume[::-1]
    if view == "front":
        return volume.transpose(1, 0, 2)
    return volume.transpose(2, 0, 1)[::-1]


def _first_crossing(field: Array, level: float, pixels: int) -> Array:
    """Return the depth (pixel, pixel), in voxels, where each ray meets the level; infinite if none.

    Planes are enlarged by cubic splines one after the other: all together would take a gigabyte.
    Between two planes the density is taken as linear.
    """
    n = field.shape[0]
    finer = 2 if 2 * n <= _MOST_PLANES else 1
    across = _spline_weights(n, pixels)
    inwards = _spline_weights(n, finer * n)
    depth = np.full(pixels * pixels, np.inf, dtype=np.float32)
    under_way = np.ones(pixels * pixels, dtype=bool)
    before = np.full(pixels * pixels, level, dtype=np.float32)
    worth = _worth_a_look(field, level, finer)
    for k in np.flatnonzero(worth):
        used = np.flatnonzero(inwards[k])
        plane = np.tensordot(inwards[k, used], field[used], axes=1) if finer > 1 else field[k]
        here = (across @ plane @ across.T).ravel()
        stopped = np.flatnonzero((here >= level) & under_way)
        if stopped.size:
            under_way[stopped] = False
            # Before the first plane lies no density: there the surface is at the plane itself.
            step = np.maximum(here[stopped] - before[stopped], 1e-30)
            share = (level - before[stopped]) / step if k else 1.0
            depth[stopped] = (k - 1 + share + 0.5) / finer - 0.5
        before = here
    return np.clip(depth, 0, None).reshape(pixels, pixels)


def _worth_a_look(field: Array, level: float, finer: int) -> npt.NDArray[np.bool_]:
    """Return which planes come near the level, or lie before one that does.

    Half-way up to the level is near: a spline does not overshoot further than that.
    """
    near = field.max(axis=(1, 2)) >= level - 0.5 * max(level - float(field.min()), 0.0)
    around = ndimage.binary_dilation(near, iterations=2)
    return np.repeat(around, finer)


def _without_dots(depth: Array) -> Array:
    """Drop islands a few pixels wide, which are peaks of noise that just touch the level."""
    island, count = ndimage.label(np.isfinite(depth))
    sizes = np.bincount(island.ravel(), minlength=count + 1)
    return np.where((sizes < _DOT * depth.size)[island], np.inf, depth)


@functools.lru_cache(maxsize=8)
def _spline_weights(n: int, pixels: int) -> npt.NDArray[np.float32]:
    """Return what takes `n` values to `pixels` centres of pixels by a cubic spline."""
    if n == pixels:
        return np.eye(n, dtype=np.float32)
    spline = make_interp_spline(np.arange(n), np.eye(n), k=min(3, n - 1))
    places = np.clip((np.arange(pixels) + 0.5) * n / pixels - 0.5, 0, n - 1)
    weights: npt.NDArray[np.float32] = spline(places).astype(np.float32)
    return weights


def _normals(field: Array, depth: Array) -> Array:
    """Return unit vectors (pixel, pixel, 3) out of the surface, as (depth, up, right)."""
    n, pixels = field.shape[0], depth.shape[0]
    hit = np.isfinite(depth)
    places = _places(depth, n)
    normals = np.zeros((pixels, pixels, 3), dtype=np.float32)
    for axis in range(3):
        # Central differences, themselves interpolated smoothly (quadratic: half the cost of cubic).
        slope = np.gradient(field, axis=axis)
        normals[hit, axis] = -ndimage.map_coordinates(slope, places, order=2, mode="nearest")
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    return normals / np.maximum(length, 1e-12)


def _places(depth: Array, n: int) -> Array:
    """Return where (3, point) rays met the surface, as voxels (depth, up, right)."""
    hit = np.isfinite(depth)
    to_voxel = n / depth.shape[0]
    rows, columns = np.nonzero(hit)
    return np.stack([depth[hit], (rows + 0.5) * to_voxel - 0.5, (columns + 0.5) * to_voxel - 0.5])


def _lit(normals: Array, colour: npt.ArrayLike) -> Array:
    """Return the colours (pixel, pixel, 3) of a surface under a soft key light and a fill light.

    Its own colour is one for all (3,), or one for each pixel (pixel, pixel, 3).
    """
    # Half-way to white for light from above, as under a sky.
    brightness = _AMBIENT + 0.10 * normals[..., 1]
    gloss = 0.0
    for direction, strength in _LIGHTS:
        towards = np.array(direction) / np.linalg.norm(direction)
        # Wrapped around the terminator, so that nothing goes black.
        brightness = brightness + strength * np.clip((normals @ towards + 0.25) / 1.25, 0, 1)
        halfway = towards + np.array([-1, 0, 0])  # to the eye
        shine = np.clip(normals @ (halfway / np.linalg.norm(halfway)), 0, 1) ** 30
        gloss = gloss + _GLOSS * strength / _LIGHTS[0][1] * shine
    shaded = np.asarray(colour) * brightness[..., None]
    return np.asarray(np.clip(shaded + np.asarray(gloss)[..., None], 0, 1))


def _fade(picture: Array, depth: Array, *, scale: float) -> None:
    """Darken crevices and silhouettes, and fade what is far; `scale` is voxels per pixel."""
    hit = np.isfinite(depth)
    near, far = float(depth[hit].min()), float(depth[hit].max())
    known = np.where(hit, depth, 0.0)
    crevice = _crevices(depth, scale=scale)
    # The paper counts as far behind.
    behind = np.where(hit, depth, far + 0.15 * depth.shape[0] * scale)
    jump = ndimage.maximum_filter(behind, size=3) - behind
    steep = 0.02 * depth.shape[0] * scale
    edge = np.clip(jump / steep - 1, 0, 1)
    picture[..., :3] *= (1 - _CREVICE * crevice)[..., None]
    fog = _FOG * np.where(hit, (known - near) / max(far - near, 1e-6), 0)[..., None]
    picture[..., :3] += fog * (1 - picture[..., :3])
    picture[..., :3] *= (1 - _EDGE * edge)[..., None]


def _crevices(depth: Array, *, scale: float) -> Array:
    """Return how much of what is around each pixel rises above it, 0 to 1.

    What lies far in front does not count: it would throw a grey shadow of its own shape.
    """
    pixels = depth.shape[0]
    total = np.zeros_like(depth)
    directions = np.linspace(0, np.pi, 4, endpoint=False)
    for ring, radius in enumerate((0.008, 0.02, 0.04)):
        reach = radius * pixels
        for angle in directions + ring * np.pi / 12:
            down, right = round(reach * np.sin(angle)), round(reach * np.cos(angle))
            # Both ways at once: on a slope, what rises on one side falls on the other.
            sides = (_rise(depth, (s * down, s * right), reach * scale) for s in (1, -1))
            total += np.clip(sum(sides), 0, None)
    smooth: Array = ndimage.uniform_filter(total / (3 * len(directions)), size=5)
    return np.clip(1.6 * smooth, 0, 1)


def _rise(depth: Array, shift: tuple[int, int], reach: float) -> Array:
    """Return how high a neighbour stands above each pixel in units of `reach`, -1 to 1.

    What stands higher than 1 counts less, from 3 on nothing. Paper lies below everything.
    """
    # Paper is infinitely deep; less itself that is NaN.
    with np.errstate(invalid="ignore"):
        rise = (depth - _shifted(depth, shift)) / reach
        fading = np.maximum(1.5 - 0.5 * rise, 0)
    return np.clip(np.nan_to_num(np.minimum(rise, fading)), -1, 1)


def _shifted(picture: Array, by: tuple[int, int]) -> Array:
    """Return a picture moved by whole pixels, infinite where it comes from outside."""
    moved = np.full_like(picture, np.inf)
    (target_rows, source_rows), (target_columns, source_columns) = (
        (slice(max(k, 0), n + min(k, 0)), slice(max(-k, 0), n + min(-k, 0)))
        for k, n in zip(by, picture.shape, strict=True)
    )
    moved[target_rows, target_columns] = picture[source_rows, source_columns]
    return moved


def _averaged(picture: Array) -> npt.NDArray[np.float64]:
    """Return a picture of half the size whose edges are smooth; its colours weigh by opacity.

    Colours come multiplied by their opacity, and go without.
    """
    step = _OVERSAMPLING
    n = picture.shape[0] // step
    tiles = picture.reshape(n, step, n, step, 4)
    opacity = tiles[..., 3].mean(axis=(1, 3))
    colours = (
        tiles[..., :3].sum(axis=(1, 3))
        / np.maximum(tiles[..., 3].sum(axis=(1, 3)), 1e-6)[..., None]
    )
    return np.dstack([colours, opacity])
