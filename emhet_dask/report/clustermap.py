"""The occupancy of every part in every volume, both in the order of a tree."""

from __future__ import annotations

import heapq
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster import hierarchy

from emhet_dask.report.matrix_parts import NO_VALUE, extend_of, limits
from emhet_dask.report.names import LETTER_INCHES, shortened
from emhet_dask.report.palette import state_colour, state_colours
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["occupancy_clustermap"]

Array = npt.NDArray[Any]

_WIDTH_INCHES = 10.6
_TREE_INCHES = 0.75
_BAND_INCHES = 0.12
_GAP_INCHES = 0.06
_MOST_HIGH_INCHES = 11.0
_BAR_INCHES = 1.0
# Columns of the picture, about a pixel and a half each; and branches that an eye can follow.
_MOST_COLUMNS = 640
_MOST_LEAVES = 1000
_COLOURS = mpl.colormaps["YlGnBu"].with_extremes(bad=NO_VALUE)
_PRESENT = LinearSegmentedColormap.from_list("present", ["#f4f4f4", "#4d5866"])


@styled
def occupancy_clustermap(
    table: pd.DataFrame,
    *,
    presence: pd.DataFrame | npt.ArrayLike | None = None,
    states: npt.ArrayLike | None = None,
    title: str = "",
    label: str = "occupancy",
    noun: str = "block",
) -> Figure:
    """Draw occupancies, volumes as columns and parts as rows, each ordered by its tree.

    Trees are Ward's, on the occupancies as they are drawn. Of very many volumes those that are
    alike are first put together, and columns of the picture are means.

    Parameters
    ----------
    table : DataFrame (volume, part)
        Columns are named as the parts; their colours follow from the order. NaN is grey.
    presence : DataFrame or array (volume, part), optional
        Where a part counts as present: drawn below, in the same order.
    states : array (volume,), optional
        States, from 0, drawn as a coloured band above.
    title : str
    label : str
        What the colours mean, for the bar.
    noun : str
        What a row is called.
    """
    values = table.to_numpy(dtype=np.float64)
    low, high = _range(values)
    leaf, merges = _volume_tree(np.nan_to_num(values))
    order, edges, spans = _along_tree(leaf, merges)
    part_order, part_lines = _part_tree(np.nan_to_num(values))
    names = shortened([str(name) for name in table.columns], most=24)
    sheet = _Sheet(
        len(names),
        letters=max(map(len, names), default=0),
        with_states=states is not None,
        with_presence=presence is not None,
    )
    figure = new_figure(
        width_inches=_WIDTH_INCHES,
        height_inches=sheet.height,
        title=title or f"Occupancy of {counted(len(names), noun)} in {_volumes(table)}",
        note=_note(len(table), len(edges) - 1),
    )
    _draw_volume_tree(sheet.panel(figure, sheet.tree_top, _TREE_INCHES), merges, spans, len(table))
    if states is not None:
        _draw_states(
            sheet.panel(figure, sheet.band_top, _BAND_INCHES),
            np.asarray(states, dtype=np.intp)[order],
            edges,
        )
    shown = _means(values[order], edges)[:, part_order].T
    norm = Normalize(low, high)
    axes = sheet.panel(figure, sheet.map_top, sheet.map_inches)
    _draw_matrix(axes, shown, edges, norm, _COLOURS)
    _draw_names(axes, names, part_order, sheet.row_inches)
    _draw_part_tree(figure, sheet, part_lines, len(names))
    _draw_bar(figure, sheet, norm, label=label, extend=extend_of(values, low, high))
    if presence is not None:
        present = np.asarray(presence, dtype=np.float64)[order]
        below = sheet.panel(figure, sheet.presence_top, sheet.presence_inches)
        _draw_matrix(
            below, _means(present, edges)[:, part_order].T, edges, Normalize(0, 1), _PRESENT
        )
        _draw_names(below, [], part_order, sheet.presence_inches / max(1, len(names)))
        axes = below
        below.set_title("present", fontsize=8, color=MUTED, pad=3)
    axes.set_xlabel(f"{_volumes(table)}, in the order of the tree", color=MUTED, labelpad=5)
    return figure


class _Sheet:
    """Where everything lies, in inches."""

    def __init__(
        self, n_parts: int, *, letters: int, with_states: bool, with_presence: bool
    ) -> None:
        self.map_left = 0.12 + _TREE_INCHES + _GAP_INCHES
        # Names are written at 7 points, behind a chip of colour.
        self.names_inches = 0.3 + 1.15 * LETTER_INCHES * letters
        self.map_width = _WIDTH_INCHES - self.map_left - self.names_inches - _BAR_INCHES
        self.row_inches = float(np.clip(4.2 / max(1, n_parts), 0.15, 0.42))
        self.row_inches = min(self.row_inches, _MOST_HIGH_INCHES / max(1, n_parts))
        self.map_inches = self.row_inches * n_parts
        self.tree_top = 0.42
        self.band_top = self.tree_top + _TREE_INCHES + 0.03
        self.map_top = self.band_top + (_BAND_INCHES + 0.03 if with_states else 0.0)
        self.presence_top = self.map_top + self.map_inches + 0.3
        self.presence_inches = 0.5 * self.map_inches
        self.end = self.map_top + self.map_inches
        if with_presence:
            self.end = self.presence_top + self.presence_inches
        # The bar of colours has a least height of its own.
        self.height = max(self.end + 0.5, self.map_top + 1.35)

    def panel(self, figure: Figure, top: float, height: float) -> Axes:
        return panel(
            figure,
            left_inches=self.map_left,
            top_inches=top,
            width_inches=self.map_width,
            height_inches=height,
        )


def _range(values: Array) -> tuple[float, float]:
    """Return the ends of the colours: 0 and 1 for what lies about there."""
    known = values[np.isfinite(values)]
    if known.size and np.percentile(known, 1) >= -0.25 and 0.5 < np.percentile(known, 99) <= 1.25:
        return 0.0, 1.0
    return limits(known, whole=known.size < 1000)


def _volumes(table: pd.DataFrame) -> str:
    return counted(len(table), "volume")


def _note(n_volumes: int, n_columns: int) -> str:
    if n_columns >= n_volumes:
        return ""
    each = f"{n_volumes / n_columns:.0f}"
    return f"Each of the {n_columns:,} columns is the mean of about {each} volumes."


# Order --------------------------------------------------------------------------------------------


def _volume_tree(values: Array) -> tuple[Array, Array]:
    """Return the leaf of each volume, and the merges of the leaves (leaf - 1, 4)."""
    leaf = _grouped(values, most=_MOST_LEAVES)
    count = np.bincount(leaf)
    means = np.stack([np.bincount(leaf, weights=column) / count for column in values.T], axis=1)
    if len(means) < 2:
        return leaf, np.empty((0, 4))
    return leaf, np.asarray(hierarchy.linkage(means, "ward"))


def _grouped(values: Array, *, most: int) -> npt.NDArray[np.intp]:
    """Put volumes into at most so many groups of like ones.

    The group with the largest sum of squares about its mean is halved at the mean of the part that
    varies most in it, again and again (as colours are reduced to a palette).
    """
    distinct, group = np.unique(values, axis=0, return_inverse=True)
    if len(distinct) <= most:
        return np.asarray(group.reshape(-1), dtype=np.intp)
    groups = [np.arange(len(values))]
    waiting = [(-_spread(values), 0)]
    while len(groups) < most:
        _, number = heapq.heappop(waiting)
        rows = groups[number]
        part = int(np.argmax(values[rows].var(axis=0)))
        above = values[rows, part] > values[rows, part].mean()
        groups[number], new = rows[~above], rows[above]
        heapq.heappush(waiting, (-_spread(values[groups[number]]), number))
        heapq.heappush(waiting, (-_spread(values[new]), len(groups)))
        groups.append(new)
    leaf = np.empty(len(values), dtype=np.intp)
    for number, rows in enumerate(groups):
        leaf[rows] = number
    return leaf


def _spread(values: Array) -> float:
    return float(values.var(axis=0).sum() * len(values))


def _along_tree(leaf: Array, merges: Array) -> tuple[Array, Array, Array]:
    """Return volumes in the order of the tree, the columns they fall into, and where leaves lie.

    Returns
    -------
    order : array of int (volume,)
    edges : array of int (column + 1,)
        Of the columns, among the volumes in that order.
    spans : array of float (leaf,)
        Middle of each leaf, in volumes.
    """
    leaves = hierarchy.leaves_list(merges) if len(merges) else np.zeros(1, dtype=np.intp)
    rank = np.empty(len(leaves), dtype=np.intp)
    rank[leaves] = np.arange(len(leaves))
    order = np.argsort(rank[leaf], kind="stable")
    count = np.bincount(leaf, minlength=len(leaves))
    ends = np.cumsum(count[leaves])
    middle = np.empty(len(leaves))
    middle[leaves] = ends - 0.5 * count[leaves]
    edges = np.unique(np.linspace(0, len(leaf), min(len(leaf), _MOST_COLUMNS) + 1).astype(np.intp))
    return order, edges, middle


def _part_tree(values: Array) -> tuple[Array, Array]:
    """Return the order of the parts from top to bottom, and the merges."""
    if values.shape[1] < 2 or len(values) < 1:
        return np.arange(values.shape[1]), np.empty((0, 4))
    merges = np.asarray(hierarchy.linkage(values.T, "ward"))
    return np.asarray(hierarchy.leaves_list(merges)), merges


def _means(values: Array, edges: Array) -> Array:
    """Return the means (column, part) of runs of volumes; NaN only where all are."""
    known = np.isfinite(values)
    total = np.add.reduceat(np.where(known, values, 0.0), edges[:-1], axis=0)
    count = np.add.reduceat(known.astype(np.float64), edges[:-1], axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


# Drawing ------------------------------------------------------------------------------------------


def _branches(merges: Array, places: Array) -> list[list[tuple[float, float]]]:
    """Return the line of each merge, as (place, height) along its three sides."""
    place = [*places.tolist(), *[0.0] * len(merges)]
    height = [0.0] * len(place)
    lines = []
    for number, (left, right, distance, _) in enumerate(merges, start=len(places)):
        a, b = sorted((int(left), int(right)), key=lambda node: place[node])
        lines.append(
            [
                (place[a], height[a]),
                (place[a], distance),
                (place[b], distance),
                (place[b], height[b]),
            ]
        )
        place[number], height[number] = 0.5 * (place[a] + place[b]), float(distance)
    return lines


def _draw_volume_tree(axes: Axes, merges: Array, middle: Array, n_volumes: int) -> None:
    axes.add_collection(
        LineCollection(_branches(merges, middle), colors=MUTED, linewidths=0.6), autolim=False
    )
    axes.set_xlim(0, n_volumes)
    axes.set_ylim(0, 1.03 * (float(merges[-1, 2]) if len(merges) else 1.0) or 1.0)
    axes.set_axis_off()


def _draw_part_tree(figure: Figure, sheet: _Sheet, merges: Array, n_parts: int) -> None:
    axes = panel(
        figure,
        left_inches=0.12,
        top_inches=sheet.map_top,
        width_inches=_TREE_INCHES,
        height_inches=sheet.map_inches,
    )
    axes.set_axis_off()
    if not len(merges):
        return
    rank = np.empty(n_parts)
    rank[hierarchy.leaves_list(merges)] = np.arange(n_parts) + 0.5
    lines = [[(y, x) for x, y in line] for line in _branches(merges, rank)]
    axes.add_collection(LineCollection(lines, colors=MUTED, linewidths=0.8), autolim=False)
    axes.set_xlim(1.03 * float(merges[-1, 2]) or 1.0, 0)
    axes.set_ylim(n_parts, 0)


def _draw_matrix(
    axes: Axes, shown: Array, edges: Array, norm: Normalize, colours: Colormap
) -> None:
    axes.pcolormesh(
        edges,
        np.arange(len(shown) + 1),
        np.ma.masked_invalid(shown),
        norm=norm,
        cmap=colours,
        rasterized=True,
    )
    axes.set_ylim(len(shown), 0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_linewidth(0.5)
    rows = np.arange(1, len(shown))
    axes.hlines(rows, edges[0], edges[-1], colors="white", linewidths=0.6)


def _draw_names(axes: Axes, names: list[str], order: Array, row_inches: float) -> None:
    """Write the names at the right, each behind a chip of its colour, as many as there is room."""
    step = max(1, int(np.ceil(0.1 / row_inches)))
    transform = axes.get_yaxis_transform()
    figure = axes.get_figure(root=True)
    assert figure is not None
    inch = 1 / (axes.get_position().width * figure.get_size_inches()[0])
    for row, part in enumerate(order.tolist()):
        axes.add_patch(
            Rectangle(
                (1 + 0.06 * inch, row + 0.12),
                0.1 * inch,
                0.76,
                transform=transform,
                color=state_colour(part),
                lw=0,
                clip_on=False,
            )
        )
        if names and row % step == 0:
            axes.text(
                1 + 0.22 * inch, row + 0.5, names[part], transform=transform, va="center",
                fontsize=7 if row_inches > 0.11 else 5.5, color=INK,
            )  # fmt: skip


def _draw_states(axes: Axes, states: Array, edges: Array) -> None:
    """Draw the state in the middle of each column: a mean of numbers would be none."""
    middle = (edges[:-1] + edges[1:]) // 2
    axes.pcolormesh(edges, [0, 1], state_colours(states[middle])[None], rasterized=True)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_axis_off()
    axes.text(1.008, 0.5, "state", transform=axes.transAxes, va="center", fontsize=7, color=MUTED)


def _draw_bar(figure: Figure, sheet: _Sheet, norm: Normalize, *, label: str, extend: str) -> None:
    axes = panel(
        figure,
        left_inches=_WIDTH_INCHES - 0.72,
        top_inches=sheet.map_top,
        width_inches=0.14,
        height_inches=float(np.clip(sheet.map_inches, 1.1, 3.0)),
    )
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), cax=axes, extend=extend)
    bar.outline.set_linewidth(0.5)
    bar.set_label(label, fontsize=8.5, color=INK)
    axes.tick_params(labelsize=7.5, color=MUTED, labelcolor=INK, width=0.7, length=3)
