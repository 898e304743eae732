"""Planted junk is found; rare states are not junk."""

from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.analysis.normalisation import divisors, normalisation_factors
from emhet_dask.analysis.outliers import find_outliers
from emhet_dask.analysis.pca import pca
from emhet_dask.analysis.simulation import assembly_model, simulate, transition_model
from emhet_dask.errors import InputError

SMALL = {"box": 32, "voxel_size_angstrom": 6.0}


def outliers_among(volumes: np.ndarray):
    matrix = volumes.reshape(len(volumes), -1)
    factor = normalisation_factors(matrix).values
    found = pca(matrix, scale=divisors(factor))
    scores, mean = found.scores.values, found["mean"].values
    lengths = np.sum((matrix / divisors(factor)[:, None] - mean) ** 2, axis=1)
    return find_outliers(
        scores,
        explained_variance=found.eigenvalues.values,
        total_variance=found.attrs["total_variance"],
        residual=np.maximum(lengths - np.sum(scores**2, axis=1), 0),
        factor=factor,
    )


@pytest.mark.parametrize("kind", ["assembly", "transition"])
def test_planted_junk_is_found_and_nothing_else(kind):
    model = (assembly_model if kind == "assembly" else transition_model)(**SMALL, seed=1)
    volumes = simulate(model, 200, snr=8.0, seed=1).volumes.values
    rng = np.random.default_rng(2)
    junk = {"noise": 11, "inverted": 57, "scaled": 120}
    volumes[junk["noise"]] = volumes.std() * model.grid.noise(rng)
    volumes[junk["inverted"]] *= -1
    volumes[junk["scaled"]] *= 3
    found = outliers_among(volumes)
    assert set(np.flatnonzero(found.outlier)) == set(junk.values())
    assert np.array_equal(found.outlier, found.score > 1)


@pytest.mark.parametrize("kind", ["assembly", "transition"])
def test_ensembles_without_junk_have_no_outliers(kind):
    model = (assembly_model if kind == "assembly" else transition_model)(**SMALL, seed=3)
    found = outliers_among(simulate(model, 200, snr=1.0, seed=3).volumes.values)
    assert not found.outlier.any()


def scattered(n: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 5)) * [8, 4, 2, 1, 1]


@pytest.mark.parametrize("together", [1, 2, 3, 4])
def test_three_volumes_that_agree_are_a_rare_state(together):
    scores = scattered(300)
    scores[:together] = 200.0 + 0.5 * scattered(together, seed=1)
    flagged = np.flatnonzero(find_outliers(scores, explained_variance=[9, 7, 5, 3, 1]).outlier)
    assert flagged.tolist() == (list(range(together)) if together < 3 else [])


def test_a_volume_that_the_components_do_not_explain_is_an_outlier():
    residual = np.random.default_rng(4).uniform(80, 120, size=100)
    residual[7] = 900.0
    found = find_outliers(scattered(100), residual=residual)
    assert np.flatnonzero(found.outlier).tolist() == [7]
    assert found.unexplained.values[7] > 7


def test_a_noisy_state_is_not_an_outlier():
    scores, residual = scattered(100), np.random.default_rng(5).uniform(80, 120, size=100)
    scores[:3] = 40.0 + 0.1 * scattered(3, seed=6)
    residual[:3] = 900.0
    assert not find_outliers(scores, residual=residual).outlier.any()


def test_components_that_explain_everything_leave_no_outliers():
    residual = np.zeros(20)
    residual[3] = 1e-9
    assert not find_outliers(scattered(20), residual=residual).outlier.any()


@pytest.mark.parametrize("factor", [3.0, 0.3, 0.0, -1.0])
def test_a_wrong_amplitude_is_an_outlier(factor):
    factors = np.random.default_rng(7).normal(1.0, 0.05, size=60)
    factors[9] = factor
    assert np.flatnonzero(find_outliers(scattered(60), factor=factors).outlier).tolist() == [9]


def test_among_few_volumes_nothing_is_an_outlier():
    scores = scattered(7)
    scores[0] += 1e3
    assert not find_outliers(scores).outlier.any()


def test_order_and_scale_do_not_matter():
    scores = scattered(150)
    scores[4] += 90.0
    order = np.random.default_rng(8).permutation(150)
    straight, shuffled = find_outliers(scores), find_outliers(1e-3 * scores[order])
    np.testing.assert_allclose(straight.score.values[order], shuffled.score.values, rtol=1e-9)


def test_equal_volumes_are_no_outliers():
    assert not find_outliers(np.zeros((20, 3))).outlier.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_outliers(np.zeros(9)), "scores: found shape"),
        (lambda: find_outliers(scattered(9), residual=[1.0]), "residual: found shape"),
        (lambda: find_outliers(scattered(9), factor=[1.0]), "factor: found shape"),
    ],
)
def test_impossible_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
