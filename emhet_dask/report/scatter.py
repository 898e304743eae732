"""Points coloured by state: pairs of principal components, latents, UMAP.

Up to 20,000 points each is drawn. Above, a point hides its neighbours and a figure takes seconds,
so a picture of the density is drawn instead, where each pixel has the colour of the state that most
of its points belong to and is the stronger the more there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emhet_dask.report.key import draw_key, key_layout
from emhet_dask.report.points import draw_names, draw_numbers, draw_points
from emhet_dask.report.style import counted, new_figure, panel, styled

__all__ = ["MOST_POINTS", "component_label", "pc_pairs", "pc_scatter", "state_scatter"]

MOST_POINTS = 20_000

Array = npt.NDArray[Any]

_MOST_NAMES = 40


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
    names: Sequence[str] | None = None,
    noun: str = "state",
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
    names : sequence of str, optional
        Of the volumes; written beside them where there are few enough.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    most_points : int
        Above, the density is drawn.
    """
    scores = np.asarray(scores)
    first, second = components
    alone = scores.shape[1] <= max(components)
    y = np.arange(len(scores)) if alone else scores[:, second]
    y_label = "volume" if alone else component_label(second, ratios)
    first = 0 if alone else first
    points = np.column_stack([scores[:, first], y])
    figure = state_scatter(
        points,
        states=states,
        x_label=component_label(first, ratios),
        y_label=y_label,
        outliers=outliers,
        noun=noun,
        title="Volumes by principal components",
        most_points=most_points,
    )
    if names is not None and len(names) <= _MOST_NAMES:
        draw_names(figure.axes[0], points, names)
    if alone:
        figure.axes[0].yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


@styled
def state_scatter(
    points: npt.ArrayLike,
    *,
    states: npt.ArrayLike,
    x_label: str,
    y_label: str,
    title: str,
    outliers: npt.ArrayLike | None = None,
    noun: str = "state",
    thing: str = "volume",
    ticks: bool = True,
    most_points: int = MOST_POINTS,
) -> Figure:
    """Draw points in a plane, coloured by state, with the number of each state beside it.

    Parameters
    ----------
    points : array (point, 2)
    states : array (point,)
        State of each point, from 0; -1 for none.
    x_label, y_label : str
        Names of the axes, with units.
    title : str
    outliers : array (point,) of bool, optional
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
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
        title=f"{title}: {counted(len(points), thing)}, {counted(len(sizes), noun)}",
        note=_DENSITY_NOTE.format(noun=noun, thing=thing) if dense else "",
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.45, width_inches=side, height_inches=side)
    draw_points(axes, points, states, marked, dense=dense)
    draw_numbers(axes, points, states, sizes)
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
        noun=noun,
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
    noun: str = "state",
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
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    most_points : int
        Above, the density is drawn.
    """
    scores, states = np.asarray(scores, dtype=np.float64), np.asarray(states, dtype=np.intp)
    n = min(n_components, scores.shape[1], 8)
    if n < 3:
        return pc_scatter(
            scores,
            states=states,
            ratios=ratios,
            outliers=outliers,
            noun=noun,
            most_points=most_points,
        )
    marked = np.zeros(len(states), bool) if outliers is None else np.asarray(outliers, dtype=bool)
    sizes = np.bincount(states)
    dense = len(scores) > most_points
    step = {3: 3.6, 4: 2.5}.get(n, 9.0 / (n - 1))
    figure = new_figure(
        width_inches=step * (n - 1) + 0.85,
        height_inches=step * (n - 1) + 1.05,
        title=f"Pairs of principal components: {counted(len(scores), 'volume')}, "
        f"{counted(len(sizes), noun)}",
        note=_DENSITY_NOTE.format(noun=noun, thing="volume") if dense else "",
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
            draw_points(axes, pair, states, marked, dense=dense, scale=0.6)
            axes.locator_params(nbins=5)
            axes.tick_params(labelbottom=row == n - 1, labelleft=column == 0)
            if row == n - 1:
                axes.set_xlabel(component_label(column, ratios))
            if column == 0:
                axes.set_ylabel(component_label(row, ratios))
    _draw_corner_key(figure, step, n, sizes=sizes, n_outliers=int(marked.sum()), noun=noun)
    return figure


_DENSITY_NOTE = (
    "Each pixel has the colour of the {noun} that most of its {thing}s belong to, "
    "the stronger the more there are."
)


def _draw_corner_key(
    figure: Figure, step: float, n: int, *, sizes: Array, n_outliers: int, noun: str
) -> None:
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
    draw_key(axes, layout, sizes=sizes, thing="volumes", noun=noun, n_outliers=n_outliers)
