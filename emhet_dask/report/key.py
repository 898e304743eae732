"""The key of states beside a figure: colour, marker, number and size of each.

Matplotlib's own legend is slow for many entries and has one layout; this one takes as many columns
as fit, and says how many states it leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from emhet_dask.report.palette import NO_STATE, state_colours, state_marker
from emhet_dask.report.style import MUTED

__all__ = ["KeyLayout", "draw_key", "key_layout"]

_ROW_INCHES = 0.185


@dataclass(frozen=True)
class KeyLayout:
    """How a key is cut into columns.

    Attributes
    ----------
    n_rows, n_columns : int
    n_shown : int
        States that have an entry; the largest ones.
    column_inches : float
    """

    n_rows: int
    n_columns: int
    n_shown: int
    column_inches: float

    @property
    def width_inches(self) -> float:
        """Width of all columns."""
        return self.n_columns * self.column_inches


def key_layout(
    n_states: int, *, height_inches: float, most_width_inches: float, n_extra: int = 0
) -> KeyLayout:
    """Fit a key into a space.

    Parameters
    ----------
    n_states : int
    height_inches, most_width_inches : float
    n_extra : int
        Entries beside the states, such as outliers.
    """
    # One row is the head, one is left for the count of states without an entry.
    n_rows = max(int(height_inches / _ROW_INCHES) - 2, 1)
    n_entries = n_states + n_extra
    wide = n_entries <= n_rows
    column_inches = 1.35 if wide else 0.86
    n_columns = max(min(math.ceil(n_entries / n_rows), int(most_width_inches / column_inches)), 1)
    n_shown = min(n_states, n_rows * n_columns - n_extra)
    return KeyLayout(min(n_rows, n_entries), n_columns, n_shown, column_inches)


def draw_key(
    axes: Axes,
    layout: KeyLayout,
    *,
    sizes: npt.ArrayLike,
    thing: str,
    noun: str = "state",
    n_outliers: int = 0,
    n_without: int = 0,
) -> None:
    """Fill an empty panel with the key.

    Parameters
    ----------
    axes : Axes
        Its size in inches is that which `layout` was made for.
    layout : KeyLayout
    sizes : array (state,)
        Members of each state.
    thing : str
        What the members are, such as ``"volumes"``.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    n_outliers, n_without : int
        Members marked as outliers, and members of no state; each has an entry where above 0.
    """
    sizes = np.asarray(sizes)
    # Numbers in order, of the largest states only.
    shown = np.sort(np.argsort(-sizes, kind="stable")[: layout.n_shown])
    width, height = _size_inches(axes)
    axes.set_axis_off()
    axes.set_label("key")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    words = f"{noun} {{}} ({{:,}})" if layout.n_columns == 1 else "{} ({:,})"
    entries = [words.format(state, int(sizes[state])) for state in shown]
    places = [_place(k, layout) for k in range(len(entries) + 2)]
    axes.text(0, _ROW_INCHES / 2, f"{noun} ({thing})", color=MUTED, fontsize=7.5, va="center")
    for (x, y), text in zip(places, entries, strict=False):
        axes.text(x + 0.14, y, text, fontsize=7.5, va="center")
    _draw_marks(axes, shown, places)
    extra = len(entries)
    for number, text, fill, edge in (
        (n_outliers, "outlier", "none", "black"),
        (n_without, f"no {noun}", NO_STATE, "none"),
    ):
        if number:
            x, y = places[extra]
            axes.scatter([x + 0.04], [y], s=30, facecolors=fill, edgecolors=edge, linewidths=0.8)
            axes.text(x + 0.14, y, f"{text} ({number:,})", fontsize=7.5, va="center")
            extra += 1
    if len(shown) < len(sizes):
        rest = f"and {len(sizes) - len(shown)} smaller {noun}s"
        y = (layout.n_rows + 1.5) * _ROW_INCHES
        axes.text(0, y, rest, color=MUTED, fontsize=7.5, va="center")


def _place(k: int, layout: KeyLayout) -> tuple[float, float]:
    column, row = divmod(k, layout.n_rows)
    return column * layout.column_inches + 0.05, (row + 1.5) * _ROW_INCHES


def _draw_marks(axes: Axes, shown: npt.NDArray[np.intp], places: list[tuple[float, float]]) -> None:
    markers = np.array([state_marker(int(state)) for state in shown])
    where = np.array(places[: len(shown)]).reshape(-1, 2)
    for marker in dict.fromkeys(markers):
        here = markers == marker
        axes.scatter(
            where[here, 0] + 0.04,
            where[here, 1],
            s=22,
            marker=str(marker),
            c=state_colours(shown[here]),
            linewidths=0,
        )


def _size_inches(axes: Axes) -> tuple[float, float]:
    figure = axes.get_figure(root=True)
    assert figure is not None
    bounds = axes.get_position()
    width, height = figure.get_size_inches()
    return bounds.width * width, bounds.height * height
