"""How blocks change with the threshold and the p-values that they are found with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.palette import MARKERS, STATE_COLOURS
from emhet_dask.report.style import INK, counted, new_figure, panel, styled

__all__ = ["screening_figure"]

_QUANTITIES = {
    "blocks": "number of blocks",
    "voxels": "voxels assigned to blocks",
    "agreement": "agreement with the chosen setting\n(adjusted Rand index)",
}
_PANEL_INCHES = 2.75
_HEIGHT = 2.5
_MOST_LINES = 12


@styled
def screening_figure(screening: pd.DataFrame) -> Figure:
    """Draw the number of blocks, their voxels and their likeness to the chosen ones, by setting.

    Parameters
    ----------
    screening : DataFrame
        A row per setting: ``threshold`` (a number, or how it was chosen), ``positive_p``,
        ``negative_p``, ``blocks``, ``voxels``, ``agreement`` (adjusted Rand index with the chosen
        setting over the voxels that have a block in both; NaN where there are none) and ``chosen``.

    Raises
    ------
    ValueError
        Where the table is empty, or not one setting is chosen.
    """
    if screening["chosen"].sum() != 1:
        raise ValueError(f"{screening['chosen'].sum()} settings are chosen: one must be")
    along, ticks, lines = _arrange(screening)
    n_lines = min(len(lines), _MOST_LINES)
    named = len(lines) > 1
    slanted = max(len(word) for words in ticks for word in words.split("\n")) * len(ticks) > 36
    below = 0.75 if slanted or "\n" in ticks[0] else 0.6
    figure = new_figure(
        width_inches=3 * (_PANEL_INCHES + 0.75) + 0.25,
        height_inches=0.75 + _HEIGHT + below + (0.22 * -(-n_lines // 4) + 0.1 if named else 0.0),
        title=f"How blocks change with threshold and p-values: "
        f"{counted(len(screening), 'setting')}",
        note="Ring: the chosen setting. Agreement counts voxels that have a block in both; "
        "1 means the same blocks.",
    )
    for k, (name, words) in enumerate(_QUANTITIES.items()):
        axes = panel(
            figure,
            left_inches=0.7 + k * (_PANEL_INCHES + 0.75),
            top_inches=0.55,
            width_inches=_PANEL_INCHES,
            height_inches=_HEIGHT,
        )
        for line, (label, rows) in enumerate(lines.items()):
            # Side by side, since lines may coincide.
            shift = 0.3 * ((line + 0.5) / len(lines) - 0.5)
            shifted = rows.assign(place=rows["place"] + shift)
            _draw_line(axes, shifted, name, label=label if line < _MOST_LINES else "_", line=line)
        axes.set_ylabel(words)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.tick_params(axis="x", labelrotation=30 if slanted else 0)
        axes.set_xlim(-0.5, len(ticks) - 0.5)
        axes.set_xlabel(along)
        _scale(axes, screening[name].to_numpy(dtype=float), share=name == "agreement")
    if named:
        figure.axes[0].legend(
            loc="upper left",
            bbox_to_anchor=(-0.05, -below / _HEIGHT),
            ncols=4,
            handlelength=1.6,
        )
    return figure


def _arrange(screening: pd.DataFrame) -> tuple[str, list[str], dict[str, pd.DataFrame]]:
    """Return what the axis and its ticks are called, and the rows of each line with their places.

    Thresholds go along the axis, and there is a line for each pair of p-values; of one threshold
    the p-values go along the axis.
    """
    table = screening.assign(
        threshold_words=[_written(value) for value in screening["threshold"]],
        p_words=[
            f"{positive:g}\n{negative:g}"
            for positive, negative in zip(
                screening["positive_p"], screening["negative_p"], strict=True
            )
        ],
    )
    if len(set(table["threshold_words"])) > 1:
        name, along, across, order = "threshold", "threshold_words", "p_words", ["threshold"]
    else:
        name, along, across = "p-values, positive over negative", "p_words", "threshold_words"
        order = ["positive_p", "negative_p"]
    # Where a threshold is said in words, settings stay in their order.
    if pd.api.types.is_numeric_dtype(table[order[0]]):
        table = table.sort_values(order, kind="stable")
    ticks = list(dict.fromkeys(table[along]))
    table["place"] = [float(ticks.index(words)) for words in table[along]]
    lines = {
        "p {} positive, {} negative".format(*str(words).split("\n"))
        if across == "p_words"
        else str(words): rows
        for words, rows in table.groupby(across, sort=False)
    }
    return name, ticks, lines


def _written(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float, np.number)) else str(value)


def _draw_line(axes: Axes, rows: pd.DataFrame, name: str, *, label: str, line: int) -> None:
    rows = rows.sort_values("place")
    colour = STATE_COLOURS[line % len(STATE_COLOURS)]
    marker = MARKERS[line % len(MARKERS)]
    axes.plot(rows["place"], rows[name], color=colour, marker=marker, ms=4, lw=1.1, label=label)
    chosen = rows[rows["chosen"].astype(bool)]
    if len(chosen):
        axes.plot(
            chosen["place"],
            chosen[name],
            marker="o",
            ms=11,
            mfc="none",
            mec=INK,
            mew=1.3,
            linestyle="none",
            label="_",
            zorder=5,
            clip_on=False,
        )


def _scale(axes: Axes, values: np.ndarray, *, share: bool) -> None:
    if share:
        axes.set_ylim(min(-0.04, 1.1 * float(np.nanmin(values, initial=0.0))), 1.06)
        return
    axes.set_ylim(0, 1.15 * max(float(np.nanmax(values, initial=0.0)), 1.0))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
