"""How much of each block every volume has: histograms with the cut between present and absent."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.palette import NO_STATE
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["block_histograms"]

Array = npt.NDArray[Any]

_PREFIX = "block_"
_CELL_INCHES = 3.75
_ROW_INCHES = 1.42
_PLOT_INCHES = 0.86
_N_BINS = 25
_PAPER: Any = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6}


@styled
def block_histograms(
    occupancy: pd.DataFrame,
    *,
    presence: pd.DataFrame,
    cuts: Mapping[str, float],
    density: pd.DataFrame | None = None,
    most: int = 24,
) -> Figure:
    """Draw how much of each block the volumes have, and the block's mean density beside it.

    A cut deserves trust where it lies in a gap, and where the volumes above and below it differ in
    density too.

    Parameters
    ----------
    occupancy : DataFrame
        A row per volume, a column per block (``block_001``, …): the fraction of the block's voxels
        that are occupied, 0 to 1.
    presence : DataFrame
        The same columns: 1 where the block is present, else 0.
    cuts : mapping of str to float
        The occupancy that parts present from absent, for each column; none, or NaN, where there is
        no cut.
    density : DataFrame, optional
        The same columns: mean density of the block's voxels.
    most : int
        At most so many blocks, the largest; the note says of how many.
    """
    columns = [str(name) for name in occupancy.columns if str(name).startswith(_PREFIX)]
    shown = columns[:most]
    n_columns = min(3, max(len(shown), 1))
    n_rows = -(-max(len(shown), 1) // n_columns)
    width = max(n_columns * _CELL_INCHES + 0.25, 6.0)
    note = _note(len(columns) - len(shown), density=density is not None)
    lines = textwrap.wrap(note, int(13 * width))
    figure = new_figure(
        width_inches=width,
        height_inches=0.45 + n_rows * _ROW_INCHES + 0.22 + 0.15 * len(lines),
        title=f"How much of each block the {counted(len(occupancy), 'volume')} have",
        note="\n".join(lines),
    )
    for k, name in enumerate(shown):
        row, column = divmod(k, n_columns)
        left, top = 0.58 + column * _CELL_INCHES, 0.67 + row * _ROW_INCHES
        wide = 1.65 if density is not None else 3.05
        axes = panel(
            figure,
            left_inches=left,
            top_inches=top,
            width_inches=wide,
            height_inches=_PLOT_INCHES,
        )
        here = presence[name].to_numpy() > 0
        block = int(name.removeprefix(_PREFIX))
        values = occupancy[name].to_numpy(dtype=float)
        _draw(axes, values, here, block, span=(0.0, 1.0))
        _mark(axes, cuts.get(name, np.nan))
        axes.set_title(f"block {block} · present in {counted(here.sum(), 'volume')}", fontsize=8)
        last = k + n_columns >= len(shown)
        axes.set_xlabel("fraction of its voxels occupied" if last else "")
        axes.set_ylabel("volumes" if column == 0 else "")
        if density is None:
            continue
        axes = panel(
            figure,
            left_inches=left + wide + 0.35,
            top_inches=top,
            width_inches=1.1,
            height_inches=_PLOT_INCHES,
        )
        values = density[name].to_numpy(dtype=float)
        _draw(axes, values, here, block, span=_span(values))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        # A power of ten in the corner would lie on the label.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.set_xlabel("mean density" if last else "")
    if not shown:
        axes = panel(
            figure, left_inches=0.5, top_inches=0.6, width_inches=width - 1, height_inches=0.8
        )
        axes.set_axis_off()
        axes.text(0, 0.5, "no block was found")
    return figure


def _note(rest: int, *, density: bool) -> str:
    note = "In colour: volumes in which the block is present. Grey: absent. "
    note += "Dashed: the cut between them."
    if density:
        note += " Right of each: the block's mean density in the same volumes."
    if rest:
        note += f" {counted(rest, 'smaller block')} not drawn."
    return note


def _draw(axes: Axes, values: Array, here: Array, block: int, *, span: tuple[float, float]) -> None:
    """Draw the volumes that have a block upon those that have not."""
    edges = np.linspace(*span, _N_BINS + 1)
    absent, present = (
        np.histogram(np.clip(values[chosen & np.isfinite(values)], *span), edges)[0]
        for chosen in (~here, here)
    )
    for count, below, colour in (
        (absent, np.zeros_like(absent), NO_STATE),
        (present, absent, block_colour(block)),
    ):
        # One shape instead of forty bars, which take half a second in a figure of twelve panels.
        axes.stairs(below + count, edges, baseline=below, fill=True, color=colour, lw=0)
    axes.set_xlim(*span)
    axes.set_ylim(0, 1.15 * max(int((absent + present).max()), 1))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=7)


def _mark(axes: Axes, cut: float) -> None:
    if not np.isfinite(cut):
        axes.text(
            0.03,
            0.97,
            "no cut",
            fontsize=7,
            color=MUTED,
            va="top",
            transform=axes.transAxes,
            bbox=_PAPER,
        )
        return
    axes.axvline(cut, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    right = cut < 0.7
    axes.annotate(
        f"{cut:.2f}",
        (cut, 0.97),
        xycoords=axes.get_xaxis_transform(),
        xytext=(2.5 if right else -2.5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
        fontsize=7,
        bbox=_PAPER,
    )


def _span(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(high), 1e-30):
        return low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return low, high
