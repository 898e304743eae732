"""Fourier shell correlations of half maps: all states together, and each with its corrections."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import FAINT, INK, MUTED, new_figure, panel, styled

__all__ = ["fsc_figure", "fsc_sheet", "resolution_ticks"]

_THRESHOLD = 0.143
_MOST_NAMED = 24
_MOST_PANELS = 24
_WIDTH, _HEIGHT = 2.7, 1.75
# Resolutions in Å that stand at an axis.
_ROUND = np.array(
    [
        *(100, 60, 40, 30, 25, 20, 17, 15, 13, 12, 11, 10, 9, 8, 7.5, 7, 6.5, 6, 5.5, 5, 4.5, 4),
        *(3.7, 3.5, 3.2, 3, 2.8, 2.6, 2.4, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1),
    ]
)
_CURVES: tuple[tuple[str, str, str, Literal["solid", "dotted"]], ...] = (
    ("fsc_unmasked", "without mask", MUTED, "solid"),
    ("fsc_masked", "masked", INK, "solid"),
    ("fsc_randomised", "masked, random phases", "#d55e00", "dotted"),
)


def resolution_ticks(finest: float, *, most: int) -> np.ndarray:
    """Return round resolutions in Å, about evenly spaced in frequency, down to the finest."""
    kept: list[float] = []
    for resolution in _ROUND[::-1]:
        if resolution < finest * 0.995:
            continue
        if not kept or 1 / kept[-1] - 1 / resolution > 0.8 / (finest * most):
            kept.append(float(resolution))
    return np.array(kept or [round(finest, 2)])


def _prepare(axes: Axes, finest: float, *, ticks: int) -> None:
    at = resolution_ticks(finest, most=ticks)
    axes.set_xlim(0, 1 / finest)
    axes.set_xticks(1 / at, [f"{tick:g}" for tick in at])
    axes.set_ylim(-0.08, 1.03)
    axes.axhline(0, color=FAINT, linewidth=0.7)
    axes.axhline(_THRESHOLD, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))


@styled
def fsc_figure(fsc: pd.DataFrame, states: pd.DataFrame) -> Figure:
    """Draw the corrected FSC of all states together.

    Parameters
    ----------
    fsc : DataFrame
        ``state``, ``resolution_A`` and ``fsc_corrected``, a row per shell.
    states : DataFrame
        ``state``, ``particles`` and ``resolution_A``.
    """
    figure = new_figure(
        width_inches=7.4,
        height_inches=3.6,
        title="Agreement of half maps",
        note="FSC inside the mask, corrected for the mask; 0.143 is where it is taken to end.",
    )
    axes = panel(figure, left_inches=0.62, top_inches=0.5, width_inches=4.6, height_inches=2.3)
    _prepare(axes, float(fsc["resolution_A"].min()), ticks=9)
    handles = []
    for number, particles, resolution in zip(
        states["state"].tolist(), states["particles"], states["resolution_A"], strict=True
    ):
        own = fsc[fsc["state"] == number]
        colour = state_colour(number)
        axes.plot(1 / own["resolution_A"], own["fsc_corrected"], color=colour, lw=1.4)
        label = f"state {number} · {resolution:.1f} Å · {particles:,}"
        handles.append(Line2D([], [], color=colour, linewidth=4, label=label))
    axes.text(
        0.995,
        _THRESHOLD + 0.015,
        "0.143",
        color=MUTED,
        fontsize=7,
        ha="right",
        va="bottom",
        transform=axes.get_yaxis_transform(),
    )
    axes.set_xlabel("resolution, Å")
    axes.set_ylabel("FSC")
    axes.legend(
        handles=handles[:_MOST_NAMED],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.05),
        handlelength=0.8,
    )
    return figure


@styled
def fsc_sheet(fsc: pd.DataFrame, states: pd.DataFrame) -> Figure:
    """Draw the FSC of each state in a panel: without mask, masked, random phases, corrected.

    Parameters
    ----------
    fsc : DataFrame
        As ``fsc.csv``.
    states : DataFrame
        As ``states.csv``; the first 24 are drawn.
    """
    shown = states.head(_MOST_PANELS)
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure(
        width_inches=max(6.0, 0.62 + columns * (_WIDTH + 0.5)),
        height_inches=lines * (_HEIGHT + 0.72) + 0.85,
        title="FSC of each state",
    )
    numbers = shown["state"].tolist()
    for place, (number, resolution) in enumerate(zip(numbers, shown["resolution_A"], strict=True)):
        axes = panel(
            figure,
            left_inches=0.62 + place % columns * (_WIDTH + 0.5),
            top_inches=0.92 + place // columns * (_HEIGHT + 0.72),
            width_inches=_WIDTH,
            height_inches=_HEIGHT,
        )
        own = fsc[fsc["state"] == number]
        frequency = 1 / own["resolution_A"]
        _prepare(axes, float(own["resolution_A"].min()), ticks=6)
        for name, _, colour, dashes in _CURVES:
            axes.plot(frequency, own[name], color=colour, lw=1.0, linestyle=dashes)
        axes.plot(frequency, own["fsc_corrected"], color=state_colour(number), lw=1.6)
        axes.set_title(f"state {number} · {resolution:.1f} Å")
        if place + columns >= len(shown):
            axes.set_xlabel("resolution, Å")
        if place % columns == 0:
            axes.set_ylabel("FSC")
    handles = [
        Line2D([], [], color=colour, lw=1.2, linestyle=dashes, label=label)
        for _, label, colour, dashes in _CURVES
    ]
    handles.append(Line2D([], [], color=state_colour(0), lw=1.8, label="corrected (in colour)"))
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.06, 1 - 0.3 / height),
        ncols=4,
        columnspacing=1.4,
        handlelength=1.6,
    )
    return figure
