"""The best of rows and columns, their merging, and the histogram, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis import neighbours
from emhet_dask.analysis.neighbours import (
    Bins,
    best_of_columns,
    best_of_rows,
    count_values,
    merge_best,
)


def sorted_best(values, n_best):
    """Stable sort: of equal values the first comes first."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :n_best]
    found = np.take_along_axis(values, order, axis=1)
    order[found == -np.inf] = -1
    found[found == -np.inf] = np.nan
    missing = ((0, 0), (0, n_best - order.shape[1]))
    return (
        np.pad(order, missing, constant_values=-1),
        np.pad(found, missing, constant_values=np.nan),
    )


@given(
    n_rows=st.integers(1, 300),
    n_columns=st.integers(1, 300),
    n_best=st.integers(1, 12),
    levels=st.sampled_from([1, 3, 10_000]),
    cut=st.integers(1, 300),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_best_are_those_of_sorting_however_they_are_cut(
    n_rows, n_columns, n_best, levels, cut, seed
):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, (n_rows, n_columns)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = -np.inf
    expected = sorted_best(values, n_best)
    for found in (
        best_of_rows(values, n_best),
        best_of_columns(np.ascontiguousarray(values.T), n_best),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    parts = [
        best_of_rows(values[:, start : start + cut], n_best, first_column=start)
        for start in range(0, n_columns, cut)
    ]
    merged = merge_best(
        *(np.concatenate(each, axis=1) for each in zip(*parts, strict=True)), n_best
    )
    np.testing.assert_array_equal(merged[0], expected[0])
    np.testing.assert_array_equal(merged[1], expected[1])


def test_few_values_are_looked_at():
    values = np.random.default_rng(0).random((200, 4000)).astype(np.float32)
    bounds = neighbours._bounds(values, 10)
    reached = (values >= bounds[:, None]).sum(axis=1)
    assert reached.min() >= 10
    assert reached.mean() < 20
    np.testing.assert_array_equal(neighbours._bounds(values.T, 10, of_columns=True), bounds)


@pytest.mark.parametrize("bins", [Bins(-1.0, 1.0, 2048), Bins(-1.0, 1.0, 8), Bins(0.0, 8.0, 64)])
def test_counts_are_numpys(bins):
    rng = np.random.default_rng(0)
    values = rng.uniform(bins.lower, bins.upper, (150, 70)).astype(np.float32)
    values[0, :5] = [bins.lower, bins.upper, 0, 0.125, np.nextafter(np.float32(0.5), np.float32(0))]
    if bins.lower < 0:
        values[1, 0] = -1e-9
    expected, _ = np.histogram(values, bins.edges)
    np.testing.assert_array_equal(count_values(values, bins), expected)


def test_what_lies_above_counts_in_the_last_bin():
    found = count_values(np.array([[0.5, 9.0]], dtype=np.float32), Bins(0.0, 2.0, 2))
    np.testing.assert_array_equal(found, [1, 1])
