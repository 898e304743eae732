from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgba

from emhet_dask.report.spectrum import scree
from emhet_dask.report.style import ACCENT, to_png


def test_signal_components_are_marked_and_summed() -> None:
    figure = scree([0.4, 0.2, 0.05, 0.05], n_signal=2)
    bars, cumulative = figure.axes
    assert [bar.get_height() for bar in bars.patches] == [40, 20, 5, 5]
    coloured = [bar.get_facecolor() == to_rgba(ACCENT) for bar in bars.patches]
    assert coloured == [True, True, False, False]
    np.testing.assert_allclose(cumulative.lines[0].get_ydata(), [40, 60, 65, 70])
    assert "70.0% in all, 60.0% in the 2 above the noise" in figure.get_suptitle()
    assert {axes.get_xlabel() for axes in figure.axes} == {"principal component"}
    assert all("%" in axes.get_ylabel() for axes in figure.axes)


def test_nothing_above_the_noise_is_said() -> None:
    figure = scree([0.1, 0.1], n_signal=0)
    assert any("No component" in text.get_text() for text in figure.texts)


def test_eigenvalues_of_zero_and_below_are_left_out() -> None:
    figure = scree([0.5, 0.3, 0.2], n_signal=1, eigenvalues=[5.0, 3.0, 2.0, 0.0, -1e-15])
    assert len(figure.axes) == 3
    drawn = np.concatenate([dots.get_offsets()[:, 1] for dots in figure.axes[2].collections])
    np.testing.assert_allclose(sorted(drawn), [2.0, 3.0, 5.0])
    assert figure.axes[2].get_yscale() == "log"


def test_maps_that_are_all_alike_have_no_variance_to_draw() -> None:
    figure = scree([0.0, 0.0], n_signal=0, eigenvalues=[0.0, 0.0])
    to_png(figure)
    assert all(len(dots.get_offsets()) == 0 for dots in figure.axes[2].collections)


def test_one_component() -> None:
    assert "1 principal component: 100.0% in all" in scree([1.0]).get_suptitle()
