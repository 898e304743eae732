"""How many volumes, and how many particles, each state has."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.palette import state_colours
from emhet_dask.report.style import counted, new_figure, panel, styled

__all__ = ["state_counts"]

_MOST_NUMBERS = 32


@styled
def state_counts(states: pd.DataFrame, *, noun: str = "state") -> Figure:
    """Draw the volumes and, where known, the particles of each state.

    Parameters
    ----------
    states : DataFrame
        A row per state: ``cluster``, ``volumes``, and ``particles`` where known.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    """
    quantities = ["volumes"]
    if "particles" in states and states["particles"].notna().any():
        quantities.append("particles")
    totals = [counted(states[name].sum(), name[:-1]) for name in quantities]
    figure = new_figure(
        width_inches=10.6,
        height_inches=0.5 + 2.15 * len(quantities) + 0.2,
        title=f"{counted(len(states), noun)}: {' and '.join(totals)}",
    )
    for row, name in enumerate(quantities):
        axes = panel(
            figure,
            left_inches=0.8,
            top_inches=0.55 + 2.15 * row,
            width_inches=9.6,
            height_inches=1.7,
        )
        _draw_bars(axes, states["cluster"].to_numpy(), states[name].to_numpy(dtype=float))
        axes.set_ylabel(name)
        if row == len(quantities) - 1:
            axes.set_xlabel(noun)
    return figure


def _draw_bars(axes: Axes, numbers: npt.NDArray[Any], counts: npt.NDArray[np.float64]) -> None:
    axes.bar(numbers, counts, color=state_colours(numbers), width=0.85)
    # A few states would make bars as wide as the page.
    pad = max(0.6, 4.0 - len(numbers) / 2)
    axes.set_xlim(numbers.min() - pad, numbers.max() + pad)
    axes.set_ylim(0, 1.12 * max(float(np.nanmax(counts)), 1.0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    if len(numbers) > _MOST_NUMBERS:
        axes.xaxis.set_major_locator(MaxNLocator(16, integer=True, steps=[1, 2, 5, 10]))
        return
    axes.set_xticks(numbers)
    small = 7.0 if len(numbers) <= 20 else 5.5
    for number, count in zip(numbers, counts, strict=True):
        axes.annotate(
            f"{count:,.0f}",
            (number, count),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=small,
        )
