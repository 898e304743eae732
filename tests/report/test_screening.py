from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

from emhet_dask.report.screening import screening_figure
from emhet_dask.report.style import to_png


def table(thresholds, p_values, chosen: int = 0) -> pd.DataFrame:
    rows = [
        (threshold, positive, negative, 5 + k, 1000 * (k + 1), 1 - 0.1 * k, k == chosen)
        for k, (threshold, (positive, negative)) in enumerate(product(thresholds, p_values))
    ]
    columns = ["threshold", "positive_p", "negative_p", "blocks", "voxels", "agreement", "chosen"]
    return pd.DataFrame(rows, columns=columns)


def rings(axes) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.lines
        if line.get_markersize() > 8
    ]


def test_every_setting_is_drawn_and_the_chosen_one_ringed() -> None:
    screening = table([0.4, 0.2, 0.3], [(0.01, 0.05), (0.001, 0.05)], chosen=2)
    figure = screening_figure(screening)
    for axes, name in zip(figure.axes, ("blocks", "voxels", "agreement"), strict=True):
        lines = [line for line in axes.lines if line.get_markersize() < 8]
        assert len(lines) == 2
        drawn = np.concatenate([line.get_ydata() for line in lines])
        assert sorted(drawn) == sorted(screening[name])
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.2", "0.3", "0.4"]
        ((place, height),) = rings(axes)
        assert height == screening[name][2]
        # 0.2 is the first along the axis.
        assert place == pytest.approx(0, abs=0.16)
        assert axes.get_ylabel()
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(words) == ["p 0.001 positive, 0.05 negative", "p 0.01 positive, 0.05 negative"]


def test_of_one_threshold_the_p_values_are_the_axis() -> None:
    figure = screening_figure(table(["auto"], [(0.01, 0.05), (0.001, 0.05)]))
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001\n0.05", "0.01\n0.05"]
    assert axes.get_legend() is None
    assert rings(axes)[0][0] == 1


def test_thresholds_in_words_stay_in_their_order() -> None:
    figure = screening_figure(table(["auto", 0.5, 0.25], [(0.01, 0.05)]))
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["auto", "0.5", "0.25"]


def test_no_blocks_and_no_agreement_leave_no_warning() -> None:
    screening = table([0.1, 0.2], [(0.01, 0.05)]).assign(blocks=0, voxels=0, agreement=np.nan)
    assert len(to_png(screening_figure(screening))) > 1000


@pytest.mark.parametrize("n_chosen", [0, 2])
def test_one_setting_must_be_chosen(n_chosen: int) -> None:
    screening = table([0.1, 0.2, 0.3], [(0.01, 0.05)])
    screening["chosen"] = np.arange(3) < n_chosen
    with pytest.raises(ValueError, match=f"{n_chosen} settings are chosen"):
        screening_figure(screening)
