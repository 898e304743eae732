"""The report: one HTML file that opens offline, with its figures inside."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from emhet_dask.report.palette import state_colour
from emhet_dask.report.style import DPI
from emhet_dask.report.verdict import Remark

__all__ = ["Picture", "Section", "states_table", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_PNG = b"\x89PNG\r\n\x1a\n"
_CSS_PIXELS_PER_INCH = 96
_COLOURED = ("State", "Cluster")


@dataclass(frozen=True)
class Picture:
    """A figure in the report.

    Attributes
    ----------
    png : bytes, str or Path
        The PNG file, or its content.
    caption : str
        What a reader should see in it, in a sentence or two.
    alt : str
        What is in it, for those who cannot see it; by default the caption.
    """

    png: bytes | str | Path
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes
    ----------
    title : str
    text : str
        Paragraphs, with an empty line between them; `what is typed` stands between backticks.
    pictures : sequence of Picture
    table : DataFrame, optional
        Its columns are headed as they are named; ``State`` or ``Cluster`` gets the colours of the
        figures.
    """

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    table: pd.DataFrame | None = None


def write_report(
    path: str | Path,
    *,
    title: str,
    headline: str,
    reason: str = "",
    summary: Sequence[tuple[str, object]] = (),
    sections: Sequence[Section] = (),
    warnings: Sequence[Remark] = (),
    provenance: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Write the report.

    Parameters
    ----------
    path : str or Path
        Such as ``OUT/report.html``.
    title : str
        What was analysed, such as the name of the ensemble.
    headline : str
        The result in one line.
    reason : str
        Why, in a sentence or two.
    summary : sequence of (label, value)
        The figures that matter, below the headline.
    sections : sequence of Section
    warnings : sequence of Remark
        What the reader must know before anything else; serious ones stand out.
    provenance : mapping of heading to mapping of name to value
        Parameters, versions, seconds and the like, for the end of the report.

    Raises
    ------
    ValueError
        When a picture is not a PNG file.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    anchors = _anchors([section.title for section in sections])
    html = environment.get_template("report.html.j2").render(
        title=title,
        headline=headline,
        reason=reason,
        summary=[(label, _text(value)) for label, value in summary],
        warnings=list(warnings),
        sections=[
            {
                "anchor": anchor,
                "title": section.title,
                "paragraphs": _paragraphs(section.text),
                "pictures": [_picture(picture) for picture in section.pictures],
                "table": None if section.table is None else _table(section.table),
            }
            for anchor, section in zip(anchors, sections, strict=True)
        ],
        provenance={
            heading: {name: _text(value) for name, value in values.items()}
            for heading, values in (provenance or {}).items()
        },
    )
    Path(path).write_text(html, encoding="utf-8", newline="\n")


def _paragraphs(text: str) -> list[Markup]:
    """Split at empty lines, and set what stands between backticks as it is typed."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    typed = [re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in parts]
    return [Markup(part) for part in typed]  # noqa: S704 - escaped just now


def states_table(states: pd.DataFrame, *, noun: str = "state") -> pd.DataFrame:
    """Return the table of the states as the report shows it.

    Parameters
    ----------
    states : DataFrame
        As in ``clusters/states.csv``: ``cluster``, ``volumes``, and where known ``particles``,
        ``fraction``, ``outliers``, ``medoid_name``, ``mean_map``.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    """
    shown = pd.DataFrame({noun.capitalize(): states["cluster"]})
    for name, heading in (
        ("volumes", "Volumes"),
        ("particles", "Particles"),
        ("fraction", "Share"),
        ("outliers", "Outliers"),
        ("medoid_name", "Volume in the middle"),
        ("mean_map", "Mean map"),
    ):
        if name in states:
            shown[heading] = states[name]
    if "Share" in shown:
        shown["Share"] = ["–" if pd.isna(share) else f"{share:.1%}" for share in shown["Share"]]
    if "Particles" in shown:
        shown["Particles"] = shown["Particles"].round().astype("Int64")
    return shown


def _picture(picture: Picture) -> dict[str, Any]:
    content = picture.png if isinstance(picture.png, bytes) else Path(picture.png).read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"the picture {picture.caption!r} is not a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    scale = _CSS_PIXELS_PER_INCH / DPI
    return {
        "data": base64.b64encode(content).decode("ascii"),
        "width": round(width * scale),
        "height": round(height * scale),
        "caption": picture.caption,
        "alt": picture.alt or picture.caption,
    }


def _table(table: pd.DataFrame) -> dict[str, Any]:
    numbers = [_is_number(table[name]) for name in table.columns]
    coloured = [name in _COLOURED for name in table.columns]
    return {
        "heads": [(str(name), number) for name, number in zip(table.columns, numbers, strict=True)],
        "rows": [
            [
                (_text(value), number, state_colour(int(value)) if colour else None)
                for value, number, colour in zip(row, numbers, coloured, strict=True)
            ]
            for row in table.itertuples(index=False, name=None)
        ],
    }


def _is_number(column: pd.Series[Any]) -> bool:
    if column.name in _COLOURED:  # a name, beside its colour
        return False
    return bool(pd.api.types.is_numeric_dtype(column)) or column.name == "Share"


def _text(value: Any) -> str:
    """Return a value as a reader wants it: thousands set apart, four digits, yes and no."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | float | np.number):
        whole = isinstance(value, int | np.integer) or abs(float(value)) >= 1e4
        return f"{value:,.0f}" if whole else f"{value:,.4g}"
    return str(value)


def _anchors(titles: Sequence[str]) -> list[str]:
    """Return a name for each heading that can stand in an address; equal titles are numbered."""
    anchors: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        number = sum(
            re.fullmatch(re.escape(name) + r"(-\d+)?", other) is not None for other in anchors
        )
        anchors.append(f"{name}-{number + 1}" if number else name)
    return anchors
