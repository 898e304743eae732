"""Shaded surfaces of maps at a contour level: three views of one, or one view of several.

The surface is that of the map as it is: nothing is smoothed, apart from large boxes, whose voxels
are averaged down to what a picture can show. Specks are left out, and the note says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from emhet_dask.report.shading import VIEWS, shaded_view
from emhet_dask.report.sheets import round_length
from emhet_dask.report.style import DPI, INK, MUTED, counted, new_figure, panel, styled

__all__ = ["surface_sheet", "surface_views"]

Array = npt.NDArray[np.float32]

SURFACE = "#8fa9c4"
_VIEW_INCHES = 2.8
_TILE_INCHES = 1.72
# Voxels along a side: more cost seconds and show nothing more in a picture of this size.
_MOST_VOXELS = 96
_COARSE = 64
_SPECK = 0.005


@styled
def surface_views(
    volume: npt.ArrayLike,
    *,
    level: float,
    voxel_size_angstrom: float,
    colour: str = SURFACE,
    title: str = "",
    level_name: str = "",
) -> Figure:
    """Draw the surface of a map from the top, the front and the side.

    Parameters
    ----------
    volume : array (z, y, x)
    level : float
        Density at the surface.
    voxel_size_angstrom : float
    colour : str
        Of the surface.
    title : str
        What the map is.
    level_name : str
        How the level was chosen, such as ``"half of the 99.99th percentile"``.
    """
    volume = finite_map(volume)
    frame = Frame.around(volume, level)
    cube, n_specks = without_specks(frame.cut(volume), level)
    inside = np.count_nonzero(volume >= level) * voxel_size_angstrom**3
    # Three digits are what a contour level deserves.
    enclosed = f", enclosing {float(f'{inside:.3g}'):,.0f} Å³" if inside else ""
    note = f"Surface at density {level:.3g}{f' ({level_name})' if level_name else ''}{enclosed}. "
    note += _note_specks(n_specks)
    lines = textwrap.wrap(note, 125)
    figure = new_figure(
        width_inches=3 * _VIEW_INCHES + 0.4,
        height_inches=_VIEW_INCHES + 0.65 + 0.15 * len(lines),
        title=title,
        note="\n".join(lines),
    )
    for k, (name, words) in enumerate(VIEWS.items()):
        axes = picture_panel(figure, 0.12 + (_VIEW_INCHES + 0.08) * k, 0.55, _VIEW_INCHES)
        axes.set_title(f"{name}, {words}", fontsize=8, color=MUTED, pad=4)
        _draw_surface(axes, cube, level=level, view=name, inches=_VIEW_INCHES, colour=colour)
        if k == 0:
            scale_bar(axes, frame.side * voxel_size_angstrom)
    return figure


@styled
def surface_sheet(
    maps: Sequence[npt.ArrayLike],
    *,
    levels: Sequence[float],
    titles: Sequence[str],
    voxel_size_angstrom: float,
    colours: Sequence[str] | None = None,
    view: str = "front",
    title: str = "",
    level_name: str = "",
) -> Figure:
    """Draw the surfaces of several maps, all from the same side, on the same scale.

    Parameters
    ----------
    maps : sequence of arrays (z, y, x)
        All of one shape. Each is asked for twice: to find what all fit into, and to be drawn.
    levels : sequence of float
        Density at the surface of each.
    titles : sequence of str
        One per map.
    voxel_size_angstrom : float
    colours : sequence of str, optional
        Of the surfaces.
    view : str
        ``"top"``, ``"front"`` or ``"side"``.
    title : str
        Of the sheet.
    level_name : str
        How the levels were chosen.
    """
    count = len(levels)
    frame = Frame.holding(
        [Frame.around(finite_map(maps[k]), level) for k, level in enumerate(levels)]
    )
    n_columns = min(count, 5)
    n_rows = -(-count // n_columns)
    cell = _TILE_INCHES + 0.3
    width = max(n_columns * (_TILE_INCHES + 0.1) + 0.2, 4.6)
    how = f" ({level_name})" if level_name else ""
    note = f"{view.capitalize()}, {VIEWS[view]}; same scale; each at its own contour level{how}. "
    note += "Pieces below 0.5% of a surface's volume are left out."
    lines = textwrap.wrap(note, int(13.5 * width))
    figure = new_figure(
        width_inches=width,
        height_inches=0.45 + n_rows * cell + 0.2 + 0.15 * len(lines),
        title=title,
        note="\n".join(lines),
    )
    for k, level in enumerate(levels):
        row, column = divmod(k, n_columns)
        left, top = 0.12 + column * (_TILE_INCHES + 0.1), 0.58 + row * cell
        axes = picture_panel(figure, left, top, _TILE_INCHES)
        axes.set_title(titles[k], fontsize=7.5, pad=3)
        colour = SURFACE if colours is None else colours[k]
        cube, _ = without_specks(frame.cut(finite_map(maps[k])), level)
        _draw_surface(axes, cube, level=level, view=view, inches=_TILE_INCHES, colour=colour)
        if k == 0:
            scale_bar(axes, frame.side * voxel_size_angstrom)
    return figure


@dataclass(frozen=True)
class Frame:
    """A cube of the map: the corner (z, y, x), which may lie outside, and the side, in voxels."""

    start: tuple[int, int, int]
    side: int

    @classmethod
    def around(cls, volume: Array, level: float) -> Frame:
        """Return the cube that holds what is above a level, without specks."""
        step = -(-max(volume.shape) // _COARSE)
        # The largest of each, or thin parts would be cut off.
        coarse = _pooled(volume, step, np.max)
        pieces = _pieces(coarse >= level)
        if not pieces.any():
            return cls.between(np.zeros(3, int), np.array(volume.shape), margin=0)
        filled = np.argwhere(pieces)
        return cls.between(filled.min(axis=0) * step, (filled.max(axis=0) + 1) * step, margin=step)

    @classmethod
    def holding(cls, frames: Sequence[Frame]) -> Frame:
        """Return the cube that holds several."""
        starts = np.array([frame.start for frame in frames])
        ends = starts + np.array([[frame.side] for frame in frames])
        return cls.between(starts.min(axis=0), ends.max(axis=0), margin=0)

    @classmethod
    def between(cls, first: npt.NDArray[Any], last: npt.NDArray[Any], *, margin: int) -> Frame:
        longest = int((last - first).max())
        # A little paper around the surface.
        side = longest + 2 * (margin + max(round(0.03 * longest), 1))
        # A whole number of the larger voxels that `cut` makes, or the scale bar would be wrong.
        step = -(-side // _MOST_VOXELS)
        side = -(-side // step) * step
        z, y, x = ((first + last - side) // 2).tolist()
        return cls((z, y, x), side)

    def cut(self, volume: Array) -> Array:
        """Return the cube, averaged down to what can be shown, empty outside of the box."""
        return _pooled(self._cube(volume, volume.min()), self._step, np.mean)

    def cut_labels(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Return the cube of labels on the same grid, 0 outside of the box.

        One of its larger voxels has a label where half of it has; of several the highest, and a
        label that would be lost is kept wherever it is.
        """
        cube = self._cube(labels, 0)
        highest = _pooled(cube, self._step, np.max)
        half = _pooled((cube > 0).astype(np.float32), self._step, np.mean) >= 0.5
        lost = np.setdiff1d(highest, highest[half])
        return np.where(half | np.isin(highest, lost), highest, 0)

    @property
    def _step(self) -> int:
        return -(-self.side // _MOST_VOXELS)

    def _cube(self, volume: npt.NDArray[Any], outside: float) -> npt.NDArray[Any]:
        cube = np.full((self.side,) * 3, outside, dtype=volume.dtype)
        source, target = [], []
        for start, size in zip(self.start, volume.shape, strict=True):
            low, high = max(start, 0), min(start + self.side, size)
            source.append(slice(low, high))
            target.append(slice(low - start, high - start))
        cube[tuple(target)] = volume[tuple(source)]
        return cube


def finite_map(volume: npt.ArrayLike) -> Array:
    volume = np.asarray(volume, dtype=np.float32)
    finite = np.isfinite(volume)
    return volume if finite.all() else np.where(finite, volume, volume[finite].min(initial=0.0))


def _pooled(
    volume: npt.NDArray[Any], step: int, pool: Callable[..., npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Return one value for each cube of `step` voxels; the last ones repeat what they lack."""
    if step == 1:
        return volume
    lacking = [(0, -size % step) for size in volume.shape]
    if any(count for _, count in lacking):
        volume = np.pad(volume, lacking, mode="edge")
    for axis in range(3):
        shape = volume.shape
        cut = volume.reshape(*shape[:axis], -1, step, *shape[axis + 1 :])
        volume = pool(cut, axis=axis + 1)
    return volume


def _pieces(above: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where connected pieces are that are no specks."""
    label, count = ndimage.label(above, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    kept = sizes >= _SPECK * sizes[1:].sum()
    kept[0] = False
    found: npt.NDArray[np.bool_] = kept[label]
    return found


def without_specks(cube: Array, level: float) -> tuple[Array, int]:
    """Return a map whose specks are pushed below the level, and their number."""
    above = cube >= level
    specks = above & ~_pieces(above)
    if not specks.any():
        return cube, 0
    joined = np.ones((3, 3, 3), dtype=bool)
    n_specks = int(ndimage.label(specks, structure=joined)[1])
    # With their neighbours, or else the spline between these has the same speck, a little smaller.
    pushed = ndimage.binary_dilation(specks, structure=joined) & ~(above & ~specks)
    below = level - 0.5 * max(level - float(np.median(cube)), 0.0)
    return np.where(pushed, np.minimum(cube, below), cube), n_specks


def _note_specks(count: int) -> str:
    if count == 0:
        return ""
    return f"{counted(count, 'piece')} below 0.5% of its volume left out."


def picture_panel(figure: Figure, left: float, top: float, inches: float) -> Axes:
    axes = panel(
        figure, left_inches=left, top_inches=top, width_inches=inches, height_inches=inches
    )
    axes.set_axis_off()
    return axes


def _draw_surface(
    axes: Axes, cube: Array, *, level: float, view: str, inches: float, colour: str
) -> None:
    pixels = round(inches * DPI)
    picture = shaded_view(cube, level=level, view=view, pixels=pixels, colour=colour)
    axes.imshow(
        np.round(255 * picture).astype(np.uint8),
        extent=(0, 1, 0, 1),
        interpolation="nearest",
        aspect="auto",
    )
    if not picture[..., 3].any():
        axes.text(0.5, 0.5, "no density reaches the level", ha="center", color=MUTED, fontsize=8)


def scale_bar(axes: Axes, side_angstrom: float) -> None:
    length = round_length(side_angstrom / 3)
    axes.plot(
        [0.02, 0.02 + length / side_angstrom],
        [0.02, 0.02],
        color=INK,
        linewidth=1.8,
        solid_capstyle="butt",
    )
    axes.text(0.02, 0.035, f"{length:g} Å", fontsize=7, va="bottom")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
