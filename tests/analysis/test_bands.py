"""Cutting a matrix and merging parts: everything is covered once, in order."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from emhet_dask.analysis.bands import (
    as_matrix,
    band_rows,
    chain,
    check_weights,
    column_strips,
    compute_all,
    row_bands,
    tree,
)


@given(
    n_rows=st.integers(1, 400),
    rows=st.integers(1, 400),
    columns=st.integers(1, 30),
    cut=st.sampled_from([row_bands, column_strips]),
)
@settings(max_examples=20, deadline=None)
def test_blocks_cover_the_matrix_once_and_in_order(n_rows, rows, columns, cut):
    x = np.arange(n_rows * 30.0).reshape(n_rows, 30)
    blocks = cut(da.from_array(x, chunks=(rows, columns)))
    parts = dask.compute(*(block.part for block in blocks))
    axis = 0 if cut is row_bands else 1
    np.testing.assert_array_equal(np.concatenate(parts, axis=axis), x)
    for block, part in zip(blocks, parts, strict=True):
        assert block.span.stop - block.span.start == part.shape[axis]


@pytest.mark.parametrize(
    ("row_chunks", "expected"),
    [
        ((300, 300, 100), 300),  # a fair size: as stored
        ((32, 32, 10), 128),  # whole chunks together
        ((300, 100, 300), 1024),  # ragged: cut anew
        ((5000,), 1024),  # too large
    ],
)
def test_bands_keep_the_chunks_where_they_have_a_fair_size(row_chunks, expected):
    assert band_rows(row_chunks, 1000) == expected


def test_wide_matrices_get_fewer_rows_in_a_band():
    assert band_rows((5000,), 64_000) == 262  # 64 MiB in float32


@given(count=st.integers(1, 40), arity=st.integers(2, 7))
@settings(max_examples=20, deadline=None)
def test_tree_keeps_the_order(count, arity):
    parts = [dask.delayed([number]) for number in range(count)]
    merged = tree(parts, lambda lists: [item for part in lists for item in part], arity=arity)
    assert merged.compute() == list(range(count))


@pytest.mark.parametrize("n_chains", [1, 3, 10])
def test_chain_folds_every_block_in_order(n_chains):
    blocks = row_bands(da.from_array(np.arange(1500.0)[:, None], chunks=(200, 1)))

    def step(state, part, span, *, factor):
        return [*(state or []), (span.start, float(part[0, 0]) * factor)]

    folded = chain(
        blocks,
        step,
        lambda states: [item for state in states for item in state],
        n_chains=n_chains,
        factor=2.0,
    )
    assert folded.compute() == [(start, 2.0 * start) for start in range(0, 1500, 200)]


def test_one_blas_thread_while_computing():
    @dask.delayed
    def blas_threads():
        np.ones((2, 2)) @ np.ones((2, 2))
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    (found,) = compute_all(dask.compute, [blas_threads()])
    assert found
    assert set(found) == {1}


def test_numpy_becomes_lazy_and_absent_weights_become_ones():
    assert isinstance(as_matrix(np.zeros((3, 4), dtype=np.float16)), da.Array)
    np.testing.assert_array_equal(check_weights(None, 3), [1.0, 1.0, 1.0])
