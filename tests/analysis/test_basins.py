"""Basins of grids worked by hand, against a flood from below, and of wells with known barriers."""

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.basins import find_basins, neighbours_of, watershed
from emhet_dask.analysis.binned import Grid
from emhet_dask.analysis.free_energy import FreeEnergy, free_energy


def of_values(values, *, error=0.0, weight=None):
    """Return a landscape of given values, whose replicates are off by given standard errors."""
    values = np.asarray(values, dtype=float)
    defined = np.isfinite(values)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((200, int(defined.sum())))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0, ddof=1)
    errors = np.broadcast_to(np.asarray(error, dtype=float), values.shape)[defined]
    place = np.where(defined.ravel(), np.cumsum(defined.ravel()) - 1, -1)
    return FreeEnergy(
        grid=Grid(tuple(np.arange(n + 1.0) for n in values.shape)),
        weight=np.where(defined, 1.0, 0.0) if weight is None else np.asarray(weight, float),
        density=np.exp(-np.nan_to_num(values, nan=np.inf)),
        effective=np.where(defined, 9.0, 0.0),
        free_energy=values,
        error=np.where(defined, 0.0, np.nan),
        replicates=(values[defined] + errors * noise).astype(np.float32),
        bandwidth=np.ones(values.ndim),
        method="kernel",
        n_points=int(defined.sum()),
        n_outside=0,
        _place=place,
    )


N = np.nan
TWO = [[0.0, 1.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0, 2.0]]


def test_two_wells_by_hand():
    basins = find_basins(of_values(TWO))
    np.testing.assert_array_equal(basins.labels, [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]])
    assert basins.table["bin"].tolist() == [0, 4]
    assert basins.table["points"].tolist() == [6, 4]
    assert np.isnan(basins.table["depth"][0])
    assert basins.table["depth"][1] == 2.0  # 3 - 1
    (saddle,) = basins.saddles.to_dict("records")
    assert (saddle["basin_a"], saddle["basin_b"], saddle["bin"]) == (0, 1, 2)
    assert (saddle["free_energy"], saddle["barrier_from_a"], saddle["barrier_from_b"]) == (3, 3, 2)
    assert (saddle["x1"], saddle["x2"]) == (0.5, 2.5)


@pytest.mark.parametrize(
    ("options", "error", "n"),
    [
        ({"min_depth": 2.0}, 0.0, 2),
        ({"min_depth": 2.01}, 0.0, 1),
        # The depth is a difference of two, each off by its own error: sqrt(2) times.
        ({"n_sigma": 3.0}, 0.4, 2),
        ({"n_sigma": 3.0}, 0.55, 1),
        ({"n_sigma": 1.0}, 0.55, 2),
    ],
)
def test_shallow_or_doubtful_wells_are_none(options, error, n):
    basins = find_basins(of_values(TWO, error=error), **options)
    assert len(basins) == n
    assert (basins.labels >= 0).all()


def test_a_shallow_well_belongs_to_the_one_beyond_its_pass():
    # 0 | 3 | 1 | 1.2 (pass) | 1.1 (shallow): joins 1, not the deepest.
    basins = find_basins(of_values([[0.0, 3.0, 1.0, 1.2, 1.1]]))
    assert basins.labels.tolist() == [[0, 0, 1, 1, 1]] or basins.labels[0, 4] == basins.labels[0, 2]
    assert basins.labels[0, 4] != basins.labels[0, 0]
    assert len(basins) == 2


def test_the_most_populated_is_the_first():
    weight = np.ones((2, 5))
    weight[:, 3:] = 10
    basins = find_basins(of_values(TWO, weight=weight))
    assert basins.table["free_energy"].tolist() == [1.0, 0.0]
    assert basins.table["share"].sum() == 1.0


def test_parts_that_nothing_joins():
    values = [[0.0, 1.0, N, 0.5, 4.0, N, 3.9, 4.0]]
    basins = find_basins(of_values(values))
    assert basins.labels.tolist() == [[0, 0, -1, 1, 1, -1, -1, -1]]
    assert basins.table["depth"][1] == 3.5
    assert len(basins.saddles) == 0


def test_corners_are_neighbours():
    steps = [(a, b) for a, b in neighbours_of((3, 4))]
    pairs = set()
    flat = np.arange(12).reshape(3, 4)
    for here, there in steps:
        pairs |= {frozenset(p) for p in zip(flat[here].ravel(), flat[there].ravel(), strict=True)}
    expected = {
        frozenset((a * 4 + b, c * 4 + d))
        for a, b, c, d in itertools.product(range(3), range(4), range(3), range(4))
        if max(abs(a - c), abs(b - d)) == 1
    }
    assert pairs == expected


def flood(values):
    """Return the minimum that each bin belongs to, flooding from below, bin by bin."""
    values = np.asarray(values)
    order = [tuple(i) for i in np.argwhere(np.isfinite(values))]
    queue = [(values[i], np.ravel_multi_index(i, values.shape), i) for i in order]
    heapq.heapify(queue)
    rank, owner = {}, {}
    while queue:
        _, flat, here = heapq.heappop(queue)
        rank[here] = len(rank)
        around = itertools.product(*(range(max(k - 1, 0), k + 2) for k in here))
        lower = [each for each in around if each in owner]
        owner[here] = owner[min(lower, key=rank.get)] if lower else flat
    found = np.full(values.shape, -1)
    for here, flat in owner.items():
        found[here] = flat
    return found


def passes_by_flood(values):
    """Return minimum: depth of every local minimum but the deepest, by components per level."""
    flat = np.asarray(values).ravel()
    shape = np.shape(values)
    parent, depth = {}, {}
    lower = {}

    def root(k):
        while parent[k] != k:
            k = parent[k]
        return k

    known = [k for k in np.argsort(flat, kind="stable") if np.isfinite(flat[k])]
    place = {k: n for n, k in enumerate(known)}
    for k in known:
        parent[k], lower[k] = k, k
        here = np.unravel_index(k, shape)
        for each in itertools.product(*(range(max(i - 1, 0), min(i + 2, n)) for i, n in
                                        zip(here, shape, strict=True))):  # fmt: skip
            other = int(np.ravel_multi_index(each, shape))
            if other == k or other not in parent:
                continue
            a, b = root(k), root(other)
            if a == b:
                continue
            deep, shallow = sorted((a, b), key=lambda r: place[lower[r]])
            if lower[shallow] != k:
                depth[lower[shallow]] = flat[k] - flat[lower[shallow]]
            parent[shallow] = deep
    return depth


@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(1, 9), (6, 7), (12, 5), (4, 4, 5)]),
    levels=st.sampled_from([3, 1000]),
    holes=st.floats(0, 0.4),
)
@settings(max_examples=80, deadline=None)
def test_drainage_and_depths_are_those_of_a_flood(seed, shape, levels, holes):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, shape) / levels * 10
    values[rng.random(shape) < holes] = N
    values.ravel()[0] = 0.0
    np.testing.assert_array_equal(watershed(values), flood(values))
    basins = find_basins(of_values(values), min_depth=1e-9)
    expected = {k: v for k, v in passes_by_flood(values).items() if v > 0}
    found = dict(zip(basins.table["bin"], basins.table["depth"], strict=True))
    for minimum, depth in expected.items():
        assert found[minimum] == pytest.approx(depth)


def wells(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.array([[-2.2, 0.0], [2.2, 0.0], [0.0, 3.4]])
    return rng.normal(centres[rng.choice(3, n, p=[0.5, 0.3, 0.2])], 0.8)


def exact_wells():
    """Return the free energy of `wells`, on a grid."""
    x, y = np.meshgrid(np.linspace(-4, 4, 161), np.linspace(-3, 6, 181), indexing="ij")
    density = sum(
        share * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 0.8**2)
        for a, b, share in ((-2.2, 0.0, 0.5), (2.2, 0.0, 0.3), (0.0, 3.4, 0.2))
    )
    return -np.log(density / density.max())


@pytest.mark.parametrize("method", ["kernel", "histogram"])
def test_wells_of_particles(method):
    points = wells(20_000, 0)
    energy = free_energy(points, method=method)
    basins = find_basins(energy)
    assert len(basins) == 3
    np.testing.assert_allclose(basins.table["share"], [0.5, 0.3, 0.2], atol=0.02)
    saddle, exact = (
        each.saddles.query("basin_a == 0 and basin_b == 1").iloc[0]
        for each in (basins, find_basins(of_values(exact_wells(), weight=np.exp(-exact_wells()))))
    )
    # Bins and kernels widen the wells; bins of a histogram are five times as wide.
    assert (
        0
        < exact["free_energy"] - saddle["free_energy"]
        < (0.35 if method == "kernel" else 0.8) + 2 * saddle["error"]
    )
    labels = basins.of_points(energy, points)
    nearest = np.argmin([((points - c) ** 2).sum(1) for c in ([-2.2, 0], [2.2, 0], [0, 3.4])], 0)
    assert (labels == nearest)[labels >= 0].mean() > 0.97
    assert (labels >= 0).mean() > 0.98
    assert basins.of_points(energy, [[99.0, 99.0]]).tolist() == [-1]


@pytest.mark.parametrize("method", ["kernel", "histogram"])
def test_noise_makes_no_basins(method):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = rng.random((3000, 2)) if seed % 2 else rng.standard_normal((3000, 2))
        assert len(find_basins(free_energy(points, method=method), min_depth=0.0)) == 1
