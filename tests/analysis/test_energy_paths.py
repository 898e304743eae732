"""The lowest path against an exhaustive search, its smoothing, and the points along it."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis import energy_paths
from emhet_dask.analysis.binned import Grid
from emhet_dask.analysis.energy_paths import lowest_path, nearest_bin, points_along
from emhet_dask.analysis.free_energy import FreeEnergy, free_energy
from emhet_dask.errors import InputError


def of_values(values):
    values = np.asarray(values, dtype=float)
    defined = np.isfinite(values)
    place = np.where(defined.ravel(), np.cumsum(defined.ravel()) - 1, -1)
    return FreeEnergy(
        grid=Grid(tuple(np.arange(n + 1.0) for n in values.shape)),
        weight=defined * 1.0,
        density=defined * 1.0,
        effective=defined * 9.0,
        free_energy=values,
        error=values * 0,
        replicates=np.repeat(values[defined][None], 3, axis=0).astype(np.float32),
        bandwidth=np.ones(values.ndim),
        method="kernel",
        n_points=int(defined.sum()),
        n_outside=0,
        _place=place,
    )


@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(5, 6), (9, 4), (3, 4, 4)]))
@settings(max_examples=40, deadline=None)
def test_no_path_has_a_lower_highest_point(seed, shape):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, shape).astype(float)
    values[rng.random(shape) < 0.2] = np.nan
    values.ravel()[[0, -1]] = 0.0
    energy, end = of_values(values), values.size - 1
    graph = nx.Graph()
    one, two, _ = energy_paths._steps(energy)
    flat = values.ravel()
    for a, b in zip(one.tolist(), two.tolist(), strict=True):
        graph.add_edge(a, b, height=max(flat[a], flat[b]))
    graph.add_nodes_from([0, end])
    if not nx.has_path(graph, 0, end):
        with pytest.raises(InputError, match="no path: the landscape has no values between"):
            lowest_path(energy, 0, end)
        return
    edges = list(graph.edges(data="height"))

    def joined(highest):
        low = nx.Graph([(a, b) for a, b, height in edges if height <= highest])
        return low.has_node(0) and low.has_node(end) and nx.has_path(low, 0, end)

    lowest = next(height for height in sorted({h for *_, h in edges}) if joined(height))
    path = lowest_path(energy, 0, end)
    assert flat[path.bins].max() == lowest
    assert (path.bins[0], path.bins[-1]) == (0, end)
    assert all(graph.has_edge(a, b) for a, b in zip(path.bins, path.bins[1:], strict=False))
    assert np.isfinite(path.free_energy).all()


def test_of_paths_as_low_the_one_with_most_flux():
    # Both ways go over 2; the upper one is low before and after.
    values = [[0, 0, 2, 0, 0], [0, 5, 5, 5, 0], [0, 2, 2, 2, 0]]
    assert lowest_path(of_values(values), 5, 9).bins.tolist() == [5, 1, 2, 3, 9]


def test_arcs_are_equal_and_ends_stay():
    energy = free_energy(np.random.default_rng(0).standard_normal((20_000, 2)))
    start, end = (nearest_bin(energy, place) for place in ([-1.5, -1.0], [1.0, 1.5]))
    path = lowest_path(energy, start, end, n_points=50)
    steps = np.linalg.norm(np.diff(path.points, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.03)
    np.testing.assert_allclose(path.points[[0, -1]], energy.grid.positions([start, end]))
    np.testing.assert_allclose(path.at(2), path.points[[0, -1]])
    assert path.free_energy.max() <= energy.free_energy.ravel()[path.bins].max() + 0.05
    assert (path.error >= 0).all()
    # Smooth: no step turns by more than a few degrees.
    turns = np.diff(np.unwrap(np.arctan2(*np.diff(path.points, axis=0).T)))
    assert np.abs(turns).max() < np.radians(25)


def test_a_valley_that_bends_is_followed():
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, np.pi, 40_000)
    points = np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.08, (40_000, 2))
    energy = free_energy(points)
    path = lowest_path(energy, nearest_bin(energy, [1, 0]), nearest_bin(energy, [-1, 0]))
    np.testing.assert_allclose(np.linalg.norm(path.points, axis=1), 1, atol=0.08)
    assert path.length[-1] == pytest.approx(np.pi, rel=0.06)


def test_the_profile_between_middles_is_linear():
    path = lowest_path(of_values([[0.0, 1.0, 0.5]]), 0, 2, n_points=5)
    np.testing.assert_allclose(path.length, [0, 0.5, 1, 1.5, 2], atol=0.02)
    np.testing.assert_allclose(path.free_energy, [0, 0.5, 1, 0.75, 0.5], atol=0.02)


def test_one_end_is_no_path():
    with pytest.raises(InputError, match="both of them are at the same place"):
        lowest_path(of_values([[0.0, 1.0]]), 1, 1)


@pytest.mark.parametrize("block", [50, 333, 10_000])
def test_points_along_are_near_and_typical(monkeypatch, block):
    rng = np.random.default_rng(2)
    plane = rng.uniform(-3, 3, (2000, 2))
    features = np.column_stack([plane, 20 * rng.standard_normal((2000, 3))])
    positions = np.array([[0.0, 0.0], [1.0, 1.0], [2.5, -2.5]])
    monkeypatch.setattr(energy_paths, "BLOCK_ROWS", block)
    rows = points_along(positions, plane, features, scale=[0.5, 0.5], n_near=30)
    for position, row in zip(positions, rows, strict=True):
        away = np.linalg.norm((plane - position) / 0.5, axis=1)
        near = np.argsort(away, kind="stable")[:30]
        near = near[away[near] <= 1]
        from_mean = np.linalg.norm(features[near] - features[near].mean(axis=0), axis=1)
        assert row == near[np.argmin(from_mean)]


def test_where_nobody_is_near_the_nearest_is_taken():
    plane = np.array([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    assert points_along([[6.0, 0.0]], plane, plane, scale=[0.1, 0.1]).tolist() == [1]
