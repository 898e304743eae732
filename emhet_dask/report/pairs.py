"""The values of all pairs as a histogram, and the maps that are nearest to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.names import LETTER_INCHES, shortened
from emhet_dask.report.palette import state_colours
from emhet_dask.report.quantities import Quantity
from emhet_dask.report.style import ACCENT, MUTED, counted, new_figure, panel, styled

__all__ = ["nearest_maps", "pair_histogram"]

Array = npt.NDArray[np.float64]

_BETWEEN = "#9a9a9a"
_FAINT = "#e6e6e6"


@styled
def pair_histogram(
    counts: npt.ArrayLike,
    *,
    edges: npt.ArrayLike,
    quantity: Quantity,
    within: npt.ArrayLike | None = None,
    noun: str = "cluster",
) -> Figure:
    """Draw how the values of all pairs are spread.

    Parameters
    ----------
    counts : array (bin,)
        Pairs in each bin; each pair once, no map with itself.
    edges : array (bin + 1,)
        Of equal width. Bins are drawn together where there are many of them for so few pairs.
    quantity : Quantity
        What the values are.
    within : array (bin,), optional
        Of these, pairs of the same cluster. Pairs within and between clusters are then drawn each
        as shares of their own number: between clusters there are many times more.
    noun : str
        What a group is called.
    """
    counts = np.asarray(counts, dtype=np.float64)
    edges = np.asarray(edges, dtype=np.float64)
    step = _bins_in_one(counts)
    counts, edges = _merged(counts, step), np.append(edges[:-1:step], edges[-1])
    figure = new_figure(
        width_inches=6.6,
        height_inches=3.5,
        title=f"{quantity.label[0].upper()}{quantity.label[1:]} of {counted(counts.sum(), 'pair')}",
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.5, width_inches=5.6, height_inches=2.4)
    if within is None:
        axes.stairs(counts, edges, fill=True, color=ACCENT, label="all pairs")
        axes.set_ylabel("pairs")
        axes.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        same = _merged(np.asarray(within, dtype=np.float64), step)
        for part, words, colour in (
            (counts - same, f"between {noun}s", _BETWEEN),
            (same, f"within a {noun}", ACCENT),
        ):
            total = float(part.sum())
            if total == 0:
                continue
            label = f"{words} ({counted(total, 'pair')})"
            axes.stairs(100 * part / total, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(100 * part / total, edges, color=colour, linewidth=1.2, label=label)
        axes.set_ylabel("% of the pairs of each kind")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.09), ncols=2, borderaxespad=0)
    filled = np.flatnonzero(counts)
    if filled.size:
        # Empty bins at the ends say nothing, and a histogram of -1 to 1 has many.
        low, high = edges[filled[0]], edges[filled[-1] + 1]
        axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.set_xlabel(quantity.label)
    if not quantity.larger_is_closer:
        axes.invert_xaxis()
    _say_alike(axes)
    return figure


def _bins_in_one(counts: Array) -> int:
    """Return how many bins to draw as one: about twice the root of the pairs fill the picture."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return 1
    spread = int(filled[-1] - filled[0]) + 1
    wanted = np.clip(2 * np.sqrt(counts.sum()), 10, 200)
    return max(1, round(spread / wanted))


def _merged(counts: Array, step: int) -> Array:
    return np.add.reduceat(counts, np.arange(0, len(counts), step))


@styled
def nearest_maps(
    values: npt.ArrayLike,
    *,
    names: Sequence[str],
    quantity: Quantity,
    reference: str,
    states: npt.ArrayLike | None = None,
    noun: str = "cluster",
    most: int = 30,
) -> Figure:
    """Draw the values of one map against all others, nearest first.

    Parameters
    ----------
    values : array (map,)
        NaN where there is none.
    names : sequence of str
    quantity : Quantity
        What the values are.
    reference : str
        Name of the one map.
    states : array (map,), optional
        Cluster of each map, from 0, for the colours; -1 for none.
    noun : str
        What a group is called.
    most : int
        At most so many maps are named; a panel beside them shows all in their order.
    """
    values = np.asarray(values, dtype=np.float64)
    sign = -1 if quantity.larger_is_closer else 1
    order = np.argsort(sign * values, kind="stable")[: np.isfinite(values).sum()]
    shown = order[:most]
    groups = np.full(len(values), 0) if states is None else np.asarray(states, dtype=np.intp)
    words = shortened([names[k] for k in shown], most=34)
    room = max(LETTER_INCHES * 1.08 * max(map(len, words), default=0) + 0.25, 0.5)
    height = max(0.19 * len(shown), 0.8)
    all_too = len(order) > len(shown)
    title = f"{counted(len(order), 'map')} against {shortened([reference], most=50)[0]}"
    if all_too:
        title = f"The {len(shown)} maps nearest to {shortened([reference], most=50)[0]}"
    without = len(values) - len(order)
    note = "" if states is None else f"Colours, and numbers in brackets: {noun}s."
    if without:
        note = f"{note} {counted(without, 'map')} without a value left out.".strip()
    figure = new_figure(
        width_inches=max(room + 4.9 + (2.9 if all_too else 0), 7.0),
        height_inches=height + (1.35 if note else 1.15),
        title=title,
        note=note,
    )
    axes = panel(figure, left_inches=room, top_inches=0.55, width_inches=3.9, height_inches=height)
    numbers = ["" if states is None or k < 0 else f"  ({k})" for k in groups[shown]]
    _draw_nearest(axes, values[shown], words, numbers, colours=state_colours(groups[shown]))
    axes.set_xlabel(quantity.label)
    if all_too:
        beside = panel(
            figure,
            left_inches=room + 5.2,
            top_inches=0.55,
            width_inches=2.3,
            height_inches=min(height, 2.6),
        )
        _draw_ranks(beside, values[order], len(shown), quantity)
    return figure


def _draw_nearest(
    axes: Axes,
    values: npt.NDArray[np.float64],
    words: list[str],
    numbers: list[str],
    *,
    colours: npt.NDArray[np.float64],
) -> None:
    """Draw a bar per map, from 0; the values are written, since long bars differ little."""
    rows = np.arange(len(values))
    axes.barh(rows, values, color=colours, height=0.72)
    low, high = min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0)
    axes.set_xlim(1.02 * low, 1.02 * high if high > low else 1.0)
    decimals = 3 if max(abs(low), abs(high)) <= 1.5 else 1
    for row, (value, number) in enumerate(zip(values, numbers, strict=True)):
        axes.text(
            1.015,
            row,
            (f"{value:.{decimals}f}" if abs(value) < 1e4 else f"{value:.3g}") + number,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
        )
    axes.set_yticks(rows, words)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=0.7)


def _draw_ranks(
    axes: Axes, values: npt.NDArray[np.float64], n_named: int, quantity: Quantity
) -> None:
    axes.axvspan(0.5, n_named + 0.5, color=_FAINT, linewidth=0)
    axes.plot(np.arange(1, len(values) + 1), values, color=ACCENT, linewidth=1.2)
    axes.set_xlim(0.5, len(values) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(f"all {len(values):,} maps, nearest first\n(grey: those named)")
    axes.set_ylabel(quantity.label)


def _say_alike(axes: Axes) -> None:
    """Say at which end of the axis maps are alike: always the right one."""
    axes.text(
        1.0,
        -0.135,
        "alike →",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=7.5,
        color=MUTED,
    )
