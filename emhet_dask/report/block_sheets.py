"""Blocks in their colours on slices of the mean map, with their legend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy import ndimage

from emhet_dask.report.block_parts import (
    block_colour,
    block_words,
    checked_labels,
    first_blocks,
    repeated_colours,
)
from emhet_dask.report.sheets import round_length
from emhet_dask.report.slices import Crop, crop_around, grey_limits
from emhet_dask.report.style import DPI, INK, MUTED, counted, new_figure, panel, styled

__all__ = ["block_sheet"]

Array = npt.NDArray[Any]

_AXES = {"z": "x to the right, y up", "y": "x right, z up", "x": "y right, z up"}
_COLUMNS = 4
_TOP_INCHES = 0.55
_SLICE_INCHES = 2.0
_LEGEND_INCHES = 2.75
_LINE_INCHES = 0.19
_MOST_LINES = 31
_FILL = 0.42
# Of the brightest that is drawn: what is fainter does not set what is shown.
_FAINT = 0.25


@styled
def block_sheet(
    labels: npt.ArrayLike,
    *,
    mean_map: npt.ArrayLike,
    blocks: pd.DataFrame,
    voxel_size_angstrom: float,
) -> Figure:
    """Draw the blocks over slices of the mean map, across each of the three axes.

    Slices lie where they show as many blocks as they can, each as widely as they can.

    Parameters
    ----------
    labels : array (z, y, x) of int
        Block that a voxel belongs to, from 1; 0 is none.
    mean_map : array (z, y, x)
        Mean of all volumes.
    blocks : DataFrame
        A row per block: ``block``, ``voxels``, and ``fraction`` of the volumes that have it, where
        known.
    voxel_size_angstrom : float

    Raises
    ------
    ValueError
        Where labels and the mean map differ in shape, or a label is negative.
    """
    labels = checked_labels(labels, mean_map)
    mean_map = np.nan_to_num(np.asarray(mean_map, dtype=np.float32))
    low, high = grey_limits(mean_map)
    window = crop_around((labels > 0) | (mean_map > low + _FAINT * (high - low)))
    cuts = np.array([_where_to_cut(labels, axis) for axis in range(3)])
    total = int(np.count_nonzero(labels))
    note = "Mean map in grey, blocks in colour; slices where most of the blocks are. "
    note += "Same scale; positions from the corner of the box. "
    note += repeated_colours(len(blocks))
    figure = new_figure(
        width_inches=0.45 + _COLUMNS * (_SLICE_INCHES + 0.06) + _LEGEND_INCHES,
        height_inches=_TOP_INCHES + 3 * (_SLICE_INCHES + 0.24) + 0.1,
        title=f"{counted(len(blocks), 'block')}, {counted(total, 'voxel')} "
        f"({total / labels.size:.1%} of the box)",
        note=note,
    )
    for column in range(_COLUMNS):
        z, y, x = (int(cuts[axis, column]) for axis in range(3))
        crop = Crop((z, y, x), window.start, window.side)
        grey = np.clip((np.nan_to_num(crop.slices(mean_map), nan=low) - low) / (high - low), 0, 1)
        here = np.nan_to_num(crop.slices(labels)).astype(np.intp)
        for row, name in enumerate(_AXES):
            axes = panel(
                figure,
                left_inches=0.38 + column * (_SLICE_INCHES + 0.06),
                top_inches=_TOP_INCHES + row * (_SLICE_INCHES + 0.24),
                width_inches=_SLICE_INCHES,
                height_inches=_SLICE_INCHES,
            )
            _draw_slice(axes, grey[row], here[row])
            position = cuts[row, column] * voxel_size_angstrom
            axes.set_title(f"{name} = {position:.0f} Å", fontsize=7.5, color=MUTED, pad=2.5)
            if column == 0:
                axes.text(
                    -0.03,
                    0.5,
                    _AXES[name],
                    rotation=90,
                    fontsize=7,
                    color=MUTED,
                    ha="right",
                    va="center",
                    transform=axes.transAxes,
                )
            if row == column == 0:
                _scale_bar(axes, window.side, voxel_size_angstrom)
    _draw_legend(figure, blocks)
    return figure


def _where_to_cut(labels: npt.NDArray[np.intp], axis: int) -> list[int]:
    """Return the slices across an axis that show the most, in order; one may come twice.

    Each block counts alike, by the largest of its cuts as a share of the widest there is; slices
    are taken one by one, each where it adds the most.
    """
    size, count = labels.shape[axis], int(labels.max(initial=0))
    if count == 0:
        return [round(size * (k + 1) / (_COLUMNS + 1)) for k in range(_COLUMNS)]
    flat = np.moveaxis(labels, axis, 0).reshape(size, -1)
    areas = np.stack([np.bincount(plane, minlength=count + 1)[1:] for plane in flat])
    shares = areas / np.maximum(areas.max(axis=0), 1)
    chosen: list[int] = []
    shown = np.zeros(count)
    for _ in range(_COLUMNS):
        gain = np.maximum(shares - shown, 0).sum(axis=1)
        if chosen and gain.max() <= 0.05:
            break
        chosen.append(int(np.argmax(gain)))
        shown = np.maximum(shown, shares[chosen[-1]])
    # Where fewer than four show it all, further ones spread over where there is something to see.
    total = areas.sum(axis=1)
    filled = np.flatnonzero(total >= 0.2 * total.max())
    while len(chosen) < _COLUMNS:
        distance = np.abs(filled[:, None] - np.array(chosen)).min(axis=1)
        chosen.append(int(filled[np.argmax(distance)]))
    return sorted(chosen)


def _draw_slice(axes: Axes, grey: Array, labels: npt.NDArray[np.intp]) -> None:
    """Draw one slice with its blocks tinted and outlined, and their numbers."""
    finer = max(1, -(-round(_SLICE_INCHES * DPI) // len(grey)))
    picture = np.repeat(
        ndimage.zoom(grey, finer, order=1, grid_mode=True, mode="nearest")[..., None], 3, axis=2
    )
    drawn = _smooth_labels(labels, finer)
    if drawn.any():
        colours = np.array([to_rgb(block_colour(k)) for k in range(int(labels.max()) + 1)])
        inside = drawn > 0
        outline = _outline(drawn)
        # Dark density would swallow the dark ones among the colours.
        tint = 0.25 + 0.75 * picture
        picture = np.where(inside[..., None], (1 - _FILL) * tint + _FILL * colours[drawn], picture)
        picture[outline] = colours[drawn[outline]]
    axes.imshow(np.clip(picture, 0, 1), origin="lower", interpolation="antialiased")
    axes.set_axis_off()
    _write_numbers(axes, drawn)


def _smooth_labels(labels: npt.NDArray[np.intp], finer: int) -> npt.NDArray[np.intp]:
    """Return the labels on a finer grid, with edges where interpolated masks meet."""
    best = np.zeros(tuple(finer * size for size in labels.shape), dtype=np.intp)
    strongest = np.zeros(best.shape, dtype=np.float32)
    for block in np.unique(labels):
        mask = (labels == block).astype(np.float32)
        share = ndimage.zoom(mask, finer, order=1, grid_mode=True, mode="nearest")
        better = share > strongest
        best[better] = block
        strongest[better] = share[better]
    return best


def _outline(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return the pixels of blocks that touch another block or none."""
    edge = (ndimage.maximum_filter(labels, 3) != labels) | (
        ndimage.minimum_filter(labels, 3) != labels
    )
    found: npt.NDArray[np.bool_] = edge & (labels > 0)
    return found


def _write_numbers(axes: Axes, labels: npt.NDArray[np.intp]) -> None:
    """Write the number of each block into its largest piece, where it fits."""
    for block in np.unique(labels[labels > 0]):
        # The deepest point lies inside also of a block that is bent.
        depth = ndimage.distance_transform_edt(np.pad(labels == block, 1))[1:-1, 1:-1]
        row, column = divmod(int(np.argmax(depth)), depth.shape[1])
        if depth[row, column] < (0.035 + 0.02 * len(str(block))) * DPI:
            continue
        axes.text(
            column,
            row,
            str(block),
            fontsize=7,
            color="white",
            weight="bold",
            ha="center",
            va="center_baseline",
            path_effects=[withStroke(linewidth=1.6, foreground=INK)],
        )


def _draw_legend(figure: Figure, blocks: pd.DataFrame) -> None:
    rows = first_blocks(blocks, _MOST_LINES)
    rest = len(blocks) - len(rows)
    width = figure.get_size_inches()[0]
    lines = len(rows) + (rest > 0)
    axes = panel(
        figure,
        left_inches=width - _LEGEND_INCHES + 0.12,
        top_inches=_TOP_INCHES,
        width_inches=_LEGEND_INCHES - 0.2,
        height_inches=max(lines, 1) * _LINE_INCHES,
    )
    axes.set_axis_off()
    axes.set_xlim(0, _LEGEND_INCHES - 0.2)
    axes.set_ylim(max(lines, 1), 0)
    for k, row in enumerate(rows):
        number = int(row["block"])
        axes.add_patch(Rectangle((0, k + 0.14), 0.16, 0.72, color=block_colour(number), lw=0))
        axes.text(0.24, k + 0.5, str(number), fontsize=7.5, va="center", weight="bold")
        axes.text(0.5, k + 0.5, " · ".join(block_words(row)), fontsize=7.5, va="center")
    if rest:
        largest = int(blocks.sort_values("block")["voxels"].iloc[len(rows) :].max())
        axes.text(
            0,
            len(rows) + 0.5,
            f"and {rest} more, of up to {counted(largest, 'voxel')}",
            fontsize=7.5,
            va="center",
            color=MUTED,
        )
    if not rows:
        axes.text(0, 0.5, "no block was found", fontsize=8.5, va="center", color=INK)


def _scale_bar(axes: Axes, side: int, voxel_size_angstrom: float) -> None:
    length = round_length(side * voxel_size_angstrom / 3)
    share = length / (side * voxel_size_angstrom)
    place = axes.transAxes
    axes.plot(
        [0.05, 0.05 + share],
        [0.05, 0.05],
        color="white",
        linewidth=1.8,
        solid_capstyle="butt",
        transform=place,
    )
    axes.text(
        0.05, 0.07, f"{length:g} Å", color="white", fontsize=6.5, va="bottom", transform=place
    )
