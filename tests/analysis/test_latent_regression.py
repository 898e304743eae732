"""Scores from latents: the arithmetic against scikit-learn, and an error that can be believed."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import PolynomialFeatures

from emhet_dask.analysis import latent_regression
from emhet_dask.analysis.latent_regression import fit_latents
from emhet_dask.errors import InputError


def smooth(latents):
    x, y = latents.T
    return np.stack([np.sin(x) + 0.3 * y, 0.1 * np.cos(2 * y) * x, np.tanh(3 * x)], axis=1)


def latents(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2))


@pytest.fixture
def candidates():
    return dict(latent_regression._candidates(2, 200))


def test_polynomials_are_those_of_least_squares(candidates):
    x, new = latents(200), latents(20, 1)
    y = smooth(x)
    features = PolynomialFeatures(3)
    expected = LinearRegression().fit(features.fit_transform(x), y)
    found = candidates["polynomial of degree 3"](x, y)(new)
    np.testing.assert_allclose(found, expected.predict(features.transform(new)), atol=1e-5)


def test_neighbours_are_those_of_scikit_learn(candidates):
    x, new = latents(200), latents(20, 1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = KNeighborsRegressor(8, weights="distance").fit(x, smooth(x)).predict(new)
    np.testing.assert_allclose(candidates["8 nearest neighbours"](x, smooth(x))(new), expected)


@pytest.mark.parametrize(("name", "kernel"), [("Matérn 5/2", Matern(nu=2.5)), ("Gaussian", RBF())])
def test_kernels_are_the_mean_of_a_gaussian_process(candidates, name, kernel):
    x, new = latents(200), latents(20, 1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = smooth(x) - smooth(x).mean(axis=0)
    kernel.length_scale = 2 * np.sqrt(2)
    peer = GaussianProcessRegressor(kernel, alpha=1e-4, optimizer=None).fit(x, y)
    found = candidates[f"{name} kernel, length 2, nugget 0.0001"](x, y)(new)
    np.testing.assert_allclose(found, peer.predict(new), atol=1e-6)


def test_the_error_is_that_of_particles_that_were_not_fitted():
    x, others = latents(200), latents(2000, 1)
    fitted = fit_latents(x, smooth(x))
    found = fitted.predictor()(others)
    truth = np.sqrt(((found - smooth(others)) ** 2).mean(axis=0))
    assert (fitted.error < 3 * truth).all()
    assert (truth < 3 * fitted.error).all()
    assert (fitted.relative_error < 0.2).all()


def test_noise_is_not_learnt():
    rng = np.random.default_rng(9)
    fitted = fit_latents(latents(200), rng.standard_normal((200, 2)))
    assert (fitted.relative_error > 0.9).all()
    assert (fitted.relative_error < 1.1).all()


def test_a_component_without_spread_has_no_error():
    fitted = fit_latents(latents(50), np.full((50, 1), 3.0))
    assert fitted.relative_error.tolist() == [0]
    np.testing.assert_allclose(fitted.predictor()(latents(5)), 3.0, atol=1e-5)


def test_many_rows_are_predicted_as_few(monkeypatch):
    x, others = latents(60), latents(50, 1)
    predict = fit_latents(x, smooth(x)).predictor()
    whole = predict(others)
    monkeypatch.setattr(latent_regression, "_ROWS", 7)
    np.testing.assert_allclose(predict(others), whole, rtol=1e-4, atol=1e-5)


def test_a_large_sample_is_thinned_for_kernels(monkeypatch):
    monkeypatch.setattr(latent_regression, "_MOST_IN_KERNEL", 50)
    x = latents(200)
    fitted = fit_latents(x, smooth(x))
    assert np.isfinite(fitted.predictor()(latents(9, 1))).all()


@pytest.mark.parametrize(("rows", "words"), [(5, "20 or more"), (30, "as many rows")])
def test_what_cannot_be_fitted(rows, words):
    with pytest.raises(InputError, match=words):
        fit_latents(latents(rows), np.zeros((5, 2)))
