"""The background: its correlation against plain sums and a closed form, and how far it reaches."""

from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emhet_dask.analysis.background import measure_background
from emhet_dask.errors import InputError

SIGMA = 1.2


def noise(n, box, *, sigma=SIGMA, seed=0):
    """Periodic white noise under a Gaussian filter, of variance 1."""
    rng = np.random.default_rng(seed)
    maps = np.stack(
        [gaussian_filter(rng.standard_normal((box,) * 3), sigma, mode="wrap") for _ in range(n)]
    )
    return (maps / maps.std()).astype(np.float32)


def lags(farthest):
    """Whole steps in all directions, by the shell that they are rounded to."""
    reach = range(-farthest - 1, farthest + 2)
    for step in product(reach, repeat=3):
        shell = round(float(np.linalg.norm(step)))
        if shell <= farthest:
            yield step, shell


def closed_form(farthest, sigma=SIGMA):
    """Autocorrelation ``exp(-r² / 4σ²)`` of filtered white noise, averaged over each shell."""
    values = [[] for _ in range(farthest + 1)]
    for step, shell in lags(farthest):
        values[shell].append(np.exp(-np.dot(step, step) / (4 * sigma**2)))
    return np.array([np.mean(each) for each in values])


def crossing(correlation, limit):
    """Where the broken line through the values comes below the limit, by looking closely."""
    distance = np.linspace(0, len(correlation) - 1, 100_001)
    below = np.interp(distance, np.arange(len(correlation)), correlation) < limit
    return distance[np.argmax(below)]


def test_correlation_is_that_of_plain_sums_over_pairs():
    maps = noise(9, 24)
    # A slab that is the quietest quarter of the voxels that are not within 2 of a face.
    quiet = np.zeros((24,) * 3, dtype=bool)
    quiet[2:7, 2:22, 2:22] = True
    maps[:, ~quiet] *= 50
    found = measure_background(maps, n_volumes=1000)
    residual = np.where(quiet, maps.astype(float) - maps.mean(axis=0, dtype=float), 0)
    total, number = np.zeros(4), np.zeros(4)
    for step, shell in lags(3):
        here = tuple(slice(max(0, -s), 24 - max(0, s)) for s in step)
        there = tuple(slice(max(0, s), 24 - max(0, -s)) for s in step)
        number[shell] += 9 * np.count_nonzero(quiet[here] & quiet[there])
        total[shell] += (residual[:, *here] * residual[:, *there]).sum()
    expected = total / number
    np.testing.assert_allclose(found.correlation, expected / expected[0], atol=1e-5)
    spread = maps[:, quiet].astype(float).std(axis=0, ddof=1)
    assert found.std == pytest.approx(np.sqrt(np.mean(spread**2)), rel=1e-6)


def test_filtered_noise_has_the_correlation_of_its_filter():
    maps = 3 * noise(64, 32)
    # All but the quarter that is measured: to choose the quietest of equals takes some off.
    maps[:, 9:] *= 50
    maps[:, :, :2], maps[:, :, 30:], maps[..., :2], maps[..., 30:] = 0, 0, 0, 0
    found = measure_background(maps, n_volumes=20)
    np.testing.assert_allclose(found.correlation, closed_form(4), atol=0.04)
    assert found.std == pytest.approx(3, rel=0.05)
    assert found.reached
    assert found.limit == pytest.approx(0.5 / np.sqrt(20))


def test_the_more_volumes_the_farther_it_reaches():
    maps = noise(64, 40)
    found = [measure_background(maps, n_volumes=n) for n in (20, 100, 1000)]
    reach = [each.length for each in found]
    assert 2 < reach[0] < reach[1] < reach[2]
    for each in found:
        assert each.length == pytest.approx(crossing(each.correlation, each.limit), abs=1e-3)
        assert each.length == pytest.approx(crossing(closed_form(5), each.limit), abs=0.4)


def test_noise_of_single_voxels_reaches_two_voxels():
    rng = np.random.default_rng(1)
    found = measure_background(rng.standard_normal((16, 24, 24, 24)), n_volumes=100)
    assert found.length == 2
    np.testing.assert_allclose(found.correlation[1:], 0, atol=0.02)


def test_a_background_that_never_falls_off_is_told():
    # What differs from map to map is the same everywhere.
    rng = np.random.default_rng(2)
    maps = noise(16, 24) + 20 * rng.standard_normal(16)[:, None, None, None]
    found = measure_background(maps, n_volumes=1000)
    assert not found.reached
    assert found.length == 3  # an eighth of the box


def test_maps_that_drift_as_a_whole_are_told_and_bounded():
    drift = 0.2 * np.random.default_rng(3).standard_normal(24)
    maps = noise(24, 48, sigma=0.8) + drift[:, None, None, None]
    found = measure_background(maps, n_volumes=2000)
    assert not found.reached
    assert found.correlation[-1] > found.limit
    fallen = crossing(found.correlation, np.exp(-1))
    assert found.length == pytest.approx(2.5 * fallen, abs=1e-3)
    assert found.length < 6


def test_maps_that_were_masked_have_no_background():
    maps = noise(12, 24)
    maps[:, :8], maps[:, 16:], maps[..., :8], maps[..., 16:] = 0, 0, 0, 0
    found = measure_background(maps, n_volumes=500)
    assert (found.std, found.length, found.reached) == (0.0, 2.0, True)
    assert found.limit == pytest.approx(0.5 / np.sqrt(500))
    empty = measure_background(np.zeros((12, 24, 24, 24)), n_volumes=500)
    assert (empty.std, empty.length) == (0.0, 2.0)


def test_zeros_of_a_wide_mask_are_no_quiet_voxels():
    maps = noise(24, 32)
    maps[:, :6] = 0
    found = measure_background(maps, n_volumes=500)
    assert found.std == pytest.approx(1, rel=0.25)
    np.testing.assert_allclose(found.correlation, closed_form(4), atol=0.15)


def test_a_molecule_that_comes_and_goes_is_no_background():
    maps = noise(40, 32)
    z, y, x = np.indices((32,) * 3) - 16
    inside = z**2 + y**2 + x**2 < 11**2
    without = measure_background(maps, n_volumes=500)
    maps[::2, inside] += 8
    found = measure_background(maps, n_volumes=500)
    assert found.std == pytest.approx(without.std, rel=0.1)
    assert found.length == pytest.approx(without.length, abs=0.5)


@pytest.mark.parametrize(("n", "std"), [(1, 0.0), (7, 0.0)])
def test_few_volumes_measure_nothing(n, std):
    found = measure_background(noise(n, 24), n_volumes=n)
    assert (found.std, found.length) == (std, 2.0)
    assert measure_background(noise(8, 24), n_volumes=8).std > 0.5


def test_a_large_offset_costs_no_digits():
    maps = noise(10, 24).astype(np.float64)
    near, far = (measure_background(maps + shift, n_volumes=100) for shift in (0, 1e6))
    np.testing.assert_allclose(near.correlation, far.correlation, atol=1e-6)
    assert near.std == pytest.approx(far.std, rel=1e-6)


def test_volumes_that_cannot_be_used():
    with pytest.raises(InputError, match=r"differ in shape: \(24, 24, 24\) and \(16, 16, 16\)"):
        measure_background([np.zeros((24,) * 3), np.zeros((16,) * 3)], n_volumes=2)
    with pytest.raises(InputError, match="no volume to measure the background of"):
        measure_background([], n_volumes=5)
