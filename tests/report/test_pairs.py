from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from emhet_dask.report.pairs import nearest_maps, pair_histogram
from emhet_dask.report.palette import state_colours
from emhet_dask.report.quantities import quantity

CORRELATION = quantity("correlation")
EDGES = np.linspace(-1, 1, 11)


def _note(figure) -> str:
    return " ".join(figure.texts[1].get_text().split())


def _steps(figure) -> list[StepPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]


def test_histogram_has_the_pairs_that_it_is_given() -> None:
    counts = np.array([0, 0, 0, 4, 9, 30, 20, 5, 0, 0])
    figure = pair_histogram(counts, edges=EDGES, quantity=CORRELATION)
    (step,) = _steps(figure)
    np.testing.assert_array_equal(step.get_data().values, counts)
    np.testing.assert_array_equal(step.get_data().edges, EDGES)
    assert figure.get_suptitle() == "Correlation of 68 pairs"
    low, high = figure.axes[0].get_xlim()
    assert -0.5 < low < -0.4
    assert 0.6 < high < 0.7


def test_pairs_within_and_between_are_shares_of_their_own_number() -> None:
    counts = np.array([0, 100, 300, 100, 0, 0, 0, 4, 6, 0])
    within = np.array([0, 0, 0, 0, 0, 0, 0, 4, 6, 0])
    figure = pair_histogram(counts, edges=EDGES, quantity=CORRELATION, within=within)
    drawn = {step.get_label(): step.get_data().values for step in _steps(figure)}
    np.testing.assert_allclose(drawn["within a cluster (10 pairs)"][7:9], [40, 60])
    np.testing.assert_allclose(drawn["between clusters (500 pairs)"][1:4], [20, 60, 20])


def test_few_pairs_are_drawn_in_few_bins() -> None:
    rng = np.random.default_rng(0)
    edges = np.linspace(-1, 1, 2049)
    counts = np.histogram(rng.uniform(0.3, 0.9, 21), edges)[0]
    (step,) = _steps(pair_histogram(counts, edges=edges, quantity=CORRELATION))
    drawn, ends = step.get_data().values, step.get_data().edges
    assert drawn.sum() == 21
    assert np.count_nonzero((ends > 0.3) & (ends < 0.9)) <= 12
    assert (ends[0], ends[-1]) == (-1, 1)
    expected = np.histogram(np.repeat((edges[:-1] + edges[1:]) / 2, counts), ends)[0]
    np.testing.assert_array_equal(drawn, expected)


def test_alike_is_at_the_right_of_every_histogram() -> None:
    for name in ("correlation", "l2"):
        figure = pair_histogram(np.ones(10), edges=EDGES, quantity=quantity(name))
        low, high = figure.axes[0].get_xlim()
        assert (high > low) == quantity(name).larger_is_closer


def test_one_cluster_has_no_pairs_between() -> None:
    figure = pair_histogram(np.ones(10), edges=EDGES, quantity=CORRELATION, within=np.ones(10))
    assert not any("between" in str(step.get_label()) for step in _steps(figure))


@pytest.mark.parametrize("metric", ["correlation", "fsc-resolution"])
def test_nearest_maps_come_first(metric: str) -> None:
    values = np.array([0.2, 0.9, np.nan, 0.5])
    figure = nearest_maps(
        values,
        names=["a", "b", "c", "d"],
        quantity=quantity(metric),
        reference="ref",
        states=[0, 1, 0, 2],
    )
    axes = figure.axes[0]
    order = [1, 3, 0] if metric == "correlation" else [0, 3, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["abcd"[k] for k in order]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], values[order])
    np.testing.assert_allclose(
        [bar.get_facecolor()[:3] for bar in axes.patches],
        state_colours([[0, 1, 0, 2][k] for k in order]),
    )
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert figure.get_suptitle() == "3 maps against ref"
    assert "1 map without a value" in _note(figure)


def test_of_many_maps_the_nearest_are_named_and_all_are_drawn_beside() -> None:
    values = np.random.default_rng(0).uniform(-0.2, 0.9, 500)
    names = [f"vol_{k}" for k in range(500)]
    figure = nearest_maps(values, names=names, quantity=CORRELATION, reference="ref")
    assert len(figure.axes[0].patches) == 30
    assert figure.get_suptitle() == "The 30 maps nearest to ref"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), np.sort(values)[::-1])


def test_bars_begin_at_zero() -> None:
    figure = nearest_maps([0.97, 0.98], names=["a", "b"], quantity=CORRELATION, reference="r")
    assert figure.axes[0].get_xlim()[0] == 0
    figure = nearest_maps([0.5, -0.3], names=["a", "b"], quantity=CORRELATION, reference="r")
    assert figure.axes[0].get_xlim()[0] < -0.3
