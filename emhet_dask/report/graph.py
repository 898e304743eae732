"""The relations between blocks as a graph of assembly: what must be there first is at the left."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Hashable, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Patch

from emhet_dask.report.names import LETTER_INCHES, shortened
from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["relation_graph"]

Place = tuple[float, float]

# The narrowest holds its title and legend; up to the widest, columns spread.
_NARROWEST_INCHES, _WIDTH_INCHES = 6.0, 10.6
_NEEDS, _APART, _BOX = "#4d5866", "#c82143", "#f1f3f5"
_LEAST_RADIUS, _LARGEST_RADIUS = 0.13, 0.27
_LEFT_INCHES = 0.85
# Centres of neighbouring blocks in a column, and of columns.
_ROW_INCHES, _COLUMN_INCHES, _SUBCOLUMN_INCHES = 0.82, 1.95, 1.2
_MOST_SPREAD = 1.5
_NOTE_LETTER_INCHES = 0.056
_MOST_IN_COLUMN = 13


@styled
def relation_graph(
    relations: pd.DataFrame,
    blocks: pd.DataFrame,
    *,
    colours: Sequence[str] | None = None,
    title: str = "",
    noun: str = "block",
) -> Figure:
    """Draw which blocks require, exclude or always accompany one another.

    An arrow leads from what must be there to what requires it; arrows, and exclusions, that follow
    from others are left out. Blocks that always come together stand in one box. Blocks without any
    such relation are listed below.

    Parameters
    ----------
    relations : DataFrame
        As `emhet_dask.analysis.relations.block_relations` gives it: ``block_a``, ``block_b``,
        ``relation``.
    blocks : DataFrame
        A row per block: ``block`` (number or name), and where known ``voxels``, the size of its
        circle, and ``fraction`` of the volumes in which it is present.
    colours : sequence of str, optional
        Of the blocks; by default those of the other figures.
    title : str
    noun : str
        What a node is called.
    """
    names = blocks["block"].tolist()
    graph = _Assembly(relations, names)
    nodes = _nodes(blocks, colours)
    layout = _Layout(graph, letters=max((node.letters for node in nodes.values()), default=0))
    top = 0.65 if graph.related else 0.35
    width = layout.width + 0.3
    note = textwrap.wrap(_note(relations, noun), int((width - 0.24) / _NOTE_LETTER_INCHES))
    figure = new_figure(
        width_inches=width,
        height_inches=layout.height + top + 0.22 + 0.13 * len(note),
        title=title or f"Which {noun}s need, exclude or accompany which",
        note="\n".join(note),
    )
    axes = panel(
        figure,
        left_inches=0.15,
        top_inches=top,
        width_inches=layout.width,
        height_inches=layout.height,
    )
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.set_axis_off()
    shapes = _draw_groups(axes, graph, layout)
    for name in names:
        shapes[name] = _draw_node(axes, layout.place[name], nodes[name], shapes.get(name))
    _draw_relations(axes, graph, shapes)
    if layout.strip is not None:
        text = (
            f"no such relation to another {noun}" if graph.related else _nothing(noun, len(names))
        )
        axes.text(0.05, layout.strip, text, fontsize=8, color=MUTED, va="bottom")
    if graph.related:
        _draw_legend(figure, graph)
    return figure


# What the relations say ---------------------------------------------------------------------------


class _Assembly:
    """Relations without those that follow from others.

    Attributes
    ----------
    groups : list of list
        Blocks that always come together; most are alone.
    layers : list of list of int
        Groups by the longest chain of what they require.
    needs : list of (int, int)
        Group that must be there, group that requires it.
    apart : list of (int, int)
    related : bool
        Whether there is anything to draw.
    alone : list of int
        Groups without a relation.
    """

    def __init__(self, relations: pd.DataFrame, names: list[Hashable]) -> None:
        pairs = [
            (row.block_a, row.block_b, row.relation) for row in relations.itertuples(index=False)
        ]
        graph = nx.DiGraph()
        graph.add_nodes_from(names)
        graph.add_edges_from((b, a) for a, b, relation in pairs if relation == "requires")
        for a, b, relation in pairs:
            if relation == "together":
                graph.add_edges_from([(a, b), (b, a)])
        order = {name: number for number, name in enumerate(names)}
        # Whatever requires each other in a circle comes together, within the tolerance.
        found = sorted(
            (sorted(members, key=order.__getitem__) for members in
             nx.strongly_connected_components(graph)),
            key=lambda members: order[members[0]],
        )  # fmt: skip
        group_of = {name: number for number, members in enumerate(found) for name in members}
        whole = nx.DiGraph()
        whole.add_nodes_from(range(len(found)))
        whole.add_edges_from(
            {(group_of[a], group_of[b]) for a, b in graph.edges if group_of[a] != group_of[b]}
        )
        reduced = nx.transitive_reduction(whole)
        excluded = {
            frozenset((group_of[a], group_of[b]))
            for a, b, relation in pairs
            if relation == "excludes" and group_of[a] != group_of[b]
        }
        self.groups = found
        self.needs = sorted(reduced.edges)
        self.apart = sorted(_not_implied(excluded, whole))
        drawn = {group for pair in [*self.needs, *self.apart] for group in pair}
        drawn |= {number for number, members in enumerate(found) if len(members) > 1}
        self.related = bool(drawn)
        self.alone = [number for number in range(len(found)) if number not in drawn]
        self.layers = _layers(reduced, drawn)


def _not_implied(excluded: set[frozenset[int]], needs: nx.DiGraph) -> list[tuple[int, int]]:
    """Leave out what is apart only because something that it requires is."""
    before = {node: {node, *nx.ancestors(needs, node)} for node in needs}
    kept = []
    for pair in excluded:
        a, b = sorted(pair)
        higher = (frozenset((x, y)) for x in before[a] for y in before[b] if {x, y} != {a, b})
        if not any(each in excluded for each in higher):
            kept.append((a, b))
    return kept


def _layers(graph: nx.DiGraph, drawn: set[int]) -> list[list[int]]:
    """Put each group behind all that it requires, and near the middle of them."""
    depth: dict[int, int] = {}
    for node in nx.lexicographical_topological_sort(graph):
        depth[node] = max((depth[each] + 1 for each in graph.predecessors(node)), default=0)
    layers: list[list[int]] = [[] for _ in range(1 + max((depth[n] for n in drawn), default=0))]
    for node in sorted(drawn):
        layers[depth[node]].append(node)
    height: dict[int, float] = {}
    for layer in layers:
        layer.sort(
            key=lambda node: (
                float(np.mean([height[each] for each in graph.predecessors(node)] or [0.5])),
                node,
            )
        )
        for row, node in enumerate(layer):
            height[node] = (row + 0.5) / len(layer)
    return layers


# Where it is drawn --------------------------------------------------------------------------------


class _Layout:
    """Places of all blocks, in inches from the upper left.

    Attributes
    ----------
    place : dict
        Of each block.
    boxes : dict of int to (left, top, width, height)
        Of groups of several blocks.
    strip : float or None
        Where the list of blocks without relations begins.
    """

    def __init__(self, graph: _Assembly, *, letters: int) -> None:
        self.place: dict[Hashable, Place] = {}
        self.boxes: dict[int, tuple[float, float, float, float]] = {}
        # In a box, words stand beside the circle.
        self._box_width = 0.75 + LETTER_INCHES * max(4, letters)
        columns: list[tuple[float, float, list[int]]] = []
        x = _LEFT_INCHES
        for layer in graph.layers:
            shared = _shared_out(layer, graph.groups)
            for number, part in enumerate(shared):
                # A line to the column behind passes between the blocks of the one before it.
                columns.append((x, number / len(shared) * _ROW_INCHES, part))
                x += _SUBCOLUMN_INCHES
            x += _COLUMN_INCHES - _SUBCOLUMN_INCHES
        right = (columns[-1][0] if columns else 0.0) + self._box_width
        # As many columns as the page holds spread over it; a few do not need it.
        self.width = max(_NARROWEST_INCHES - 0.3, right)
        if graph.related and len(columns) > 1:
            spread = _LEFT_INCHES + _MOST_SPREAD * (columns[-1][0] - _LEFT_INCHES) + self._box_width
            self.width = max(self.width, min(_WIDTH_INCHES - 0.3, spread))
        inner = max(
            (_rows(part, graph.groups) * _ROW_INCHES + 2 * shift for _, shift, part in columns),
            default=0.0,
        )
        inner = inner if graph.related else 0.0
        # Few columns spread over the page.
        stretch = 1.0
        if len(columns) > 1:
            room = self.width - _LEFT_INCHES - self._box_width
            stretch = min(_MOST_SPREAD, max(1.0, room / (columns[-1][0] - _LEFT_INCHES)))
        for x, shift, part in columns if graph.related else []:
            self._stack(
                _LEFT_INCHES + (x - _LEFT_INCHES) * stretch, shift, part, graph.groups, inner
            )
        self.strip: float | None = None
        self.height = inner + 0.1
        if graph.alone:
            self.strip = self.height + 0.25
            per_row = max(1, int((self.width - 0.5) / 0.8))
            for number, group in enumerate(graph.alone):
                row, column = divmod(number, per_row)
                self.place[graph.groups[group][0]] = (
                    0.45 + 0.8 * column,
                    self.strip + 0.4 + _ROW_INCHES * row,
                )
            self.height = self.strip + _ROW_INCHES * (1 + (len(graph.alone) - 1) // per_row) + 0.1

    def _stack(
        self, x: float, shift: float, part: list[int], groups: list[list[Any]], inner: float
    ) -> None:
        y = shift + 0.5 * (inner - _rows(part, groups) * _ROW_INCHES)
        for group in part:
            members = groups[group]
            if len(members) > 1:
                height = _ROW_INCHES * len(members)
                self.boxes[group] = (x - 0.36, y + 0.03, self._box_width, height - 0.06)
            for name in members:
                self.place[name] = (x, y + (0.5 if len(members) > 1 else 0.42) * _ROW_INCHES)
                y += _ROW_INCHES


def _rows(part: list[int], groups: list[list[Any]]) -> float:
    return float(sum(len(groups[group]) for group in part))


def _shared_out(layer: list[int], groups: list[list[Any]]) -> list[list[int]]:
    """Cut a layer that is too tall for the page into several columns."""
    count = -(-int(_rows(layer, groups)) // _MOST_IN_COLUMN)
    return [layer[start::count] for start in range(count)] if count > 1 else [layer]


# Drawing ------------------------------------------------------------------------------------------


class _Node:
    """How one block is drawn."""

    def __init__(self, label: str, *, colour: str, radius: float, share: str) -> None:
        self.inside = label if len(label) <= 3 else ""
        self.words = "\n".join(filter(None, ["" if self.inside else label, share]))
        self.letters = max(map(len, self.words.split("\n")))
        self.colour, self.radius = colour, radius
        dark = float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) < 0.62
        self.ink = "white" if dark else INK


def _nodes(blocks: pd.DataFrame, colours: Sequence[str] | None) -> dict[Hashable, _Node]:
    labels = shortened([str(name) for name in blocks["block"]], most=14)
    voxels = np.asarray(blocks.get("voxels", pd.Series(1.0, index=blocks.index)), dtype=float)
    share = np.sqrt(voxels / max(float(voxels.max(initial=0.0)), 1e-30))
    radii = _LEAST_RADIUS + (_LARGEST_RADIUS - _LEAST_RADIUS) * share
    fractions = blocks.get("fraction", pd.Series(np.nan, index=blocks.index))
    found = {}
    for row, (name, fraction) in enumerate(zip(blocks["block"], fractions, strict=True)):
        found[name] = _Node(
            labels[row],
            colour=state_colour(row) if colours is None else colours[row],
            radius=float(radii[row]),
            share="" if pd.isna(fraction) else f"{fraction:.0%}",
        )
    return found


def _draw_groups(axes: Axes, graph: _Assembly, layout: _Layout) -> dict[Hashable, Patch]:
    """Draw a box around what always comes together; return it for each block in it."""
    shapes: dict[Hashable, Patch] = {}
    for group, (left, top, width, height) in layout.boxes.items():
        box = FancyBboxPatch(
            (left, top),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=_BOX,
            edgecolor=MUTED,
            lw=0.7,
            zorder=1,
        )
        axes.add_patch(box)
        shapes |= dict.fromkeys(graph.groups[group], box)
        places = [layout.place[name] for name in graph.groups[group]]
        for (x, y), (_, end) in itertools.pairwise(places):
            for shift in (-0.035, 0.035):
                axes.plot([x + shift] * 2, [y, end], color=_NEEDS, lw=1.3, zorder=1.5)
    return shapes


def _draw_node(axes: Axes, place: Place, node: _Node, box: Patch | None) -> Patch:
    """Draw a block; return the shape at which lines to it end."""
    x, y = place
    circle = Circle(place, node.radius, facecolor=node.colour, edgecolor="white", lw=1, zorder=3)
    axes.add_patch(circle)
    if node.inside:
        axes.text(
            x, y, node.inside, ha="center", va="center", fontsize=8, color=node.ink,
            weight="bold", zorder=4,
        )  # fmt: skip
    if box is None:
        where: dict[str, Any] = {"x": x, "y": y + node.radius + 0.03, "ha": "center", "va": "top"}
    else:
        where = {"x": x + _LARGEST_RADIUS + 0.05, "y": y, "ha": "left", "va": "center"}
    axes.text(s=node.words, fontsize=7, color=INK, linespacing=1.05, zorder=4, **where)
    return circle if box is None else box


def _draw_relations(axes: Axes, graph: _Assembly, shapes: dict[Hashable, Patch]) -> None:
    for pairs, arrow in ((graph.needs, True), (graph.apart, False)):
        for a, b in pairs:
            _connect(axes, shapes[graph.groups[a][0]], shapes[graph.groups[b][0]], arrow=arrow)


def _ends(shape: Patch) -> tuple[float, float, float]:
    """Return the left end of a shape, its middle, and how high that is."""
    if isinstance(shape, Circle):
        x, y = shape.center
        return x - shape.radius, x, y
    assert isinstance(shape, FancyBboxPatch)
    x, y = shape.get_x(), shape.get_y()
    return x, x + 0.5 * shape.get_width(), y + 0.5 * shape.get_height()


def _connect(axes: Axes, a: Patch, b: Patch, *, arrow: bool) -> None:
    (left_a, x_a, y_a), (left_b, x_b, y_b) = _ends(a), _ends(b)
    if abs(x_a - x_b) < 0.6 and not arrow:
        # Within a column a straight line would run through what lies between: round the left side.
        start, end = sorted([(left_a, y_a), (left_b, y_b)], key=lambda place: place[1])
        bend = min(1.0, 0.75 / max(abs(y_a - y_b), 1e-9))
        place: dict[str, Any] = {"posA": start, "posB": end}
    else:
        bend = 0.0 if arrow else 0.12
        place = {"posA": (x_a, y_a), "posB": (x_b, y_b), "patchA": a, "patchB": b}
    axes.add_patch(
        FancyArrowPatch(
            **place,
            arrowstyle="-|>,head_length=0.45,head_width=0.2"
            if arrow
            else "|-|,widthA=0.28,widthB=0.28",
            connectionstyle=f"arc3,rad={bend}",
            mutation_scale=14,
            shrinkA=3,
            shrinkB=3,
            color=_NEEDS if arrow else _APART,
            lw=1.3,
            linestyle="solid" if arrow else (0, (4, 2)),
            zorder=2,
        )
    )


def _draw_legend(figure: Figure, graph: _Assembly) -> None:
    handles: list[Any] = []
    if graph.needs:
        handles.append(
            Line2D([], [], color=_NEEDS, lw=1.3, marker=">", markevery=[1], markersize=5,
                   label="A → B: B only where A is")
        )  # fmt: skip
    if any(len(members) > 1 for members in graph.groups):
        handles.append(
            Line2D([], [], color=_NEEDS, lw=1.3, marker="s", markersize=9, markerfacecolor=_BOX,
                   markeredgecolor=MUTED, label="always together")
        )  # fmt: skip
    if graph.apart:
        handles.append(
            Line2D([], [], color=_APART, lw=1.3, linestyle=(0, (4, 2)), marker="|", markersize=7,
                   label="never together")
        )  # fmt: skip
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=3,
        handlelength=3.2,
        borderpad=0,
        borderaxespad=0.0,
        bbox_to_anchor=(0.12 / width, 1 - 0.36 / height),
    )


def _nothing(noun: str, count: int) -> str:
    if count < 2:
        return f"One {noun}: there is nothing for it to be related to."
    return (
        f"No {noun} requires, excludes or always accompanies another, as far as these volumes tell."
    )


def _note(relations: pd.DataFrame, noun: str) -> str:
    text = f"Beside each {noun}: share of the volumes that have it. Area: voxels."
    weak = int(relations["relation"].isin(["associated", "opposed"]).sum())
    if not weak:
        return text
    are = "is" if weak == 1 else "are"
    return (
        f"{text} {counted(weak, 'pair')} {are} together more or less often than by chance, but not "
        "always or never: not drawn."
    )
