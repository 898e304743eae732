"""Points coloured by state: pairs of principal components, latents, UMAP.

Up to 20,000 points each is drawn. Above, a point hides its neighbours and a figure takes seconds,
so a picture of the density is drawn instead, where each pixel has the colour of the state that most
of its points belong to and is the stronger the more there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from emhet_dask.report.key import draw_key, key_layout
from emhet_dask.report.palette import state_colours, state_marker
from emhet_dask.report.style import counted, new_figure, panel, styled

__all__ = ["MOST_POINTS", "component_label", "pc_pairs", "pc_scatter", "state_scatter"]

MOST_POINTS = 20_000

Array = npt.NDArray[Any]

_PIXELS = 220
_MOST_NUMBERS = 40


def component_label(component: int, ratios: npt.ArrayLike | None = None) -> str:
    """Return the name of a component on an axis; components count from 1.

    Examples
    --------
    >>> component_label(0, [0.321, 0.1])
    'PC1 (32.1% of variance)'
    """
    name = f"PC{component + 1}"
    return name if ratios is None else f"{name} ({np.asarray(ratios)[component]:.1%} of variance)"


def pc_scatter(
    scores: npt.ArrayLike,
    *,
    states: npt.ArrayLike,
    ratios: npt.ArrayLike | None = None,
    components: tuple[int, int] = (0, 1),
    outliers: npt.ArrayLike | None = None,
    most_points: int = MOST_POINTS,
) -> Figure:
    """Draw two principal components of every volume, coloured by state.

    Parameters
    ----------
    scores : array (volume, component)
        With a single component, the number of the volume takes the place of the second.
    states : array (volume,)
        State of each volume, from 0.
    ratios : array (component,), optional
        Explained variance ratio, 0 to 1, written at the axes.
    components : tuple of int
        Which, from 0.
    outliers : array (volume,) of bool, optional
    most_points : int
        Above, the density is drawn.
    """
    scores = np.asarray(scores)
    first, second = components
    alone = scores.shape[1] <= max(components)
    y = np.arange(len(scores)) if alone else scores[:, second]
    y_label = "volume" if alone else component_label(second, ratios)
    first = 0 if alone else first
    return state_scatter(
        np.column_stack([scores[:, first], y]),
        states=states,
        x_label=component_label(first, ratios),
        y_label=y_label,
        outliers=outliers,
        title="Volumes by principal components",
        most_points=most_points,
    )


@styled
def state_scatter(
    points: npt.ArrayLike,
    *,
    states: npt.ArrayLike,
    x_label: str,
    y_label: str,
    title: str,
    outliers: npt.ArrayLike | None = None,
    thing: str = "volume",
    ticks: bool = True,
    most_points: int = MOST_POINTS,
) -> Figure:
    """Draw points in a plane, coloured by state, with the number of each state at its middle.

    Parameters
    ----------
    points : array (point, 2)
    states : array (point,)
        State of each point, from 0; -1 for none.
    x_label, y_label : str
        Names of the axes, with units.
    title : str
    outliers : array (point,) of bool, optional
    thing : str
        What a point is.
    ticks : bool
        False where the values of the coordinates mean nothing, as in a UMAP.
    most_points : int
        Above, the density is drawn.
    """
    points, states = np.asarray(points, dtype=np.float64), np.asarray(states, dtype=np.intp)
    marked = np.zeros(len(states), bool) if outliers is None else np.asarray(outliers, dtype=bool)
    sizes = np.bincount(states[states >= 0])
    n_outliers, n_without = int(marked.sum()), int(np.sum(states < 0))
    side = 5.6
    n_extra = (n_outliers > 0) + (n_without > 0)
    layout = key_layout(len(sizes), height_inches=side, most_width_inches=5.2, n_extra=n_extra)
    dense = len(points) > most_points
    figure = new_figure(
        width_inches=0.75 + side + 0.2 + max(layout.width_inches, 1.3) + 0.1,
        height_inches=side + 1.2,
        title=f"{title}: {counted(len(points), thing)}, {counted(len(sizes), 'state')}",
        note=_DENSITY_NOTE.format(thing) if dense else "",
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.45, width_inches=side, height_inches=side)
    _draw_points(axes, points, states, marked, dense=dense)
    _draw_numbers(axes, points, states, sizes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if not ticks:
        axes.set_xticks([])
        axes.set_yticks([])
    beside = panel(
        figure,
        left_inches=0.75 + side + 0.2,
        top_inches=0.45,
        width_inches=max(layout.width_inches, 1.3),
        height_inches=side,
    )
    draw_key(
        beside,
        layout,
        sizes=sizes,
        thing=f"{thing}s",
        n_outliers=n_outliers,
        n_without=n_without,
    )
    return figure


@styled
def pc_pairs(
    scores: npt.ArrayLike,
    *,
    states: npt.ArrayLike,
    ratios: npt.ArrayLike | None = None,
    outliers: npt.ArrayLike | None = None,
    n_components: int = 5,
    most_points: int = MOST_POINTS,
) -> Figure:
    """Draw every pair of the first principal components, coloured by state.

    Parameters
    ----------
    scores : array (volume, component)
    states : array (volume,)
        State of each volume, from 0.
    ratios : array (component,), optional
        Explained variance ratio, 0 to 1, written at the axes.
    outliers : array (volume,) of bool, optional
    n_components : int
        At most so many; at most 8 are drawn.
    most_points : int
        Above, the density is drawn.
    """
    scores, states = np.asarray(scores, dtype=np.float64), np.asarray(states, dtype=np.intp)
    n = min(n_components, scores.shape[1], 8)
    if n < 3:
        return pc_scatter(
            scores, states=states, ratios=ratios, outliers=outliers, most_points=most_points
        )
    marked = np.zeros(len(states), bool) if outliers is None else np.asarray(outliers, dtype=bool)
    sizes = np.bincount(states)
    dense = len(scores) > most_points
    step = {3: 3.6, 4: 2.5}.get(n, 9.0 / (n - 1))
    figure = new_figure(
        width_inches=step * (n - 1) + 0.85,
        height_inches=step * (n - 1) + 1.05,
        title=f"Pairs of principal components: {counted(len(scores), 'volume')}, "
        f"{counted(len(sizes), 'state')}",
        note=_DENSITY_NOTE.format("volume") if dense else "",
    )
    for row in range(1, n):
        for column in range(row):
            axes = panel(
                figure,
                left_inches=0.75 + step * column,
                top_inches=0.45 + step * (row - 1),
                width_inches=step - 0.12,
                height_inches=step - 0.12,
            )
            pair = scores[:, [column, row]]
            _draw_points(axes, pair, states, marked, dense=dense, scale=0.6)
            axes.locator_params(nbins=5)
            axes.tick_params(labelbottom=row == n - 1, labelleft=column == 0)
            if row == n - 1:
                axes.set_xlabel(component_label(column, ratios))
            if column == 0:
                axes.set_ylabel(component_label(row, ratios))
    _draw_corner_key(figure, step, n, sizes=sizes, n_outliers=int(marked.sum()))
    return figure


_DENSITY_NOTE = (
    "Each pixel has the colour of the state that most of its {}s belong to, "
    "the stronger the more there are."
)


def _draw_corner_key(figure: Figure, step: float, n: int, *, sizes: Array, n_outliers: int) -> None:
    """Put the key into the empty upper right corner of the triangle of pairs."""
    n_free = (n - 1) // 2
    width, height = step * (n - 1 - n_free) - 0.3, step * n_free - 0.1
    layout = key_layout(
        len(sizes), height_inches=height, most_width_inches=width, n_extra=int(n_outliers > 0)
    )
    axes = panel(
        figure,
        left_inches=0.75 + step * n_free + 0.3,
        top_inches=0.45,
        width_inches=width,
        height_inches=height,
    )
    draw_key(axes, layout, sizes=sizes, thing="volumes", n_outliers=n_outliers)


def _draw_points(
    axes: Axes,
    points: Array,
    states: Array,
    marked: Array,
    *,
    dense: bool,
    scale: float = 1.0,
) -> None:
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
        size = scale * float(np.clip(4000 / len(points), 4, 36))
        # In the order of the data, a state that comes last would cover the others.
        order = np.random.default_rng(0).permutation(len(points))
        points, states, marked = points[order], states[order], marked[order]
        markers = np.array([state_marker(k) for k in range(states.max(initial=0) + 1)])[states]
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


def _draw_numbers(axes: Axes, points: Array, states: Array, sizes: Array) -> None:
    """Write the number of each state at its middle, larger states first, where there is room."""
    span = np.array([np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())])
    taken: list[Array] = []
    for state in np.argsort(-sizes, kind="stable")[:_MOST_NUMBERS]:
        members = points[states == state]
        members = members[np.isfinite(members).all(axis=1)]
        if len(members) == 0:
            continue
        middle = np.median(members, axis=0)
        if any(np.all(np.abs(middle - other) < span * (0.03, 0.022)) for other in taken):
            continue
        taken.append(middle)
        axes.text(
            middle[0],
            middle[1],
            str(state),
            fontsize=8,
            weight="bold",
            ha="center",
            va="center",
            color="black",
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )
