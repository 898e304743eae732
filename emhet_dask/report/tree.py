"""The tree of merges with the height at which it was cut, in the colours of the states.

Of a large tree only the upper merges are drawn: each leaf of the picture then stands for several
volumes. The tree is laid out here, because SciPy's drawing knows neither states nor their colours,
and is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["dendrogram"]

_BRANCH = "#8a8a8a"
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
    shown = _lay_out(merges, states, most_leaves=n_shown)
    named = names is not None and shown.whole and len(shown.states) <= _MOST_NAMES
    # Room for names below the tree, which are written upwards.
    below = 0.5 + (min(0.075 * max(map(len, names)), 2.2) if named and names is not None else 0)
    n_volumes = len(states) if sizes is None else int(np.sum(sizes))
    if cut_height is None:
        cut_height = _halfway(merges[:, 2], n_states)
    figure = new_figure(
        width_inches=10.6,
        height_inches=4.0 + below,
        title=f"Tree of {counted(n_volumes, 'volume')}, cut into {counted(n_states, noun)}",
        note="" if shown.whole else f"The upper {len(shown.states) - 1} merges of the tree.",
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.5, width_inches=9.0, height_inches=3.4)
    axes.add_collection(
        LineCollection(shown.lines, colors=shown.colours, linewidths=0.9, capstyle="projecting")
    )
    top = float(merges[:, 2].max(initial=0.0)) or 1.0
    axes.set_xlim(-0.5, len(shown.states) - 0.5)
    axes.set_ylim(0, 1.05 * top)
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
    if named and names is not None:
        _draw_names(axes, [names[leaf] for leaf in shown.leaves])
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


def _halfway(heights: npt.NDArray[np.float64], n_states: int) -> float:
    """Return the middle between the last merge that a cut keeps and the first that it undoes."""
    around = np.concatenate([[0.0], heights, [1.06 * heights.max(initial=0.0)]])
    last = len(heights) + 1 - n_states
    return float(around[last : last + 2].mean())


@dataclass(frozen=True)
class _Layout:
    """What is drawn: a leaf per column, from left to right, and the lines of the merges."""

    leaves: list[int]
    states: list[int]
    lines: list[list[tuple[float, float]]]
    colours: list[str]
    whole: bool


def _lay_out(
    merges: npt.NDArray[np.float64], states: npt.NDArray[np.intp], *, most_leaves: int
) -> _Layout:
    n = len(states)
    n_shown = min(n, most_leaves)
    first = n - n_shown  # merges before this one lie inside of the leaves of the picture
    children = merges[:, :2].astype(np.intp)
    state = _state_of_nodes(children, states)
    order = _order(children, n, first)
    place = {node: float(k) for k, node in enumerate(order)}
    lines, colours = [], []
    for merge in range(first, n - 1):
        ends = children[merge]
        left, right = (place[int(node)] for node in ends)
        bottoms = [_height(merges, int(node), n, first) for node in ends]
        height = float(merges[merge, 2])
        lines.append([(left, bottoms[0]), (left, height), (right, height), (right, bottoms[1])])
        here = int(state[n + merge])
        colours.append(state_colour(here) if here >= 0 else _BRANCH)
        place[n + merge] = 0.5 * (left + right)
    leaf_states = [int(state[node]) for node in order]
    return _Layout(order, leaf_states, lines, colours, whole=first == 0)


def _height(merges: npt.NDArray[np.float64], node: int, n: int, first: int) -> float:
    """Return where the line of a child ends: at its own merge, or at 0 for a leaf."""
    return float(merges[node - n, 2]) if node >= n + first else 0.0


def _state_of_nodes(
    children: npt.NDArray[np.intp], states: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return the state of each node (2 leaf - 1,) of the tree, -1 where it holds several."""
    state = np.concatenate([states, np.full(len(children), -1)])
    for merge, (left, right) in enumerate(children):
        if state[left] == state[right]:
            state[len(states) + merge] = state[left]
    return state


def _order(children: npt.NDArray[np.intp], n: int, first: int) -> list[int]:
    """Return the nodes that are leaves of the picture, from left to right."""
    order: list[int] = []
    waiting = [2 * n - 2]
    while waiting:
        node = waiting.pop()
        if node < n + first:
            order.append(node)
        else:
            left, right = children[node - n]
            waiting += [int(right), int(left)]
    return order


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
