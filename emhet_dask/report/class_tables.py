"""How the classes of several jobs overlap, as one table of shares and as rows for the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from emhet_dask.report.names import shortened
from emhet_dask.report.style import INK, MUTED, new_figure, panel, styled

__all__ = ["agreement_rows", "consensus_rows", "correspondence_rows", "overlap_matrix"]

_MOST_NUMBERS = 48
_SURPRISING = 3.0


@styled
def overlap_matrix(
    fractions: npt.ArrayLike,
    residuals: npt.ArrayLike,
    *,
    names: Sequence[str],
    classes: Sequence[Sequence[int]],
) -> Figure:
    """Draw the share of each class (row) that lies in each class of the other jobs (column).

    Parameters
    ----------
    fractions : array (class, class)
        Of all jobs, job by job; NaN between classes of one job.
    residuals : array (class, class)
        Standardised residuals; shares that chance explains are written in grey.
    names : sequence of str
        Of the jobs.
    classes : sequence of sequence of int
        Of each job.
    """
    values, surprise = np.asarray(fractions), np.asarray(residuals)
    n = len(values)
    written = n <= _MOST_NUMBERS
    side = float(np.clip(0.38 * n, 2.6, 8.0))
    figure = new_figure(
        width_inches=max(side + 2.4, 6.4),
        height_inches=side + (1.4 if written else 1.1),
        title="Share of each class (row) that is in each class of the other jobs",
        note="in percent; grey numbers: no more or less than chance gives (3 standard deviations)"
        if written
        else "",
    )
    axes = panel(figure, left_inches=1.15, top_inches=0.95, width_inches=side, height_inches=side)
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
    )
    axes.set_facecolor("#f2f2f2")
    numbers = [str(number) for known in classes for number in known]
    axes.set_xticks(range(n), numbers)
    axes.set_yticks(range(n), numbers)
    axes.tick_params(length=0, labelbottom=False, labeltop=True)
    ends = np.cumsum([0, *(len(known) for known in classes)])
    for name, (start, end) in zip(shortened(names, most=14), pairwise(ends.tolist()), strict=True):
        middle = 0.5 * (start + end) - 0.5
        inch = n / side
        axes.text(middle, -0.5 - 0.28 * inch, name, ha="center", va="bottom", weight="bold")
        axes.text(-0.5 - 0.25 * inch, middle, name, ha="right", va="center", weight="bold")
        for edge in {start, end} - {0, n}:
            axes.axhline(edge - 0.5, color="white", lw=2.5)
            axes.axvline(edge - 0.5, color="white", lw=2.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if written:
        size = float(np.clip(8.5 * side / n / 0.38, 4.0, 8.0))
        for i, j in np.argwhere(np.isfinite(values) & (values >= 0.005)):
            dull = not abs(surprise[i, j]) >= _SURPRISING
            light = "white" if values[i, j] > 0.6 else INK
            axes.text(
                j,
                i,
                f"{100 * values[i, j]:.0f}",
                ha="center",
                va="center",
                fontsize=size,
                color=MUTED if dull else light,
            )
    bar = panel(
        figure,
        left_inches=1.15 + side + 0.25,
        top_inches=0.95,
        width_inches=0.14,
        height_inches=min(side, 2.2),
    )
    figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1]).ax.set_yticklabels(["0%", "50%", "100%"])
    return figure


def agreement_rows(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return the agreement of the jobs as the report shows it."""
    return pd.DataFrame(
        {
            "Jobs": agreement["job1"] + " and " + agreement["job2"],
            "Adjusted Rand index": _short(agreement["adjusted_rand_index"]),
            "Chance": _short(agreement["rand_null_95"]),
            "Adjusted mutual information": _short(agreement["adjusted_mutual_information"]),
            "Chance ": _short(agreement["information_null_95"]),
            "p": agreement["p_value"],
        }
    )


def correspondence_rows(correspondence: pd.DataFrame) -> pd.DataFrame:
    """Return the classes that correspond as the report shows them."""
    table = correspondence
    shown = pd.DataFrame(
        {
            "First": table["job1"] + " class " + table["class1"].astype(str),
            "Second": table["job2"] + " class " + table["class2"].astype(str),
            "Particles": table["count"],
            "Of the first": [f"{share:.0%}" for share in table["fraction_of_class1"]],
            "Of the second": [f"{share:.0%}" for share in table["fraction_of_class2"]],
        }
    )
    if table["map_correlation"].notna().any():
        shown["Correlation of maps"] = _short(table["map_correlation"])
    return shown


def consensus_rows(classes: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the consensus classes as the report shows them.

    Parameters
    ----------
    classes : DataFrame
        As in ``consensus_classes.csv``.
    names : sequence of str
        Of the jobs.
    """
    table = classes[classes["particles"] > 0]
    shown = pd.DataFrame(
        {
            "Consensus": [str(number) if number else "unresolved" for number in table["consensus"]],
            "Particles": table["particles"].to_numpy(),
            "Share": [f"{share:.1%}" for share in table["fraction"]],
            "Stable core": table["core"].to_numpy(),
            "Mean confidence": [f"{value:.2f}" for value in table["mean_confidence"]],
        }
    )
    for name in names:
        shown[f"In {name}"] = table[name].to_numpy()
    return shown


def _short(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else f"{round(value, 3) + 0.0:.3f}" for value in values]
