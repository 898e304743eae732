"""The width of a kernel: what theory says for a Gaussian, and not much more for two of them."""

import numpy as np
import pytest

from emhet_dask.analysis.bandwidth import bandwidth_of


def width_of(points, n_bins=4096):
    low, high = points.min() - 1, points.max() + 1
    counts, _ = np.histogram(points, n_bins, (low, high))
    return bandwidth_of(counts, high - low, len(points))


@pytest.mark.parametrize("n", [1000, 30_000])
def test_a_gaussian_has_the_width_that_is_best_for_it(n):
    # (4 / 3 n)^(1/5) sd minimises the mean integrated squared error.
    points = 3.0 * np.random.default_rng(0).standard_normal(n)
    assert width_of(points) == pytest.approx(3.0 * (4 / (3 * n)) ** (1 / 5), rel=0.15)


def test_distant_peaks_have_the_width_that_suits_each():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(0, 1, 5000), rng.normal(60, 1, 5000)])
    alone = (4 / (3 * 5000)) ** (1 / 5)
    assert width_of(points) == pytest.approx(alone, rel=0.25)
    # Scott's and Silverman's rules see one wide peak.
    assert width_of(points) < 0.1 * points.std() * len(points) ** (-1 / 5)


def test_scale_goes_with_the_unit():
    points = np.random.default_rng(2).gamma(2.0, size=5000)
    counts, edges = np.histogram(points, 2048)
    extent = edges[-1] - edges[0]
    assert bandwidth_of(counts, 10 * extent, 5000) == pytest.approx(
        10 * bandwidth_of(counts, extent, 5000)
    )


def test_two_values_alone_fall_back_on_their_spread():
    counts = np.zeros(64)
    counts[[10, 50]] = 10
    assert 0 < bandwidth_of(counts, 1.0, 20) < 1
