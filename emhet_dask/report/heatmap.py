"""The heat map: every pair of maps, in the order of the tree, with the tree above."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emhet_dask.report.matrix_parts import (
    BAND_INCHES,
    NO_VALUE,
    colours_of,
    draw_bands,
    draw_borders,
    draw_colour_bar,
    extend_of,
    limits,
    runs,
)
from emhet_dask.report.merges import halfway, lay_out
from emhet_dask.report.names import LETTER_INCHES, shortened
from emhet_dask.report.quantities import Quantity
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["MOST_MAPS", "similarity_heatmap"]

Array = npt.NDArray[Any]

MOST_MAPS = 2000
_SIDE_INCHES = 7.4
_TREE_INCHES = 1.15
_MOST_LETTERS = 30
_NAME_INCHES = 0.105
_COARSEST_NAMES = 8
_DIAGONAL = "#ececec"


@styled
def similarity_heatmap(
    matrix: npt.ArrayLike,
    *,
    quantity: Quantity,
    linkage: npt.ArrayLike,
    states: npt.ArrayLike,
    names: Sequence[str] | None = None,
    cut_height: float | None = None,
    leaf_height: float = 0.0,
    height_label: str = "",
    noun: str = "cluster",
) -> Figure:
    """Draw the matrix of all pairs in the order of the tree.

    Parameters
    ----------
    matrix : array (map, map)
        Symmetric. The diagonal is not drawn. NaN where a pair has no value.
    quantity : Quantity
        What the values are.
    linkage : array (leaf - 1, 4)
        SciPy's linkage matrix over the maps that have values, in the order of the matrix.
    states : array (map,)
        Cluster of each map, from 0; what it says of a map without values is not looked at.
    names : sequence of str, optional
        Of the maps; written where they fit.
    cut_height : float, optional
        Merges above it are undone; by default halfway between two merges.
    leaf_height : float
        Where the branches of the tree begin: the distance of a map from itself.
    height_label : str
        What the height of a merge means; by default the quantity's distance.
    noun : str
        What a group is called.

    Raises
    ------
    ValueError
        When the matrix has more than 2,000 rows, for which `density_matrix` is meant, or when the
        tree has not a leaf for each map that has values.
    """
    matrix = np.array(matrix, dtype=np.float64)
    n = len(matrix)
    if n > MOST_MAPS:
        raise ValueError(f"{n:,} maps are too many for a heat map: draw a density_matrix")
    np.fill_diagonal(matrix, np.nan)
    merges = np.asarray(linkage, dtype=np.float64).reshape(-1, 4)
    known = np.flatnonzero(np.isfinite(matrix).any(axis=1)) if n > 1 else np.arange(n)
    if len(merges) != max(len(known) - 1, 0):
        raise ValueError(f"a tree of {len(merges) + 1} leaves for {len(known)} maps with values")
    tree = lay_out(merges, np.asarray(states, dtype=np.intp)[known], most_leaves=max(len(known), 2))
    without = np.setdiff1d(np.arange(n), known)
    order = np.concatenate([known[tree.leaves], without]).astype(np.intp)
    found = runs([*tree.states, *[-1] * len(without)], np.ones(n, int))
    values = matrix[np.ix_(order, order)]
    side = float(np.clip(0.5 * n, 3.4, _SIDE_INCHES))
    step = _step(n, side) if names is not None else 0
    words = shortened([names[k] for k in order] if names is not None else [], most=_MOST_LETTERS)
    room = (max(map(len, words), default=0) * LETTER_INCHES + 0.1) if step else 0.1
    note = _note(n, step, [words[k] if words else "" for k in range(len(known), n)])
    left, top = max(room, 0.72) + BAND_INCHES, 0.45 + _TREE_INCHES + BAND_INCHES
    lines = textwrap.wrap(note, int(13.0 * (left + side + 1.2)))
    n_states = len({state for state, _, _ in found if state >= 0})
    figure = new_figure(
        width_inches=left + side + 1.35,
        height_inches=top + side + room + 0.12 + 0.15 * len(lines),
        title=f"{counted(n, 'map')} in {counted(n_states, noun)}, in the order of the tree",
        note="\n".join(lines),
    )
    axes = panel(figure, left_inches=left, top_inches=top, width_inches=side, height_inches=side)
    low, high = limits(values.ravel(), whole=n <= 100)
    norm, colours = Normalize(low, high), colours_of(quantity)
    _draw_values(axes, values, norm, colours)
    _hatch(axes, len(known), n)
    draw_bands(axes, found)
    draw_borders(axes, found, noun=noun)
    _write_names(axes, words, step)
    _write_values(axes, values, norm, colours, cell_inches=side / n)
    draw_colour_bar(
        figure,
        norm,
        quantity,
        extend=extend_of(values, low, high),
        left_inches=left + side + 0.45,
        top_inches=top,
        height_inches=min(side, 3.2),
    )
    above = panel(
        figure,
        left_inches=left,
        top_inches=0.42,
        width_inches=side,
        height_inches=_TREE_INCHES - 0.02,
    )
    cut = halfway(merges[:, 2], n_states) if cut_height is None else cut_height
    _draw_tree(above, tree.lines, tree.colours, n, cut=cut, floor=leaf_height)
    above.set_ylabel(textwrap.fill(height_label or quantity.distance, 26), fontsize=7)
    return figure


def _step(n: int, side: float) -> int:
    """Return that every step-th name fits, or 0 where too few of them would."""
    step = int(np.ceil(n * _NAME_INCHES / side))
    return step if step <= _COARSEST_NAMES else 0


def _note(n: int, step: int, without: list[str]) -> str:
    parts = ["The diagonal, each map with itself, is left out of the colours."]
    if step > 1:
        parts.append(f"One in {step} names is written.")
    if without:
        who = f" ({', '.join(without)})" if any(without) and len(without) <= 5 else ""
        those = "a map that has" if len(without) == 1 else f"{len(without)} maps that have"
        parts.append(f"Hatched: {those} no values{who}, such as one that is constant.")
    if n > 100:
        parts.append("Colours from the 1st to the 99th percentile of the pairs.")
    return " ".join(parts)


def _draw_values(axes: Axes, values: Array, norm: Normalize, colours: Colormap) -> None:
    n = len(values)
    axes.imshow(
        np.ma.masked_invalid(values),
        norm=norm,
        cmap=colours,
        extent=(0, n, n, 0),
        interpolation="nearest" if n <= 300 else "antialiased",
        aspect="auto",
    )
    if n <= 300:
        for k in range(n):
            axes.add_patch(Rectangle((k, k), 1, 1, facecolor=_DIAGONAL, lw=0))
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _hatch(axes: Axes, first: int, n: int) -> None:
    """Hatch the rows and columns of maps without values, which come last."""
    if first == n:
        return
    for corner, width, height in (((first, 0), n - first, n), ((0, first), first, n - first)):
        axes.add_patch(
            Rectangle(
                corner, width, height, facecolor=NO_VALUE, edgecolor="white", hatch="////", lw=0
            )
        )


def _write_names(axes: Axes, words: list[str], step: int) -> None:
    if step == 0:
        return
    places = np.arange(0, len(words), step)
    labels = [words[k] for k in places]
    axes.set_xticks(places + 0.5, labels, rotation=90)
    axes.set_yticks(places + 0.5, labels)
    size = 7 if len(labels) < 50 else 6.3
    axes.tick_params(length=0, labelsize=size, labelcolor=INK)
    axes.tick_params(axis="y", pad=72 * BAND_INCHES + 2)


def _write_values(
    axes: Axes, values: Array, norm: Normalize, colours: Colormap, *, cell_inches: float
) -> None:
    """Write the values into their cells, where they can be read there."""
    if cell_inches < 0.2:
        return
    words = _figures(values)
    longest = max(map(len, words.ravel()))
    size = min(0.92 * 72 * cell_inches / (0.62 * max(longest, 1)), 8.5)
    if size < 5 or not longest:
        return
    shades = colours(norm(np.nan_to_num(values)))[..., :3]
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    # Relative luminance; at 0.18 black and white have the same contrast (WCAG 2.1).
    dark = linear @ [0.2126, 0.7152, 0.0722] < 0.18
    for row, column in np.argwhere(np.isfinite(values)):
        axes.text(
            column + 0.5,
            row + 0.5,
            words[row, column],
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark[row, column] else "black",
        )


def _figures(values: Array) -> Array:
    """Return values as text, with digits enough to tell them apart; empty for NaN."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.full(values.shape, "", dtype=object)
    highest = float(np.abs(known).max())
    # Equal but for rounding: two digits of the value itself.
    spread = float(np.ptp(known)) if np.ptp(known) > 1e-6 * highest else 0.1 * highest or 1.0
    least = 2 if highest < 10 else int(highest < 1000)
    digits = int(np.clip(np.ceil(-np.log10(spread)) + 1, least, 4))
    large = highest >= 1e4 or highest < 1e-2
    form = "{:.3g}" if large else f"{{:.{digits}f}}"
    return np.array(
        [[form.format(v) if np.isfinite(v) else "" for v in row] for row in values], dtype=object
    )


def _draw_tree(
    axes: Axes,
    lines: list[list[tuple[float, float]]],
    colours: list[str],
    n: int,
    *,
    cut: float,
    floor: float,
) -> None:
    # A leaf is in the middle of its row; branches begin at the floor.
    placed = [[(x + 0.5, max(y, floor)) for x, y in line] for line in lines]
    axes.add_collection(
        LineCollection(placed, colors=colours, linewidths=0.9 if n <= 300 else 0.5),
        autolim=False,
    )
    highest = max((line[1][1] for line in placed), default=floor + 1.0)
    axes.set_xlim(0, n)
    axes.set_ylim(floor, highest + 0.05 * (highest - floor) if highest > floor else floor + 1)
    axes.axhline(cut, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(1.008, cut, "cut", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=6.5, labelcolor=MUTED)
