"""Particles on the landscape of a sketch: where they are, how sure, and with what error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from emhet_dask.report.palette import state_colours
from emhet_dask.report.scatter import component_label
from emhet_dask.report.style import ACCENT, INK, MUTED, WARNING, counted, new_figure, panel, styled

__all__ = ["particle_density", "score_errors", "state_confidence"]

Array = npt.NDArray[Any]

_FEWEST_BINS, _MOST_BINS = 40, 160
_MOST_STATES = 60
_KINDS = ((ACCENT, "o"), (WARNING, "s"), ("#009e73", "D"))
# At most so many parts of the error of a component that it may have to be of use.
_LIMIT = 0.01


@styled
def particle_density(
    scores: npt.ArrayLike,
    *,
    sketch: npt.ArrayLike,
    states: npt.ArrayLike,
    ratios: npt.ArrayLike | None = None,
    components: tuple[int, int] = (0, 1),
    noun: str = "state",
) -> Figure:
    """Draw how many particles lie where, with the volumes of the sketch on top.

    Parameters
    ----------
    scores : array (particle, component)
    sketch : array (volume, component)
        Scores of the volumes.
    states : array (volume,)
        State of each, from 0.
    ratios : array (component,), optional
        Explained variance ratio, 0 to 1.
    components : (int, int)
        From 0.
    noun : str
        What a group is called.
    """
    shown = np.asarray(scores)[:, list(components)]
    volumes = np.asarray(sketch)[:, list(components)]
    side = 5.8
    figure = new_figure(
        width_inches=0.8 + side + 1.2,
        height_inches=side + 1.35,
        title=f"{counted(len(shown), 'particle')} on the landscape of "
        f"{counted(len(volumes), 'volume')}",
        note=f"Grey: particles in each pixel. Points: volumes of the sketch, coloured by {noun}.",
    )
    axes = panel(figure, left_inches=0.8, top_inches=0.45, width_inches=side, height_inches=side)
    low, high = _limits(np.concatenate([shown, volumes]))
    bins = int(np.clip(np.sqrt(len(shown)), _FEWEST_BINS, _MOST_BINS))
    counts, *_ = np.histogram2d(
        shown[:, 0], shown[:, 1], bins=bins, range=[(low[0], high[0]), (low[1], high[1])]
    )
    image = axes.imshow(
        np.ma.masked_equal(counts.T, 0),
        extent=(low[0], high[0], low[1], high[1]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        # The palest grey must be told from white paper, the darkest from the points.
        norm=LogNorm(vmin=0.35, vmax=max(2.0, 4.0 * counts.max())),
    )
    axes.scatter(
        volumes[:, 0],
        volumes[:, 1],
        s=float(np.clip(6000 / len(volumes), 4, 26)),
        c=state_colours(np.asarray(states)),
        edgecolors="white",
        linewidths=0.4,
    )
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_xlabel(component_label(components[0], ratios))
    axes.set_ylabel(component_label(components[1], ratios))
    beside = panel(
        figure, left_inches=0.95 + side, top_inches=0.45, width_inches=0.14, height_inches=2.4
    )
    bar = figure.colorbar(image, cax=beside)
    bar.ax.set_ylim(1.0, max(2.0, counts.max()))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.minorticks_off()
    bar.set_label("particles in a pixel")
    return figure


@styled
def score_errors(errors: Mapping[str, npt.ArrayLike]) -> Figure:
    """Draw the error of the scores along each component, as a share of its standard deviation.

    Parameters
    ----------
    errors : mapping of str to array (component,)
        What was compared, at most three, with the root mean square errors as shares.
    """
    figure = new_figure(
        width_inches=8.6,
        height_inches=3.9,
        title="Error of the scores along each component",
        note="Root mean square, as a share of the standard deviation along the component.",
    )
    axes = panel(figure, left_inches=0.85, top_inches=0.5, width_inches=4.9, height_inches=2.6)
    lowest = 1e-2
    for (colour, marker), (name, values) in zip(_KINDS, errors.items(), strict=False):
        shares = np.maximum(np.asarray(values, dtype=np.float64), 1e-8)
        lowest = min(lowest, float(shares.min()))
        numbers = np.arange(1, len(shares) + 1)
        axes.plot(numbers, shares, color=colour, linewidth=0.8, alpha=0.6)
        axes.scatter(numbers, shares, s=22, color=colour, marker=marker, label=name, zorder=3)
    axes.axhline(_LIMIT, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "1%",
        (1.0, _LIMIT),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=MUTED,
    )
    axes.set_yscale("log")
    axes.set_ylim(lowest / 2, None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("component")
    axes.set_ylabel("error")
    axes.legend(loc="upper left", bbox_to_anchor=(1.06, 1.02), borderaxespad=0)
    return figure


@styled
def state_confidence(
    states: npt.ArrayLike, confidence: npt.ArrayLike, *, noun: str = "state"
) -> Figure:
    """Draw how many particles each state has, and how sure their assignment is.

    Parameters
    ----------
    states : array (particle,)
        From 0.
    confidence : array (particle,)
        0 to 1.
    noun : str
        What a group is called.
    """
    labels, sure = np.asarray(states, dtype=np.intp), np.asarray(confidence)
    n_states = int(labels.max()) + 1
    shown = np.sort(np.argsort(-np.bincount(labels), kind="stable")[:_MOST_STATES])
    left_out = n_states - len(shown)
    figure = new_figure(
        width_inches=9.4,
        height_inches=3.6,
        title=f"{counted(len(labels), 'particle')} in {counted(n_states, noun)}",
        note="Full colour: confidence of 0.8 or more; pale: 0.5 to 0.8; outlined: less."
        + (f" {left_out} smaller {noun}s are left out." if left_out else ""),
    )
    axes = panel(figure, left_inches=0.9, top_inches=0.5, width_inches=8.3, height_inches=2.3)
    colours = state_colours(shown)
    base = np.zeros(len(shown))
    for low, high, strength in ((0.8, np.inf, 1.0), (0.5, 0.8, 0.45), (-np.inf, 0.5, 0.0)):
        here = (sure >= low) & (sure < high)
        count = np.bincount(labels[here], minlength=n_states)[shown]
        faces = np.concatenate([colours, np.full((len(colours), 1), strength)], axis=1)
        axes.bar(
            np.arange(len(shown)),
            count,
            bottom=base,
            width=0.72,
            color=faces,
            edgecolor=colours,
            linewidth=0.8,
        )
        base = base + count
    axes.set_xticks(np.arange(len(shown)), [str(state) for state in shown])
    if len(shown) > 30:
        axes.tick_params(axis="x", labelsize=6)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(noun, color=INK)
    axes.set_ylabel("particles")
    return figure


def _limits(points: Array) -> tuple[Array, Array]:
    low, high = points.min(axis=0), points.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return low - 0.03 * span, high + 0.03 * span
