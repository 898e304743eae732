"""States as a mixture in a subspace: all that images say of a few coefficients, in milliseconds.

Each image says of its coefficients ``b·z - z·A z / 2`` (`emhet_dask.analysis.subspace.Evidence`). A
state is a mean, around which coefficients scatter with a covariance that all states share. That
covariance takes up what is no state: motion within states, and components that follow noise, which
would otherwise be cut into as many classes as are asked for. An iteration of expectation
maximisation costs milliseconds, so that starts are many, classes are split and merged, and every
number of classes is tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emhet_dask.analysis.many_matrices import beside, invert_symmetric, multiply
from emhet_dask.analysis.subspace import Evidence

__all__ = ["Mixture", "fit_mixture", "fit_mixtures", "likeliest", "posteriors"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# A gain in log-likelihood per iteration that is none any more.
_SETTLED = 0.2
_MOST_ITERATIONS = 300
# Iterations for which so many of the trials go on: all, then the likeliest.
_TRIAL_ROUNDS = ((3, 1000), (8, 8))
_TRIALS_KEPT = 2
_ITERATIONS_TO_CHOOSE = 60
# Splits and restarts are tried on so many images, spread over all, and the best fitted to so many.
_TRIED_IMAGES = 3000
_FITTED_IMAGES = 20000
# Images that are judged together.
_AT_ONCE = 8192
# Beside the spread that was found with a class less, which may hold that class: a part of it.
_TRIED_SPREADS = (1.0, 0.1)
_SPREAD_EVERY = 4


@dataclass(frozen=True, eq=False)
class Mixture:
    """Means of states, and how well they explain the images.

    Attributes
    ----------
    means : ndarray of float64 (class, component)
        The largest class first.
    shares : ndarray of float64 (class,)
    spread : ndarray of float64 (component, component)
        Covariance within every class.
    log_likelihood : float
        Of the images that it was fitted to, but for a constant that does not depend on the mixture.
    n_images : int
    """

    means: Float64
    shares: Float64
    spread: Float64
    log_likelihood: float
    n_images: int

    @property
    def n_classes(self) -> int:
        """Return the number of classes."""
        return len(self.means)

    @property
    def criterion(self) -> float:
        """Return the Bayesian information criterion (Schwarz 1978) over -2: the higher the better.

        The covariance counts alike whatever the number of classes, and is left out.
        """
        parameters = self.means.size + self.n_classes - 1
        return self.log_likelihood - 0.5 * parameters * float(np.log(self.n_images))


def fit_mixtures(
    evidence: Evidence, *, most: int, restarts: int = 10, seed: int = 0
) -> list[Mixture]:
    """Fit mixtures of 1, 2, … classes, each begun by splitting the one before, and at random.

    Parameters
    ----------
    evidence : Evidence
    most : int
        Classes of the largest mixture.
    restarts : int
        Random starts of each number of classes.
    seed : int

    Returns
    -------
    list of Mixture
        The likeliest of each number of classes.
    """
    some = _some(evidence, _TRIED_IMAGES)
    given, tried = _laid_out(_some(evidence, _FITTED_IMAGES)), _laid_out(some)
    rng = np.random.default_rng(seed)
    latents = some.posterior()[0]
    q = evidence.n_components
    found = [_fitted(given, np.zeros((1, q)), np.ones(1), np.eye(q))]
    for count in range(2, most + 1):
        last = found[-1]
        starts = _splits(last)
        for _ in range(restarts):
            rows = rng.choice(len(latents), count, replace=False)
            starts.append((latents[rows].astype(np.float64), np.full(count, 1.0 / count)))
        states = [_Spread(tried, part * last.spread) for part in _TRIED_SPREADS]
        trials = [(state, *start, -np.inf) for state in states for start in starts]
        for iterations, most_trials in _TRIAL_ROUNDS:
            trials = [
                (state, *_tried(state, means, shares, iterations))
                for state, means, shares, _ in trials[:most_trials]
            ]
            trials.sort(key=lambda trial: -trial[-1])
        ends = [
            _fitted(tried, means, shares, state.spread, iterations=_ITERATIONS_TO_CHOOSE)
            for state, means, shares, _ in trials[:_TRIALS_KEPT]
        ]
        best = max(ends, key=lambda end: end.log_likelihood)
        found.append(_fitted(given, best.means, best.shares, best.spread))
    return found


def likeliest(mixtures: list[Mixture]) -> Mixture:
    """Return the mixture of the number of classes that the evidence speaks for."""
    return max(mixtures, key=lambda mixture: mixture.criterion)


def fit_mixture(
    evidence: Evidence,
    means: Float64,
    shares: Float64,
    spread: Float64,
    *,
    iterations: int = _MOST_ITERATIONS,
) -> Mixture:
    """Fit a mixture by expectation maximisation.

    Parameters
    ----------
    evidence : Evidence
    means : array (class, component)
        To begin with.
    shares : array (class,)
    spread : array (component, component)
    iterations : int
        At most.

    Returns
    -------
    Mixture
    """
    return _fitted(_laid_out(evidence), means, shares, spread, iterations=iterations)


def posteriors(evidence: Evidence, mixture: Mixture) -> tuple[Float64, Float64]:
    """Return the probability of each class (particle, class), and log-likelihoods (particle,)."""
    found = []
    for at in range(0, len(evidence.pull), _AT_ONCE):
        rows = slice(at, at + _AT_ONCE)
        some = Evidence(evidence.precision[rows], evidence.pull[rows])
        log = _Spread(_laid_out(some), mixture.spread).log_likelihood(mixture.means)
        weights, each = _posterior(log + _log(mixture.shares))
        found.append((weights.T, each))
    return np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])


def _fitted(
    given: _Given,
    means: Float64,
    shares: Float64,
    spread: Float64,
    *,
    iterations: int = _MOST_ITERATIONS,
) -> Mixture:
    before = -np.inf
    state = _Spread(given, spread)
    for number in range(iterations):
        weights, each = _posterior(state.log_likelihood(means) + _log(shares))
        total = float(each.sum())
        if number % _SPREAD_EVERY == 0 and total - before < _SETTLED and number:
            break
        shares = weights.mean(axis=1)
        means = state.best_means(weights)
        if number % _SPREAD_EVERY == 0:
            before = total
            spread = state.next_spread(weights, means)
            state = _Spread(given, spread)
    total = float(_posterior(state.log_likelihood(means) + _log(shares))[1].sum())
    order = np.argsort(-shares, kind="stable")
    return Mixture(means[order], shares[order], spread, total, given.n_images)


class _Spread:
    """Evidence on the means of classes, once coefficients scatter around them.

    Images are along the last axis here, and results are (class, image).
    """

    def __init__(self, evidence: _Given, spread: Float64) -> None:
        self.spread = spread
        self.given = evidence
        # With S = L L', all else follows from (1 + L' A L)^-1, also where S is singular.
        values, vectors = np.linalg.eigh(spread)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
        inner = _around(evidence.precision, root)
        inner[np.diag_indices(len(root))] += 1.0
        inverse, log_determinant = invert_symmetric(inner)
        self._covariance = _around(inverse, root.T)
        shrunk = multiply(evidence.precision, self._covariance)  # A C
        self._mean = _applied(self._covariance, evidence.pull)
        constant = 0.5 * (evidence.pull * self._mean).sum(axis=0)
        self._constant = constant - 0.5 * log_determinant
        self._pull = evidence.pull - _applied(shrunk, evidence.pull)
        precision = evidence.precision - multiply(shrunk, evidence.precision)
        self._flat = precision.reshape(-1, evidence.n_images)
        self._shrunk = shrunk

    def log_likelihood(self, means: Float64) -> Float64:
        """Return it (class, image)."""
        few = np.asarray(means, dtype=np.float32)
        outer = (few[:, :, None] * few[:, None, :]).reshape(len(few), -1)
        fit = few @ self._pull - 0.5 * (outer @ self._flat)
        return np.asarray(fit + self._constant, dtype=np.float64)

    def best_means(self, weights: Float64) -> Float64:
        """Return the means (class, component), under a standard normal prior."""
        q = len(self._pull)
        few = weights.astype(np.float32)
        heavy = (few @ self._flat.T).reshape(-1, q, q).astype(np.float64)
        pulled = (few @ self._pull.T).astype(np.float64)
        means = np.linalg.solve(heavy + np.eye(q), pulled[..., None])[..., 0]
        return np.asarray(means, dtype=np.float64)

    def next_spread(self, weights: Float64, means: Float64) -> Float64:
        """Return the covariance within classes."""
        q = len(self._pull)
        second = self._covariance.sum(axis=-1, dtype=np.float64)
        by_row = self._shrunk.reshape(q, -1)
        for weight, mean in zip(weights.astype(np.float32), means.astype(np.float32), strict=True):
            # The mean of an image's coefficients, less that of the class: C (b - A m).
            off = self._mean - (mean @ by_row).reshape(q, -1)
            second += ((off * weight) @ off.T).astype(np.float64)
        second /= self.given.n_images
        return 0.5 * (second + second.T)


@dataclass(frozen=True, eq=False)
class _Given:
    """Evidence with images along the last axis."""

    precision: Float32
    pull: Float32

    @property
    def n_images(self) -> int:
        return self.pull.shape[1]


def _laid_out(evidence: Evidence) -> _Given:
    return _Given(beside(evidence.precision), np.ascontiguousarray(evidence.pull.T))


def _around(matrices: Float32, factor: Float32) -> Float32:
    """Return F' M F of matrices (row, column, matrix)."""
    q = len(factor)
    both = np.asarray(np.kron(factor, factor).T, dtype=np.float32)
    return np.asarray(both @ matrices.reshape(q * q, -1)).reshape(matrices.shape)


def _applied(matrices: Float32, vectors: Float32) -> Float32:
    return np.asarray((matrices * vectors).sum(axis=1))


def _posterior(log: Float64) -> tuple[Float64, Float64]:
    top = log.max(axis=0)
    weights = np.exp(log - top)
    total = weights.sum(axis=0)
    weights /= total
    return weights, top + np.log(total)


def _tried(
    state: _Spread, means: Float64, shares: Float64, iterations: int
) -> tuple[Float64, Float64, float]:
    """Return where a start leads to in some iterations, and how likely that is."""
    total = -np.inf
    for _ in range(iterations):
        weights, each = _posterior(state.log_likelihood(means) + _log(shares))
        total = float(each.sum())
        shares, means = weights.mean(axis=1), state.best_means(weights)
    return means, shares, total


def _log(shares: Float64) -> Float64:
    """Return logarithms (class, 1) of shares."""
    return np.asarray(np.log(np.maximum(shares, 1e-12))[:, None])


def _splits(mixture: Mixture) -> list[tuple[Float64, Float64]]:
    """Return starts with one class more: each class cut along each axis."""
    starts = []
    for number, mean in enumerate(mixture.means):
        for axis in np.eye(len(mean)):
            for near, far in ((0.5, -0.5), (0.0, 1.5), (0.0, -1.5)):
                means = np.concatenate([mixture.means, [mean + far * axis]])
                means[number] = mean + near * axis
                shares = np.append(mixture.shares, 0.3 * mixture.shares[number])
                shares[number] *= 0.7
                starts.append((means, shares))
    return starts


def _some(evidence: Evidence, count: int) -> Evidence:
    total = len(evidence.pull)
    if total <= count:
        return evidence
    rows = np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    return Evidence(evidence.precision[rows], evidence.pull[rows])
