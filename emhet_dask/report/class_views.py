"""From which directions the particles of each class are seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from emhet_dask.report.convergence import class_colour
from emhet_dask.report.style import new_figure, panel, styled

__all__ = ["VIEW_BINS", "views_figure"]

# Bins along rot and along cos tilt, all of one area on the sphere.
VIEW_BINS = (24, 12)
_COLUMNS = 4
_WIDTH, _HEIGHT = 2.1, 1.25
_MOST = 24
_FEWEST_A_BIN = 3
_SHADES = LinearSegmentedColormap.from_list("views", ["#ffffff", "#9ecae1", "#0072b2", "#08306b"])


@styled
def views_figure(
    counts: npt.ArrayLike, *, numbers: Sequence[int], titles: Sequence[str], job: str
) -> Figure:
    """Draw the viewing directions of every class on a map of equal areas.

    Parameters
    ----------
    counts : array (class, rot, cos tilt)
        Particles in bins of equal area: rot from −180° to 180°, cos tilt from −1 to 1.
    numbers : sequence of int
        The classes.
    titles : sequence of str
        One per class.
    job : str
    """
    counts = np.asarray(counts, dtype=float)[:_MOST]
    n_classes = len(counts)
    columns = min(_COLUMNS, n_classes)
    rows = -(-n_classes // columns)
    figure = new_figure(
        width_inches=0.62 + max(columns, 3) * (_WIDTH + 0.2) + 0.85,
        height_inches=0.62 + rows * (_HEIGHT + 0.35) + 0.45,
        title=f"{job}: viewing directions of each class",
        note="Bins of equal area on the sphere, larger for classes of few particles. An even "
        "distribution is 1 everywhere.",
    )
    image = None
    for k in range(n_classes):
        row, column = divmod(k, columns)
        axes = panel(
            figure,
            left_inches=0.62 + column * (_WIDTH + 0.2),
            top_inches=0.66 + row * (_HEIGHT + 0.35),
            width_inches=_WIDTH,
            height_inches=_HEIGHT,
        )
        binned = _coarser(counts[k])
        relative = binned / max(binned.mean(), 1e-12)
        image = axes.imshow(
            relative.T,
            origin="lower",
            extent=(-180, 180, -1, 1),
            aspect="auto",
            cmap=_SHADES,
            vmin=0,
            vmax=3,
            interpolation="nearest",
        )
        axes.spines[["top", "right"]].set_visible(True)
        axes.spines[:].set_color(class_colour(numbers[k]))
        axes.spines[:].set_linewidth(1.4)
        axes.set_title(titles[k], fontsize=7.5)
        axes.set_xticks([-120, 0, 120] if k + columns >= n_classes else [])
        # RELION's tilt counts from the pole.
        axes.set_yticks(np.cos(np.deg2rad([180, 120, 90, 60, 0])))
        axes.set_yticklabels(["180", "120", "90", "60", "0"] if column == 0 else [])
        if k + columns >= n_classes:
            axes.set_xlabel("rot, °")
        if column == 0:
            axes.set_ylabel("tilt, °")
    if image is not None:
        bar = panel(
            figure,
            left_inches=0.62 + columns * (_WIDTH + 0.2),
            top_inches=0.66,
            width_inches=0.11,
            height_inches=_HEIGHT,
        )
        figure.colorbar(image, cax=bar, extend="max")
        bar.set_ylabel("times even")
    return figure


def _coarser(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Join bins of a class with few particles, whose picture would be dots."""
    rot, height = counts.shape
    for step in (1, 2, 3):
        joined = counts.reshape(rot // step, step, height // step, step).sum(axis=(1, 3))
        if joined.mean() >= _FEWEST_A_BIN:
            break
    return np.asarray(joined)
