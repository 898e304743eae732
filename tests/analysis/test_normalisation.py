"""Amplitudes that were planted are found again, whatever parts the volumes lack."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.moments import accumulate
from emhet_dask.analysis.normalisation import (
    divisors,
    fit_amplitudes,
    normalisation_factors,
    row_products,
    shared_voxels,
    shrinkage,
)
from emhet_dask.errors import InputError

N_VOLUMES = 300


def assembly(noise: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Volumes of a core of 200 voxels and four parts of 150 that half of them lack."""
    rng = np.random.default_rng(seed)
    core, parts = np.ones((N_VOLUMES, 200)), rng.random((N_VOLUMES, 4)) < 0.5
    density = np.concatenate([core, np.repeat(parts, 150, axis=1)], axis=1)
    density = np.concatenate([density, np.zeros((N_VOLUMES, 200))], axis=1)  # solvent
    amplitude = rng.normal(1.0, 0.05, size=N_VOLUMES)
    volumes = amplitude[:, None] * density + noise * rng.normal(size=density.shape)
    return volumes.astype(np.float32), amplitude


def test_planted_amplitudes_are_recovered_though_composition_varies():
    volumes, amplitude = assembly(noise=0.1)
    factors = normalisation_factors(volumes)
    left = (factors.values / amplitude).std()
    assert left < 0.012  # of 0.05; over all voxels composition would scatter them by 0.2
    assert factors.attrs["repeatability"] > 0.9
    assert factors.attrs["shared_voxels"] == pytest.approx(0.2, abs=0.12)
    assert factors.dims == ("volume",)


def test_without_a_shared_part_it_is_the_plain_least_squares_factor():
    rng = np.random.default_rng(1)
    volumes = (rng.random((50, 40)) < 0.5).astype(np.float32) + 0.1
    mean = volumes.mean(axis=0, dtype=np.float64)
    plain = volumes @ mean / (mean @ mean)
    factors = normalisation_factors(volumes)
    kept = factors.attrs["repeatability"]
    assert factors.attrs["shared_voxels"] == 1.0
    np.testing.assert_allclose(factors, 1 + kept * (plain - 1), rtol=1e-6)


def test_factors_that_are_all_noise_shrink_to_one():
    volumes, _ = assembly(noise=0.0)
    volumes[:] = volumes[:1]
    noisy = volumes + np.random.default_rng(2).normal(size=volumes.shape)
    factors = normalisation_factors(noisy)
    assert factors.attrs["repeatability"] < 0.3
    assert factors.values.std() < 0.02


def test_noiseless_multiples_are_recovered_exactly():
    amplitude = np.array([0.9, 1.0, 1.1, 1.0])
    factors = normalisation_factors(amplitude[:, None] * np.linspace(1, 2, 30)[None])
    np.testing.assert_allclose(factors, amplitude, rtol=1e-6)


def test_weights_equal_repeated_rows():
    volumes, _ = assembly(noise=0.1)
    volumes = volumes[:40]
    weights = np.random.default_rng(3).integers(0, 4, size=40)
    found = normalisation_factors(volumes, weights=weights)
    repeated = normalisation_factors(np.repeat(volumes, weights, axis=0))
    counted = weights > 0
    np.testing.assert_allclose(
        found.values[counted], repeated.values[np.cumsum(weights)[counted] - 1], rtol=2e-3
    )
    assert np.average(found, weights=weights) == pytest.approx(1.0)


@given(rows=st.integers(20, 300), columns=st.integers(100, 1000))
@settings(max_examples=8, deadline=None)
def test_any_chunking_gives_the_same_factors(rows, columns):
    volumes, _ = assembly(noise=0.2)
    whole = normalisation_factors(volumes)
    found = normalisation_factors(da.from_array(volumes, chunks=(rows, columns)))
    np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_it_reads_twice_and_computes_only_small_things():
    volumes, _ = assembly(noise=0.2)
    calls = []

    def counting(*tasks):
        calls.append(len(tasks))
        return dask.compute(*tasks)

    normalisation_factors(da.from_array(volumes, chunks=(100, 1000)), compute=counting)
    assert len(calls) == 2


def test_a_volume_without_amplitude_is_told_and_never_divided_by_it():
    volumes, _ = assembly(noise=0.05)
    volumes[3] *= -1
    volumes[5] *= 1e-6
    factor = normalisation_factors(volumes).values
    assert factor[3] < 0
    assert abs(factor[5]) < 1e-3
    used = divisors(factor)
    assert used[[3, 5]].tolist() == [1.0, 1.0]
    others = np.delete(np.arange(len(factor)), [3, 5])
    np.testing.assert_array_equal(used[others], factor[others])


def test_ensembles_that_cannot_be_normalised_say_why():
    volumes, _ = assembly(noise=0.05)
    volumes[4:] *= 1e-3 * (-1.0) ** np.arange(len(volumes) - 4)[:, None]
    with pytest.raises(InputError, match="have nothing in common with the mean map"):
        normalisation_factors(volumes)
    with pytest.raises(InputError, match="their mean inside the mask is zero"):
        normalisation_factors(np.zeros((5, 6)))
    volumes[3, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        normalisation_factors(volumes)


def test_shared_voxels_by_hand():
    volumes = np.array([[1.0, 1, 0, 0.01], [1.1, 0, 0, -0.01], [0.9, 1, 0, 0.0]])
    np.testing.assert_array_equal(shared_voxels(accumulate(volumes)), [True, False, False, False])


def test_shrinkage_is_the_share_of_variance_that_repeats():
    rng = np.random.default_rng(4)
    signal, noise = rng.normal(size=200_000), rng.normal(size=(200_000, 2))
    found = shrinkage(signal[:, None] + noise, power=np.array([1.0, 1.0]), weights=np.ones(200_000))
    assert found == pytest.approx(1 / 1.5, abs=0.01)  # the mean of both halves has noise 1/2


def test_row_products_are_inner_products():
    rng = np.random.default_rng(5)
    band, vectors = rng.normal(size=(7, 9)), rng.normal(size=(2, 9)).astype(np.float32)
    np.testing.assert_allclose(row_products(band, vectors), band @ vectors.T, rtol=1e-5)


def test_volumes_beyond_the_ensemble_are_measured_by_the_same_formula():
    rng = np.random.default_rng(0)
    mean = 5 + rng.random(300)
    matrix = (1 + 0.05 * rng.standard_normal(50))[:, None] * mean
    matrix = (matrix + 0.1 * rng.standard_normal(matrix.shape)).astype(np.float32)
    fit, factors = fit_amplitudes(matrix)
    np.testing.assert_allclose(fit.factors(matrix @ fit.shape), factors, rtol=1e-5)
    np.testing.assert_array_equal(factors, normalisation_factors(matrix).values)
