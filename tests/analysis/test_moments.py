"""Moments against NumPy's weighted average, however the volumes are cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.moments import accumulate, finish, merge, merge_all


def volumes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (1000.0 + rng.normal(size=(count, 3, 4, 5))).astype(np.float32)


def expected(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = np.average(x.astype(np.float64), axis=0, weights=weights)
    return mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))


@given(
    count=st.integers(1, 30),
    cuts=st.lists(st.integers(1, 29), max_size=4),
    weighted=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_any_blocks_give_numpys_average_and_deviation(count, cuts, weighted, seed):
    x = volumes(count, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 50, size=count) if weighted else None
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    parts = [
        accumulate(x[start:stop], None if weights is None else weights[start:stop])
        for start, stop in itertools.pairwise(edges)
    ]
    mean, deviation = finish(merge_all(parts))
    reference = expected(x, np.ones(count) if weights is None else weights)
    assert mean.dtype == deviation.dtype == np.float32
    np.testing.assert_allclose(mean, reference[0], rtol=1e-7)
    np.testing.assert_allclose(deviation, reference[1], rtol=1e-5, atol=1e-5)


def test_volumes_of_weight_zero_are_not_looked_at():
    x = volumes(4, 0)
    x[[0, 2]] = np.nan
    mean, deviation = finish(accumulate(x, [0, 2, 0, 1]))
    reference = expected(x[[1, 3]], np.array([2, 1]))
    np.testing.assert_allclose(mean, reference[0], rtol=1e-7)
    np.testing.assert_allclose(deviation, reference[1], rtol=1e-5)


def test_nothing_counted_is_nan_and_merging_it_changes_nothing():
    empty = accumulate(volumes(2, 0), [0, 0])
    assert np.isnan(finish(empty)[0]).all()
    assert np.isnan(finish(merge(empty, empty))[1]).all()
    some = accumulate(volumes(3, 1))
    for merged in (merge(empty, some), merge(some, empty)):
        np.testing.assert_array_equal(merged.mean, some.mean)
        np.testing.assert_array_equal(merged.squares, some.squares)


def test_equal_volumes_have_no_deviation():
    x = np.repeat(volumes(1, 2), 7, axis=0)
    mean, deviation = finish(accumulate(x, np.arange(7)))
    np.testing.assert_array_equal(mean, x[0])
    np.testing.assert_array_equal(deviation, 0)


def test_half_precision_is_summed_in_double():
    x = np.full((5000, 1), 0.1, dtype=np.float16)
    mean, _ = finish(accumulate(x))
    np.testing.assert_allclose(mean, x[0].astype(np.float64), rtol=1e-7)
