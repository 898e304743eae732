"""Means over the pairs of two tiles, against all pairs one by one."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.tiles import mean_distances, mean_products, mean_values


def pairs_one_by_one(rows, tiles, value):
    count = tiles.max() + 1
    found = np.full((count, count), np.nan)
    for a in range(count):
        for b in range(count):
            values = [
                value(rows[i], rows[j])
                for i in np.flatnonzero(tiles == a)
                for j in np.flatnonzero(tiles == b)
                if i != j
            ]
            if values:
                found[a, b] = np.mean(values)
    return found


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(2, 15), chunk=st.integers(1, 15), tiles=st.integers(1, 4), seed=st.integers(0, 9)
)
def test_any_chunking_gives_the_means_over_all_pairs(n, chunk, tiles, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 6)).astype(np.float32) + 3
    tile = rng.integers(-1, tiles, n)
    tile[0] = tiles - 1  # the last tile is not empty
    empty = np.setdiff1d(np.arange(tiles), tile)
    lazy = da.from_array(rows, chunks=(chunk, 4))
    products = mean_products(lazy, tile)
    np.testing.assert_allclose(
        products, pairs_one_by_one(rows.astype(float), tile, np.dot), rtol=1e-6, atol=1e-6
    )
    assert np.isnan(products[empty]).all()
    known = mean_values(rows.astype(float) @ rows.T, tile)
    np.testing.assert_allclose(known, products, rtol=1e-5, atol=1e-5)
    squares = pairs_one_by_one(rows.astype(float), tile, lambda a, b: np.sum((a - b) ** 2))
    np.testing.assert_allclose(mean_distances(lazy, tile), np.sqrt(squares), rtol=1e-5, atol=1e-5)


def test_a_tile_of_one_row_has_no_pair_of_its_own():
    rows = np.eye(3, dtype=np.float32)
    found = mean_products(rows, [0, 1, 1])
    assert np.isnan(found[0, 0])
    assert found[1, 1] == 0
    assert mean_distances(rows, [0, 1, 1])[0, 1] == pytest.approx(np.sqrt(2))
