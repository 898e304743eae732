"""Nearest volumes, against all distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from emhet_dask.analysis.nearest import nearest_volume
from emhet_dask.errors import InputError


@given(
    n_particles=st.integers(1, 200),
    n_volumes=st.integers(1, 40),
    n_dims=st.integers(1, 10),
    seed=st.integers(0, 1000),
)
def test_equals_the_smallest_of_all_distances(n_particles, n_volumes, n_dims, seed):
    rng = np.random.default_rng(seed)
    particles = rng.normal(size=(n_particles, n_dims)).astype(np.float32)
    volumes = rng.normal(size=(n_volumes, n_dims))
    found = nearest_volume(particles, volumes)
    np.testing.assert_array_equal(found, cdist(particles, volumes).argmin(axis=1))
    assert found.dtype == np.int64


@given(seed=st.integers(0, 1000))
def test_a_particle_belongs_to_the_volume_it_was_decoded_from(seed):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(50, 3))
    chosen = rng.permutation(50)[:12]
    assert nearest_volume(latents, latents[chosen])[chosen].tolist() == list(range(12))


def test_of_volumes_at_one_point_the_first_has_its_particles():
    volumes = np.asarray([[2.0], [0.0], [2.0], [0.0]])
    assert nearest_volume([[1.9], [0.1]], volumes).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (np.zeros((3, 4)), r"\(5, 2\) and those of volumes \(3, 4\); expected rows of the same"),
        (np.zeros((0, 2)), "found none"),
        (np.zeros(2), r"volumes \(2,\)"),
    ],
)
def test_other_spaces_are_refused(volumes, message):
    with pytest.raises(InputError, match=message):
        nearest_volume(np.zeros((5, 2)), volumes)
