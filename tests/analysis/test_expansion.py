"""Edges from voxels to blocks, against testing each pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import hypergeom

from emhet_dask.analysis import expansion
from emhet_dask.analysis.binarised import pack
from emhet_dask.analysis.cooccupancy import edge_kernel
from emhet_dask.analysis.expansion import linked_fractions
from emhet_dask.errors import InputError


def simulated(n_volumes, n_voxels, *, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((n_volumes, 3)) < rng.uniform(0.2, 0.9, 3)
    occupied = present[:, rng.integers(0, 3, n_voxels)]
    return occupied ^ (rng.random(occupied.shape) < 0.15)


@given(
    side=st.integers(1, 50),
    members=st.integers(1, 40),
    distance=st.sampled_from([0.0, 1.5, 3.0]),
    seed=st.integers(0, 20),
)
@settings(max_examples=25, deadline=None)
def test_edges_to_far_voxels_of_blocks(side, members, distance, seed):
    rng, n = np.random.default_rng(seed), 80
    occupied = simulated(n, 70, seed=seed)
    places = np.argwhere(np.ones((5, 5, 5)))[rng.permutation(125)[:70]]
    packed = pack(occupied)
    kernel = edge_kernel(packed, [(0.01, 0.05)], coordinates=places, least_distance=distance)
    block_voxels = rng.permutation(70)[:40]
    block_of = rng.choice([2, 3, 7], 40)
    voxels = rng.permutation(70)[:45]  # some of them in blocks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expansion, "_MEMBERS", members)
        found = linked_fractions(
            packed, kernel.settings[0], voxels, block_voxels, block_of, near=kernel.near, side=side
        )
    np.testing.assert_array_equal(found.voxel, voxels)
    a = occupied.sum(axis=0)
    both = occupied.T.astype(int) @ occupied.astype(int)
    linked = hypergeom.sf(both - 1, n, a[:, None], a) <= kernel.alpha[0, 0]
    phi = np.corrcoef(occupied.T)
    far = (cdist(places, places) > distance) & ~np.eye(70, dtype=bool)
    for block in np.unique(block_of):
        here = found.sel(block=block)
        own = block_voxels[block_of == block]
        for at, voxel in enumerate(voxels):
            asked = own[far[voxel, own]]
            assert int(here.tested[at]) == len(asked)
            assert int(here.linked[at]) == linked[voxel, asked].sum()
            mean = phi[voxel, asked].mean() if len(asked) else np.nan
            np.testing.assert_allclose(here.phi[at], mean, atol=1e-6)


def test_any_band_gives_the_same_bits():
    packed = pack(simulated(80, 70))
    tests = edge_kernel(packed, [(0.01, 0.05)]).settings[0]
    arguments = (packed, tests, np.arange(40), np.arange(40, 70), np.arange(30) % 4)
    whole = linked_fractions(*arguments)
    assert whole.linked.any()
    assert linked_fractions(*arguments, side=7).identical(whole)


def test_no_voxels_and_no_blocks():
    packed = pack(simulated(80, 70))
    tests = edge_kernel(packed, [(0.01, 0.05)]).settings[0]
    none = linked_fractions(packed, tests, [], [1, 2], [1, 1])
    assert dict(none.sizes) == {"voxel": 0, "block": 1}
    with pytest.raises(InputError, match="one number for each voxel"):
        linked_fractions(packed, tests, [0], [1, 2], [1])
    with pytest.raises(InputError, match="one number for each voxel"):
        linked_fractions(packed, tests, [0], [], [])
