"""Blocks as coloured surfaces within the glass of the mean map: all together, and one by one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import ndimage

from emhet_dask.report.block_parts import (
    block_colour,
    block_words,
    checked_labels,
    first_blocks,
    repeated_colours,
)
from emhet_dask.report.shading import VIEWS, glass, shaded_blocks
from emhet_dask.report.style import DPI, MUTED, counted, new_figure, styled
from emhet_dask.report.surface import Frame, finite_map, picture_panel, scale_bar, without_specks

__all__ = ["block_surfaces"]

Array = npt.NDArray[Any]

_VIEW_INCHES = 2.8
_TILE_INCHES = 1.36
_HEADING = 0.4
_COLUMNS = 6
_VIEW_OF_ONE = "front"
# Voxels are cubes: this much of a blur, in voxels, makes a surface of them.
_BLUR = 0.8
_LEVEL = 0.4
_WIDTH = 3 * (_VIEW_INCHES + 0.08) + 0.24


@styled
def block_surfaces(
    labels: npt.ArrayLike,
    *,
    mean_map: npt.ArrayLike,
    level: float,
    blocks: pd.DataFrame,
    voxel_size_angstrom: float,
    level_name: str = "",
    most: int = 24,
) -> Figure:
    """Draw all blocks from the top, the front and the side, and each alone from the front.

    Parameters
    ----------
    labels : array (z, y, x) of int
        Block that a voxel belongs to, from 1; 0 is none.
    mean_map : array (z, y, x)
        Mean of all volumes.
    level : float
        Density at the surface of the mean map.
    blocks : DataFrame
        A row per block: ``block``, ``voxels``, and ``fraction`` of the volumes that have it, where
        known.
    voxel_size_angstrom : float
    level_name : str
        How the level was chosen.
    most : int
        At most so many blocks are drawn alone, the largest; the note says of how many.

    Raises
    ------
    ValueError
        Where labels and the mean map differ in shape, or a label is negative.
    """
    labels = checked_labels(labels, mean_map)
    mean_map = finite_map(mean_map)
    frames = [Frame.around(mean_map, level)]
    if labels.any():
        # All of them, however small: `around` would leave specks out.
        place = ndimage.find_objects((labels > 0).astype(np.int8))[0]
        ends = [[cut.start for cut in place], [cut.stop for cut in place]]
        frames.append(Frame.between(*np.array(ends), margin=1))
    frame = Frame.holding(frames)
    shell, _ = without_specks(frame.cut(mean_map), level)
    parts = frame.cut_labels(labels)
    rows = first_blocks(blocks, most)
    n_rows = -(-len(rows) // _COLUMNS)
    lines = textwrap.wrap(_note(level, level_name, shown=len(rows), total=len(blocks)), 125)
    top = 0.68 + _VIEW_INCHES
    figure = new_figure(
        width_inches=_WIDTH,
        height_inches=top + n_rows * (_TILE_INCHES + _HEADING) + 0.25 + 0.15 * len(lines),
        title=f"{counted(len(blocks), 'block')} within the mean map",
        note="\n".join(lines),
    )
    numbers = [int(row["block"]) for row in rows]
    # Rays are cast in threads; Matplotlib draws in this one alone.
    with ThreadPoolExecutor() as pool:
        views = pool.map(_View(shell, parts, level), VIEWS)
        single = pool.map(_Single(shell, parts, level), numbers)
        together = list(views)
        alone = list(single)
    _draw_together(figure, together, side=frame.side * voxel_size_angstrom)
    for k, (row, number, picture) in enumerate(zip(rows, numbers, alone, strict=True)):
        line, column = divmod(k, _COLUMNS)
        left = 0.12 + column * (_WIDTH - 0.24) / _COLUMNS
        axes = picture_panel(
            figure, left, top + _HEADING + line * (_TILE_INCHES + _HEADING), _TILE_INCHES
        )
        voxels, *share = block_words(row)
        axes.set_title("\n".join([f"block {number} · {voxels}", *share]), fontsize=7, pad=4)
        axes.plot(
            [0, 1],
            [1.01, 1.01],
            color=block_colour(number),
            linewidth=2.5,
            solid_capstyle="butt",
            transform=axes.transAxes,
            clip_on=False,
        )
        _show(axes, picture)
    return figure


def _note(level: float, level_name: str, *, shown: int, total: int) -> str:
    how = f" ({level_name})" if level_name else ""
    note = f"Glass: the mean map at density {level:.3g}{how}. "
    note += "Surfaces of blocks are those of their voxels, slightly smoothed. "
    if shown:
        note += f"Small pictures: one block each, {_VIEW_OF_ONE}, {VIEWS[_VIEW_OF_ONE]}. "
    if shown < total:
        note += f"{counted(total - shown, 'smaller block')} drawn only above. "
    return note + repeated_colours(total)


class _View:
    """All blocks within the glass, seen from one side."""

    def __init__(self, shell: Array, parts: Array, level: float) -> None:
        self._shell, self._level = shell, level
        self._field = np.zeros(parts.shape, dtype=np.float32)
        for _, (where, values) in _fields(parts):
            self._field[where] += values
        self._colours = np.array(
            [to_rgb(block_colour(k)) for k in range(int(parts.max(initial=0)) + 1)]
        )
        # What lies just outside of the voxels has the colour of the nearest.
        self._nearest = parts
        if parts.any():
            places = ndimage.distance_transform_edt(
                parts == 0, return_distances=False, return_indices=True
            )
            self._nearest = parts[tuple(places)]

    def __call__(self, view: str) -> Array:
        pixels = round(_VIEW_INCHES * DPI)
        return shaded_blocks(
            self._field,
            level=_LEVEL,
            labels=self._nearest,
            colours=self._colours,
            view=view,
            within=glass(self._shell, level=self._level, view=view, pixels=pixels),
        )


class _Single:
    """One block within the glass."""

    def __init__(self, shell: Array, parts: Array, level: float) -> None:
        pixels = round(_TILE_INCHES * DPI)
        self._behind = glass(shell, level=level, view=_VIEW_OF_ONE, pixels=pixels)
        self._fields = dict(_fields(parts))
        self._inside = np.ones_like(parts)

    def __call__(self, number: int) -> Array:
        field = np.zeros(self._inside.shape, dtype=np.float32)
        if number in self._fields:
            where, values = self._fields[number]
            field[where] = values
        return shaded_blocks(
            field,
            level=_LEVEL,
            labels=self._inside,
            colours=np.array([(0, 0, 0), to_rgb(block_colour(number))]),
            view=_VIEW_OF_ONE,
            within=self._behind,
        )


def _draw_together(figure: Figure, pictures: list[Array], *, side: float) -> None:
    for k, ((name, words), picture) in enumerate(zip(VIEWS.items(), pictures, strict=True)):
        axes = picture_panel(figure, 0.12 + (_VIEW_INCHES + 0.08) * k, 0.55, _VIEW_INCHES)
        axes.set_title(f"{name}, {words}", fontsize=8, color=MUTED, pad=4)
        _show(axes, picture)
        if k == 0:
            scale_bar(axes, side)


def _fields(parts: Array) -> Iterator[tuple[int, tuple[tuple[slice, ...], Array]]]:
    """Give each block with where it lies and its smoothed voxels there, above the level inside.

    A block of few voxels is lifted, or the blur would take it away.
    """
    reach = int(np.ceil(4 * _BLUR))
    places = ndimage.find_objects(parts)
    for number in np.unique(parts[parts > 0]).tolist():
        where = tuple(
            slice(max(cut.start - reach, 0), min(cut.stop + reach, size))
            for cut, size in zip(places[number - 1], parts.shape, strict=True)
        )
        blurred = ndimage.gaussian_filter(
            (parts[where] == number).astype(np.float32), _BLUR, mode="constant"
        )
        yield number, (where, blurred / min(1.0, float(blurred.max()) / (2 * _LEVEL)))


def _show(axes: Axes, picture: Array) -> None:
    axes.imshow(
        np.round(255 * picture).astype(np.uint8),
        extent=(0, 1, 0, 1),
        interpolation="nearest",
        aspect="auto",
    )
