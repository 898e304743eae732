"""Communities: planted ones, none, and the graph against a plain one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.communities import _finest_stable, association_graph, communities

SIZES = (60, 40, 25)


def planted(*, wrong=0.1, seed=0, n_best=8):
    """Edges mostly within groups of voxels, stronger there than between them."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    neighbour = np.empty((len(truth), n_best), dtype=np.int32)
    phi = np.empty(neighbour.shape, dtype=np.float32)
    for voxel, group in enumerate(truth):
        mates = np.setdiff1d(np.flatnonzero(truth == group), [voxel])
        strangers = np.flatnonzero(truth != group)
        n_wrong = rng.binomial(n_best, wrong)
        neighbour[voxel] = np.concatenate(
            [rng.choice(mates, n_best - n_wrong, False), rng.choice(strangers, n_wrong, False)]
        )
        phi[voxel] = np.where(truth[neighbour[voxel]] == group, 0.9, 0.3)
    return truth, neighbour, phi


@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found_the_largest_first(seed):
    truth, neighbour, phi = planted(seed=seed)
    found = communities(neighbour, phi, seed=seed)
    np.testing.assert_array_equal(found.labels, truth)


@pytest.mark.parametrize("wrong", [0.4, 0.75])
def test_the_finest_stable_resolution_is_chosen(wrong):
    _, neighbour, phi = planted(wrong=wrong, seed=5)
    found = communities(neighbour, phi)
    table = found.stability
    assert table["resolution"].is_monotonic_increasing
    assert table["stability"].between(-1, 1).all()
    enough = min(0.9, table["stability"].max() - 0.02)
    assert found.resolution == table["resolution"][table["stability"] >= enough].max()
    chosen = table.set_index("resolution")["communities"][found.resolution]
    assert chosen == np.count_nonzero(np.bincount(found.labels) >= 6)


@pytest.mark.parametrize(
    ("stability", "chosen"),
    [
        ([1.0, 0.95, 0.9, 0.89, 0.2], 2),
        ([1.0, 0.3, 0.92, 0.4], 2),
        ([0.7, 0.86, 0.845, 0.83], 2),  # none is stable: nearly the best
        ([0.1], 0),
    ],
)
def test_the_finest_of_the_stable_or_of_the_nearly_best(stability, chosen):
    assert _finest_stable(stability) == chosen


def test_same_seed_same_answer():
    _, neighbour, phi = planted(wrong=0.4, seed=1)
    first, second = (communities(neighbour, phi, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.stability.equals(second.stability)


def test_voxels_without_an_edge_are_in_no_community():
    truth, neighbour, phi = planted()
    alone = np.full((20, neighbour.shape[1]), -1, dtype=np.int32)
    found = communities(
        np.concatenate([neighbour, alone]),
        np.concatenate([phi, np.full(alone.shape, np.nan, dtype=np.float32)]),
    )
    assert (found.labels[len(truth) :] == -1).all()
    assert adjusted_rand_score(truth, found.labels[: len(truth)]) == 1


def test_no_edge_at_all():
    found = communities(np.full((9, 4), -1, np.int32), np.full((9, 4), np.nan, np.float32))
    np.testing.assert_array_equal(found.labels, -1)
    assert found.stability.columns.tolist() == ["resolution", "communities", "stability"]
    assert len(found.stability) == 0


def test_edges_that_touch_nothing_else():
    neighbour = np.full((12, 2), -1, dtype=np.int32)
    neighbour[:8, 0] = [1, 0, 3, 2, 5, 4, 7, -1]  # the last one only from one side
    phi = np.where(neighbour >= 0, np.float32(0.5), np.float32(np.nan))
    labels = communities(neighbour, phi).labels
    pairs = labels[:8].reshape(4, 2)
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    assert sorted(pairs[:, 0]) == [0, 1, 2, 3]
    assert (labels[8:] == -1).all()


@st.composite
def strongest_edges(draw):
    n, n_best = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.permutations(range(n)), min_size=n, max_size=n))
    neighbour = np.full((n, n_best), -1, dtype=np.int32)
    for voxel, row in enumerate(rows):
        others = [other for other in row if other != voxel][: draw(st.integers(0, n_best))]
        neighbour[voxel, : len(others)] = others
    phi = draw(arrays(np.float32, neighbour.shape, elements=st.floats(0.125, 1, width=16)))
    return neighbour, np.where(neighbour >= 0, phi, np.float32(np.nan))


@given(strongest_edges())
def test_an_edge_is_there_when_either_voxel_has_it(case):
    neighbour, phi = case
    expected = np.zeros((len(neighbour),) * 2)
    for voxel, row in enumerate(neighbour):
        for rank, other in enumerate(row):
            if other >= 0:
                weight = max(expected[voxel, other], float(phi[voxel, rank]))
                expected[voxel, other] = expected[other, voxel] = weight
    np.testing.assert_array_equal(association_graph(neighbour, phi).toarray(), expected)
