from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.report.density import density_matrix, tile_sizes
from emhet_dask.report.quantities import quantity

CORRELATION = quantity("correlation")


def _note(figure) -> str:
    return " ".join(figure.texts[1].get_text().split())


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20), most=st.integers(1, 50))
def test_tiles_hold_all_maps_and_cross_no_border(lengths: list[int], most: int) -> None:
    sizes = tile_sizes(np.repeat(np.arange(len(lengths)), lengths), most_tiles=most)
    assert sizes.sum() == sum(lengths)
    assert sizes.min() >= 1
    assert len(lengths) <= len(sizes) <= max(most, len(lengths))
    assert set(np.cumsum(lengths)) <= set(np.cumsum(sizes))


def test_tiles_are_as_many_as_may_be() -> None:
    assert len(tile_sizes(np.repeat([0, 1, 2], [50_000, 30_000, 20_000]), most_tiles=400)) > 390


def test_each_tile_is_drawn_over_the_maps_that_it_holds() -> None:
    sizes = np.array([100, 300, 50, 550])
    means = np.arange(16.0).reshape(4, 4)
    means += means.T
    figure = density_matrix(means, sizes=sizes, states=[0, 0, 1, 2], quantity=CORRELATION)
    axes = figure.axes[0]
    drawn = axes.images[0].get_array()
    assert axes.images[0].get_extent() == [0, 1000, 1000, 0]
    pixels = len(drawn)
    for value in np.unique(means):
        share = np.mean(drawn == value)
        expected = (np.outer(sizes, sizes) * (means == value)).sum() / 1e6
        assert share == pytest.approx(expected, abs=3 / pixels)
    assert drawn[0, -1] == means[0, 3]


def test_size_of_the_picture_does_not_grow_with_the_maps() -> None:
    small, large = (
        density_matrix(
            np.eye(20), sizes=np.full(20, count), states=np.arange(20) // 5, quantity=CORRELATION
        )
        for count in (10, 5000)
    )
    assert small.axes[0].images[0].get_array().shape == large.axes[0].images[0].get_array().shape
    assert large.get_suptitle().startswith("100,000 maps in 4 clusters")
    assert "20 tiles of 5,000 to 5,000 maps" in _note(large)


def test_colours_are_by_pairs_and_not_by_tiles() -> None:
    # 90 tiles of one map have other values, but hold hardly any pairs.
    sizes = np.r_[np.full(10, 1000), np.ones(90, int)]
    means = np.full((100, 100), 9.0)
    means[:10, :10] = np.linspace(0.1, 0.2, 100).reshape(10, 10)
    figure = density_matrix(means, sizes=sizes, states=np.zeros(100, int), quantity=CORRELATION)
    low, high = figure.axes[0].images[0].get_clim()
    assert 0.1 <= low < 0.11
    assert 0.19 < high <= 9.0
    assert figure.axes[1].get_ylabel() == "correlation"


def test_clusters_too_thin_to_be_seen_are_counted() -> None:
    figure = density_matrix(
        np.zeros((2, 2)), sizes=[99_990, 10], states=[0, 1], quantity=CORRELATION
    )
    assert "1 cluster with too few maps to be seen" in _note(figure)


def test_tiles_without_pairs_are_grey() -> None:
    means = np.array([[0.5, 0.2], [0.2, np.nan]])
    figure = density_matrix(means, sizes=[50, 50], states=[0, 1], quantity=CORRELATION)
    assert figure.axes[0].images[0].get_array().mask[-1, -1]
