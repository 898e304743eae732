"""Columns of a table, drawn over one of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import new_figure, panel, styled

__all__ = ["column_lines"]

_MOST_POINTS_MARKED = 60
_MOST_TICKS = 40
_LONGEST_TICK = 24


@styled
def column_lines(
    columns: Mapping[str, npt.NDArray[np.float64]],
    *,
    x: npt.NDArray[np.generic] | None = None,
    x_label: str = "row",
    title: str = "",
) -> Figure:
    """Draw columns of numbers as lines, in the order of the rows.

    Parameters
    ----------
    columns : mapping of str to ndarray (row,)
        At least one.
    x : ndarray (row,), optional
        Numbers, or texts that name the rows; default: the numbers of the rows, from 1.
    x_label, title : str

    Returns
    -------
    Figure
    """
    n_rows = len(next(iter(columns.values())))
    named = x is not None and x.dtype.kind not in "iuf"
    at = np.arange(1, n_rows + 1) if x is None or named else np.asarray(x, dtype=np.float64)
    figure = new_figure(width_inches=7.2, height_inches=5.0 if named else 4.2, title=title)
    axes = panel(figure, left_inches=0.85, top_inches=0.5, width_inches=6.1, height_inches=3.1)
    marker = "o" if n_rows <= _MOST_POINTS_MARKED else ""
    for number, (name, values) in enumerate(columns.items()):
        axes.plot(at, values, marker=marker, ms=3.5, lw=1.1, color=state_colour(number), label=name)
    axes.set_xlabel(x_label)
    if len(columns) == 1:
        axes.set_ylabel(next(iter(columns)))
    else:
        axes.legend(loc="best")
    if named and n_rows <= _MOST_TICKS:
        assert x is not None
        texts = [str(each) for each in x]
        ticks = [text if len(text) <= _LONGEST_TICK else "…" + text[-_LONGEST_TICK:]
                 for text in texts]  # fmt: skip
        axes.set_xticks(at, ticks, rotation=45, ha="right")
    elif x is None or named:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
