"""Near pairs against all distances by SciPy, and tests without them against testing each pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import hypergeom

from emhet_dask.analysis.binarised import pack
from emhet_dask.analysis.cooccupancy import associations
from emhet_dask.analysis.near_pairs import near_pairs
from emhet_dask.errors import InputError


def simulated(n_volumes, n_voxels, *, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((n_volumes, 3)) < rng.uniform(0.2, 0.9, 3)
    present[:, 0] = ~present[:, 1]
    occupied = present[:, rng.integers(0, 3, n_voxels)]
    return occupied ^ (rng.random(occupied.shape) < 0.15)


def in_a_box(n_voxels, box, *, seed=0, offset=0):
    chosen = np.random.default_rng(seed).permutation(box**3)[:n_voxels]
    return np.column_stack(np.unravel_index(chosen, (box,) * 3)) + offset


@given(
    distance=st.one_of(
        st.floats(0.1, 12), st.integers(1, 100).map(lambda square: float(np.sqrt(square)))
    ),
    offset=st.sampled_from([0, 700, 10**6]),
    seed=st.integers(0, 99),
    rows=st.integers(0, 150),
)
@settings(max_examples=40, deadline=None)
def test_near_is_at_most_so_far_apart(distance, offset, seed, rows):
    places = in_a_box(150, 7, seed=seed)
    places[100:] += offset  # some far away, where squares exceed float32
    near = near_pairs(places, distance, 150)
    values = np.zeros((rows, 150), dtype=np.float32)
    near.exclude(values, slice(0, rows), np.arange(150))
    every = cdist(places, places) <= distance
    np.testing.assert_array_equal(np.isnan(values), every[:rows])
    assert near.count == (every.sum() - 150) // 2


@given(
    distance=st.sampled_from([1.0, 2.0**0.5, 2.5, 4.0]),
    side=st.integers(7, 60),
    seed=st.integers(0, 9),
)
@settings(max_examples=15, deadline=None)
def test_edges_are_those_of_testing_each_far_pair(distance, side, seed):
    n = 80
    occupied, places = simulated(n, 50, seed=seed), in_a_box(50, 5, seed=seed)
    found = associations(
        pack(occupied),
        coordinates=places,
        least_distance=distance,
        n_neighbours=49,
        side=side,
    )
    far = cdist(places, places) > distance
    assert found.n_pairs == far.sum() // 2
    both = occupied.T.astype(int) @ occupied.astype(int)
    a = occupied.sum(axis=0)
    positive = far & (hypergeom.sf(both - 1, n, a[:, None], a) <= 0.01 / found.n_pairs)
    negative = far & (hypergeom.cdf(both, n, a[:, None], a) <= 0.05 / found.n_pairs)
    np.testing.assert_array_equal(found.degree, [positive.sum(axis=1), negative.sum(axis=1)])
    for tail, edges in enumerate((positive, negative)):
        for voxel in range(50):
            kept = found.neighbour[tail, voxel].values
            assert sorted(kept[kept >= 0]) == np.flatnonzero(edges[voxel]).tolist()


def test_no_distance_leaves_out_nothing():
    occupied, places = simulated(80, 50), in_a_box(50, 5)
    with_places = associations(pack(occupied), coordinates=places, least_distance=0.0)
    assert with_places.identical(associations(pack(occupied)))


def test_distances_that_make_no_sense():
    occupied, places = pack(simulated(80, 50)), in_a_box(50, 5)
    with pytest.raises(InputError, match="needs coordinates"):
        associations(occupied, least_distance=2.0)
    with pytest.raises(InputError, match="least_distance is -1"):
        associations(occupied, coordinates=places, least_distance=-1.0)
    with pytest.raises(InputError, match=r"whole numbers \(50, 3\)"):
        associations(occupied, coordinates=places[1:], least_distance=1.0)
    with pytest.raises(InputError, match="whole numbers"):
        associations(occupied, coordinates=places.astype(float), least_distance=1.0)
    with pytest.raises(InputError, match="a shorter distance is needed"):
        associations(occupied, coordinates=places, least_distance=50.0)
