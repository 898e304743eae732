"""Which density counts as occupied: noise, within parts of the densest voxels."""

import numpy as np
import pytest

from emhet_dask.analysis.thresholds import automatic_level
from emhet_dask.errors import InputError


@pytest.mark.parametrize(
    ("noise", "level"),
    [(0.0, 2.0), (0.5, 2.0), (1.0, 3.0), (1.2, 3.6), (2.0, 4.0), (50.0, 4.0)],
)
def test_three_times_the_noise_but_a_fifth_to_two_fifths_of_the_densest(noise, level):
    assert automatic_level([9.0, 10.0, 11.0], noise=noise) == pytest.approx(level)


def test_a_few_odd_volumes_do_not_matter():
    assert automatic_level([10, 10, 10, 1000, -1], noise=0) == pytest.approx(2)


def test_the_level_is_in_the_units_of_the_maps():
    top = np.random.default_rng(0).uniform(0.5, 1, 9)
    for noise in (0.01, 0.08, 0.3):
        level = automatic_level(top, noise=noise)
        assert automatic_level(1000 * top, noise=1000 * noise) == pytest.approx(1000 * level)


@pytest.mark.parametrize("percentiles", [[0.0, 0.0, 1.0], [-1.0, -2.0], [np.nan]])
def test_volumes_without_density(percentiles):
    with pytest.raises(InputError, match="--threshold auto: most volumes hold no density above 0"):
        automatic_level(percentiles, noise=0.1)
