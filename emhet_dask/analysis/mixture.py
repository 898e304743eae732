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

from emhet_dask.analysis.subspace import Evidence

__all__ = ["Mixture", "fit_mixture", "fit_mixtures", "likeliest", "posteriors"]

Float64 = NDArray[np.float64]

# A gain in log-likelihood per iteration that is none any more.
_SETTLED = 0.2
_MOST_ITERATIONS = 300
# Iterations for which so many of the trials go on: all, then the likeliest.
_TRIAL_ROUNDS = ((3, 1000), (8, 8))
_TRIALS_KEPT = 2
# Splits and restarts are tried on so many images, spread over all.
_TRIED_IMAGES = 3000
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
        Of all images, but for a constant that does not depend on the mixture.
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
    tried = _some(evidence, _TRIED_IMAGES)
    rng = np.random.default_rng(seed)
    latents = tried.posterior()[0]
    q = evidence.n_components
    found = [fit_mixture(evidence, np.zeros((1, q)), np.ones(1), np.eye(q))]
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
            fit_mixture(tried, means, shares, state.spread)
            for state, means, shares, _ in trials[:_TRIALS_KEPT]
        ]
        best = max(ends, key=lambda end: end.log_likelihood)
        if tried is not evidence:
            best = fit_mixture(evidence, best.means, best.shares, best.spread)
        found.append(best)
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
    before = -np.inf
    state = _Spread(evidence, spread)
    for number in range(iterations):
        log = state.log_likelihood(means) + np.log(np.maximum(shares, 1e-12))
        weights, each = _posterior(log)
        total = float(each.sum())
        if number % _SPREAD_EVERY == 0 and total - before < _SETTLED and number:
            break
        shares = weights.mean(axis=0)
        means = state.best_means(weights)
        if number % _SPREAD_EVERY == 0:
            before = total
            spread = state.next_spread(weights, means)
            state = _Spread(evidence, spread)
    log = state.log_likelihood(means) + np.log(np.maximum(shares, 1e-12))
    total = float(_posterior(log)[1].sum())
    order = np.argsort(-shares, kind="stable")
    return Mixture(means[order], shares[order], spread, total, len(evidence.pull))


def posteriors(evidence: Evidence, mixture: Mixture) -> tuple[Float64, Float64]:
    """Return the probability of each class (particle, class), and log-likelihoods (particle,)."""
    log = _Spread(evidence, mixture.spread).log_likelihood(mixture.means)
    return _posterior(log + np.log(np.maximum(mixture.shares, 1e-12)))


class _Spread:
    """Evidence on the means of classes, once coefficients scatter around them."""

    def __init__(self, evidence: Evidence, spread: Float64) -> None:
        precision, pull = evidence.precision, evidence.pull
        self.spread = spread
        unit = np.eye(len(spread), dtype=np.float32)
        wide = np.asarray(spread, dtype=np.float32)
        # (1 + S A)^-1, of which all else is made, also where S is singular.
        shrink = np.linalg.inv(unit + wide @ precision)
        self._covariance = shrink @ wide
        self._precision = precision @ shrink
        self._pull = np.einsum("nba,nb->na", shrink, pull)
        self._shrink, self._given = shrink, pull
        constant = 0.5 * np.einsum("na,nab,nb->n", pull, self._covariance, pull)
        self._constant = constant + 0.5 * np.linalg.slogdet(shrink)[1]
        self._flat = self._precision.reshape(len(pull), -1)

    def log_likelihood(self, means: Float64) -> Float64:
        """Return it (particle, class)."""
        few = np.asarray(means, dtype=np.float32)
        outer = (few[:, :, None] * few[:, None, :]).reshape(len(few), -1)
        fit = self._pull @ few.T - 0.5 * (self._flat @ outer.T)
        return np.asarray(fit + self._constant[:, None], dtype=np.float64)

    def best_means(self, weights: Float64) -> Float64:
        """Return the means (class, component), under a standard normal prior."""
        q = self._pull.shape[1]
        heavy = (weights.T.astype(np.float32) @ self._flat).reshape(-1, q, q).astype(np.float64)
        pulled = weights.T @ self._pull.astype(np.float64)
        return np.linalg.solve(heavy + np.eye(q), pulled[..., None])[..., 0]

    def next_spread(self, weights: Float64, means: Float64) -> Float64:
        """Return the covariance within classes."""
        count = len(self._given)
        second = self._covariance.sum(axis=0, dtype=np.float64)
        own = np.einsum("nab,nb->na", self._covariance, self._given).astype(np.float64)
        for weight, mean in zip(weights.T, means, strict=True):
            # The mean of an image's coefficients, less that of the class.
            off = own + self._shrink @ mean - mean
            second += (off * weight[:, None]).T @ off
        second /= count
        return 0.5 * (second + second.T)


def _posterior(log: Float64) -> tuple[Float64, Float64]:
    top = log.max(axis=1, keepdims=True)
    weights = np.exp(log - top)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total, (top + np.log(total))[:, 0]


def _tried(
    state: _Spread, means: Float64, shares: Float64, iterations: int
) -> tuple[Float64, Float64, float]:
    """Return where a start leads to in some iterations, and how likely that is."""
    total = -np.inf
    for _ in range(iterations):
        log = state.log_likelihood(means) + np.log(np.maximum(shares, 1e-12))
        weights, each = _posterior(log)
        total = float(each.sum())
        shares, means = weights.mean(axis=0), state.best_means(weights)
    return means, shares, total


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
