"""One look for every figure: type, sizes, panels placed in inches, PNG files.

Figures are plain `matplotlib.figure.Figure` objects. No figure goes through pyplot, whose list of
open figures is shared by a whole process. Panels are placed by hand, because a layout engine draws
every figure twice.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = [
    "ACCENT",
    "DPI",
    "INK",
    "MUTED",
    "WARNING",
    "counted",
    "new_figure",
    "panel",
    "save",
    "save_all",
    "styled",
    "to_png",
]

DPI = 130
INK = "#222222"
MUTED = "#707070"
FAINT = "#d9d9d9"
ACCENT = "#0072b2"
WARNING = "#b34700"

_LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-3, 5),
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "white",
    "savefig.bbox": "standard",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a function under the common look, whatever the user's settings are."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_LOOK):
            return draw(*args, **kwargs)

    return drawn


def new_figure(
    *, width_inches: float, height_inches: float, title: str = "", note: str = ""
) -> Figure:
    """Return an empty figure with a title at its upper left and a note at its lower left."""
    figure = Figure(figsize=(width_inches, height_inches))
    left = 0.12 / width_inches
    if title:
        top = 1 - 0.1 / height_inches
        figure.suptitle(title, x=left, y=top, ha="left", va="top", fontsize=10.5, weight="bold")
    if note:
        figure.text(left, 0.07 / height_inches, note, color=MUTED, fontsize=7.5, va="bottom")
    return figure


def panel(
    figure: Figure,
    *,
    left_inches: float,
    top_inches: float,
    width_inches: float,
    height_inches: float,
) -> Axes:
    """Add a panel whose frame has its upper left corner so far from that of the figure."""
    width, height = figure.get_size_inches()
    axes: Axes = figure.add_axes(
        (
            left_inches / width,
            1 - (top_inches + height_inches) / height,
            width_inches / width,
            height_inches / height,
        )
    )
    # Ticks are made when the figure is drawn, which in a notebook is outside of our look.
    axes.tick_params(labelsize=7.5, color=MUTED, labelcolor=INK, width=0.7, length=3)
    return axes


def to_png(figure: Figure, *, dpi: float = DPI) -> bytes:
    """Return a figure as the bytes of a PNG file; the same figure gives the same bytes."""
    return _encoded(_drawn(figure, dpi), dpi)


def save(figure: Figure, path: str | Path, *, dpi: float = DPI) -> None:
    """Write a figure as a PNG file."""
    Path(path).write_bytes(to_png(figure, dpi=dpi))


def save_all(
    draw: Mapping[str, Callable[[], Figure]],
    folder: str | Path,
    *,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Draw figures one after another, and write each while the next one is drawn.

    Parameters
    ----------
    draw : mapping of str to callable
        What draws the figure of each file, below `folder`.
    folder : str or Path
    done : callable
        Called after each figure.
    """

    def write(name: str, picture: npt.NDArray[np.uint8]) -> None:
        Path(folder, name).write_bytes(_encoded(picture, DPI))

    with ThreadPoolExecutor(1) as writer:
        written = []
        for name, figure in draw.items():
            written.append(writer.submit(write, name, _drawn(figure(), DPI)))
            done()
        for each in written:
            each.result()


@styled
def _drawn(figure: Figure, dpi: float) -> npt.NDArray[np.uint8]:
    """Draw a figure; return its pixels (row, column, channel)."""
    canvas = FigureCanvasAgg(figure)
    before = figure.dpi
    figure.dpi = dpi
    try:
        canvas.draw()
        # Nothing is transparent over a white figure.
        return np.array(canvas.buffer_rgba())[..., :3]
    finally:
        figure.dpi = before


def _encoded(picture: npt.NDArray[np.uint8], dpi: float) -> bytes:
    buffer = io.BytesIO()
    # Level 3 is twice as fast as the default, for files a tenth larger.
    Image.fromarray(picture).save(buffer, "png", compress_level=3, dpi=(dpi, dpi))
    return buffer.getvalue()


def counted(number: float, thing: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "volume"), counted(12345.0, "particle")
    ('1 volume', '12,345 particles')
    """
    return f"{number:,.0f} {thing}" + ("" if round(number) == 1 else "s")
