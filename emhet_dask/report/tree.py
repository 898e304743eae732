"""The tree of merges with the height at which it was cut, in the colours of the states.

Of a large tree only the upper merges are drawn: each leaf of the picture then stands for several
volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from emhet_dask.report.merges import halfway, lay_out
from emhet_dask.report.names import LETTER_INCHES, shortened
from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["dendrogram"]

_MOST_NAMES = 60
_WHOLE = 100


@styled
def dendrogram(
    linkage: npt.ArrayLike,
    *,
    states: npt.ArrayLike,
    cut_height: float | None = None,
    sizes: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
    height_label: str = "distance between merged clusters",
    leaf_height: float = 0.0,
    noun: str = "state",
    most_leaves: int = 200,
) -> Figure:
    """Draw the tree of merges and its cut into states.

    Parameters
    ----------
    linkage : array (leaf - 1, 4)
        SciPy's linkage matrix; merges in rising order.
    states : array (leaf,)
        State of each leaf, from 0.
    cut_height : float, optional
        Merges above it are undone; by default halfway between the last merge that gives so many
        states and the next.
    sizes : array (leaf,), optional
        Volumes of each leaf, where leaves stand for several.
    names : sequence of str, optional
        Of the leaves; written where there are few enough.
    height_label : str
        What the height of a merge means, with its unit.
    leaf_height : float
        Where branches begin: the distance of a volume from itself.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    most_leaves : int
        Of a tree with more than 100 leaves the upper part is drawn, with a leaf per state at least,
        but with not more than so many.
    """
    merges = np.asarray(linkage, dtype=np.float64).reshape(-1, 4)
    states = np.asarray(states, dtype=np.intp)
    n_states = len(np.unique(states))
    n_shown = max(min(most_leaves, max(_WHOLE, n_states)), 2)
    shown = lay_out(merges, states, most_leaves=n_shown)
    named = names is not None and shown.whole and len(shown.states) <= _MOST_NAMES
    words = shortened([names[leaf] for leaf in shown.leaves]) if named and names is not None else []
    # Room for names below the tree, which are written upwards.
    below = 0.5 + 1.2 * LETTER_INCHES * max(map(len, words), default=0)
    n_volumes = len(states) if sizes is None else int(np.sum(sizes))
    if cut_height is None:
        cut_height = halfway(merges[:, 2], n_states)
    figure = new_figure(
        width_inches=10.6,
        height_inches=4.0 + below,
        title=f"Tree of {counted(n_volumes, 'volume')}, cut into {counted(n_states, noun)}",
        note="" if shown.whole else f"The upper {len(shown.states) - 1} merges of the tree.",
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.5, width_inches=9.0, height_inches=3.4)
    lines = [[(x, max(y, leaf_height)) for x, y in line] for line in shown.lines]
    axes.add_collection(
        LineCollection(lines, colors=shown.colours, linewidths=0.9, capstyle="projecting")
    )
    top = max(float(merges[:, 2].max(initial=0.0)) - leaf_height, 0.0) or 1.0
    axes.set_xlim(-0.5, len(shown.states) - 0.5)
    axes.set_ylim(leaf_height, leaf_height + 1.05 * top)
    axes.axhline(cut_height, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.text(
        1.01,
        cut_height,
        f"cut:\n{counted(n_states, noun)}",
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=8,
    )
    axes.set_ylabel(height_label)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    _draw_states(axes, shown.states)
    _draw_names(axes, words)
    axes.text(
        -0.01,
        -0.03,
        noun,
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=8,
        color=MUTED,
    )
    return figure


def _draw_states(axes: Axes, states: list[int]) -> None:
    """Draw a coloured band below the leaves, with numbers where there is room."""
    transform = axes.get_xaxis_transform()
    inches_per_leaf = 9.0 / len(states)
    runs = [(state, len(list(members))) for state, members in groupby(states)]
    narrow = any(count * inches_per_leaf < 0.085 * len(str(state)) for state, count in runs)
    start = 0
    for state, count in runs:
        axes.fill_between(
            [start - 0.5 + 0.04, start + count - 0.5 - 0.04],
            -0.045,
            -0.015,
            transform=transform,
            color=state_colour(state),
            linewidth=0,
            clip_on=False,
        )
        if count * inches_per_leaf > 0.04:
            axes.text(
                start + (count - 1) / 2,
                -0.06,
                str(state),
                transform=transform,
                ha="center",
                va="top",
                fontsize=5.5 if narrow else 7.5,
                rotation=90 if narrow and len(runs) > _MOST_NAMES else 0,
            )
        start += count


def _draw_names(axes: Axes, names: list[str]) -> None:
    transform = axes.get_xaxis_transform()
    for place, name in enumerate(names):
        axes.text(
            place,
            -0.12,
            name,
            transform=transform,
            ha="center",
            va="top",
            rotation=90,
            fontsize=7,
            color=MUTED,
        )
