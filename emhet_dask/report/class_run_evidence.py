"""How many classes the images speak for: the figure of ``emhet class3d run``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emhet_dask.report.style import ACCENT, MUTED, counted, new_figure, panel, styled

__all__ = ["class_number_figure"]

_OF_NOISE = "#c4c4c4"


@styled
def class_number_figure(evidence: pd.DataFrame, components: pd.DataFrame, *, used: int) -> Figure:
    """Draw the likelihood of images not seen by the number of classes, and the components.

    Parameters
    ----------
    evidence : DataFrame
        ``n_classes`` and ``log_likelihood`` over that of one class.
    components : DataFrame
        ``half, component, excess, looked_at``.
    used : int
        Classes that were used.
    """
    number = evidence["n_classes"].to_numpy()
    gain = evidence["log_likelihood"].to_numpy()
    best = int(number[np.argmax(gain)])
    figure = new_figure(
        width_inches=9.4,
        height_inches=3.7,
        title=f"Images not seen are likeliest with {counted(best, 'class')}"
        if best > 1
        else "Images not seen are likeliest with one class",
    )
    left = panel(figure, left_inches=0.9, top_inches=0.5, width_inches=3.6, height_inches=2.45)
    left.plot(number, gain, color=MUTED, linewidth=1, zorder=1)
    left.scatter(number, gain, color=[ACCENT if k == used else _OF_NOISE for k in number], zorder=2)
    left.set_xlabel("classes")
    left.set_ylabel("log-likelihood, over one class")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right = panel(figure, left_inches=5.5, top_inches=0.5, width_inches=3.6, height_inches=2.45)
    for half, rows in components.groupby("half"):
        offset = 0.2 * (2 * int(str(half)) - 3)
        colours = [ACCENT if looked else _OF_NOISE for looked in rows["looked_at"]]
        right.bar(rows["component"] + offset, rows["excess"], width=0.36, color=colours)
    right.set_yscale("symlog", linthresh=10)
    right.set_xlabel("component of each half")
    right.set_ylabel("signal in the other half, σ")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
