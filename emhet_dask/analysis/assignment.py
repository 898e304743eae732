"""States of particles from those of the volumes around them, with a confidence.

Each of the nearest volumes has a vote, that counts the more the nearer it is. How many vote, how
steeply votes fall with distance, and how much doubt is left is chosen by leaving out one volume at
a time, by the score that honest probabilities win (the logarithm of the confidence in the right
state), so that of particles with a confidence of 0.8 about 80 % are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from emhet_dask.errors import InputError

__all__ = ["StateAssigner", "fit_states"]

_CANDIDATES = (1, 2, 3, 5, 8, 12, 20, 30)
# Votes fall with this power of the distance.
_POWERS = (0.0, 1.0, 2.0, 4.0)
# What the shares of the states among all volumes count for, where all neighbours count for 1.
_DOUBTS = (0.01, 0.03, 0.1, 0.3)
_FEWEST = 3
_TINY = 1e-12
# Of a state without volumes, so that no logarithm is of 0.
_LEAST_COUNT = 1e-3


@dataclass(frozen=True)
class StateAssigner:
    """Volumes that vote.

    Attributes
    ----------
    points : ndarray of float64 (volume, component)
        Scores of the volumes, without outliers.
    states : ndarray of int64 (volume,)
        From 0.
    n_states : int
    n_neighbours : int
        How many vote.
    power : float
        Of the distance, by which a vote is divided.
    doubt : float
        Weight of the shares of the states among all volumes; that of all neighbours is 1.
    reach : float
        A particle further from all volumes is an outlier; in units of the scores.
    accuracy : float
        Share of the volumes whose state the others find; NaN where too few tell.
    mean_confidence : float
        Mean confidence of these votes; near `accuracy` where it can be believed.
    confusion : ndarray of int64 (state, state)
        Volumes of each state, by the state that the others find.
    """

    points: NDArray[np.float64]
    states: NDArray[np.int64]
    n_states: int
    n_neighbours: int
    power: float
    doubt: float
    reach: float
    accuracy: float
    mean_confidence: float
    confusion: NDArray[np.int64]

    def assign(
        self, scores: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
        """Find the states of particles.

        Parameters
        ----------
        scores : array (particle, component)
            The same components.

        Returns
        -------
        state : ndarray of int64 (particle,)
            Every particle has one.
        confidence : ndarray of float32 (particle,)
            0 to 1.
        outlier : ndarray of bool (particle,)
            True where no volume is near, so that the state says little.
        """
        given = np.asarray(scores, dtype=np.float64)
        distance, nearest = _nearest(self.points, given, self.n_neighbours)
        share = _shares(
            self.states[nearest],
            distance,
            prior=_prior(self.states, self.n_states),
            power=self.power,
            doubt=self.doubt,
        )
        state = share.argmax(axis=1)
        confidence = share[np.arange(len(share)), state].astype(np.float32)
        return state.astype(np.int64), confidence, distance[:, 0] > self.reach


def fit_states(
    scores: ArrayLike, states: ArrayLike, *, outlier: ArrayLike | None = None
) -> StateAssigner:
    """Choose how volumes vote for the states of particles.

    Parameters
    ----------
    scores : array (volume, component)
        Along the components that count.
    states : array of int (volume,)
        From 0.
    outlier : array of bool (volume,), optional
        Volumes that do not vote, unless their state has no other.

    Returns
    -------
    StateAssigner

    Raises
    ------
    InputError
        When lengths differ.
    """
    points = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(states, dtype=np.int64)
    if points.ndim != 2 or labels.shape != (len(points),):
        raise InputError(f"states: found {labels.shape}, need one for each row of {points.shape}")
    n_states = int(labels.max()) + 1
    votes = np.ones(len(labels), dtype=bool)
    if outlier is not None:
        votes = ~np.asarray(outlier, dtype=bool)
        votes |= np.isin(labels, np.setdiff1d(labels, labels[votes]))
    points, labels = points[votes], labels[votes]
    prior = _prior(labels, n_states)
    if len(points) < _FEWEST:
        nothing = np.zeros((n_states, n_states), dtype=np.int64)
        return StateAssigner(points, labels, n_states, 1, 0.0, 1.0, np.inf, np.nan, np.nan, nothing)
    most = min(max(_CANDIDATES), len(points) - 1)
    distance, nearest = _without_self(*_nearest(points, points, most + 1))
    rows = np.arange(len(labels))
    counts = [count for count in _CANDIDATES if count <= most]
    least = np.inf
    for count, power, doubt in product(counts, _POWERS, _DOUBTS):
        votes_of = labels[nearest[:, :count]]
        tried = _shares(votes_of, distance[:, :count], prior=prior, power=power, doubt=doubt)
        loss = -np.log(tried[rows, labels]).mean()
        if loss < least:
            least, chosen, share = loss, (count, power, doubt), tried
    found = share.argmax(axis=1)
    confusion = np.zeros((n_states, n_states), dtype=np.int64)
    np.add.at(confusion, (labels, found), 1)
    return StateAssigner(
        points=points,
        states=labels,
        n_states=n_states,
        n_neighbours=chosen[0],
        power=chosen[1],
        doubt=chosen[2],
        # As far as the loneliest volume is from its nearest, and as far again.
        reach=2.0 * float(distance[:, 0].max()),
        accuracy=float((found == labels).mean()),
        mean_confidence=float(share.max(axis=1).mean()),
        confusion=confusion,
    )


def _nearest(
    points: NDArray[np.float64], given: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return distances and rows (given, neighbour) of the nearest points, nearest first."""
    distance, nearest = cKDTree(points).query(given, k=range(1, count + 1))
    return np.asarray(distance), np.asarray(nearest, dtype=np.intp)


def _prior(states: NDArray[np.int64], n_states: int) -> NDArray[np.float64]:
    count = np.bincount(states, minlength=n_states) + _LEAST_COUNT
    return np.asarray(count / count.sum())


def _shares(
    votes: NDArray[np.int64],
    distance: NDArray[np.float64],
    *,
    prior: NDArray[np.float64],
    power: float,
    doubt: float,
) -> NDArray[np.float64]:
    """Return the probability (point, state) from votes and their distances (point, neighbour).

    Without doubt a state with all votes would be certain, and one without any impossible.
    """
    n_states = len(prior)
    relative = distance / np.maximum(distance[:, -1:], _TINY)
    weight = np.maximum(relative, _TINY) ** -power
    weight /= weight.sum(axis=1, keepdims=True)
    places = np.arange(len(votes))[:, None] * n_states + votes
    shares = np.bincount(places.ravel(), weight.ravel(), minlength=len(votes) * n_states)
    found: NDArray[np.float64] = (shares.reshape(len(votes), n_states) + doubt * prior) / (
        1.0 + doubt
    )
    return found


def _without_self(
    distance: NDArray[np.float64], nearest: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Leave out the point itself, which need not come first where several coincide."""
    own = nearest == np.arange(len(nearest))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(nearest), nearest.shape[1] - 1)
    return distance[~own].reshape(shape), nearest[~own].reshape(shape)
