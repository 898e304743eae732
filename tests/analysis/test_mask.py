"""The automatic mask: the union where there is no noise, the molecule where there is."""

from __future__ import annotations

import math

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emhet_dask.analysis.fourier import low_pass
from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.analysis.mask import (
    auto_mask,
    background_rate,
    binarise_mask,
    count_beyond,
    grow_mask,
    least_volumes,
    select_voxels,
)
from emhet_dask.analysis.simulation import assembly_model, simulate
from emhet_dask.errors import InputError

VOXEL = 3.0


def lazily(volumes: np.ndarray, per_block: int = 50) -> da.Array:
    return da.from_array(volumes, chunks=(per_block, -1, -1, -1))


def noise(n_volumes: int, box: int, *, seed: int = 0) -> np.ndarray:
    """White noise of standard deviation 1, low-passed like a map."""
    white = np.random.default_rng(seed).normal(size=(n_volumes, box, box, box))
    smooth = low_pass(white, resolution_angstrom=12.0, voxel_size_angstrom=VOXEL)
    return smooth / smooth.std()


def ball(box: int, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    at = np.indices((box, box, box)) - np.array(centre)[:, None, None, None]
    return (np.sqrt((at**2).sum(axis=0)) <= radius).astype(np.float32)


# One volume, one block -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (20, 20, 20), (30, 31, 32)])
def test_threshold_is_half_of_numpys_percentile(shape):
    volume = np.random.default_rng(0).gamma(0.3, size=shape).astype(np.float32)
    expected = np.percentile(volume.astype(np.float64), 99.99) / 2
    assert volume_threshold(volume) == pytest.approx(expected, rel=1e-12)


def test_threshold_of_a_volume_that_is_mostly_one_value():
    volume = np.zeros((30, 30, 30), dtype=np.float32)
    assert volume_threshold(volume) == 0.0
    volume[0, 0, :5] = [1, 2, 3, 4, 5]
    assert volume_threshold(volume) == pytest.approx(np.percentile(volume, 99.99) / 2)


def test_counts_are_those_of_numpy():
    block = np.random.default_rng(1).normal(size=(9, 4, 5, 6))
    counts = count_beyond(block, upper=0.3, lower=-0.7)
    np.testing.assert_array_equal(counts[0], (block > 0.3).sum(axis=0))
    np.testing.assert_array_equal(counts[1], (block < -0.7).sum(axis=0))


# How many volumes are enough -------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.2])
def test_background_rate_is_found_though_half_of_the_box_is_zero_and_a_molecule_is_there(rate):
    rng = np.random.default_rng(2)
    above = rng.binomial(1000, rate, size=(30, 30, 30))
    below = rng.binomial(1000, rate, size=(30, 30, 30))
    above[:15] = below[:15] = 0
    above[20:25], below[20:25] = 700, 0  # the molecule
    above[25:27], below[25:27] = 0, 900  # a hollow beside it
    assert background_rate(above, below, n_volumes=1000) == pytest.approx(rate, rel=0.1)


def test_background_rate_without_noise_is_zero():
    above = np.zeros((5, 5, 5), dtype=np.int32)
    above[2:] = 3
    assert background_rate(above, np.zeros_like(above), n_volumes=10) == 0.0


@pytest.mark.parametrize(("n_volumes", "least"), [(6, 1), (500, 1), (1000, 2), (100_000, 200)])
def test_without_noise_one_volume_in_five_hundred_is_enough(n_volumes, least):
    assert least_volumes(0.0, n_volumes=n_volumes, n_voxels=64**3) == least


@pytest.mark.parametrize("rate", [1e-4, 0.003, 0.05, 0.5])
@pytest.mark.parametrize("n_volumes", [6, 1000])
def test_noise_hardly_ever_reaches_the_least_number(rate, n_volumes):
    least = least_volumes(rate, n_volumes=n_volumes, n_voxels=64**3)
    expected_voxels = 64**3 * stats.binom.sf(least - 1, n_volumes, rate)
    assert expected_voxels <= 2.0
    one_less = 64**3 * stats.binom.sf(least - 2, n_volumes, rate)
    assert one_less > 2.0 or least <= math.ceil(0.002 * n_volumes)


def test_specks_are_dropped():
    above = np.zeros((20, 20, 20), dtype=np.int32)
    above[2:4, 2:4, 2:4] = 5  # 8 voxels
    above[10, 10, 10:17] = 5  # 7 voxels
    chosen = select_voxels(above, least=5)
    assert chosen[2:4, 2:4, 2:4].all()
    assert chosen.sum() == 8
    assert not select_voxels(above, least=6).any()


# Growing and cutting ---------------------------------------------------------------------------


@given(dilate=st.floats(0, 9), edge=st.sampled_from([0.0, 4.0]), seed=st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_growing_follows_the_distance_to_the_core(dilate, edge, seed):
    core = np.random.default_rng(seed).random((7, 8, 9)) < 0.01
    core[3, 4, 5] = True
    inside = np.argwhere(core)
    everywhere = np.argwhere(np.ones_like(core))
    separation = np.linalg.norm(everywhere[:, None] - inside[None], axis=2).min(axis=1) * VOXEL
    outside = separation.reshape(core.shape) - dilate
    grown = grow_mask(
        core, voxel_size_angstrom=VOXEL, dilate_angstrom=dilate, cosine_edge_angstrom=edge
    )
    if edge == 0:
        expected = (outside <= 1e-5).astype(float)
    else:
        expected = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside / edge, 0, 1))
    np.testing.assert_allclose(grown, expected, atol=1e-4)


def test_cutting_a_mask():
    soft = np.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_array_equal(binarise_mask(soft), [False, False, True, True])
    # 0 is a threshold like any other; what is 0 stays outside.
    np.testing.assert_array_equal(binarise_mask(soft, threshold=0), [False, True, True, True])
    with pytest.raises(InputError, match=r"range from 0 to 1; a threshold of 0\.5 would cut"):
        binarise_mask(soft, threshold=2)
    with pytest.raises(InputError, match="no positive value"):
        binarise_mask(-soft)
    with pytest.raises(InputError, match="NaN or infinity"):
        binarise_mask(np.array([np.nan, 1.0]))


# The whole -------------------------------------------------------------------------------------


def test_without_noise_it_is_the_union_of_the_volumes():
    places = [(10, 10, 10), (20, 20, 20), (10, 22, 10), (22, 8, 20)]
    balls = np.stack([ball(32, place, 4) for place in places])
    volumes = np.concatenate([balls, balls[:1], balls[:1]])
    found = auto_mask(lazily(volumes, 2), voxel_size_angstrom=VOXEL, dilate_angstrom=0)
    np.testing.assert_array_equal(found["mask"], balls.any(axis=0))
    np.testing.assert_array_equal(found["occupancy"], (volumes > 0.5).sum(axis=0))
    assert found.attrs["threshold"] == 0.5
    assert found.attrs["least_volumes"] == 1


@pytest.mark.parametrize("state_fraction", [0.005, 0.01])
def test_a_rare_state_is_kept(state_fraction):
    """A part that 0.5 % of 1,000 volumes have, at SNR 8."""
    common, rare = ball(24, (9, 12, 12), 5), ball(24, (18, 12, 12), 3)
    volumes = np.repeat(common[None], 1000, axis=0)
    volumes[: int(1000 * state_fraction)] += rare
    volumes += noise(1000, 24) * np.sqrt(common.var() / 8)
    found = auto_mask(lazily(volumes, 250), voxel_size_angstrom=VOXEL, dilate_angstrom=0)
    core = found["mask"].values > 0
    assert core[rare > 0].mean() > 0.95
    assert core[common + rare == 0].mean() < 0.01


@pytest.mark.parametrize(
    ("n_volumes", "box"), [(250, 40), pytest.param(400, 64, marks=pytest.mark.slow)]
)
def test_noisy_maps_give_the_molecule_and_not_the_box(n_volumes, box):
    """Where a plain union of maps at SNR 0.3 fills the box."""
    model = assembly_model(box=box, voxel_size_angstrom=VOXEL * 64 / box, n_subunits=10, seed=1)
    volumes = simulate(model, n_volumes, snr=0.3, seed=1)["volumes"].values
    apix = VOXEL * 64 / box
    found = auto_mask(lazily(volumes), voxel_size_angstrom=apix, dilate_angstrom=0)
    core, truth = found["mask"].values > 0, model.labels > 0
    union = (volumes > found.attrs["threshold"]).any(axis=0)
    assert union.mean() > 2.5 * truth.mean()
    assert (core & truth).sum() / (core | truth).sum() >= 0.6
    grown = grow_mask(core, voxel_size_angstrom=apix, dilate_angstrom=2 * apix) > 0
    assert grown[truth].mean() >= 0.95
    assert grown.mean() < 3 * truth.mean()


def test_noise_alone_is_an_empty_mask_that_says_so():
    with pytest.raises(InputError, match=r"the mask is empty: .* densities range from -\d.* to \d"):
        auto_mask(lazily(noise(200, 20)), voxel_size_angstrom=VOXEL)


def test_noise_within_a_sphere_of_zeros_does_not_enter():
    inside = ball(32, (16, 16, 16), 13)
    part = ball(32, (18, 16, 16), 5)
    volumes = (noise(300, 32) + 3.0 * part) * inside
    found = auto_mask(lazily(volumes), voxel_size_angstrom=VOXEL, dilate_angstrom=0)
    core = found["mask"].values > 0
    assert core[part > 0].mean() > 0.99
    assert core[part == 0].mean() < 0.001


def test_background_need_not_be_at_zero():
    part = ball(24, (12, 12, 12), 6)
    volumes = noise(200, 24) + 3.0 * part
    here = auto_mask(lazily(volumes), voxel_size_angstrom=VOXEL, threshold=2.0)
    raised = auto_mask(lazily(volumes + 10.0), voxel_size_angstrom=VOXEL, threshold=12.0)
    np.testing.assert_array_equal(here["mask"], raised["mask"])


def test_a_threshold_of_zero_is_a_threshold():
    part = ball(24, (12, 12, 12), 6)
    volumes = noise(200, 24) + 3.0 * part
    found = auto_mask(
        lazily(volumes), voxel_size_angstrom=VOXEL, threshold=0.0, dilate_angstrom=0.0
    )
    assert found.attrs["threshold"] == 0.0
    assert found.attrs["background_rate"] == pytest.approx(
        0.5, abs=0.1
    )  # the part moves the median
    np.testing.assert_array_equal(found["mask"].values[part > 0], 1)
    assert found["mask"].values[part == 0].mean() < 0.01


def test_too_high_a_threshold_names_the_usual_one():
    volumes = np.repeat(ball(16, (8, 8, 8), 4)[None], 3, axis=0)
    with pytest.raises(InputError, match=r"threshold 7 .* from 0 to 1 and the usual .* 0\.5;"):
        auto_mask(lazily(volumes), voxel_size_angstrom=VOXEL, threshold=7.0)


@given(per_block=st.integers(1, 40))
@settings(max_examples=6, deadline=None)
def test_any_chunking_gives_the_same_mask(per_block):
    volumes = noise(40, 16) + 4.0 * ball(16, (8, 8, 8), 4)
    whole = auto_mask(lazily(volumes, 40), voxel_size_angstrom=VOXEL)
    found = auto_mask(
        da.from_array(volumes, chunks=(per_block, 8, 16, 5)), voxel_size_angstrom=VOXEL
    )
    assert whole.identical(found)


def test_known_thresholds_save_a_reading():
    volumes = np.repeat(ball(16, (8, 8, 8), 4)[None], 40, axis=0)
    seen = []

    def counting(*tasks):
        results = dask.compute(*tasks)
        seen.append(np.asarray(results[0]).size)
        return results

    found = auto_mask(
        lazily(volumes, 5),
        voxel_size_angstrom=VOXEL,
        thresholds=np.full(40, 0.25),
        compute=counting,
    )
    assert found.attrs["threshold"] == 0.25
    assert seen == [16, 2 * 16**3]  # levels of a sample, then the counts


def test_default_dilation_is_two_voxels_and_the_edge_is_soft():
    volumes = np.repeat(ball(24, (12, 12, 12), 4)[None], 3, axis=0)
    found = auto_mask(lazily(volumes), voxel_size_angstrom=VOXEL, cosine_edge_angstrom=6.0)
    line = found["mask"].values[12, 12, 12:]
    np.testing.assert_allclose(line[:9], [1, 1, 1, 1, 1, 1, 1, 0.5, 0], atol=1e-5)
    assert found.attrs["dilate_angstrom"] == 6.0
    assert found.attrs["n_voxels"] == np.count_nonzero(found["mask"])
