"""What every picture of a matrix has: colours, their bar, borders of the clusters.

The matrix lies in a panel whose coordinates count maps, from the upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emhet_dask.report.palette import state_colour
from emhet_dask.report.quantities import Quantity
from emhet_dask.report.style import INK, MUTED, panel

__all__ = [
    "BAND_INCHES",
    "NO_VALUE",
    "colours_of",
    "draw_bands",
    "draw_borders",
    "draw_colour_bar",
    "extend_of",
    "limits",
    "runs",
]

BAND_INCHES = 0.12
NO_VALUE = "#c9c9c9"
Run = tuple[int, int, int]


def colours_of(quantity: Quantity) -> Colormap:
    """Return colours from pale, for maps that differ, to dark, for maps that are alike.

    Lightness falls all along, so that grey prints and colour-blind readers lose nothing.
    """
    colours = mpl.colormaps["YlGnBu" if quantity.larger_is_closer else "YlGnBu_r"]
    return colours.with_extremes(bad=NO_VALUE)


def limits(
    values: npt.NDArray[Any], *, weights: npt.NDArray[Any] | None = None, whole: bool
) -> tuple[float, float]:
    """Return the values at the two ends of the colours.

    Parameters
    ----------
    values : array (value,)
        Without the diagonal; NaN is left out.
    weights : array (value,), optional
        Pairs that each value stands for.
    whole : bool
        From the smallest to the largest, or else from the 1st to the 99th percentile: one odd map
        among thousands must not take the colours from all others.
    """
    known = np.isfinite(values)
    values = np.asarray(values, dtype=np.float64)[known]
    if values.size == 0:
        return 0.0, 1.0
    if whole:
        low, high = float(values.min()), float(values.max())
    else:
        weights = np.ones(values.size) if weights is None else np.asarray(weights)[known]
        order = np.argsort(values)
        share = np.cumsum(weights[order]) / weights.sum()
        low, high = (
            float(values[order[min(int(np.searchsorted(share, part)), values.size - 1)]])
            for part in (0.01, 0.99)
        )
    if high - low < 1e-9 * max(abs(high), 1e-30):
        middle, half = 0.5 * (low + high), max(0.01 * abs(high), 1e-6)
        return middle - half, middle + half
    return low, high


def draw_colour_bar(
    figure: Figure,
    norm: Normalize,
    quantity: Quantity,
    *,
    extend: str,
    left_inches: float,
    top_inches: float,
    height_inches: float,
) -> None:
    """Draw the bar of colours, alike at its top."""
    axes = panel(
        figure,
        left_inches=left_inches,
        top_inches=top_inches + 0.2,
        width_inches=0.16,
        height_inches=height_inches - 0.2,
    )
    bar = figure.colorbar(ScalarMappable(norm, colours_of(quantity)), cax=axes, extend=extend)
    bar.outline.set_linewidth(0.5)
    bar.set_label(quantity.label, fontsize=8.5, color=INK)
    axes.tick_params(labelsize=7.5, color=MUTED, labelcolor=INK, width=0.7, length=3)
    if not quantity.larger_is_closer:
        axes.invert_yaxis()
    where = axes.get_position()
    figure.text(
        where.x0,
        1 - (top_inches + 0.1) / figure.get_size_inches()[1],
        "alike",
        fontsize=7.5,
        color=MUTED,
        va="center",
    )


def runs(states: Sequence[int] | npt.NDArray[Any], sizes: npt.NDArray[Any]) -> list[Run]:
    """Return each run of one cluster as (cluster, first map, end), from rows of so many maps."""
    found, row, start = [], 0, 0
    for state, members in groupby(int(state) for state in states):
        count = len(list(members))
        end = start + int(np.sum(sizes[row : row + count]))
        found.append((state, start, end))
        row, start = row + count, end
    return found


def extend_of(values: npt.NDArray[Any], low: float, high: float) -> str:
    """Return at which ends values lie beyond the colours, as matplotlib calls it."""
    known = values[np.isfinite(values)]
    below, above = bool((known < low).any()), bool((known > high).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
        (below, above), "both"
    )


def draw_borders(axes: Axes, found: list[Run], *, noun: str) -> None:
    """Draw lines between clusters, a frame around each, and the numbers at the right."""
    n = found[-1][2]
    height = _height_inches(axes)
    clusters = [(state, start, end) for state, start, end in found if state >= 0]
    # Lines must not hide what they part.
    finest = min((end - start for _, start, end in clusters), default=n) / n * height
    width = float(np.clip(8 * finest, 0.15, 1.0))
    edges = [start for _, start, _ in found[1:]]
    across = [[(0, edge), (n, edge)] for edge in edges] + [[(edge, 0), (edge, n)] for edge in edges]
    axes.add_collection(
        LineCollection(across, colors="white", linewidths=width, label="borders"), autolim=False
    )
    for _, start, end in clusters:
        axes.add_patch(
            Rectangle(
                (start, start),
                end - start,
                end - start,
                fill=False,
                edgecolor=INK,
                lw=width,
                zorder=3,
            )
        )
    lowest = -1.0
    for state, start, end in clusters:
        middle = 0.5 * (start + end) / n * height
        if middle - lowest < 0.1:
            continue
        lowest = middle
        axes.text(n + 0.05 / height * n, 0.5 * (start + end), str(state), fontsize=7, va="center")
    if clusters:
        axes.text(n + 0.05 / height * n, -0.09 / height * n, noun, fontsize=7, color=MUTED)


def draw_bands(axes: Axes, found: list[Run]) -> None:
    """Draw the colours of the clusters above and to the left of the matrix."""
    n = found[-1][2]
    band = BAND_INCHES / _height_inches(axes) * n
    for state, start, end in found:
        for corner, width, height in (
            ((start, -band), end - start, 0.75 * band),
            ((-band, start), 0.75 * band, end - start),
        ):
            axes.add_patch(
                Rectangle(corner, width, height, color=state_colour(state), lw=0, clip_on=False)
            )


def _height_inches(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return float(axes.get_position().height * figure.get_size_inches()[1])
