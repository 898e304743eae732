"""Exact tails of the hypergeometric distribution, for very many contingency tables.

Two voxels occupied in *a* and in *b* of *N* volumes are, by chance, occupied together in *X* of
them, where ``P(X = x) = C(a, x) C(N − a, b − x) / C(N, b)`` (Fisher 1922). Which count is
significant depends on *a*, *b* and *N* alone: a table of critical counts over the distinct margins
turns each test into the comparison of two integers.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, log
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from emhet_dask.errors import InputError

__all__ = [
    "Tail",
    "benjamini_hochberg",
    "benjamini_hochberg_of_counts",
    "bonferroni",
    "critical_counts",
    "fewest_volumes",
    "log_p_values",
]

Tail = Literal["positive", "negative"]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Products stay far above the smallest float64.
_SMALLEST_ALPHA = 1e-250
# A step of the walk rounds less than ten times; nearer to alpha than all this can add up to,
# integers decide.
_ERROR_OF_STEP = 10 * 2.0**-53
# Terms of a tail below this share of its sum are left out of p-values.
_LEAST_TERM = 2.0**-60
_PIECE = 1 << 16
# What a step costs in any case, as a number of margins.
_STEP = 2000


def critical_counts(
    margins_a: ArrayLike,
    margins_b: ArrayLike,
    n_volumes: int,
    *,
    alpha: float,
    tail: Tail = "positive",
) -> NDArray[np.int16] | NDArray[np.int32]:
    """Find the counts from which on two voxels are associated at a level of significance.

    The tail is walked along *b*, for all *a* at once. With one more volume in *b*, where
    ``S = P(X ≥ k)`` and ``p = P(X = k − 1)``, ``S`` grows by ``p (a − k + 1) / (N − b)``, and *k*
    grows by one when that exceeds alpha. Sums are of positive terms no larger than alpha, so that
    errors do not grow; what is too close to alpha for float64 is decided by integers. The tail
    rounded to float64 is what is compared: one of 3/10 is at the level 0.3.

    Parameters
    ----------
    margins_a, margins_b : array of int (a,), (b,)
        Volumes in which a voxel is occupied, 0 to `n_volumes`. Time goes with the distinct
        ones of one side times the largest of the other; equal sides cost half.
    n_volumes : int
    alpha : float
        Level of one test, below 0.5; divided by the number of tests first, where there are many.
    tail : {"positive", "negative"}

    Returns
    -------
    ndarray of int16, or of int32 from 32,767 volumes on (a, b)
        Positive: the smallest count with ``P(X ≥ count) ≤ alpha``, which is ``min(a, b) + 1``, a
        count that does not occur, where none is significant. Negative: the largest with
        ``P(X ≤ count) ≤ alpha``, or ``max(0, a + b − N) − 1``.

    Raises
    ------
    InputError
        When a margin is not between 0 and `n_volumes`, or alpha not between 1e-250 and 0.5.
    """
    rows, columns = _margins(margins_a, n_volumes), _margins(margins_b, n_volumes)
    _check_alpha(alpha)
    _check_tail(tail)
    dtype = np.int16 if n_volumes < np.iinfo(np.int16).max else np.int32
    a, row = np.unique(rows, return_inverse=True)
    b, column = np.unique(columns, return_inverse=True)
    if tail == "negative":
        # As many of a as are missing from b: X' = a − X, with margins a and N − b.
        found = _table(a, (n_volumes - b)[::-1], n_volumes, alpha, dtype)[:, ::-1]
        found = np.subtract(a[:, None], found, dtype=dtype)
    else:
        found = _table(a, b, n_volumes, alpha, dtype)
    if len(a) == len(rows) and len(b) == len(columns) and _rises(rows) and _rises(columns):
        return found
    return found[row[:, None], column]


def log_p_values(
    n_both: ArrayLike,
    margins_a: ArrayLike,
    margins_b: ArrayLike,
    n_volumes: int,
    *,
    tail: Tail = "positive",
) -> Float64:
    """Natural logarithm of the one-sided p-value of contingency tables.

    Parameters
    ----------
    n_both : array of int
        Volumes in which both voxels are occupied.
    margins_a, margins_b : array of int
        Broadcast against `n_both`.
    n_volumes : int
    tail : {"positive", "negative"}
        ``P(X ≥ n_both)`` or ``P(X ≤ n_both)``.

    Returns
    -------
    ndarray of float64
        Within some 10⁻¹³ of itself and 10⁻¹⁵ N log N of the truth; 0 (p = 1) for a count that every
        table reaches, minus infinity for one that none does.

    Raises
    ------
    InputError
        When a margin is not between 0 and `n_volumes`.
    """
    _check_tail(tail)
    given = np.broadcast_arrays(n_both, margins_a, margins_b)
    k, a, b = (np.asarray(each, dtype=np.int64).reshape(-1) for each in given)
    _margins(a, n_volumes)
    _margins(b, n_volumes)
    if tail == "negative":
        k, b = a - k, n_volumes - b
    found = np.empty(len(k))
    for start in range(0, len(k), _PIECE):
        piece = slice(start, start + _PIECE)
        found[piece] = _log_upper_tail(k[piece], a[piece], b[piece], n_volumes)
    return found.reshape(given[0].shape)


def fewest_volumes(alpha: float) -> int:
    """Return with how many volumes a pair can reach a level of significance at all.

    Two voxels occupied in the same half of N volumes (or in opposite halves) have the smallest
    p-value there is, ``1 / C(N, N/2)``.

    Parameters
    ----------
    alpha : float
        Level of one test, above 0.

    Raises
    ------
    InputError
        When alpha is not between 1e-250 and 0.5.
    """
    _check_alpha(alpha)
    n = 1
    while 1 / comb(n, n // 2) > alpha:
        n += 1
    return n


def bonferroni(alpha: float, n_tests: int) -> float:
    """Return the level of each of many tests at which any is wrong with probability alpha."""
    return alpha / max(1, n_tests)


def benjamini_hochberg(log_p: ArrayLike, rate: float, *, n_tests: int | None = None) -> float:
    """Find the level that controls the false discovery rate (Benjamini & Hochberg 1995), exactly.

    Parameters
    ----------
    log_p : array of float
        Logarithms of p-values; those above `rate` may be left out.
    rate : float
        Share of what is found that may be false, on average.
    n_tests : int, optional
        All tests, those left out included; by default as many as p-values.

    Returns
    -------
    float
        Logarithm of the largest p-value that is significant; minus infinity where none is.
    """
    ordered = np.sort(np.asarray(log_p, dtype=np.float64).reshape(-1))
    count = len(ordered) if n_tests is None else n_tests
    if not len(ordered):
        return -np.inf
    limits = log(rate) + np.log(np.arange(1, len(ordered) + 1)) - log(count)
    reached = np.flatnonzero(ordered <= limits)
    return float(ordered[reached[-1]]) if len(reached) else -np.inf


def benjamini_hochberg_of_counts(
    counts: ArrayLike, edges: ArrayLike, rate: float, *, n_tests: int
) -> float:
    """As `benjamini_hochberg`, from a histogram: what is too much to be kept can be counted.

    The level is the highest edge *e* with ``e ≤ rate · (p-values up to e) / n_tests``. It is never
    above the exact one, so that nothing is found that the exact procedure rejects, and the closer
    to it the more p-values there are.

    Parameters
    ----------
    counts : array of int (bin,)
        P-values above one edge and up to the next; the first bin holds all up to its upper edge.
    edges : array of float (bin,)
        Logarithms of the upper edges, rising.
    rate : float
    n_tests : int

    Returns
    -------
    float
        Logarithm of the level; minus infinity where no edge passes.
    """
    found = np.cumsum(np.asarray(counts, dtype=np.float64))
    upper = np.asarray(edges, dtype=np.float64)
    with np.errstate(divide="ignore"):
        passes = np.flatnonzero(upper <= log(rate) + np.log(found) - log(n_tests))
    return float(upper[passes[-1]]) if len(passes) else -np.inf


# Critical counts ----------------------------------------------------------------------------------


def _table(a: Int64, b: Int64, n: int, alpha: float, dtype: Any) -> NDArray[Any]:
    """Critical counts of the positive tail over rising distinct margins."""
    found = np.empty((len(a), len(b)), dtype=dtype)
    if not found.size:
        return found
    if a[-1] * (len(b) + _STEP) < b[-1] * (len(a) + _STEP):  # the table is that of b and a, turned
        return np.ascontiguousarray(_table(b, a, n, alpha, dtype).T)
    symmetric = np.array_equal(a, b)
    wanted = np.full(n + 1, -1)
    wanted[b] = np.arange(len(b))
    walk = _Walk(a, n, alpha)
    for reached in range(int(b[-1]) + 1):
        if reached:
            # The table of equal margins is symmetric: only those of a that are no less than b.
            walk.step(first=int(np.searchsorted(a, reached)) if symmetric else 0)
        if wanted[reached] >= 0:
            found[:, wanted[reached]] = walk.k
    if symmetric:
        for each in range(1, len(a)):
            found[:each, each] = found[each, :each]
    return found


class _Walk:
    """Critical counts k of all a while b grows from 0, each with its tail and the term below it."""

    def __init__(self, a: Int64, n: int, alpha: float) -> None:
        self._a = a.astype(np.float64)
        self._n, self._alpha, self._b = n, alpha, 0
        self._k = np.ones(len(a))
        self._tail = np.zeros(len(a))  # P(X ≥ k)
        self._term = np.ones(len(a))  # P(X = k − 1)

    @property
    def k(self) -> Float64:
        return self._k

    def step(self, *, first: int) -> None:
        """Let b grow by one, for the margins from `first` on."""
        n, b = self._n, self._b
        a, k = self._a[first:], self._k[first:]
        term, tail = self._term[first:], self._tail[first:]
        term /= n - b
        gain = a - k
        gain += 1
        gain *= term
        higher = tail + gain
        rises = self._exceeds(higher, first)
        # The term at k, and at k − 1, of the new b. Neither divisor is 0: 1 ≤ k ≤ b + 1.
        gain /= k
        left = n - b - 1 - a
        left += k
        left /= b + 2 - k
        term *= (b + 1) * left
        term[rises] = (b + 1) * gain[rises]
        # P(X ≥ k + 1) of the new b, from numbers that are no larger than alpha.
        gain *= b + 1 - k
        higher[rises] = np.maximum(tail[rises] - gain[rises], 0.0)
        tail[...] = higher
        k += rises
        self._b += 1

    def _exceeds(self, tail: Float64, first: int) -> NDArray[np.bool_]:
        """Tell where P(X ≥ k) of the next b is above alpha."""
        room = self._alpha * _ERROR_OF_STEP * (self._b + 10)
        rises = tail > self._alpha + room
        close = tail > self._alpha - room
        if np.count_nonzero(close) != np.count_nonzero(rises):
            for each in np.flatnonzero(close & ~rises):
                a, k = int(self._a[first + each]), int(self._k[first + each])
                rises[each] = _exact_upper_tail(k, a, self._b + 1, self._n) > self._alpha
        return rises


def _exact_upper_tail(k: int, a: int, b: int, n: int) -> float:
    """P(X ≥ k) in integers, rounded once."""
    term = total = comb(a, k) * comb(n - a, b - k)
    for x in range(k, min(a, b)):
        term = term * ((a - x) * (b - x)) // ((x + 1) * (n - a - b + x + 1))
        total += term
    return float(Fraction(total, comb(n, b))) if total else 0.0


# P-values -----------------------------------------------------------------------------------------


def _log_upper_tail(k: Int64, a: Int64, b: Int64, n: int) -> Float64:
    lowest, highest = np.maximum(0, a + b - n), np.minimum(a, b)
    found = np.where(k <= lowest, 0.0, -np.inf)
    within = (k > lowest) & (k <= highest)
    # Terms fall from the mode on; below it the other tail is the shorter sum.
    above = k * (n + 2.0) > (a + 1.0) * (b + 1.0)
    here = np.flatnonzero(within & above)
    found[here] = _log_falling_sum(k[here], a[here], b[here], n)
    here = np.flatnonzero(within & ~above)
    other = _log_falling_sum(a[here] - k[here] + 1, a[here], n - b[here], n)
    found[here] = np.log1p(-np.minimum(np.exp(other), 1.0))
    return found


def _log_falling_sum(k: Int64, a: Int64, b: Int64, n: int) -> Float64:
    """Logarithm of the sum of the terms from k on, each a known ratio of the one before."""
    first = _log_choose(a, k) + _log_choose(n - a, b - k) - _log_choose(np.full_like(b, n), b)
    total = np.ones(len(k))
    active = np.arange(len(k))
    term = np.ones(len(k))
    # How far the four numbers of the table are from ending the tail: n10, n01, n11 + 1, n00 + 1.
    table = np.stack([a - k, b - k, k + 1, n - a - b + k + 1]).astype(np.float64)
    step = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    while len(active):
        term = term * (table[0] * table[1] / (table[2] * table[3]))
        total[active] += term
        table += step
        # Ratios fall: what is left is less than this term times a geometric series.
        ratio = table[0] * table[1] / (table[2] * table[3])
        going = term * ratio > _LEAST_TERM * total[active] * np.maximum(1 - ratio, 0.0)
        active, term, table = active[going], term[going], table[:, going]
    return np.asarray(first + np.log(total))


def _log_choose(n: Int64, k: Int64) -> Float64:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))


# Checks -------------------------------------------------------------------------------------------


def _margins(values: ArrayLike, n_volumes: int) -> Int64:
    margins = np.asarray(values)
    if margins.ndim != 1 or margins.dtype.kind not in "iu":
        raise InputError(
            f"margins: found {margins.dtype} of shape {margins.shape}; a list of whole numbers is "
            "needed"
        )
    if len(margins) and (margins.min() < 0 or margins.max() > n_volumes):
        raise InputError(
            f"margins: found {margins.min()} to {margins.max()}; "
            f"they must lie between 0 and the {n_volumes} volumes"
        )
    return margins.astype(np.int64)


def _check_alpha(alpha: float) -> None:
    if not _SMALLEST_ALPHA <= alpha < 0.5:
        raise InputError(
            f"the level of significance is {alpha}; it must lie between {_SMALLEST_ALPHA} and 0.5"
        )


def _check_tail(tail: str) -> None:
    if tail not in ("positive", "negative"):
        raise InputError(f"tail {tail!r} is unknown; it must be positive or negative")


def _rises(values: Int64) -> bool:
    return bool((np.diff(values) > 0).all())
