"""The Sankey diagram as a page that answers to the mouse, without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from emhet_dask.report.palette import NO_STATE, state_colour
from emhet_dask.report.sankey import ClassFlow

__all__ = ["write_sankey_page"]

_PIXELS_PER_CLASS = 70
_OPACITY = 0.5
_LEAST_OF_ALL = 2e-4
_LEAST_OF_CLASS = 0.005


def write_sankey_page(path: str | Path, flow: ClassFlow, *, title: str) -> None:
    """Write the diagram as one HTML file, the library that draws it inside.

    A button changes between counts of particles and shares of the class at the left.

    Parameters
    ----------
    path : path
        Such as ``OUT/sankey.html``.
    flow : ClassFlow
    title : str
        Above the diagram.
    """
    import plotly.graph_objects as go  # noqa: PLC0415 - half a second, for this page alone

    starts = np.cumsum([0, *(len(labels) for labels in flow.labels)])
    columns = range(len(flow.titles))
    names = [
        f"{flow.titles[column]} {'' if label == 'unresolved' else 'class '}{label}"
        for column in columns
        for label in flow.labels[column]
    ]
    colours = [
        flow.colour(column, node) for column in columns for node in range(len(flow.labels[column]))
    ]
    links: dict[str, list[object]] = {"source": [], "target": [], "color": [], "customdata": []}
    counts: list[int] = []
    shares: list[float] = []
    for column, table in enumerate(flow.counts):
        for i, j, k in np.argwhere(_visible(table, flow.sizes[column])):
            links["source"].append(int(starts[column] + i))
            links["target"].append(int(starts[column + 1] + j))
            links["color"].append(_translucent(state_colour(int(k) - 1) if k else NO_STATE))
            counts.append(int(table[i, j, k]))
            shares.append(float(table[i, j, k] / flow.sizes[column][i]))
            links["customdata"].append([counts[-1], shares[-1]])
    hover = (
        "%{source.label} → %{target.label}<br>%{customdata[0]:,} particles, "
        "%{customdata[1]:.1%} of the class at the left<extra></extra>"
    )
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            node={
                "label": names,
                "color": colours,
                "pad": 14,
                "thickness": 18,
                "line": {"width": 0},
            },
            link={**links, "value": counts, "hovertemplate": hover},
        )
    )
    buttons = [
        {"label": label, "method": "restyle", "args": [{"link.value": [values]}]}
        for label, values in (("counts", counts), ("shares of classes", shares))
    ]
    most = max(len(labels) for labels in flow.labels)
    figure.update_layout(
        title={"text": title, "x": 0.01, "xanchor": "left"},
        font={"family": "system-ui, Helvetica, Arial, sans-serif", "size": 13},
        height=max(480, _PIXELS_PER_CLASS * most + 160),
        margin={"l": 24, "r": 24, "t": 90, "b": 24},
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "buttons": buttons,
                "x": 1.0,
                "xanchor": "right",
                "y": 1.02,
                "yanchor": "bottom",
            }
        ],
    )
    # A name of its own for the element would be another each time.
    html = figure.to_html(include_plotlyjs=True, full_html=True, div_id="sankey")
    Path(path).write_text(html, encoding="utf-8", newline="\n")


def _visible(counts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which links can be seen, as counts or as shares; the others would slow the page."""
    as_count = counts >= _LEAST_OF_ALL * sizes.sum()
    as_share = counts >= _LEAST_OF_CLASS * sizes[:, None, None]
    return (counts > 0) & (as_count | as_share)


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{_OPACITY})"
