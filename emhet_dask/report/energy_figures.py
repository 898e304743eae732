"""Figures of a free-energy-like landscape: contours, errors, and the profile along a path."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from emhet_dask.report.style import ACCENT, INK, counted, new_figure, panel, styled

__all__ = [
    "CAVEAT",
    "EnergyPlane",
    "energy_colours",
    "energy_errors",
    "energy_landscape",
    "energy_profile",
]

Array = npt.NDArray[Any]

CAVEAT = (
    "Free-energy-like: -ln of the density of particles. Selection of particles and the decoder "
    "shape it, and nothing is reweighted to an ensemble."
)

_NO_VALUE = "#ededed"
_SIDE_INCHES = 4.6
_HEIGHT_INCHES = 4.1
_MOST_SADDLES = 12
# Beyond, single particles make the picture.
_HIGHEST = 10.0


@dataclass(frozen=True)
class EnergyPlane:
    """A landscape over two components.

    Attributes
    ----------
    x, y : str
        Names of its components in tables, such as ``pc1``.
    x_label, y_label : str
    x_edges, y_edges : array (bin + 1,)
    free_energy : array (x bin, y bin)
        In kT; NaN where there is no value. Of a landscape over three, the lowest along the third.
    error : array (x bin, y bin)
        Standard error of the same.
    weight : array (x bin, y bin)
        Particles in each bin.
    """

    x: str
    y: str
    x_label: str
    y_label: str
    x_edges: Array
    y_edges: Array
    free_energy: Array
    error: Array
    weight: Array


def energy_colours() -> mpl.colors.Colormap:
    """Return colours from dark, for deep, to pale; grey where there is no value."""
    return mpl.colormaps["YlGnBu_r"].with_extremes(bad=_NO_VALUE)


@styled
def energy_landscape(
    planes: Sequence[EnergyPlane],
    *,
    basins: pd.DataFrame,
    saddles: pd.DataFrame,
    path: pd.DataFrame | None = None,
    n_points: float,
    noun: str = "particle",
    caveat: str = CAVEAT,
) -> Figure:
    """Draw contours of the free energy with basins, saddle points and the lowest path.

    Parameters
    ----------
    planes : sequence of EnergyPlane
        One, or three of a landscape over three components.
    basins : DataFrame
        ``basin``, ``share`` and the position, such as ``pc1`` and ``pc2``.
    saddles : DataFrame
        ``free_energy_kT``, ``error_kT`` and the position.
    path : DataFrame, optional
        Its points.
    n_points : float
        Particles or volumes.
    noun : str
        What a point is.
    caveat : str
        What the reader must know, below the figure.
    """
    hidden = ", lowest along the third component" if len(planes) > 1 else ""
    title = f"Free-energy-like landscape of {counted(n_points, noun)}{hidden}"
    figure, panels = _frame(planes, title, [_counts(basins, saddles), caveat])
    top = _top_of([plane.free_energy for plane in planes])
    norm = Normalize(0, top)
    for axes, plane in zip(panels, planes, strict=True):
        _draw_values(axes, plane, plane.free_energy, norm)
        _draw_contours(axes, plane, top)
        if path is not None and len(path):
            line = axes.plot(path[plane.x], path[plane.y], color="white", lw=1.6, zorder=4)[0]
            line.set_path_effects([withStroke(linewidth=3.0, foreground=INK)])
        _draw_saddles(axes, plane, saddles)
        _draw_basins(axes, plane, basins)
    _draw_bar(figure, norm, energy_colours(), "free energy (kT)", extend=_extend(planes, top))
    return figure


@styled
def energy_errors(
    planes: Sequence[EnergyPlane], *, basins: pd.DataFrame, n_bootstrap: int
) -> Figure:
    """Draw the bootstrap standard error of the free energy.

    Parameters
    ----------
    planes : sequence of EnergyPlane
    basins : DataFrame
    n_bootstrap : int
        Replicates behind it.
    """
    note = (
        f"Standard deviation over {n_bootstrap} bootstrap replicates of the difference from the "
        "deepest point. Grey: fewer than five particles."
    )
    figure, panels = _frame(planes, "Standard error of the free energy", [note])
    top = max(float(np.nanpercentile(plane.error, 99)) for plane in planes)
    norm = Normalize(0, max(top, 1e-3))
    colours = mpl.colormaps["magma_r"].with_extremes(bad=_NO_VALUE)
    for axes, plane in zip(panels, planes, strict=True):
        _draw_values(axes, plane, plane.error, norm, colours)
        _draw_basins(axes, plane, basins)
    _draw_bar(figure, norm, colours, "standard error (kT)", extend="max")
    return figure


@styled
def energy_profile(path: pd.DataFrame, *, ends: tuple[str, str], frames: Sequence[float]) -> Figure:
    """Draw the free energy along the lowest path, with its error.

    Parameters
    ----------
    path : DataFrame
        ``length``, ``free_energy_kT`` and ``error_kT`` of points along it.
    ends : (str, str)
        What is at its start and its end.
    frames : sequence of float
        Lengths at which there are maps.
    """
    length, value, error = (
        path[name].to_numpy(dtype=float) for name in ("length", "free_energy_kT", "error_kT")
    )
    highest = int(np.argmax(value))
    bottom = min(0.0, float((value - error).min()))
    span = max(float((value + error).max()) - bottom, 1e-6)
    note = "Band: one bootstrap standard error of the difference from the deepest point."
    if len(frames):
        note += f" Dots: {counted(len(frames), 'map')} along the path."
    figure = new_figure(
        width_inches=7.4,
        height_inches=3.5,
        title=f"Lowest path from {ends[0]} to {ends[1]}",
        note=note,
    )
    axes = panel(figure, left_inches=0.65, top_inches=0.5, width_inches=6.5, height_inches=2.25)
    axes.fill_between(length, value - error, value + error, color=ACCENT, alpha=0.2, lw=0)
    axes.plot(length, value, color=ACCENT, lw=1.6)
    axes.plot(length[highest], value[highest], "x", color=INK, ms=6, mew=1.5, zorder=5)
    axes.annotate(
        f"{value[highest] - value[0]:.2f} kT above {ends[0]}\n"
        f"{value[highest] - value[-1]:.2f} kT above {ends[1]}",
        (length[highest], bottom + 1.02 * span),
        xytext=(6 if 2 * length[highest] < length[-1] else -6, 8),
        textcoords="offset points",
        ha="left" if 2 * length[highest] < length[-1] else "right",
        va="bottom",
        fontsize=7.5,
        annotation_clip=False,
    )
    axes.set_xlim(0, length[-1])
    axes.set_ylim(bottom - 0.08 * span, bottom + 1.3 * span)
    if len(frames):
        at = np.interp(frames, length, value)
        axes.plot(np.asarray(frames), at, "o", color=ACCENT, ms=4, clip_on=False, zorder=4)
    axes.set_xlabel("length along the path (units of the components)")
    axes.set_ylabel("free energy (kT)")
    return figure


# Parts --------------------------------------------------------------------------------------------


def _frame(
    planes: Sequence[EnergyPlane], title: str, notes: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    width = 0.75 + len(planes) * (_SIDE_INCHES + 0.75) + 0.55
    lines = [line for note in notes for line in textwrap.wrap(note, int(15.5 * width))]
    height = 0.5 + _HEIGHT_INCHES + 0.55 + 0.145 * len(lines) + 0.05
    figure = new_figure(
        width_inches=width, height_inches=height, title=title, note="\n".join(lines)
    )
    panels = [
        panel(
            figure,
            left_inches=0.7 + number * (_SIDE_INCHES + 0.75),
            top_inches=0.5,
            width_inches=_SIDE_INCHES,
            height_inches=_HEIGHT_INCHES,
        )
        for number in range(len(planes))
    ]
    return figure, panels


def _counts(basins: pd.DataFrame, saddles: pd.DataFrame) -> str:
    shown = min(len(saddles), _MOST_SADDLES)
    note = f"{counted(len(basins), 'basin')} (numbers, the most populated first)"
    if shown:
        note += f"; × {'saddle points' if shown > 1 else 'saddle point'}, with the height in kT"
    if shown < len(saddles):
        note += f" (the lowest {shown} of {len(saddles)})"
    return note + ". Contours every kT. Grey: fewer than five particles, no value."


def _top_of(values: Sequence[Array]) -> float:
    highest = max(float(np.nanmax(each)) for each in values)
    return float(np.clip(math.ceil(2 * highest) / 2, 1.0, _HIGHEST))


def _extend(planes: Sequence[EnergyPlane], top: float) -> str:
    over = any(bool(np.nanmax(plane.free_energy) > top) for plane in planes)
    return "max" if over else "neither"


def _draw_values(
    axes: Axes,
    plane: EnergyPlane,
    values: Array,
    norm: Normalize,
    colours: mpl.colors.Colormap | None = None,
) -> None:
    axes.pcolormesh(
        plane.x_edges,
        plane.y_edges,
        np.ma.masked_invalid(values.T),
        norm=norm,
        cmap=energy_colours() if colours is None else colours,
        rasterized=True,
    )
    axes.set_facecolor(_NO_VALUE)
    axes.set_xlabel(plane.x_label)
    axes.set_ylabel(plane.y_label)
    _fit(axes, plane)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _fit(axes: Axes, plane: EnergyPlane) -> None:
    """Set limits to where there are values, and a little more."""
    known = np.isfinite(plane.free_energy)
    for edges, axis, other in ((plane.x_edges, "x", 1), (plane.y_edges, "y", 0)):
        there = np.flatnonzero(known.any(axis=other))
        low, high = edges[there[0]], edges[there[-1] + 1]
        margin = 0.04 * (high - low)
        getattr(axes, f"set_{axis}lim")(max(low - margin, edges[0]), min(high + margin, edges[-1]))


def _draw_contours(axes: Axes, plane: EnergyPlane, top: float) -> None:
    middles = [(edges[1:] + edges[:-1]) / 2 for edges in (plane.x_edges, plane.y_edges)]
    if min(len(each) for each in middles) < 2:
        return
    lines = axes.contour(
        *middles,
        np.ma.masked_invalid(plane.free_energy.T),
        levels=np.arange(1, math.floor(top) + 1),
        colors=INK,
        linewidths=0.5,
        alpha=0.6,
    )
    axes.clabel(lines, fontsize=6, fmt="%d")


def _draw_basins(axes: Axes, plane: EnergyPlane, basins: pd.DataFrame) -> None:
    for basin, x, y in zip(basins["basin"], basins[plane.x], basins[plane.y], strict=True):
        axes.text(
            x,
            y,
            str(basin),
            ha="center",
            va="center",
            fontsize=8.5,
            weight="bold",
            zorder=6,
            bbox={"boxstyle": "circle,pad=0.22", "fc": "white", "ec": INK, "lw": 0.8},
        )


def _draw_saddles(axes: Axes, plane: EnergyPlane, saddles: pd.DataFrame) -> None:
    lowest = saddles.nsmallest(_MOST_SADDLES, "free_energy_kT")
    spans = [high - low for low, high in (axes.get_xlim(), axes.get_ylim())]
    labelled: list[tuple[float, float]] = []
    for x, y, value, error in zip(
        lowest[plane.x],
        lowest[plane.y],
        lowest["free_energy_kT"],
        lowest["error_kT"],
        strict=True,
    ):
        effect = [withStroke(linewidth=3, foreground="white")]
        axes.plot(x, y, "x", color=INK, ms=6, mew=1.6, zorder=5, path_effects=effect)
        place = (x / spans[0], y / spans[1])
        # A label over another can be read as neither.
        if any(abs(place[0] - a) < 0.14 and abs(place[1] - b) < 0.04 for a, b in labelled):
            continue
        labelled.append(place)
        axes.annotate(
            f"{value:.1f} ± {error:.1f}",
            (x, y),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            zorder=6,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def _draw_bar(
    figure: Figure, norm: Normalize, colours: mpl.colors.Colormap, label: str, *, extend: str
) -> None:
    width, _ = figure.get_size_inches()
    axes = panel(
        figure,
        left_inches=float(width) - 0.95,
        top_inches=0.5,
        width_inches=0.14,
        height_inches=2.8,
    )
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=axes, extend=extend)
    bar.outline.set_visible(False)
    bar.set_label(label)
