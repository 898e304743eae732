"""The tree equals SciPy's, cuts are exact, and micro-clusters lose little."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.clustering import (
    build_tree,
    build_tree_from_distances,
    cophenetic_correlation,
    micro_cluster_agreement,
    renumber,
)
from emhet_dask.analysis.microclusters import micro_clusters, weighted_merges
from emhet_dask.errors import InputError

LINKAGES = ["ward", "average", "complete", "single"]


def cloud(n: int, *, seed: int = 0, dimension: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension))


def groups(n: int, *, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    return rng.normal(scale=10, size=(k, 5))[truth] + rng.standard_normal((n, 5)), truth


@pytest.mark.parametrize("engine", ["fastcluster", "scipy"])
@pytest.mark.parametrize("linkage", LINKAGES)
def test_tree_equals_scipys(linkage, engine, monkeypatch):
    if engine == "scipy":
        monkeypatch.setitem(sys.modules, "fastcluster", None)
    points = cloud(120)
    expected = hierarchy.linkage(points, linkage)
    tree = build_tree(points, linkage=linkage)
    np.testing.assert_allclose(tree.merges, expected, rtol=1e-10)
    from_distances = build_tree_from_distances(pdist(points), linkage=linkage)
    np.testing.assert_allclose(from_distances.merges, expected, rtol=1e-10)
    for k in (1, 2, 7, 60, 120):
        ours, theirs = tree.cut(k), hierarchy.fcluster(expected, k, "maxclust")
        assert adjusted_rand_score(ours, theirs) == 1.0
        assert len(np.unique(ours)) == k
    height = float(np.median(expected[:, 2]))
    theirs = hierarchy.fcluster(expected, height, "distance")
    assert adjusted_rand_score(tree.cut_at(height), theirs) == 1.0


def test_cut_height_lies_between_the_merges_on_either_side():
    tree = build_tree(cloud(30))
    for k in (2, 5, 29):
        height = tree.cut_height(k)
        assert np.array_equal(tree.cut_at(height), tree.cut(k))
    assert tree.cut_height(1) == tree.merges[-1, 2]
    assert tree.cut_height(30) == tree.merges[0, 2] / 2


def test_equal_points_can_still_be_cut_into_any_number():
    tree = build_tree(np.zeros((6, 2)))
    assert [len(np.unique(tree.cut(k))) for k in range(1, 7)] == [1, 2, 3, 4, 5, 6]


def test_clusters_are_numbered_by_size_then_by_first_member():
    assert renumber([7, 3, 3, 9, 7, 3, 9]).tolist() == [1, 0, 0, 2, 1, 0, 2]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.permutations(range(6)))
def test_renumbering_ignores_the_names_of_clusters(labels, names):
    labels = np.array(labels)
    renamed = renumber(np.array(names)[labels])
    assert np.array_equal(renumber(labels), renamed)
    assert np.all(np.diff(np.bincount(renamed)) <= 0)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_weighted_tree_of_single_points_is_scipys(linkage):
    points = cloud(80, seed=1)
    merges = weighted_merges(points, np.ones(80), linkage=linkage)
    np.testing.assert_allclose(merges, hierarchy.linkage(points, linkage), rtol=1e-10)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_weighted_tree_goes_on_from_points_that_coincide(linkage):
    # Coincident points merge first, at height 0; the rest of the full tree is the weighted one.
    centre, size = cloud(40, seed=2), np.random.default_rng(3).integers(1, 6, 40)
    full = hierarchy.linkage(np.repeat(centre, size, axis=0), linkage)
    weighted = weighted_merges(centre, size, linkage=linkage)
    np.testing.assert_allclose(weighted[:, 2:], full[-39:, 2:], rtol=1e-10)


def test_micro_clusters_keep_small_groups_far_from_the_rest():
    rng = np.random.default_rng(4)
    points = rng.standard_normal((3000, 5))
    points[:4] += 60.0
    leaf = micro_clusters(points, n_clusters=150, seed=0)
    assert set(leaf[:4]).isdisjoint(leaf[4:])
    assert leaf.max() + 1 <= 150
    assert np.bincount(leaf).min() > 0


@pytest.mark.parametrize("linkage", ["ward", "average"])
def test_past_the_exact_size_the_tree_is_of_micro_clusters_and_finds_the_groups(linkage):
    points, truth = groups(3000, k=12)
    tree = build_tree(points, linkage=linkage, max_exact=1000, n_micro=200)
    assert not tree.exact
    assert tree.n_leaves <= 200
    assert tree.merges[-1, 3] == 3000
    assert adjusted_rand_score(tree.cut(12), truth) > 0.99
    agreement = micro_cluster_agreement(
        points, n_clusters=12, linkage=linkage, max_exact=1000, n_micro=200
    )
    assert agreement > 0.99


def test_agreement_with_the_exact_tree_drops_where_there_are_no_groups():
    agreement = micro_cluster_agreement(cloud(1500), n_clusters=40, max_exact=1500, n_micro=100)
    assert 0.05 < agreement < 0.9


@pytest.mark.parametrize("linkage", LINKAGES)
def test_cophenetic_correlation_equals_scipys(linkage):
    points = cloud(60, seed=5)
    tree = build_tree(points, linkage=linkage)
    expected = hierarchy.cophenet(hierarchy.linkage(points, linkage), pdist(points))[0]
    assert cophenetic_correlation(tree, points) == pytest.approx(expected)
    assert cophenetic_correlation(tree, pdist(points)) == pytest.approx(expected)


def test_cophenetic_correlation_of_a_sample_is_near_that_of_all():
    points, _ = groups(600, k=5)
    tree = build_tree(points)
    whole = cophenetic_correlation(tree, points)
    assert cophenetic_correlation(tree, points, max_points=200) == pytest.approx(whole, abs=0.02)
    sampled = cophenetic_correlation(tree, pdist(points), max_points=200)
    assert sampled == pytest.approx(cophenetic_correlation(tree, points, max_points=200))


def test_undefined_cophenetic_correlation_is_nan():
    assert np.isnan(cophenetic_correlation(build_tree(cloud(2)), cloud(2)))
    assert np.isnan(cophenetic_correlation(build_tree(np.zeros((4, 2))), np.zeros((4, 2))))


def test_one_volume_makes_a_tree_of_one_leaf():
    assert build_tree(np.ones((1, 3))).cut(1).tolist() == [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_tree([[0.0], [np.nan]]), "1 of 2 volumes .* the first is volume 1"),
        (lambda: build_tree([1.0, 2.0]), "shape"),
        (lambda: build_tree(cloud(4), linkage="centroid"), "linkage: found 'centroid'"),
        (lambda: build_tree(cloud(4)).cut(5), "n_clusters: found 5, need 1 to 4"),
        (lambda: build_tree(cloud(4)).cut(0), "n_clusters: found 0"),
        (lambda: build_tree_from_distances(np.ones(4)), "all n"),
        (lambda: build_tree_from_distances([-1.0]), "negative"),
    ],
)
def test_impossible_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
