"""Scores from latents, learnt from some particles and cross-validated.

A decoder is a smooth function of a few latents, so the scores of particles that were not decoded
can be told from those that were. Three kinds of regression are tried: polynomials with a ridge, the
nearest neighbours, and kernels (the mean of a Gaussian process). Each component takes the one that
predicts it best where it was not fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from emhet_dask.errors import InputError

__all__ = ["LatentRegression", "fit_latents"]

_FOLDS = 5
_FEWEST = 20
_MOST_POWER = 3
_RIDGE = 1e-8
_NEIGHBOURS = (3, 8, 20)
# In units of the spread of the latents, for one dimension; distances grow with its root.
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_NUGGETS = (1e-8, 1e-6, 1e-4, 1e-2)
# Kernels take the cube of the number of points; past this a random part of them learns.
_MOST_IN_KERNEL = 2_000
_ROWS = 1_024

Predict = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Learn = Callable[[NDArray[np.float64], NDArray[np.float64]], Predict]


@dataclass(frozen=True)
class LatentRegression:
    """A fitted regression.

    Attributes
    ----------
    latents : ndarray of float64 (sample, latent)
        That it was fitted to, as `scores`.
    scores : ndarray of float64 (sample, component)
    kinds : tuple of str
        What predicts each component, such as ``"Matérn 5/2 kernel, length 8, nugget 1e-06"``.
    error : ndarray of float64 (component,)
        Root mean square error where it was not fitted, five-fold; in units of the scores.
    spread : ndarray of float64 (component,)
        Standard deviation of the scores of the sample.
    """

    latents: NDArray[np.float64]
    scores: NDArray[np.float64]
    kinds: tuple[str, ...]
    error: NDArray[np.float64]
    spread: NDArray[np.float64]

    @property
    def relative_error(self) -> NDArray[np.float64]:
        """Return the error of each component as a share of its standard deviation."""
        return np.divide(
            self.error, self.spread, out=np.zeros_like(self.error), where=self.spread > 0
        )

    def predictor(self) -> Callable[[ArrayLike], NDArray[np.float32]]:
        """Fit what was chosen to the whole sample; return what predicts scores from latents."""
        known = dict(_candidates(self.latents.shape[1], len(self.latents)))
        fitted = []
        for kind in dict.fromkeys(self.kinds):
            columns = np.flatnonzero(np.asarray(self.kinds) == kind)
            fitted.append((columns, known[kind](self.latents, self.scores[:, columns])))

        def predict(latents: ArrayLike) -> NDArray[np.float32]:
            given = np.asarray(latents, dtype=np.float64)
            found = np.empty((len(given), len(self.kinds)), dtype=np.float32)
            for start in range(0, len(given), _ROWS):
                rows = slice(start, start + _ROWS)
                for columns, single in fitted:
                    found[rows, columns] = single(given[rows])
            return found

        return predict


def fit_latents(latents: ArrayLike, scores: ArrayLike, *, seed: int = 0) -> LatentRegression:
    """Choose how scores are told from latents.

    Parameters
    ----------
    latents : array (sample, latent)
    scores : array (sample, component)
    seed : int
        Of the folds.

    Returns
    -------
    LatentRegression

    Raises
    ------
    InputError
        When there are fewer than 20 in the sample, or lengths differ.
    """
    x, y = np.asarray(latents, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(f"latents {x.shape} and scores {y.shape}: expected as many rows of both")
    if len(x) < _FEWEST:
        raise InputError(
            f"a sample of {len(x)} tells nothing of others, expected {_FEWEST} or more"
        )
    order = np.random.default_rng(seed).permutation(len(x))
    folds = [np.sort(part) for part in np.array_split(order, _FOLDS)]
    names, errors = [], []
    for name, learn in _candidates(x.shape[1], len(x)):
        names.append(name)
        errors.append(_cross_validated(learn, x, y, folds))
    table = np.stack(errors)
    best = table.argmin(axis=0)
    return LatentRegression(
        latents=x,
        scores=y,
        kinds=tuple(names[row] for row in best),
        error=table[best, np.arange(y.shape[1])],
        spread=y.std(axis=0),
    )


def _cross_validated(
    learn: Learn, x: NDArray[np.float64], y: NDArray[np.float64], folds: Sequence[NDArray[np.intp]]
) -> NDArray[np.float64]:
    squares = np.zeros(y.shape[1])
    for fold in folds:
        rest = np.ones(len(x), dtype=bool)
        rest[fold] = False
        squares += ((learn(x[rest], y[rest])(x[fold]) - y[fold]) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(squares / len(x)))


def _candidates(n_latent: int, n_sample: int) -> Iterator[tuple[str, Learn]]:
    """Yield what is tried, with its name; follows from the shape of the sample alone."""
    for power in range(1, _MOST_POWER + 1):
        if comb(n_latent + power, power) <= n_sample // 3:
            yield f"polynomial of degree {power}", _polynomial(power)
    for count in _NEIGHBOURS:
        yield f"{count} nearest neighbours", _neighbours(count)
    root = float(np.sqrt(n_latent))
    for name, kernel in (("Matérn 5/2", _matern), ("Gaussian", _gaussian)):
        for length in _LENGTHS:
            for nugget in _NUGGETS:
                yield (
                    f"{name} kernel, length {length:g}, nugget {nugget:g}",
                    _kernel(kernel, length * root, nugget),
                )


def _scaled(x: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    middle, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return lambda given: (given - middle) / spread


def _polynomial(power: int) -> Learn:
    def features(x: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = [np.ones(len(x))]
        for degree in range(1, power + 1):
            for which in combinations_with_replacement(range(x.shape[1]), degree):
                columns.append(np.prod(x[:, which], axis=1))
        return np.stack(columns, axis=1)

    def learn(x: NDArray[np.float64], y: NDArray[np.float64]) -> Predict:
        scale = _scaled(x)
        seen = features(scale(x))
        gram = seen.T @ seen
        gram[np.diag_indices_from(gram)] += _RIDGE * len(x)
        solved = cho_solve(cho_factor(gram), seen.T @ y)
        return lambda given: features(scale(given)) @ solved

    return learn


def _neighbours(count: int) -> Learn:
    def learn(x: NDArray[np.float64], y: NDArray[np.float64]) -> Predict:
        scale = _scaled(x)
        tree = cKDTree(scale(x))

        def predict(given: NDArray[np.float64]) -> NDArray[np.float64]:
            distance, nearest = tree.query(scale(given), k=range(1, min(count, len(x)) + 1))
            weight = 1.0 / np.maximum(distance, 1e-12)
            weight /= weight.sum(axis=1, keepdims=True)
            return np.einsum("nk,nkc->nc", weight, y[nearest])

        return predict

    return learn


def _kernel(
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]], length: float, nugget: float
) -> Learn:
    def learn(x: NDArray[np.float64], y: NDArray[np.float64]) -> Predict:
        if len(x) > _MOST_IN_KERNEL:
            chosen = np.random.default_rng(len(x)).choice(len(x), _MOST_IN_KERNEL, replace=False)
            x, y = x[np.sort(chosen)], y[np.sort(chosen)]
        scale = _scaled(x)
        known, mean = scale(x), y.mean(axis=0)
        table = kernel(cdist(known, known) / length)
        table[np.diag_indices_from(table)] += nugget
        solved = cho_solve(cho_factor(table), y - mean)
        return lambda given: mean + kernel(cdist(scale(given), known) / length) @ solved

    return learn


def _matern(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _gaussian(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * distance**2))
