"""Colours of the states: the same in every figure, in the report and in ChimeraX.

State `k` always has the same colour, whatever the number of states, so that a re-cut changes as
little as possible. No reader tells 150 colours apart: past the last colour the list starts again
with another marker, and figures write the numbers of the states beside the colours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MARKERS", "NO_STATE", "STATE_COLOURS", "state_colour", "state_colours", "state_marker"]

# The first six are of Okabe and Ito (https://jfly.uni-koeln.de/color/). Each further one is the
# colour furthest from all before it in the OKLab space, as normal, deuteranopic and protanopic
# readers see it, neither too light for white paper nor too dark to be told from black.
STATE_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#6f1637",
    "#4ee9b1",
    "#372c85",
    "#857aff",
    "#7a4e00",
    "#a62c7a",
    "#9bb17a",
    "#bcc8f4",
    "#0043bc",
    "#c8d36f",
    "#6f85c8",
    "#164359",
    "#5959de",
    "#c82143",
    "#6fc8bc",
    "#906f9b",
    "#6f2c0b",
    "#006f43",
)
MARKERS = ("o", "^", "s", "D", "v", "p")
NO_STATE = "#b5b5b5"

_RGB = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in STATE_COLOURS])
_NO_STATE_RGB = np.array([int(NO_STATE[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def state_colour(state: int) -> str:
    """Return the colour of a state as ``#rrggbb``; grey for a negative number, which is no state.

    Examples
    --------
    >>> state_colour(0), state_colour(24), state_colour(-1)
    ('#0072b2', '#0072b2', '#b5b5b5')
    """
    return STATE_COLOURS[state % len(STATE_COLOURS)] if state >= 0 else NO_STATE


def state_marker(state: int) -> str:
    """Return the marker that tells states of the same colour apart.

    Examples
    --------
    >>> state_marker(0), state_marker(23), state_marker(24)
    ('o', 'o', '^')
    """
    return MARKERS[max(state, 0) // len(STATE_COLOURS) % len(MARKERS)]


def state_colours(states: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the colours (point, 3) of an array (point,) of states, 0 to 1 in red, green, blue."""
    states = np.asarray(states, dtype=np.intp)
    colours = _RGB[states % len(STATE_COLOURS)]
    colours[states < 0] = _NO_STATE_RGB
    return colours
