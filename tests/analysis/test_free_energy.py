"""Free energy of mixtures whose free energy is known, and its error against repeated sampling."""

import dask.array as da
import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from emhet_dask.analysis import binned
from emhet_dask.analysis.free_energy import free_energy
from emhet_dask.errors import InputError


def double_well(n, seed, *, distance=4.0, share=0.5):
    """Return points of two Gaussians of width 0.8 along the first axis, one along the second."""
    rng = np.random.default_rng(seed)
    left = rng.random(n) < share
    centres = np.where(left, -distance / 2, distance / 2)
    return np.column_stack([rng.normal(centres, 0.8), rng.standard_normal(n)])


def barrier_of(energy):
    """Return the height at the origin over the mean of both wells."""
    along, across = energy.grid.centres
    line = energy.free_energy[:, np.argmin(np.abs(across))]
    return line[np.argmin(np.abs(along))] - line[np.argmin(np.abs(along + 2))]


def test_a_gaussian_is_a_parabola_of_one_kt_at_root_two():
    energy = free_energy(np.random.default_rng(0).standard_normal((400_000, 2)))
    x, y = np.meshgrid(*energy.grid.centres, indexing="ij")
    near = x**2 + y**2 < 2**2
    # The kernel widens it, by its own variance.
    width = 1 + energy.bandwidth**2
    exact = (x**2 / width[0] + y**2 / width[1]) / 2
    np.testing.assert_allclose((energy.free_energy - exact)[near], 0, atol=0.12)


@pytest.mark.parametrize("method", ["kernel", "histogram"])
def test_the_barrier_of_a_double_well_is_what_it_is(method):
    at = norm(0, 0.8).pdf
    exact = -np.log(2 * at(2) / (at(0) + at(4)))
    energy = free_energy(double_well(400_000, 1), method=method)
    assert exact == pytest.approx(2.43, abs=0.01)
    # Width of kernel or bin takes some of it.
    assert barrier_of(energy) == pytest.approx(exact, abs=0.2)
    assert energy.n_points == 400_000


def test_density_is_that_of_scipy_with_the_same_kernel():
    points = double_well(800, 2)
    energy = free_energy(points)
    # SciPy's kernels have the shape of the covariance; of scaled points, ours are round.
    scaled = points / energy.bandwidth
    middle = np.array([energy.grid.centres[0][::4][5:15], energy.grid.centres[1][::3][5:15]])
    kernels = np.exp(
        -0.5 * ((scaled[:, :, None] - middle[None] / energy.bandwidth[None, :, None]) ** 2).sum(1)
    )
    expected = kernels.mean(axis=0) / (2 * np.pi * energy.bandwidth.prod())
    rows = np.arange(len(energy.grid.centres[0]))[::4][5:15]
    columns = np.arange(len(energy.grid.centres[1]))[::3][5:15]
    found = energy.density[rows, columns]
    np.testing.assert_allclose(found, expected, rtol=0.06, atol=2e-4)
    assert gaussian_kde(points.T).integrate_box([-9, -9], [9, 9]) == pytest.approx(1)
    assert energy.density.sum() * energy.grid.widths.prod() == pytest.approx(1, abs=1e-3)


def test_bootstrap_error_is_that_of_repeated_sampling():
    """In places of high and of low density, within the noise of 60 samples."""
    places = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 0.0], [-2.0, 1.5]])
    differences, told = [], []
    for seed in range(60):
        energy = free_energy(double_well(3000, 100 + seed), bins=64, n_bootstrap=40)
        bins = energy.grid.bins_of(places)
        values = energy.free_energy.ravel()[bins]
        differences.append(values[1:] - values[0])
        told.append(energy.differences(bins[1:], np.repeat(bins[0], 3)).std(axis=0, ddof=1))
    measured = np.std(differences, axis=0, ddof=1)
    np.testing.assert_allclose(np.mean(told, axis=0), measured, rtol=0.35)


def test_error_of_a_histogram_is_that_of_counts():
    energy = free_energy(
        np.random.default_rng(3).random((20_000, 2)), method="histogram", bins=8, n_bootstrap=400
    )
    inner = energy.weight[2:6, 2:6]
    expected = np.sqrt(1 / inner + 1 / energy.weight.max())
    found = energy.error[2:6, 2:6]
    assert np.median(found[found > 0] / expected[found > 0]) == pytest.approx(1, abs=0.06)


def test_weights_count_like_copies():
    rng = np.random.default_rng(4)
    points, weights = rng.standard_normal((2000, 2)), rng.integers(1, 4, 2000)
    weighted = free_energy(points, weights=weights, method="histogram", bins=16)
    copies = free_energy(np.repeat(points, weights, axis=0), method="histogram", bins=16)
    np.testing.assert_array_equal(weighted.weight.sum(), copies.weight.sum())
    same = np.isclose(weighted.grid.edges[0], copies.grid.edges[0]).all()
    if same:
        np.testing.assert_array_equal(weighted.weight, copies.weight)
    # But fewer points stand behind them, and errors say so.
    assert np.nanmedian(weighted.error) > 1.15 * np.nanmedian(copies.error)


def test_no_value_where_nobody_is():
    points = np.concatenate([double_well(5000, 5), [[40.0, 40.0]]])
    energy = free_energy(points)
    assert energy.n_outside == 1
    assert not np.isfinite(energy.free_energy[energy.effective < 5]).any()
    assert np.isfinite(energy.free_energy[energy.effective >= 5]).all()
    assert (energy.effective <= energy.weight.sum()).all()
    assert np.nanmin(energy.free_energy) == 0
    assert energy.error.ravel()[energy.deepest] == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_any_chunking_gives_the_same_bits(monkeypatch, weighted):
    points = double_well(4000, 6).astype(np.float32)
    weights = np.random.default_rng(0).random(4000) if weighted else None
    monkeypatch.setattr(binned, "BLOCK_ROWS", 333)
    whole = free_energy(points, weights=weights, n_bootstrap=3)
    for rows in (100, 1237, 4000):
        lazy = da.from_array(points, chunks=(rows, 1))
        parts = free_energy(lazy, weights=weights, n_bootstrap=3)
        np.testing.assert_array_equal(whole.free_energy, parts.free_energy)
        np.testing.assert_array_equal(whole.replicates, parts.replicates)


def test_the_seed_decides_the_replicates():
    points = double_well(500, 7)
    one, same, other = (free_energy(points, n_bootstrap=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.replicates, same.replicates)
    assert not np.array_equal(one.replicates, other.replicates)
    # Further replicates leave the first as they are.
    more = free_energy(points, n_bootstrap=8, seed=1)
    np.testing.assert_array_equal(more.replicates[:5], one.replicates)


def test_three_axes():
    energy = free_energy(np.random.default_rng(8).standard_normal((20_000, 3)), n_bootstrap=5)
    assert len(energy.grid.shape) == 3
    assert np.linalg.norm(energy.grid.positions([energy.deepest])) < 0.6


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((50, 2)), "axis 1 of the landscape: all coordinates are equal"),
        (np.full((50, 2), np.nan), "not all of them are finite"),
        (np.random.default_rng(0).standard_normal((20, 3)), "too few for a landscape"),
    ],
)
def test_points_without_a_landscape(points, message):
    with pytest.raises(InputError, match=message) as refused:
        free_energy(points, method="histogram", bins=32)
    assert "\n" not in str(refused.value)
