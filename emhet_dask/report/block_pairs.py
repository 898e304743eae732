"""Every pair of blocks: how their odds hang together, and what that makes them."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.style import INK, MUTED, counted, new_figure, panel, styled

__all__ = ["block_matrix"]

Array = npt.NDArray[Any]

# Sign of the pair in the row of the first block, and in the row of the second.
_SIGNS = {
    "requires": ("⊂", "⊃"),
    "excludes": ("×", "×"),
    "together": ("=", "="),
    "associated": ("+", "+"),
    "opposed": ("−", "−"),
    "independent": ("", ""),
}
_WORDS = (
    ("⊂", "row only with column"),
    ("⊃", "column only with row"),
    ("=", "always together"),
    ("×", "never together"),
    ("+", "more often together"),
    ("−", "less often together"),
)
_MOST_BLOCKS = 60
# Least and most that the darkest colours stand for, as log2.
_FLATTEST = 4.0
_STEEPEST = 7.0
_DIAGONAL = "#cccccc"
_UNKNOWN = "#ffffff"  # of a block that is always or never present


@styled
def block_matrix(relations: pd.DataFrame, *, n_blocks: int) -> Figure:
    """Draw the odds ratio of every pair of blocks, with the sign of their relation.

    Parameters
    ----------
    relations : DataFrame
        A row per pair: ``block_a``, ``block_b``, ``relation`` and ``odds_ratio``; of ``requires``,
        block_a occurs only with block_b.
    n_blocks : int
        At most 60 are drawn, the first.

    Raises
    ------
    ValueError
        Where a relation has no sign.
    """
    unknown = sorted(set(relations["relation"]) - set(_SIGNS))
    if unknown:
        raise ValueError(f"no sign for the relation {unknown[0]!r}")
    n = min(n_blocks, _MOST_BLOCKS)
    odds, signs = _square(relations, n)
    side = float(np.clip(0.34 * n, 2.2, 8.2))
    figure = new_figure(
        width_inches=0.75 + side + 2.5,
        height_inches=0.75 + max(side, 3.2) + 0.6,
        title=f"Pairs of {counted(n_blocks, 'block')}",
        note=_note(n, n_blocks),
    )
    axes = panel(figure, left_inches=0.75, top_inches=0.75, width_inches=side, height_inches=side)
    if n == 0:
        axes.set_axis_off()
        axes.text(0, 1, "no block was found", va="top")
        return figure
    known = np.abs(odds[np.isfinite(odds)])
    limit = float(np.clip(known.max(initial=0.0), _FLATTEST, _STEEPEST))
    norm = Normalize(-limit, limit)
    colours = mpl.colormaps["RdBu"]
    axes.imshow(
        np.ma.masked_invalid(np.clip(odds, -limit, limit)),
        norm=norm,
        cmap=colours.with_extremes(bad=_UNKNOWN),
        extent=(0, n, n, 0),
        interpolation="nearest",
    )
    for k in range(n):
        axes.add_patch(Rectangle((k, k), 1, 1, facecolor=_DIAGONAL, lw=0))
    _write(axes, signs, odds / limit, size=min(0.55 * 72 * side / n, 11.0))
    _name(axes, n)
    _draw_key(figure, norm, left=0.75 + side + 0.35, infinite=bool((np.abs(odds) > limit).any()))
    return figure


def _note(shown: int, n_blocks: int) -> str:
    words = "No sign: independent, as far as these volumes tell.\n"
    words += "A rule may have exceptions in a few volumes: the table counts them."
    return words + (f" The first {shown} of {n_blocks} blocks." if shown < n_blocks else "")


def _square(relations: pd.DataFrame, n: int) -> tuple[Array, Array]:
    """Return log2 of the odds ratios, NaN where unknown, and the signs, both (row, column)."""
    odds = np.full((n, n), np.nan)
    signs = np.full((n, n), "", dtype=object)
    drawn = relations[(relations["block_a"] <= n) & (relations["block_b"] <= n)]
    with np.errstate(divide="ignore"):
        log_odds = np.log2(drawn["odds_ratio"].to_numpy(dtype=float))
    for a, b, relation, value in zip(
        drawn["block_a"] - 1, drawn["block_b"] - 1, drawn["relation"], log_odds, strict=True
    ):
        odds[a, b] = odds[b, a] = value
        signs[a, b], signs[b, a] = _SIGNS[relation]
    return odds, signs


def _write(axes: Axes, signs: Array, strength: Array, *, size: float) -> None:
    for row, column in np.argwhere(signs != ""):
        pale = not abs(strength[row, column]) > 0.6
        axes.text(
            column + 0.5,
            row + 0.5,
            signs[row, column],
            ha="center",
            va="center_baseline",
            fontsize=size,
            color=INK if pale else "white",
        )


def _name(axes: Axes, n: int) -> None:
    step = 1 if n <= 40 else 2
    places = np.arange(0, n, step)
    axes.set_xticks(places + 0.5, [str(k + 1) for k in places])
    axes.set_yticks(places + 0.5, [str(k + 1) for k in places])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("block", labelpad=3)
    axes.set_ylabel("block", labelpad=3)
    axes.tick_params(length=0, labelsize=7, pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    band = 0.06 * n / (axes.get_position().width * axes.figure.get_size_inches()[0])  # type: ignore[union-attr]
    for k in range(n):
        for corner, width, height in (((k, -band), 1, 0.8 * band), ((-band, k), 0.8 * band, 1)):
            axes.add_patch(
                Rectangle(corner, width, height, color=block_colour(k + 1), lw=0, clip_on=False)
            )
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)


def _draw_key(figure: Figure, norm: Normalize, *, left: float, infinite: bool) -> None:
    bar_axes = panel(
        figure, left_inches=left, top_inches=0.75, width_inches=0.16, height_inches=1.7
    )
    bar = figure.colorbar(
        ScalarMappable(norm, mpl.colormaps["RdBu"]),
        cax=bar_axes,
        extend="both" if infinite else "neither",
    )
    bar.outline.set_linewidth(0.5)
    bar.set_label("odds ratio (log2)", fontsize=8)
    bar_axes.tick_params(labelsize=7, color=MUTED, labelcolor=INK, width=0.7, length=3)
    words = panel(figure, left_inches=left, top_inches=2.62, width_inches=2.0, height_inches=1.3)
    words.set_axis_off()
    words.set_xlim(0, 2.0)
    words.set_ylim(len(_WORDS), 0)
    for k, (sign, meaning) in enumerate(_WORDS):
        words.text(0.08, k + 0.5, sign, fontsize=10, ha="center", va="center")
        words.text(0.25, k + 0.5, meaning, fontsize=7.5, va="center")
