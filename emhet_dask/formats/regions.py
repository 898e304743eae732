"""Polygons over two components, drawn by hand: JSON of a lasso, or a table of vertices."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.errors import InputError

__all__ = ["Region", "read_region"]

_LARGEST_BYTES = 16 << 20
_EXPECTED = (
    'expected JSON such as {"axes": [1, 2], "vertices": [[x, y], ...]} with three vertices at '
    "least, or a .csv with the columns pc1,pc2"
)


@dataclass(frozen=True)
class Region:
    """A polygon.

    Attributes
    ----------
    axes : tuple of int, or None
        The components that it is over, from 1; None where the file does not say.
    vertices : ndarray of float64, shape (vertex, 2)
        In order; the last is joined to the first.
    """

    axes: tuple[int, int] | None
    vertices: np.ndarray


def read_region(path: str | Path) -> Region:
    """Read a polygon.

    Parameters
    ----------
    path : path
        Ending in ``.csv``, with two columns ``pc1,pc2`` (or others, which name the components) and
        a row per vertex; otherwise JSON: a list of ``[x, y]``, or an object with ``vertices``, or
        with plotly's ``lassoPoints`` or ``range`` (of a box), and ``axes`` (``[1, 2]`` or
        ``["PC1", "PC2"]``).

    Returns
    -------
    Region

    Raises
    ------
    InputError
        When the file cannot be read as such, has fewer than three different vertices, values that
        are not finite, or axes that are no two components.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(f"{path}: larger than 16 MiB; {_EXPECTED}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {_EXPECTED}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text; {_EXPECTED}") from error
    axes, vertices = _of_table(path) if path.suffix == ".csv" else _of_json(path, text)
    if len(np.unique(vertices, axis=0)) < 3:
        raise InputError(f"{path}: fewer than three different vertices; {_EXPECTED}")
    return Region(axes, vertices)


def _of_table(path: Path) -> tuple[tuple[int, int], np.ndarray]:
    try:
        table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a table; {_EXPECTED}") from error
    return _axes(path, [str(name) for name in table.columns]), _vertices(path, table.to_numpy())


def _of_json(path: Path, text: str) -> tuple[tuple[int, int] | None, np.ndarray]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON; {_EXPECTED}") from error
    if not isinstance(found, dict):
        return None, _vertices(path, found)
    axes = None if found.get("axes") is None else _axes(path, found["axes"])
    if "vertices" in found:
        return axes, _vertices(path, found["vertices"])
    drawn = found.get("lassoPoints", found.get("range", found))
    if not isinstance(drawn, dict) or len(columns := _columns(drawn)) != 2:
        raise InputError(f"{path}: no vertices in it; {_EXPECTED}")
    x, y = columns
    if "lassoPoints" not in found and "range" in found:
        if not all(isinstance(side, list) and len(side) == 2 for side in (x, y)):
            raise InputError(f"{path}: a range needs two numbers of x and of y; {_EXPECTED}")
        x, y = [x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]]
    if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
        raise InputError(f"{path}: x and y are not lists of one length; {_EXPECTED}")
    return axes, _vertices(path, list(zip(x, y, strict=True)))


def _columns(drawn: dict[str, Any]) -> list[Any]:
    """Return x and y, whatever plotly numbers its axes."""
    return [
        drawn[name]
        for letter in "xy"
        for name in sorted(drawn)
        if re.fullmatch(rf"{letter}\d*", name)
    ]


def _axes(path: Path, given: Any) -> tuple[int, int]:
    names = given if isinstance(given, list) else []
    matches = [re.fullmatch(r"\s*(?:pc\s*)?0*([1-9]\d{0,5})\s*", str(n), re.I) for n in names]
    numbers = [int(match.group(1)) for match in matches if match is not None]
    if len(names) != 2 or len(numbers) != 2 or numbers[0] == numbers[1]:
        raise InputError(f"{path}: axes {given!r:.80}, expected two components such as PC1 and PC2")
    return numbers[0], numbers[1]


def _vertices(path: Path, given: Any) -> np.ndarray:
    try:
        vertices = np.asarray(given, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: vertices that are not pairs of numbers; {_EXPECTED}") from error
    if vertices.ndim != 2 or vertices.shape[1] != 2 or not np.isfinite(vertices).all():
        raise InputError(f"{path}: vertices that are not pairs of numbers; {_EXPECTED}")
    return vertices
