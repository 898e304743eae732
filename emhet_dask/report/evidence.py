"""The evidence for, or against, separate states: gaps between clusters at every number of them."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from emhet_dask.report.style import ACCENT, INK, MUTED, WARNING, counted, new_figure, panel, styled

__all__ = ["separation_evidence"]

Array = npt.NDArray[Any]

_BELOW = "#eeeeee"
_LEAST_TOP = 5.0
_HEIGHT = 2.75


@styled
def separation_evidence(
    evidence: xr.Dataset,
    *,
    n_clusters: int,
    separate_states: bool,
    reason: str,
    automatic_n_clusters: int | None = None,
) -> Figure:
    """Draw how separate the clusters are at every number of them, beside what a continuum gives.

    Parameters
    ----------
    evidence : Dataset
        Over candidate numbers of clusters (``n_clusters``): ``separation`` of the least separate
        pair of neighbours, in units of their own spread; ``critical_separation``, which pieces of
        a continuum hardly reach; ``separate_fraction`` of the volumes in clusters apart from all
        others, 0 to 1; ``convincing_separation``, where present, which the widest gap must pass.
        The attribute ``slices_of_continuum``, where present, is what slices of an
        even continuum have on average.
    n_clusters : int
        Number of clusters that the results have.
    separate_states : bool
        The verdict, said in the picture.
    reason : str
        Why, in a sentence or two.
    automatic_n_clusters : int, optional
        The number that the data suggest, where the user asked for another.
    """
    words = textwrap.wrap(reason, 160)
    top = 0.58 + 0.16 * len(words)
    figure = new_figure(width_inches=10.6, height_inches=top + _HEIGHT + 0.85)
    _write_verdict(figure, words, separate_states=separate_states)
    # Candidates for which no pair of clusters could be measured have no place on the axis.
    known = evidence.isel(n_clusters=np.isfinite(evidence["separation"].values))
    left, right = (
        panel(
            figure,
            left_inches=0.7 + offset,
            top_inches=top,
            width_inches=width,
            height_inches=_HEIGHT,
        )
        for offset, width in ((0.0, 5.3), (6.05, 3.65))
    )
    number = known["n_clusters"].values
    if len(number) == 0:
        for axes in (left, right):
            axes.text(0.5, 0.5, "nothing to compare", transform=axes.transAxes, ha="center")
    else:
        _draw_separation(left, known)
        right.plot(number, known["separate_fraction"].values, color=ACCENT, marker="o", ms=3, lw=1)
        # After the data, which set the limits that the labels are placed by.
        for axes in (left, right):
            _mark(axes, n_clusters, automatic_n_clusters, named=axes is left)
    left.set_ylabel("gap between the closest two clusters\n(distance of centres / spread)")
    right.set_ylim(-0.04, 1.04)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylabel("volumes in clusters apart from all others")
    for axes in (left, right):
        axes.set_xlabel("number of clusters")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    return figure


def _write_verdict(figure: Figure, words: list[str], *, separate_states: bool) -> None:
    width, height = figure.get_size_inches()
    figure.suptitle(
        f"Separate states: {'yes' if separate_states else 'NO'}",
        x=0.12 / width,
        y=1 - 0.1 / height,
        ha="left",
        va="top",
        fontsize=11.5,
        weight="bold",
        color=INK if separate_states else WARNING,
    )
    figure.text(
        0.12 / width, 1 - 0.36 / height, "\n".join(words), fontsize=8.5, va="top", linespacing=1.35
    )


def _draw_separation(axes: Axes, evidence: xr.Dataset) -> None:
    number = evidence["n_clusters"].values
    separation = _drawable(evidence["separation"].values)
    critical = _drawable(evidence["critical_separation"].values)
    axes.plot(
        number,
        separation,
        color=ACCENT,
        marker="o",
        markersize=3,
        linewidth=1,
        label="closest two clusters",
    )
    axes.plot(
        number,
        critical,
        color=MUTED,
        linewidth=1,
        label="pieces of a continuum hardly reach this",
    )
    if "convincing_separation" in evidence:
        axes.plot(
            number,
            evidence["convincing_separation"].values,
            color=MUTED,
            linewidth=0.8,
            linestyle=(0, (4, 2)),
            label="one gap above this convinces",
        )
    axes.fill_between(number, 1e-3, critical, color=_BELOW, linewidth=0, zorder=0)
    slices = evidence.attrs.get("slices_of_continuum")
    if slices is not None:
        axes.axhline(
            float(slices),
            color=MUTED,
            linewidth=0.8,
            linestyle=(0, (1, 2)),
            label="slices of an even continuum",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    drawn = np.concatenate([separation, critical])
    drawn = drawn[np.isfinite(drawn)]
    # Room above for the names of the marks.
    axes.set_ylim(min(1.0, 0.8 * drawn.min(initial=1.0)), 2.0 * drawn.max(initial=_LEAST_TOP))
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.03, -0.16),
        ncols=4,
        handlelength=1.6,
        columnspacing=1.6,
    )


def _mark(axes: Axes, n_clusters: int, automatic: int | None, *, named: bool) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, n_clusters - 1), max(high, n_clusters + 1))
    marks = [(n_clusters, "these results", INK)]
    if automatic is not None and automatic != n_clusters:
        marks.append((automatic, "automatic choice", WARNING))
    for row, (number, words, colour) in enumerate(marks):
        axes.axvline(number, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if named:
            low, high = axes.get_xlim()
            beyond = number > 0.6 * (low + high)
            axes.annotate(
                f"{counted(number, 'cluster')}: {words}",
                (number, 0.95 - 0.07 * row),
                xycoords=axes.get_xaxis_transform(),
                xytext=(-4 if beyond else 4, 0),
                textcoords="offset points",
                ha="right" if beyond else "left",
                fontsize=7.5,
                color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
            )


def _drawable(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return values with gaps where a logarithmic axis cannot show them: no spread, or no gap."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
