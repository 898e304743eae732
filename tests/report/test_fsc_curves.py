from __future__ import annotations

import numpy as np
import pandas as pd

from emhet_dask.report.fsc_curves import fsc_figure, fsc_sheet, resolution_ticks
from emhet_dask.report.style import to_png


def tables(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    shell = np.arange(1, 33)
    curve = 1 / (1 + np.exp((shell - 16) / 2))
    fsc = pd.concat(
        pd.DataFrame(
            {
                "state": number,
                "shell": shell,
                "resolution_A": 192 / shell,
                "fsc_unmasked": curve**2,
                "fsc_masked": curve,
                "fsc_randomised": np.where(shell < 12, np.nan, 0.01),
                "fsc_corrected": curve * 0.98,
            }
        )
        for number in range(count)
    )
    states = pd.DataFrame(
        {"state": range(count), "particles": 1234, "resolution_A": 9.6, "name": "x"}
    )
    return fsc, states


def test_every_state_has_a_curve_and_a_name() -> None:
    figure = fsc_figure(*tables(3))
    axes = figure.axes[0]
    curves = [line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) == 32]
    assert len(curves) == 3
    assert len({line.get_color() for line in curves}) == 3
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0] == "state 0 · 9.6 Å · 1,234"
    assert axes.get_xlim()[1] == 1 / 6
    assert to_png(figure) == to_png(fsc_figure(*tables(3)))


def test_a_panel_shows_the_four_curves_of_a_state() -> None:
    figure = fsc_sheet(*tables(4))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"state {number} · 9.6 Å" for number in range(4)
    ]
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 32]
    assert len(curves) == 4
    assert len(fsc_sheet(*tables(30)).axes) == 24


def test_ticks_are_round_and_within() -> None:
    ticks = resolution_ticks(6.0, most=9)
    assert ticks.min() == 6
    assert 4 <= len(ticks) <= 10
    assert len(resolution_ticks(0.5, most=6)) >= 1
