"""Critical counts and p-values against scipy, and against integers."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from emhet_dask.analysis.hypergeometric import (
    benjamini_hochberg,
    benjamini_hochberg_of_counts,
    bonferroni,
    critical_counts,
    fewest_volumes,
    log_p_values,
)
from emhet_dask.errors import InputError


def tail_by_integers(a, b, n, tail):
    """P(X ≥ k), or P(X ≤ k), for all k from -1 to n + 1, each a fraction rounded once."""
    ways = [comb(a, k) * comb(n - a, b - k) if 0 <= k <= b else 0 for k in range(n + 2)]
    total = comb(n, b)
    if tail == "positive":
        return {k: float(Fraction(sum(ways[max(k, 0) :]), total)) for k in range(-1, n + 2)}
    return {k: float(Fraction(sum(ways[: k + 1]), total)) for k in range(-1, n + 2)}


def critical_by_integers(a, b, n, alpha, tail):
    p = tail_by_integers(a, b, n, tail)
    if tail == "positive":
        return min(k for k in p if p[k] <= alpha and k <= min(a, b) + 1)
    return max(k for k in p if p[k] <= alpha and k >= max(0, a + b - n) - 1)


@pytest.mark.parametrize("tail", ["positive", "negative"])
@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.05, 1 / 6, 1e-3])
@pytest.mark.parametrize("n", [1, 2, 5, 10, 13])
def test_every_table_of_few_volumes_ties_included(n, alpha, tail):
    margins = np.arange(n + 1)
    found = critical_counts(margins, margins, n, alpha=alpha, tail=tail)
    expected = [[critical_by_integers(a, b, n, alpha, tail) for b in margins] for a in margins]
    np.testing.assert_array_equal(found, expected)


def test_a_tail_that_is_the_level_is_significant():
    # P(X ≥ 1) = b / 500: 25 of 500 is 0.05 on paper, whatever float64 makes of it.
    found = critical_counts([1], [24, 25, 26], 500, alpha=0.05)
    np.testing.assert_array_equal(found, [[1, 1, 2]])
    # P(X ≥ 1) = 3/10, and 0.3 as float64 is less than that.
    np.testing.assert_array_equal(critical_counts([3], [1], 10, alpha=0.3), [[1]])


def test_the_published_check():
    assert critical_counts([250], [250], 500, alpha=0.01 / 660_675)[0, 0] == 157


@given(
    n=st.integers(1, 3000),
    exponent=st.floats(-100, -0.4),
    tail=st.sampled_from(["positive", "negative"]),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_critical_counts_are_scipys(n, exponent, tail, seed):
    alpha = 10.0**exponent
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n + 1, 12), rng.integers(0, n + 1, 15)
    found = critical_counts(a, b, n, alpha=alpha, tail=tail).astype(np.int64)
    assert found.shape == (12, 15)
    log_alpha, slack = np.log(alpha), 1e-9
    x, y = np.broadcast_arrays(a[:, None], b)
    if tail == "positive":
        assert (found <= np.minimum(x, y) + 1).all()
        assert (found > np.maximum(0, x + y - n)).all()
        reached, short = (hypergeom.logsf(k - 1, n, x, y) for k in (found, found - 1))
    else:
        assert (found >= np.maximum(0, x + y - n) - 1).all()
        assert (found < np.minimum(x, y)).all()
        reached, short = (hypergeom.logcdf(k, n, x, y) for k in (found, found + 1))
    assert (reached <= log_alpha + slack).all()
    assert (short > log_alpha - slack).all()


@pytest.mark.parametrize("tail", ["positive", "negative"])
def test_scipys_tails_at_every_pair_of_five_hundred(tail):
    n, alpha = 500, 0.01 / 660_675
    margins = np.arange(3, 500, 7)
    found = critical_counts(margins, margins, n, alpha=alpha, tail=tail)
    x, y = np.broadcast_arrays(margins[:, None], margins)
    if tail == "positive":
        assert (hypergeom.sf(found - 1, n, x, y) <= alpha).all()
        assert (hypergeom.sf(found - 2.0, n, x, y) > alpha).all()
    else:
        assert (hypergeom.cdf(found, n, x, y) <= alpha).all()
        assert (hypergeom.cdf(found + 1.0, n, x, y) > alpha).all()
    np.testing.assert_array_equal(found, found.T)


def test_any_part_of_a_table_is_the_same():
    rng = np.random.default_rng(0)
    margins = rng.integers(0, 801, 200)
    whole = critical_counts(margins, margins, 800, alpha=1e-7)
    for rows, columns in ((slice(0, 1), slice(0, 200)), (slice(20, 90), slice(80, 81))):
        part = critical_counts(margins[rows], margins[columns], 800, alpha=1e-7)
        np.testing.assert_array_equal(part, whole[rows, columns])


def test_the_walk_stays_true_over_many_volumes():
    n, alpha = 40_000, 3e-12
    margins = np.array([5, 400, 9_000, 20_000, 33_000, 39_999])
    found = critical_counts(margins, margins, n, alpha=alpha)
    assert found.dtype == np.int32
    for i, j in ((2, 2), (3, 2), (4, 3), (1, 5)):
        k, a, b = int(found[i, j]), margins[i], margins[j]
        if k <= min(a, b):
            assert log_p_values(k, a, b, n) <= np.log(alpha)
        assert log_p_values(k - 1, a, b, n) > np.log(alpha)


def test_integers_decide_what_is_close(monkeypatch):
    """With all of the arithmetic distrusted, nothing changes."""
    from emhet_dask.analysis import hypergeometric

    margins = np.arange(41)
    expected = critical_counts(margins, margins, 40, alpha=1e-4)
    monkeypatch.setattr(hypergeometric, "_ERROR_OF_STEP", 1e-2)
    np.testing.assert_array_equal(critical_counts(margins, margins, 40, alpha=1e-4), expected)


@pytest.mark.parametrize("tail", ["positive", "negative"])
def test_p_values_are_fishers(tail):
    rng = np.random.default_rng(0)
    n = 30
    a, b = rng.integers(0, n + 1, 60), rng.integers(0, n + 1, 60)
    k = rng.integers(np.maximum(0, a + b - n), np.minimum(a, b) + 1)
    found = log_p_values(k, a, b, n, tail=tail)
    side = "greater" if tail == "positive" else "less"
    expected = [
        fisher_exact([[x, i - x], [j - x, n - i - j + x]], alternative=side).pvalue
        for x, i, j in zip(k, a, b, strict=True)
    ]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-10)


@given(n=st.integers(1, 400), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_p_values_are_those_of_integers(n, seed):
    rng = np.random.default_rng(seed)
    a, b = (int(each) for each in rng.integers(0, n + 1, 2))
    for tail in ("positive", "negative"):
        p = tail_by_integers(a, b, n, tail)
        k = np.array([k for k in p if p[k] > 0])
        expected = np.log([p[each] for each in k])
        np.testing.assert_allclose(
            log_p_values(k, a, b, n, tail=tail), expected, rtol=1e-11, atol=1e-10
        )
        never = [k for k in p if p[k] == 0 and not 0 <= k <= n]
        assert (log_p_values(never, a, b, n, tail=tail) == -np.inf).all()


def test_fewest_volumes():
    for alpha in (0.1, 0.05, 1e-3, 0.01 / 660_675):
        n = fewest_volumes(alpha)
        half = [n // 2]
        assert critical_counts(half, half, n, alpha=alpha)[0, 0] <= n // 2
        margins = np.arange(n)
        found = critical_counts(margins, margins, n - 1, alpha=alpha)
        assert (found > np.minimum(margins[:, None], margins)).all()


def test_bonferroni():
    assert bonferroni(0.05, 100) == 0.0005
    assert bonferroni(0.05, 0) == 0.05


def test_benjamini_hochberg_is_scipys():
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(900), rng.random(100) * 1e-4])
    level = benjamini_hochberg(np.log(p), 0.05)
    expected = false_discovery_control(p) <= 0.05
    np.testing.assert_array_equal(np.log(p) <= level, expected)
    few = p[p <= 0.05]
    assert benjamini_hochberg(np.log(few), 0.05, n_tests=1000) == level
    assert benjamini_hochberg(np.log(rng.uniform(0.5, 1, 50)), 0.05) == -np.inf
    assert benjamini_hochberg([], 0.05) == -np.inf


def test_benjamini_hochberg_of_counts_is_not_above_the_exact_level():
    rng = np.random.default_rng(1)
    log_p = np.log(np.concatenate([rng.random(9000), rng.random(1000) * 1e-4]))
    edges = np.linspace(np.log(0.05 / 10_000), np.log(0.05), 300)
    counts = np.bincount(np.searchsorted(edges, log_p), minlength=301)[:300]
    level = benjamini_hochberg_of_counts(counts, edges, 0.05, n_tests=10_000)
    exact = benjamini_hochberg(log_p, 0.05)
    passing = [e for e in edges if np.exp(e) <= 0.05 * (log_p <= e).sum() / 10_000]
    assert level == max(passing)
    assert exact - 0.1 < level <= exact
    assert benjamini_hochberg_of_counts(np.zeros(300), edges, 0.05, n_tests=9) == -np.inf


@pytest.mark.parametrize(
    ("margins", "options", "told"),
    [
        ([5, 11], {"alpha": 0.01}, "between 0 and the 10 volumes"),
        ([-1], {"alpha": 0.01}, "found -1"),
        ([0.5], {"alpha": 0.01}, "whole numbers"),
        ([5], {"alpha": 0.5}, "level of significance is 0.5"),
        ([5], {"alpha": 0.0}, "between 1e-250"),
        ([5], {"alpha": float("nan")}, "nan"),
        ([5], {"alpha": 0.01, "tail": "both"}, "'both' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(margins, options, told):
    with pytest.raises(InputError, match=told):
        critical_counts(margins, [5], 10, **options)


def test_no_margins_no_counts():
    none = np.zeros(0, dtype=int)
    assert critical_counts(none, [5], 10, alpha=0.01).shape == (0, 1)
