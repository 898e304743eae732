"""Where the particles of each class go from job to job, as ribbons between columns of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from emhet_dask.report.names import shortened
from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["ClassFlow", "class_flow", "sankey"]

_COLUMN_INCHES = 2.3
_NODE_INCHES = 0.62
_CLASS_INCHES = 0.5
_LOWEST_INCHES = 3.2
_HIGHEST_INCHES = 8.0
# Empty space between the classes of a column, of its height.
_GAPS = 0.12
_NODE = "#4d4d4d"
# Ribbons thinner than a quarter of a pixel at both ends would only cost time.
_THINNEST_INCHES = 0.002


@dataclass(frozen=True, eq=False)
class ClassFlow:
    """Particles that go from each class of a column to each class of the next.

    Attributes
    ----------
    titles : tuple of str
        Of the columns: the jobs, then the consensus.
    labels : tuple of list of str
        Of the classes of each column, from top to bottom.
    sizes : tuple of array (class,)
        Particles in each class.
    counts : tuple of array (class, class of the next column, consensus class)
        The first consensus class is what is unresolved.
    order : array (consensus class,)
        Consensus numbers, in the order in which ribbons lie from top to bottom.
    """

    titles: tuple[str, ...]
    labels: tuple[list[str], ...]
    sizes: tuple[npt.NDArray[np.int64], ...]
    counts: tuple[npt.NDArray[np.int64], ...]
    order: npt.NDArray[np.intp]

    def colour(self, column: int, node: int) -> str:
        """Return the colour of a class: its own in the last column, grey in those of the jobs."""
        if column < len(self.titles) - 1:
            return _NODE
        return state_colour(int(self.order[node]) - 1)


def class_flow(
    labels: npt.ArrayLike,
    consensus: npt.ArrayLike,
    *,
    names: Sequence[str],
    classes: Sequence[Sequence[int]],
) -> ClassFlow:
    """Count the particles between neighbouring jobs, and between the last and the consensus.

    Classes without particles are left out. Those of each job are ordered by the consensus classes
    that their particles are in, so that few ribbons cross.

    Parameters
    ----------
    labels : array (job, particle)
        Class numbers.
    consensus : array (particle,)
        Consensus class, 0 for none.
    names : sequence of str
        Of the jobs.
    classes : sequence of sequence of int
        All classes of each job, ascending.
    """
    table, final = np.asarray(labels), np.asarray(consensus)
    n_consensus = int(final.max()) + 1
    order = _consensus_order(table, final)
    order = order[np.bincount(final, minlength=n_consensus)[order] > 0]
    height = np.empty(n_consensus)
    height[order] = np.arange(len(order))
    codes, columns, sizes = [], [], []
    for row, known in zip(table, classes, strict=True):
        code = np.searchsorted(np.asarray(known), row)
        size = np.bincount(code, minlength=len(known))
        there = np.flatnonzero(size)
        mean = np.bincount(code, height[final], minlength=len(known))[there] / size[there]
        kept = there[np.argsort(mean, kind="stable")]
        place = np.zeros(len(known), dtype=np.intp)
        place[kept] = np.arange(len(kept))
        codes.append(place[code])
        columns.append([str(known[k]) for k in kept])
        sizes.append(size[kept])
    place = np.zeros(n_consensus, dtype=np.intp)
    place[order] = np.arange(len(order))
    codes.append(place[final])
    columns.append([str(number) if number else "unresolved" for number in order])
    sizes.append(np.bincount(final, minlength=n_consensus)[order])
    counts = []
    for left, right, one, two in zip(codes, codes[1:], sizes, sizes[1:], strict=False):
        shape = len(one), len(two), n_consensus
        cells = np.bincount((left * shape[1] + right) * shape[2] + final, minlength=np.prod(shape))
        counts.append(cells.reshape(shape))
    return ClassFlow((*names, "consensus"), tuple(columns), tuple(sizes), tuple(counts), order)


def _consensus_order(
    labels: npt.NDArray[np.int64], consensus: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Order consensus numbers by the class that most of each is in, the larger first, job by job.

    Unresolved particles lie below all others.
    """
    keys = []
    for number in range(1, int(consensus.max()) + 1):
        inside = consensus == number
        key: list[int] = []
        for row in labels:
            known, counts = np.unique(row[inside], return_counts=True)
            main = int(known[counts.argmax()]) if len(known) else -1
            key += [-int(np.count_nonzero(row == main)), main]
        keys.append((key, number))
    return np.array([*(number for _, number in sorted(keys)), 0])


@styled
def sankey(flow: ClassFlow, *, fractions: bool = False) -> Figure:
    """Draw the ribbons between the columns, coloured by consensus class.

    Parameters
    ----------
    flow : ClassFlow
    fractions : bool
        Draw every class equally high: a ribbon is as wide as its share of the class at either end.
    """
    most = max(len(column) for column in flow.labels)
    height = float(np.clip(_CLASS_INCHES * most, _LOWEST_INCHES, _HIGHEST_INCHES))
    width = _COLUMN_INCHES * (len(flow.titles) - 1) + _NODE_INCHES
    total = counted(int(flow.sizes[0].sum()), "particle")
    figure = new_figure(
        width_inches=max(width + 0.7, 6.0),
        height_inches=height + 1.15,
        title=f"{total} from job to job, " + ("as shares of classes" if fractions else "as counts"),
        note="ribbons have the colour of their consensus class"
        + ("; every class is drawn equally high" if fractions else ""),
    )
    axes = panel(figure, left_inches=0.35, top_inches=0.8, width_inches=width, height_inches=height)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(1, 0)
    spans = [_spans(sizes, fractions=fractions) for sizes in flow.sizes]
    for column, counts in enumerate(flow.counts):
        ends = spans[column], spans[column + 1]
        _draw_ribbons(axes, flow, column, counts, ends, height_inches=height)
    titles = shortened(flow.titles, most=22)
    for column, title in enumerate(titles):
        left = column * _COLUMN_INCHES
        axes.text(
            left + _NODE_INCHES / 2, -0.09 / height, title, ha="center", va="bottom", weight="bold"
        )
        for node, (top, bottom) in enumerate(spans[column]):
            axes.add_patch(
                Rectangle(
                    (left, top), _NODE_INCHES, bottom - top, color=flow.colour(column, node), lw=0
                )
            )
            _write_label(axes, flow, (column, node), (left, top, bottom), height_inches=height)
    return figure


def _spans(sizes: npt.NDArray[np.int64], *, fractions: bool) -> list[tuple[float, float]]:
    """Return top and bottom of each class of a column, from 0 to 1."""
    share = np.ones(len(sizes)) if fractions else sizes.astype(np.float64)
    gap = _GAPS / max(len(sizes) - 1, 1) if len(sizes) > 1 else 0.0
    heights = share / share.sum() * (1 - gap * (len(sizes) - 1))
    tops = np.concatenate([[0.0], np.cumsum(heights + gap)[:-1]])
    return [(float(top), float(top + height)) for top, height in zip(tops, heights, strict=True)]


def _draw_ribbons(
    axes: Axes,
    flow: ClassFlow,
    column: int,
    counts: npt.NDArray[np.int64],
    spans: tuple[list[tuple[float, float]], list[tuple[float, float]]],
    *,
    height_inches: float,
) -> None:
    start = column * _COLUMN_INCHES + _NODE_INCHES
    end = (column + 1) * _COLUMN_INCHES
    left_of, right_of = _offsets(flow, counts, spans)
    middle = 0.5 * (start + end)
    for i, j, k in np.argwhere(counts):
        (a, b), (c, d) = left_of[i, j, k], right_of[i, j, k]
        if max(b - a, d - c) * height_inches < _THINNEST_INCHES:
            continue
        outline = [
            (start, a), (middle, a), (middle, c), (end, c),
            (end, d), (middle, d), (middle, b), (start, b), (start, a),
        ]  # fmt: skip
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
        colour = state_colour(int(k) - 1)
        axes.add_patch(PathPatch(Path(outline, codes), facecolor=colour, alpha=0.55, lw=0))


Ends = dict[tuple[int, int, int], tuple[float, float]]


def _offsets(
    flow: ClassFlow,
    counts: npt.NDArray[np.int64],
    spans: tuple[list[tuple[float, float]], list[tuple[float, float]]],
) -> tuple[Ends, Ends]:
    """Return where each ribbon begins and ends: at either end, sorted by where it goes."""
    sides: list[Ends] = []
    for side in (0, 1):
        ends: Ends = {}
        turned = counts if side == 0 else counts.swapaxes(0, 1)
        for node, (top, bottom) in enumerate(spans[side]):
            scale = (bottom - top) / max(int(turned[node].sum()), 1)
            at = top
            for other in range(turned.shape[1]):
                for k in flow.order:
                    count = turned[node, other, k]
                    if count:
                        key = (node, other, int(k)) if side == 0 else (other, node, int(k))
                        ends[key] = (at, at + scale * count)
                        at += scale * count
        sides.append(ends)
    return sides[0], sides[1]


def _write_label(
    axes: Axes,
    flow: ClassFlow,
    which: tuple[int, int],
    box: tuple[float, float, float],
    *,
    height_inches: float,
) -> None:
    column, node = which
    left, top, bottom = box
    room = (bottom - top) * height_inches
    number, size = flow.labels[column][node], f"{flow.sizes[column][node]:,}"
    middle = 0.5 * (top + bottom)
    ink = _ink_on(flow.colour(column, node))
    inside: Any = {"ha": "center", "va": "center", "color": ink}
    centre = left + _NODE_INCHES / 2
    small = number == "unresolved"
    if room >= 0.3:
        shift = 0.075 / height_inches
        axes.text(
            centre, middle - shift, number, fontsize=6 if small else 8.5, weight="bold", **inside
        )
        axes.text(centre, middle + shift, size, fontsize=6.5, **inside)
    elif room >= 0.11 and not small:
        axes.text(centre, middle, f"{number}: {size}", fontsize=6, **inside)
    else:
        # Too low for letters: beside it, where at the last column there is nothing else.
        text = f"{number}: {size}"
        last = column == len(flow.titles) - 1
        axes.text(
            left + (-0.04 if last else _NODE_INCHES + 0.04),
            middle,
            text,
            ha="right" if last else "left",
            va="center",
            fontsize=6,
            color=INK if not small else MUTED,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _ink_on(colour: str) -> str:
    """Return the colour of letters that can be read on a colour."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.62 else INK
