"""Points in a panel: each by itself or as a density, their states' numbers, their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from emhet_dask.report.palette import state_colours, state_marker
from emhet_dask.report.style import MUTED

__all__ = ["draw_names", "draw_numbers", "draw_points"]

Array = npt.NDArray[Any]

_PIXELS = 220
_MOST_NUMBERS = 40


def draw_points(
    axes: Axes,
    points: Array,
    states: Array,
    marked: Array,
    *,
    dense: bool,
    scale: float = 1.0,
) -> None:
    """Draw points in the colours of their states.

    Parameters
    ----------
    axes : Axes
        Its limits are set to those of the points.
    points : array (point, 2)
        Those with a coordinate that is not finite are left out.
    states : array (point,)
        State of each point, from 0; -1 for none.
    marked : array (point,) of bool
        Points that get a ring.
    dense : bool
        Draw a picture of the density in place of each point.
    scale : float
        Size of the points, for smaller panels.
    """
    shown = np.isfinite(points).all(axis=1)
    points, states, marked = points[shown], states[shown], marked[shown]
    if len(points) == 0:
        return
    _set_limits(axes, points)
    if dense:
        box = (*axes.get_xlim(), *axes.get_ylim())
        axes.imshow(
            _density_image(points, states, box),
            extent=box,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )
    else:
        size = scale * float(np.clip(9000 / len(points), 5, 40))
        # In the order of the data, a state that comes last would cover the others.
        order = np.random.default_rng(0).permutation(len(points))
        points, states, marked = points[order], states[order], marked[order]
        known = np.array([state_marker(k) for k in range(states.max(initial=0) + 1)])
        markers = known[np.maximum(states, 0)]
        for marker in dict.fromkeys(markers):
            here = markers == marker
            axes.scatter(
                points[here, 0],
                points[here, 1],
                s=size,
                marker=str(marker),
                c=state_colours(states[here]),
                alpha=0.75,
                linewidths=0,
            )
    if marked.any():
        axes.scatter(
            points[marked, 0],
            points[marked, 1],
            s=42 * scale,
            facecolors="none",
            edgecolors="black",
            linewidths=0.8,
        )


def _set_limits(axes: Axes, points: Array) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    low, high = low - 0.04 * span, high + 0.04 * span
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _density_image(points: Array, states: Array, box: tuple[float, ...]) -> Array:
    """Return colour and opacity (y, x, 4) of the points that fall into each pixel."""
    low, high = np.array(box[0::2]), np.array(box[1::2])
    pixel = ((points - low) / (high - low) * _PIXELS).astype(np.intp).clip(0, _PIXELS - 1)
    flat = pixel[:, 1] * _PIXELS + pixel[:, 0]
    total = np.bincount(flat, minlength=_PIXELS**2)
    # Distinct (pixel, state) by count: of each pixel the last is its commonest state.
    n_states = int(states.max(initial=0)) + 2
    pairs, count = np.unique(flat * n_states + states + 1, return_counts=True)
    order = np.argsort(count, kind="stable")
    commonest = np.full(_PIXELS**2, -1)
    commonest[pairs[order] // n_states] = pairs[order] % n_states - 1
    image = np.zeros((_PIXELS**2, 4))
    image[:, :3] = state_colours(commonest)
    # A point alone stays visible; a crowd a hundred times the mean saturates.
    crowd = np.log1p(total) / np.log1p(np.percentile(total[total > 0], 99))
    image[:, 3] = np.where(total > 0, np.clip(0.25 + 0.75 * crowd, 0, 1), 0)
    return image.reshape(_PIXELS, _PIXELS, 4)


def draw_numbers(axes: Axes, points: Array, states: Array, sizes: Array) -> None:
    """Write the number of each state, larger states first, where there is room."""
    span = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    taken: list[Array] = []
    for state in np.argsort(-sizes, kind="stable")[:_MOST_NUMBERS]:
        members = points[states == state]
        members = members[np.isfinite(members).all(axis=1)]
        if len(members) == 0:
            continue
        low, middle, high = np.percentile(members, [5, 50, 95], axis=0)
        # Above a tight group, which it would hide; at the member in the middle of a wide one.
        tight = bool(np.all(high - low < 0.08 * span))
        nearest = members[np.argmin(np.sum(((members - middle) / span) ** 2, axis=1))]
        place = np.array([middle[0], high[1]]) if tight else nearest
        above = tight or len(points) < 100
        if any(np.all(np.abs(place - other) < span * (0.03, 0.022)) for other in taken):
            continue
        taken.append(place)
        axes.annotate(
            str(state),
            (place[0], place[1]),
            xytext=(0, 4 if above else 0),
            textcoords="offset points",
            fontsize=8,
            weight="bold",
            ha="center",
            va="bottom" if above else "center",
            color="black",
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def draw_names(axes: Axes, points: Array, names: Sequence[str]) -> None:
    """Write the name of each point beside it, those of crowded points below one another."""
    low = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
    span = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    taken: list[tuple[float, float]] = []
    for point, name in zip(points, names, strict=True):
        x, y = (point - low) / span
        while any(abs(x - other) < 0.1 and abs(y - above) < 0.017 for other, above in taken):
            y -= 0.0175
        taken.append((x, y))
        axes.text(
            x + 0.012,
            y - 0.004,
            name,
            transform=axes.transAxes,
            fontsize=6,
            color=MUTED,
            va="top",
            clip_on=False,
        )
