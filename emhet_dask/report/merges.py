"""Where the leaves and merges of a tree lie in a picture, and in which colours.

SciPy's drawing knows neither states nor their colours, and is slow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emhet_dask.report.palette import state_colour

__all__ = ["TreeLayout", "halfway", "lay_out"]

_BRANCH = "#8a8a8a"


def halfway(heights: npt.NDArray[np.float64], n_states: int) -> float:
    """Return the middle between the last merge that a cut keeps and the first that it undoes."""
    around = np.concatenate([[0.0], heights, [1.06 * heights.max(initial=0.0)]])
    last = len(heights) + 1 - n_states
    return float(around[last : last + 2].mean())


@dataclass(frozen=True)
class TreeLayout:
    """What is drawn: a leaf per column, from left to right, and the lines of the merges."""

    leaves: list[int]
    states: list[int]
    lines: list[list[tuple[float, float]]]
    colours: list[str]
    whole: bool


def lay_out(
    merges: npt.NDArray[np.float64], states: npt.NDArray[np.intp], *, most_leaves: int
) -> TreeLayout:
    """Lay out the upper part of a tree.

    Parameters
    ----------
    merges : array (leaf - 1, 4)
        SciPy's linkage matrix.
    states : array (leaf,)
    most_leaves : int
        Of the picture; 2 at least.
    """
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
    return TreeLayout(order, leaf_states, lines, colours, whole=first == 0)


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
