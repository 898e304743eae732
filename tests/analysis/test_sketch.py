"""Sketches of a latent space: particles that stand for all, none of them twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from emhet_dask.analysis import sketch
from emhet_dask.analysis.sketch import sketch_at, sketch_kmeans
from emhet_dask.errors import InputError


def groups(n_groups=7, of=40, dimension=3, seed=0):
    """Particles in groups that are far apart, shuffled; and the group of each."""
    rng = np.random.default_rng(seed)
    centres = 50 * rng.permutation(n_groups)[:, None] + rng.standard_normal((n_groups, dimension))
    belongs = rng.permutation(np.repeat(np.arange(n_groups), of))
    return (centres[belongs] + rng.standard_normal((len(belongs), dimension))).astype(
        np.float32
    ), belongs


def test_each_group_gets_the_particle_next_to_its_middle():
    latents, belongs = groups()
    found = sketch_kmeans(latents, n=7)
    assert np.array_equal(found["weight"], [40] * 7)
    for volume, row in enumerate(found["decoded_particle"].values):
        members = np.flatnonzero(belongs == belongs[row])
        assert np.array_equal(np.flatnonzero(found["particle_volume"] == volume), members)
        middle = latents[members].astype(float).mean(axis=0)
        assert row == members[cdist([middle], latents[members]).argmin()]
    assert np.array_equal(found["latent"], latents[found["decoded_particle"].values])
    # Neighbours are alike: the groups lie on a line.
    along = found["latent"].values[:, 0]
    assert np.all(np.diff(along) > 0) or np.all(np.diff(along) < 0)


def test_clusters_are_as_tight_as_those_of_scikit_learn():
    latents = np.random.default_rng(1).standard_normal((1500, 4)).astype(np.float32)
    found = sketch_kmeans(latents, n=30)
    theirs = KMeans(30, n_init=1, random_state=5).fit(latents).inertia_
    volume = found["particle_volume"].values
    centres = np.stack([latents[volume == each].mean(axis=0) for each in range(30)])
    assert np.square(latents - centres[volume]).sum() < 1.03 * theirs


@given(
    n=st.integers(1, 12),
    distinct=st.integers(12, 20),
    copies=st.integers(1, 3),
    seed=st.integers(0, 99),
    seen=st.sampled_from([5, 15, 1000]),
)
def test_volumes_are_different_particles_of_their_own_clusters(n, distinct, copies, seed, seen):
    latents = np.repeat(np.random.default_rng(seed).integers(0, 99, (distinct, 2)), copies, axis=0)
    latents = latents.astype(np.float32)
    n = min(n, len(np.unique(latents, axis=0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "_MOST_SEEN", seen)
        found = sketch_kmeans(latents, n=n, seed=seed)
    rows = found["decoded_particle"].values
    assert len(np.unique(latents[rows], axis=0)) == n
    assert np.array_equal(found["particle_volume"].values[rows], np.arange(n))
    assert found["weight"].sum() == len(latents)
    assert found["weight"].min() >= 1


def test_as_many_volumes_as_different_latents_are_all_of_them():
    latents = np.repeat(np.random.default_rng(0).standard_normal((9, 2)), 3, axis=0)
    found = sketch_kmeans(latents, n=9)
    assert np.array_equal(found["weight"], [3] * 9)
    assert np.array_equal(latents, found["latent"].values[found["particle_volume"].values])
    with pytest.raises(InputError, match="-n: got 10, but only 9 of 27 latents are different"):
        sketch_kmeans(latents, n=10)


def test_an_empty_cluster_gets_the_particle_that_fits_worst():
    points = np.array([[0.0], [1.0], [9.0], [50.0]])
    centres = np.array([[0.0], [50.0], [1000.0]])
    labels = sketch._without_empty(points, centres, np.array([0, 0, 0, 1]))
    assert list(labels) == [0, 0, 2, 1]


def test_places_that_are_given_keep_their_order_and_may_stand_for_nobody():
    latents = np.array([[0.0, 0], [1, 0], [1, 1], [5, 5]])
    found = sketch_at(latents, at=[[5.0, 4], [99, 99], [0, 0]])
    assert list(found["particle_volume"].values) == [2, 2, 2, 0]
    assert list(found["weight"].values) == [1, 0, 3]
    assert "decoded_particle" not in found


def test_the_seed_decides():
    latents = np.random.default_rng(0).standard_normal((300, 3))
    one, same, other = (sketch_kmeans(latents, n=20, seed=seed) for seed in (1, 1, 2))
    assert one.identical(same)
    assert not one.identical(other)
