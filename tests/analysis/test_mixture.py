"""Mixtures in a subspace against scikit-learn, densities, and evidence of known states."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.mixture import fit_mixture, fit_mixtures, likeliest, posteriors
from emhet_dask.analysis.subspace import Evidence


def evidence_of(latents: np.ndarray, *, seed: int = 0, strength: float = 4.0) -> Evidence:
    """Return what images with noise say of latents: each has a precision of its own."""
    rng = np.random.default_rng(seed)
    count, q = latents.shape
    roots = rng.normal(size=(count, q + 3, q)) * np.sqrt(strength / (q + 3))
    precision = roots.swapaxes(1, 2) @ roots
    noise = np.einsum("nab,na->nb", roots, rng.normal(size=(count, q + 3)))
    pull = np.einsum("nab,nb->na", precision, latents) + noise
    return Evidence(precision.astype(np.float32), pull.astype(np.float32))


def three_states(count: int, *, seed: int, scatter: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    means = np.array([[0.7, 0.2, 0.0], [-1.5, 0.5, 0.0], [-0.5, -2.5, 0.0]])
    labels = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    return means[labels] + scatter * rng.normal(size=(count, 3)), labels


def test_likelihood_is_that_of_a_gaussian():
    latents, _ = three_states(40, seed=1)
    evidence = evidence_of(latents)
    spread = np.array([[0.3, 0.1, 0.0], [0.1, 0.5, 0.0], [0.0, 0.0, 0.2]])
    mixture = fit_mixture(evidence, np.array([[0.1, -0.4, 0.3]]), np.ones(1), spread, iterations=0)
    expected = 0.0
    for precision, pull in zip(
        evidence.precision.astype(float), evidence.pull.astype(float), strict=True
    ):
        around = np.linalg.inv(precision)
        seen = around @ pull
        # What an image says, as the density of its own estimate of the latent, over that at 0.
        wide = multivariate_normal([0.1, -0.4, 0.3], around + spread).logpdf(seen)
        expected += wide - multivariate_normal(np.zeros(3), around).logpdf(seen)
    assert mixture.log_likelihood == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scatter", [0.0, 0.3])
def test_states_and_their_number_are_found(scatter):
    latents, labels = three_states(3000, seed=2, scatter=scatter)
    evidence = evidence_of(latents, strength=20.0)
    mixtures = fit_mixtures(evidence, most=5, restarts=3)
    assert [mixture.n_classes for mixture in mixtures] == [1, 2, 3, 4, 5]
    best = likeliest(mixtures)
    assert best.n_classes == 3
    found, total = posteriors(evidence, best)
    assert total.sum() == pytest.approx(best.log_likelihood)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert adjusted_rand_score(labels, found.argmax(axis=1)) > 0.93
    np.testing.assert_allclose(best.shares, [0.6, 0.3, 0.1], atol=0.03)
    np.testing.assert_allclose(np.diag(best.spread), scatter**2, atol=0.06)


def test_more_classes_are_never_less_likely():
    latents, _ = three_states(800, seed=3)
    mixtures = fit_mixtures(evidence_of(latents), most=4, restarts=2)
    gains = np.diff([mixture.log_likelihood for mixture in mixtures])
    assert (gains > -1.0).all()


def test_what_scatters_without_states_is_one_class():
    latents = np.random.default_rng(4).normal(size=(2000, 3))
    mixtures = fit_mixtures(evidence_of(latents, strength=10.0), most=4, restarts=2)
    assert likeliest(mixtures).n_classes == 1
    np.testing.assert_allclose(mixtures[0].spread, np.eye(3), atol=0.15)


def test_a_seed_gives_the_same_bits():
    latents, _ = three_states(500, seed=5)
    evidence = evidence_of(latents)
    one, other = (fit_mixtures(evidence, most=3, restarts=3, seed=7)[-1] for _ in range(2))
    np.testing.assert_array_equal(one.means, other.means)
    assert one.log_likelihood == other.log_likelihood
