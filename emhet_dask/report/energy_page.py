"""The landscape as a page in which a region is drawn by hand and saved, without a network."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.report.energy_figures import CAVEAT, EnergyPlane, energy_colours
from emhet_dask.report.palette import NO_STATE, state_colour
from emhet_dask.report.style import INK, counted

__all__ = ["MOST_POINTS", "PageContents", "write_energy_page"]

# Drawn as SVG, which every browser has; more would make the lasso slow.
MOST_POINTS = 4_000
_TEMPLATE = Path(__file__).parent / "templates" / "energy.html"


@dataclass(frozen=True)
class PageContents:
    """What is drawn over the landscape.

    Attributes
    ----------
    basins : DataFrame
        ``basin``, ``share``, ``free_energy_kT``, ``error_kT`` and the position.
    saddles : DataFrame
        ``basin_a``, ``basin_b``, ``free_energy_kT``, ``error_kT`` and the position.
    points : DataFrame
        Some of the points, best at most `MOST_POINTS`: their row as ``point``, the position, and,
        where known, ``state``.
    n_points : float
        All of them.
    noun : str
        What a point is.
    counted : str
        What its weight counts.
    route : DataFrame, optional
        Points of the lowest path, with ``free_energy_kT`` and ``error_kT``.
    sketch : DataFrame, optional
        Volumes: ``name``, the position, and, where known, ``cluster``.
    """

    basins: pd.DataFrame
    saddles: pd.DataFrame
    points: pd.DataFrame
    n_points: float
    noun: str = "particle"
    counted: str = "particle"
    route: pd.DataFrame | None = None
    sketch: pd.DataFrame | None = None


def write_energy_page(
    path: str | Path,
    plane: EnergyPlane,
    contents: PageContents,
    *,
    title: str,
    headline: str,
    folder: str = "FULL",
    caveat: str = CAVEAT,
) -> None:
    """Write the page, as one HTML file with the library that draws it inside.

    What is drawn with the lasso or the box can be saved as ``region.json``, or copied, for
    ``emhet select FOLDER --region region.json``.

    Parameters
    ----------
    path : path
        Such as ``OUT/landscape.html``.
    plane : EnergyPlane
    contents : PageContents
    title, headline : str
        What it is of, and the result in words.
    folder : str
        Of the results, for the command that is shown.
    caveat : str
        What the reader must know.
    """
    noun = contents.noun
    import plotly.graph_objects as go  # noqa: PLC0415 - half a second, for this page alone

    figure = go.Figure(
        [
            _heat(go, plane, contents.counted),
            _contours(go, plane),
            *_points(go, plane, contents.points, noun),
            *_sketch(go, plane, contents.sketch),
            *_route(go, plane, contents.route),
            _saddles(go, plane, contents.saddles),
            _basins(go, plane, contents.basins),
        ]
    )
    limits = [_limits(edges, plane.free_energy, k) for k, edges in enumerate(_edges(plane))]
    figure.update_layout(
        template="simple_white",
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        height=680,
        margin={"l": 70, "r": 20, "t": 20, "b": 60},
        dragmode="lasso",
        hoverlabel={"bgcolor": "white"},
        plot_bgcolor="#ededed",
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        newselection={"line": {"color": "#d55e00", "width": 2, "dash": "solid"}},
        xaxis={"title": plane.x_label, "range": limits[0]},
        yaxis={"title": plane.y_label, "range": limits[1]},
    )
    drawing = figure.to_html(
        include_plotlyjs=True,
        full_html=False,
        div_id="landscape",
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["toImage"]},
    )
    facts = {
        "axes": [plane.x.upper(), plane.y.upper()],
        "x": _rounded(_middles(plane.x_edges)),
        "y": _rounded(_middles(plane.y_edges)),
        "weight": np.asarray(plane.weight, dtype=float).round(3).tolist(),
        "noun": contents.counted,
    }
    words = {
        "TITLE": f"Free-energy-like landscape{f' of {title}' if title else ''}",
        "HEADLINE": headline,
        "COUNT": f"{counted(contents.n_points, noun)}, of which {len(contents.points):,} are drawn",
        "CAVEAT": caveat,
        "COMMAND": f"emhet select {folder} --region region.json -o region.star",
    }
    page = _TEMPLATE.read_text(encoding="utf-8")
    for name, text in words.items():
        page = page.replace(f"%{name}%", html.escape(text))
    # Inside a script, a closing tag in a text would end it.
    page = page.replace("%FACTS%", json.dumps(facts).replace("<", "\\u003c"))
    Path(path).write_text(page.replace("%DRAWING%", drawing), encoding="utf-8", newline="\n")


def _edges(plane: EnergyPlane) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return plane.x_edges, plane.y_edges


def _middles(edges: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray((edges[1:] + edges[:-1]) / 2, dtype=np.float64)


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def _limits(edges: npt.NDArray[Any], values: npt.NDArray[Any], axis: int) -> list[float]:
    there = np.flatnonzero(np.isfinite(values).any(axis=1 - axis))
    low, high = float(edges[there[0]]), float(edges[there[-1] + 1])
    return [low - 0.04 * (high - low), high + 0.04 * (high - low)]


def _heat(go: Any, plane: EnergyPlane, noun: str) -> Any:
    colours = energy_colours()
    scale = [[k / 10, _hex(colours(k / 10))] for k in range(11)]
    top = min(10.0, math.ceil(2 * float(np.nanmax(plane.free_energy))) / 2)
    extra = np.dstack([plane.error.T, plane.weight.T]).astype(np.float32)
    return go.Heatmap(
        x=_middles(plane.x_edges),
        y=_middles(plane.y_edges),
        z=plane.free_energy.T.astype(np.float32),
        zmin=0,
        zmax=max(top, 1.0),
        colorscale=scale,
        customdata=extra,
        colorbar={"title": {"text": "free energy<br>(kT)"}, "len": 0.6, "thickness": 14},
        hovertemplate=(
            f"{plane.x.upper()} %{{x:.4g}}, {plane.y.upper()} %{{y:.4g}}<br>"
            f"%{{z:.2f}} ± %{{customdata[0]:.2f}} kT; %{{customdata[1]:.0f}} {noun}s in this bin"
            "<extra></extra>"
        ),
        hoverongaps=False,
        showlegend=False,
    )


def _contours(go: Any, plane: EnergyPlane) -> Any:
    return go.Contour(
        x=_middles(plane.x_edges),
        y=_middles(plane.y_edges),
        z=plane.free_energy.T.astype(np.float32),
        contours={"coloring": "none", "start": 1, "end": 10, "size": 1},
        line={"color": INK, "width": 0.6},
        hoverinfo="skip",
        showscale=False,
        showlegend=False,
    )


def _points(go: Any, plane: EnergyPlane, points: pd.DataFrame, noun: str) -> list[Any]:
    known = "state" in points
    groups = (
        {int(state): points[points["state"] == state] for state in np.unique(points["state"])}
        if known
        else {-1: points}
    )
    traces = []
    for number, group in groups.items():
        name = f"{noun}s" if not known else "no state" if number < 0 else f"state {number}"
        traces.append(
            go.Scatter(
                x=group[plane.x].to_numpy(),
                y=group[plane.y].to_numpy(),
                mode="markers",
                name=name,
                marker={
                    "size": 5,
                    "color": state_colour(number) if known else INK,
                    "opacity": 0.7,
                    # Else the points of some states are as dark as the deepest basin.
                    "line": {"width": 0.6, "color": "white"},
                },
                unselected={"marker": {"opacity": 0.15}},
                selected={"marker": {"opacity": 1.0}},
                customdata=group["point"].to_numpy(),
                hovertemplate=f"{noun} %{{customdata}}, {name}<extra></extra>"
                if known
                else f"{noun} %{{customdata}}<extra></extra>",
            )
        )
    return traces


def _sketch(go: Any, plane: EnergyPlane, sketch: pd.DataFrame | None) -> list[Any]:
    if sketch is None or not len(sketch):
        return []
    states = sketch["cluster"] if "cluster" in sketch else pd.Series(-1, index=sketch.index)
    labels = [
        html.escape(str(name)) + (f", state {state}" if state >= 0 else "")
        for name, state in zip(sketch["name"], states, strict=True)
    ]
    return [
        go.Scatter(
            x=sketch[plane.x].to_numpy(),
            y=sketch[plane.y].to_numpy(),
            mode="markers",
            name="volumes of the sketch",
            visible="legendonly",
            marker={
                "size": 9,
                "symbol": "diamond",
                "color": [state_colour(int(k)) if k >= 0 else NO_STATE for k in states],
                "line": {"width": 1, "color": "white"},
            },
            text=labels,
            hovertemplate="%{text}<extra></extra>",
        )
    ]


def _route(go: Any, plane: EnergyPlane, route: pd.DataFrame | None) -> list[Any]:
    if route is None or not len(route):
        return []
    x, y = route[plane.x].to_numpy(), route[plane.y].to_numpy()
    text = [
        f"lowest path: {value:.2f} ± {error:.2f} kT"
        for value, error in zip(route["free_energy_kT"], route["error_kT"], strict=True)
    ]
    outline = go.Scatter(
        x=x, y=y, mode="lines", line={"color": INK, "width": 5}, hoverinfo="skip", showlegend=False
    )
    line = go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name="lowest path",
        line={"color": "white", "width": 2.5},
        text=text,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    return [outline, line]


def _saddles(go: Any, plane: EnergyPlane, saddles: pd.DataFrame) -> Any:
    text = [
        f"saddle point between {a} and {b}: {value:.2f} ± {error:.2f} kT"
        for a, b, value, error in zip(
            saddles["basin_a"],
            saddles["basin_b"],
            saddles["free_energy_kT"],
            saddles["error_kT"],
            strict=True,
        )
    ]
    return go.Scatter(
        x=saddles[plane.x].to_numpy(),
        y=saddles[plane.y].to_numpy(),
        mode="markers",
        name="saddle points",
        marker={"symbol": "x-thin", "size": 10, "line": {"width": 3, "color": INK}},
        text=text,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _basins(go: Any, plane: EnergyPlane, basins: pd.DataFrame) -> Any:
    text = [
        f"basin {basin}: {share:.1%}, minimum at {value:.2f} ± {error:.2f} kT"
        for basin, share, value, error in zip(
            basins["basin"],
            basins["share"],
            basins["free_energy_kT"],
            basins["error_kT"],
            strict=True,
        )
    ]
    return go.Scatter(
        x=basins[plane.x].to_numpy(),
        y=basins[plane.y].to_numpy(),
        mode="markers+text",
        name="basins",
        marker={"size": 22, "color": "white", "line": {"width": 1.5, "color": INK}},
        text=[str(basin) for basin in basins["basin"]],
        textfont={"color": INK, "size": 13},
        customdata=text,
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )


def _hex(colour: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])
