"""How the variance is shared among the principal components."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from emhet_dask.report.style import ACCENT, MUTED, counted, new_figure, panel, styled

__all__ = ["scree"]

_OF_NOISE = "#c4c4c4"


@styled
def scree(
    ratios: npt.ArrayLike,
    *,
    n_signal: int | None = None,
    eigenvalues: npt.ArrayLike | None = None,
) -> Figure:
    """Draw the share of the variance along each component, and what the first ones hold together.

    Parameters
    ----------
    ratios : array (component,)
        Explained variance ratio, 0 to 1.
    n_signal : int, optional
        Components above the noise; these are drawn in colour, the others in grey.
    eigenvalues : array (eigen,), optional
        As many eigenvalues as are known, in falling order; adds a third panel, in which noise is
        the flat part.
    """
    ratios = np.asarray(ratios, dtype=np.float64)
    number = np.arange(1, len(ratios) + 1)
    signal = len(ratios) if n_signal is None else min(n_signal, len(ratios))
    title = f"Variance of {counted(len(ratios), 'principal component')}: {ratios.sum():.1%} in all"
    if n_signal is not None:
        title += f", {ratios[:signal].sum():.1%} in the {signal} above the noise" if signal else ""
    width = 2.8 if eigenvalues is not None else 4.4
    figure = new_figure(
        width_inches=10.6, height_inches=3.7, title=title, note=_note(n_signal, signal)
    )
    panels = [
        panel(
            figure,
            left_inches=0.7 + (width + 0.62) * k,
            top_inches=0.5,
            width_inches=width - 0.15,
            height_inches=2.45,
        )
        for k in range(2 if eigenvalues is None else 3)
    ]
    colours = [ACCENT if k < signal else _OF_NOISE for k in range(len(ratios))]
    panels[0].bar(number, 100 * ratios, color=colours, width=0.8)
    panels[0].set_ylabel("% of variance")
    panels[1].plot(number, 100 * np.cumsum(ratios), color=MUTED, linewidth=1, zorder=1)
    panels[1].scatter(number, 100 * np.cumsum(ratios), c=colours, s=16, zorder=2)
    panels[1].set_ylabel("% of variance, cumulative")
    panels[1].set_ylim(0, 105 if ratios.sum() > 0.6 else None)
    for axes in panels[:2]:
        axes.set_xlabel("principal component")
        axes.set_xlim(0.3, len(ratios) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if eigenvalues is not None:
        _draw_eigenvalues(panels[2], np.asarray(eigenvalues, dtype=np.float64), signal)
    return figure


def _draw_eigenvalues(axes: Axes, eigenvalues: npt.NDArray[np.float64], signal: int) -> None:
    # Rounding leaves eigenvalues at and below 0, which a logarithmic axis cannot show.
    floor = 1e-6 * float(eigenvalues.max(initial=0.0))
    number = np.arange(1, len(eigenvalues) + 1)
    shown = eigenvalues > floor
    for here, colour in ((number <= signal, ACCENT), (number > signal, _OF_NOISE)):
        axes.scatter(number[shown & here], eigenvalues[shown & here], c=colour, s=9)
    axes.set_xlabel("eigenvalue, by size")
    axes.set_ylabel("variance (density²)")
    if not shown.any():
        return
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        # Powers of ten as formulas take longer to draw than all the rest.
        axis.set_major_locator(LogLocator(subs=_log_steps(axis.get_data_interval())))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _log_steps(interval: tuple[float, float]) -> tuple[float, ...]:
    """Return what is labelled in each decade of a logarithmic axis; more where there are few."""
    decades = np.log10(interval[1] / interval[0])
    return (1.0,) if decades > 2 else (1.0, 2.0, 5.0)


def _note(n_signal: int | None, signal: int) -> str:
    if n_signal is None:
        return ""
    if signal == 0:
        return "Grey: not told from noise. No component is above it."
    return f"Blue: {counted(signal, 'component')} above the noise. Grey: not told from noise."
