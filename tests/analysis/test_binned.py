"""Bins of a grid against numpy.histogramdd, whatever the blocks."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis import binned
from emhet_dask.analysis.binned import Grid, grid_counts
from emhet_dask.errors import InputError

GRID = Grid((np.linspace(-1, 1, 5), np.linspace(0, 3, 7), np.linspace(-2, 2, 3)))


@given(seed=st.integers(0, 99), axes=st.integers(1, 3), weighted=st.booleans())
@settings(max_examples=25, deadline=None)
def test_counts_are_those_of_numpy(seed, axes, weighted):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2.5, 3.5, (500, axes))
    grid = Grid(GRID.edges[:axes])
    # Ends of the grid, and of a bin.
    points[0] = [edges[-1] for edges in grid.edges]
    points[1] = [edges[0] for edges in grid.edges]
    points[2] = 0
    weights = rng.integers(0, 5, 500).astype(float) if weighted else None
    weight, squared, inside = grid_counts(points, grid, weights=weights)
    np.testing.assert_allclose(weight, np.histogramdd(points, grid.edges, weights=weights)[0])
    of_squares = None if weights is None else weights**2
    np.testing.assert_allclose(squared, np.histogramdd(points, grid.edges, weights=of_squares)[0])
    assert inside == np.histogramdd(points, grid.edges)[0].sum()


@given(cuts=st.lists(st.integers(1, 400), min_size=1, max_size=5), block=st.integers(7, 500))
@settings(max_examples=20, deadline=None)
def test_any_chunking_gives_the_same_bits(cuts, block):
    rng = np.random.default_rng(0)
    points, weights = rng.standard_normal((1000, 2)), rng.random(1000)
    grid = Grid((np.linspace(-2, 2, 9), np.linspace(-2, 2, 9)))
    chunks = [*cuts, 1000 - sum(cuts)] if sum(cuts) < 1000 else [1000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binned, "BLOCK_ROWS", block)
        whole = grid_counts(points, grid, weights=weights)
        lazy = da.from_array(points, chunks=(tuple(chunks), 2))
        parts = grid_counts(lazy, grid, weights=weights)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_bins_and_their_middles():
    grid = Grid((np.array([0.0, 1.0, 2.0]), np.array([0.0, 10.0, 20.0, 30.0])))
    assert grid.shape == (2, 3)
    assert grid.bins_of([[0.5, 25.0], [2.0, 0.0], [2.1, 0.0], [-0.1, 5.0]]).tolist() == [
        2,
        3,
        -1,
        -1,
    ]
    np.testing.assert_allclose(grid.positions([2, 3]), [[0.5, 25.0], [1.5, 5.0]])


@pytest.mark.parametrize("weights", [[1.0] * 29, [-1.0] * 30, [np.nan] * 30, [0.0] * 30])
def test_weights_that_are_none(weights):
    with pytest.raises(InputError, match="weights of a landscape: expected 30 numbers"):
        grid_counts(np.zeros((30, 1)), Grid(GRID.edges[:1]), weights=weights)


def test_too_few_points_or_too_many_axes():
    with pytest.raises(InputError, match="needs 20 points at least; got 19"):
        grid_counts(np.zeros((19, 1)), Grid(GRID.edges[:1]))
    with pytest.raises(InputError, match="one to three components"):
        grid_counts(np.zeros((30, 4)), GRID)
