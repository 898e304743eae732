"""How a classification went: shares, changes, resolution and likelihood over its iterations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from emhet_dask.report.palette import MARKERS, state_colour
from emhet_dask.report.style import ACCENT, FAINT, INK, MUTED, WARNING, new_figure, panel, styled

__all__ = ["class_colour", "class_handles", "convergence_figure", "spectrum_figure"]

_WIDTH, _HEIGHT, _GAP = 2.75, 2.0, 0.78
_MOST_NAMED = 24
_LEAST_SSNR = 1e-2
# Resolutions in Å that stand at an axis.
_ROUND = np.array(
    [
        *(200, 100, 60, 50, 40, 30, 25, 20, 17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 5.5, 5, 4.5, 4),
        *(3.7, 3.5, 3.2, 3, 2.8, 2.6, 2.4, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1),
    ]
)


def class_colour(number: int) -> str:
    """Return the colour of a class of a job, numbered from 1."""
    return state_colour(number - 1)


def class_handles(numbers: Sequence[int]) -> list[Line2D]:
    """Return what a legend says of the classes, in order: of the first 24 at most."""
    return [
        Line2D([], [], color=class_colour(number), linewidth=4, label=f"class {number}")
        for number in list(numbers)[:_MOST_NAMED]
    ]


@styled
def convergence_figure(
    classes: pd.DataFrame, convergence: pd.DataFrame, *, job: str, limit: float | None = None
) -> Figure:
    """Draw six panels over the iterations of one job.

    Parameters
    ----------
    classes : DataFrame
        Rows of ``classes.csv`` of the job: ``iteration``, ``class``, ``distribution`` and
        ``resolution_A``.
    convergence : DataFrame
        Rows of ``convergence.csv`` of the job: ``iteration``, ``changes_classes``,
        ``changes_orientations_deg``, ``changes_offsets_A``, ``log_likelihood``,
        ``average_pmax`` and ``resolution_A``.
    job : str
        Its name.
    limit : float, optional
        Share of changing particles that counts as converged; drawn as a line.
    """
    numbers = sorted(set(classes["class"]))
    figure = new_figure(
        width_inches=3 * (_WIDTH + _GAP) + 1.45,
        height_inches=2 * (_HEIGHT + 0.72) + 0.55,
        title=f"{job}: {len(numbers)} classes over {convergence['iteration'].max()} iterations",
    )
    axes = [
        panel(
            figure,
            left_inches=0.68 + column * (_WIDTH + _GAP),
            top_inches=0.62 + row * (_HEIGHT + 0.72),
            width_inches=_WIDTH,
            height_inches=_HEIGHT,
        )
        for row in range(2)
        for column in range(3)
    ]
    _draw_distribution(axes[0], classes, numbers)
    _draw_changes(axes[1], convergence, limit)
    _draw_moves(axes[2], convergence)
    _draw_resolution(axes[3], classes, numbers)
    _draw_line(axes[4], convergence, "log_likelihood", "Log-likelihood")
    _draw_line(axes[5], convergence, "average_pmax", "Average Pmax")
    span = convergence["iteration"].min() - 0.7, convergence["iteration"].max() + 0.7
    for each in axes:
        each.set_xlim(span)
        each.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for each in axes[3:]:
        each.set_xlabel("iteration")
    axes[2].legend(
        handles=class_handles(numbers),
        loc="upper left",
        bbox_to_anchor=(1.03 if len(figure.axes) == len(axes) else 1.22, 1.05),
        handlelength=0.8,
    )
    return figure


def _draw_distribution(axes: Axes, classes: pd.DataFrame, numbers: Sequence[int]) -> None:
    shares = classes.pivot_table(index="iteration", columns="class", values="distribution")
    bottom = np.zeros(len(shares))
    for number in numbers:
        height = shares[number].fillna(0).to_numpy()
        axes.bar(
            shares.index, height, bottom=bottom, width=1.0, color=class_colour(number), linewidth=0
        )
        bottom += height
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Class distribution")


def _draw_changes(axes: Axes, convergence: pd.DataFrame, limit: float | None) -> None:
    axes.set_title("Particles that changed class")
    known = convergence.dropna(subset="changes_classes")
    if known.empty:
        _say_nothing(axes)
        return
    values = known["changes_classes"].to_numpy()
    positive = values[values > 0]
    floor = min(positive.min(initial=1.0), limit or 1.0)
    _draw_points(axes, known["iteration"], known["changes_classes"], ACCENT)
    # From 100% down to single particles, and to none at all.
    axes.set_yscale("symlog", linthresh=floor, linscale=0.5)
    axes.set_ylim(-0.15 * floor, 1.5)
    ticks = [tick for tick in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6) if tick >= floor * 0.999]
    axes.set_yticks([0.0, *ticks], ["none", *(f"{100 * tick:g}%" for tick in ticks)])
    axes.minorticks_off()
    if limit is not None:
        axes.axhline(limit, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.text(
            0.99,
            limit * 1.15,
            "converged below",
            color=MUTED,
            fontsize=7,
            ha="right",
            va="bottom",
            transform=axes.get_yaxis_transform(),
        )


def _draw_moves(axes: Axes, convergence: pd.DataFrame) -> None:
    axes.set_title("Changes of orientations and offsets")
    turns = convergence.dropna(subset="changes_orientations_deg")
    shifts = convergence.dropna(subset="changes_offsets_A")
    # RELION leaves 2.7e-7 degrees of rounding where orientations were not searched.
    still = turns["changes_orientations_deg"].lt(1e-4).all()
    if still and not shifts["changes_offsets_A"].gt(0).any():
        _say_nothing(axes, "orientations were not searched" if len(turns) else "not known")
        return
    _draw_points(axes, turns["iteration"], turns["changes_orientations_deg"], ACCENT)
    axes.set_ylabel("orientations, °", color=ACCENT)
    axes.set_ylim(bottom=0)
    if len(shifts):
        beside = axes.twinx()
        beside.spines["right"].set_visible(True)
        beside.tick_params(labelsize=7.5, color=MUTED, labelcolor=INK, width=0.7, length=3)
        _draw_points(beside, shifts["iteration"], shifts["changes_offsets_A"], WARNING)
        beside.set_ylabel("offsets, Å", color=WARNING)
        beside.set_ylim(bottom=0)


def _draw_resolution(axes: Axes, classes: pd.DataFrame, numbers: Sequence[int]) -> None:
    for number in numbers:
        rows = classes[classes["class"] == number]
        marker = MARKERS[(number - 1) // _MOST_NAMED % len(MARKERS)]
        axes.plot(
            rows["iteration"],
            1 / rows["resolution_A"],
            color=class_colour(number),
            marker=marker,
            ms=2.5,
            lw=1.2,
        )
    axes.set_title("Estimated resolution, Å (finer is higher)")
    finest, coarsest = classes["resolution_A"].min(), classes["resolution_A"].max()
    if not np.isnan(finest):
        ticks = _round_resolutions(1 / coarsest, 1 / finest, most=6)
        axes.set_yticks(1 / ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(axis="y", color=FAINT, linewidth=0.5)


def _round_resolutions(low: float, high: float, *, most: int) -> npt.NDArray[np.float64]:
    """Return round resolutions in Å, about evenly spaced between two spatial frequencies."""
    frequency = 1 / _ROUND
    inside = _ROUND[(frequency >= low * 0.97) & (frequency <= high * 1.03)]
    kept: list[float] = []
    for resolution in inside[::-1]:  # from the finest, where round numbers are close
        if not kept or 1 / kept[-1] - 1 / resolution > 0.8 * (high - low) / most:
            kept.append(float(resolution))
    return np.array(kept or [round(1 / high, 2)])


def _draw_line(axes: Axes, convergence: pd.DataFrame, name: str, title: str) -> None:
    axes.set_title(title)
    known = convergence.dropna(subset=name)
    if known.empty:
        _say_nothing(axes)
        return
    values = known[name]
    largest = float(values.abs().max())
    if largest >= 1e4:
        power = int(np.log10(largest))
        values = values / 10.0**power
        axes.set_title(f"{title}, $10^{power}$")
    _draw_points(axes, known["iteration"], values, ACCENT)
    if name == "average_pmax":
        axes.set_ylim(0, 1.05)


def _draw_points(axes: Axes, iterations: pd.Series, values: pd.Series, colour: str) -> None:
    axes.plot(iterations, values, color=colour, marker="o", ms=3, lw=1.1)


def _say_nothing(axes: Axes, why: str = "not known") -> None:
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelcolor="none")
    axes.spines[:].set_color(FAINT)
    axes.text(0.5, 0.5, why, color=MUTED, ha="center", va="center", transform=axes.transAxes)


@styled
def spectrum_figure(shells: pd.DataFrame, *, job: str, iteration: int) -> Figure:
    """Draw the spectral SNR of every class map, and the FSC that it stands for.

    Parameters
    ----------
    shells : DataFrame
        ``class``, ``shell``, ``resolution_A`` and ``ssnr`` of one job and iteration.
    job : str
    iteration : int
    """
    numbers = sorted(set(shells["class"]))
    figure = new_figure(
        width_inches=2 * (4.1 + _GAP) + 1.05,
        height_inches=3.65,
        title=f"{job}: spectral signal-to-noise of the class maps of iteration {iteration}",
        note="FSC = SSNR / (SSNR + 1). RELION's estimated resolution is where the SSNR falls "
        "below 1, which is an FSC of 0.5.",
    )
    left, right = (
        panel(
            figure,
            left_inches=0.68 + column * (4.1 + _GAP),
            top_inches=0.6,
            width_inches=4.1,
            height_inches=2.3,
        )
        for column in range(2)
    )
    # Shell 0 is the mean of the map; past the current image size all is 0.
    shown = shells[(shells["shell"] > 0) & (shells["ssnr"] > 0)]
    for number in numbers:
        rows = shown[shown["class"] == number]
        frequency = 1 / rows["resolution_A"]
        left.plot(frequency, rows["ssnr"], color=class_colour(number), lw=1.3)
        fsc = rows["ssnr"] / (rows["ssnr"] + 1)
        right.plot(frequency, fsc, color=class_colour(number), lw=1.3)
    visible = shown.loc[shown["ssnr"] >= _LEAST_SSNR, "resolution_A"]
    finest = 1.1 / float(visible.min()) if len(visible) else 1.0
    ticks = _round_resolutions(finest / 20, finest, most=9)
    left.set_yscale("log")
    left.set_ylim(bottom=_LEAST_SSNR)
    left.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    right.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    right.set_ylim(0, 1.03)
    left.set_title("SSNR")
    right.set_title("FSC that it stands for")
    for axes in (left, right):
        axes.set_xlim(0, finest)
        axes.set_xticks(1 / ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("resolution, Å")
    right.legend(
        handles=class_handles(numbers),
        loc="upper left",
        bbox_to_anchor=(1.02, 1.05),
        handlelength=0.8,
    )
    return figure
