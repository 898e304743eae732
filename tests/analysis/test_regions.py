"""Points in polygons against matplotlib."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from emhet_dask.analysis import regions
from emhet_dask.analysis.regions import inside_polygon


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40))
@settings(max_examples=50, deadline=None)
def test_simple_polygons_are_those_of_matplotlib(seed, n):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, n))
    polygon = np.column_stack([np.cos(angles), np.sin(angles)]) * rng.uniform(0.2, 1, (n, 1))
    points = rng.uniform(-1.1, 1.1, (500, 2))
    closed = Outline(np.vstack([polygon, polygon[:1]]), closed=True)
    np.testing.assert_array_equal(inside_polygon(points, polygon), closed.contains_points(points))
    np.testing.assert_array_equal(
        inside_polygon(points, polygon[::-1]), inside_polygon(points, polygon)
    )


def test_what_an_outline_goes_around_twice_is_outside():
    bow = [[0, 0], [2, 2], [2, 0], [0, 2]]
    assert inside_polygon(np.array([[0.2, 1.0], [1.8, 1.0], [1.0, 0.2]]), bow).tolist() == [
        True,
        True,
        False,
    ]
    square = [[0, 0], [3, 0], [3, 3], [0, 3]]
    twice = [*square, *(np.array(square) * 0.5 + 0.5).tolist()]
    assert not inside_polygon(np.array([[1.2, 1.6]]), [*square, *square])[0]
    assert len(twice) == 8


def test_polygons_that_share_edges_share_no_point():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 5, (2000, 2)).astype(float)  # many lie on corners and edges
    tiles = [[[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]] for x in range(5) for y in range(5)]
    found = np.sum([inside_polygon(points, tile) for tile in tiles], axis=0)
    np.testing.assert_array_equal(found, 1)


def test_blocks_do_not_matter_and_what_is_not_finite_is_outside(monkeypatch):
    points = np.random.default_rng(1).uniform(-1, 1, (1000, 2))
    points[:4] = [[np.nan, 0], [0, np.nan], [-np.inf, 0.1], [np.inf, 0.1]]
    triangle = [[-1, -1], [1, -1], [0, 1]]
    whole = inside_polygon(points, triangle)
    assert not whole[:4].any()
    assert whole.mean() == pytest.approx(0.5, abs=0.05)
    monkeypatch.setattr(regions, "BLOCK_ROWS", 77)
    np.testing.assert_array_equal(inside_polygon(points, triangle), whole)
