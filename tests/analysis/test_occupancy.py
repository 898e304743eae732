"""Occupancy of parts: plain sums, any chunking, and where a part counts as present."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.occupancy import (
    Parts,
    part_occupancy,
    part_presence,
    part_sums,
    rescale_parts,
)
from emhet_dask.errors import InputError


def made(seed, n_volumes=7, n_parts=3, n_voxels=60):
    rng = np.random.default_rng(seed)
    volumes = rng.normal(size=(n_volumes, n_voxels)).astype(np.float32)
    masks = rng.random((n_parts, n_voxels)) * (rng.random((n_parts, n_voxels)) < 0.3)
    masks[:, :2] = 1
    references = rng.random((n_parts, n_voxels)) + 0.1
    return volumes, masks.astype(np.float32), references


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_occupancy_is_the_sum_of_mask_times_map_over_that_of_the_reference(seed):
    volumes, masks, references = made(seed)
    sums = np.array([[(mask.astype(float) * volume).sum() for mask in masks] for volume in volumes])
    plain = part_occupancy(volumes, masks)
    np.testing.assert_allclose(plain["occupancy"], sums, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        plain["density"], sums / masks.sum(axis=1, dtype=float), rtol=1e-9, atol=1e-9
    )
    relative = part_occupancy(volumes, masks, references)
    np.testing.assert_allclose(
        relative["occupancy"], sums / references.sum(axis=1), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_array_equal(relative["density"], plain["density"])
    assert relative["occupancy"].dims == ("volume", "part")


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 60),
)
@settings(deadline=None, max_examples=30)
def test_any_chunking_gives_the_same_bits(seed, rows, columns):
    volumes, masks, references = made(seed)
    lazy = part_occupancy(da.from_array(volumes, chunks=(rows, columns)), masks, references)
    assert isinstance(lazy["occupancy"].data, da.Array)
    whole = part_occupancy(volumes, masks, references)
    np.testing.assert_array_equal(lazy["occupancy"].values, whole["occupancy"].values)


def test_volumes_are_read_once():
    volumes, masks, _ = made(0)
    read = []

    def load(block, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"])
        return block

    source = da.from_array(volumes, chunks=(2, 60)).map_blocks(load, dtype=np.float32)
    found = part_occupancy(source, masks)
    assert not read
    found.compute(scheduler="single-threaded")
    assert sorted(read) == [(number, 0) for number in range(4)]


def test_parts_forget_what_is_in_no_mask():
    masks = np.zeros((2, 4, 4, 4), dtype=np.float32)
    masks[0, 1, 1, 1], masks[1, 1, 1, 1], masks[1, 2, 0, 0] = 1, 0.5, 0.25
    parts = Parts.of(masks)
    assert parts.voxels.tolist() == [21, 32]
    np.testing.assert_array_equal(parts.weights.toarray(), [[1, 0], [0.5, 0.25]])
    np.testing.assert_array_equal(parts.sums, [1, 0.75])
    volume = np.arange(64.0).reshape(4, 4, 4)
    np.testing.assert_array_equal(part_sums([volume], parts), [[21, 0.5 * 21 + 0.25 * 32]])
    assert part_sums([], parts).shape == (0, 2)


@pytest.mark.parametrize("present", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("relative", [True, False])
def test_presence_of_a_part_in_few_or_many_volumes(present, relative):
    rng = np.random.default_rng(5)
    truth = np.arange(300) < 300 * present
    values = np.where(truth, 0.8, 0.15) + rng.normal(0, 0.05, 300)
    scale = 1.0 if relative else 731.0
    found, cuts = part_presence(scale * values[:, None], relative=relative)
    np.testing.assert_array_equal(found[:, 0], truth)
    assert 0.2 * scale < cuts[0] < 0.75 * scale


def test_a_part_without_two_modes():
    values = 0.9 + np.random.default_rng(6).normal(0, 0.02, (200, 1))
    for level in (values, values - 0.5):  # one in two of the latter is below 0.4
        for relative in (True, False):
            found, cuts = part_presence(level, relative=relative)
            assert found.all()
            assert np.isnan(cuts).all()
    assert not part_presence(values - 0.8, relative=True)[0].any()
    assert part_presence(values - 0.8, relative=False)[0].all()
    found, cuts = part_presence(values, relative=True, cut=0.9)
    np.testing.assert_array_equal(found, values > 0.9)
    assert cuts.tolist() == [0.9]


def test_rescaling_is_that_of_the_notebook():
    rng = np.random.default_rng(7)
    values = (rng.normal(0, 0.1, (100, 2)) + (rng.random((100, 2)) < 0.5) + 3) * [1, 50]
    low, high = np.percentile(values, [10, 90], axis=0)
    np.testing.assert_allclose(
        rescale_parts(values), (np.clip(values, low, high) - low) / (high - low)
    )


def test_rescaling_keeps_rare_parts_and_does_not_make_others_come_and_go():
    rng = np.random.default_rng(8)
    rare = np.where(np.arange(100) < 4, 1.0, 0.0) + rng.normal(0, 0.02, 100)
    steady = 3 + rng.normal(0, 0.1, 100)
    columns = [rare, np.full(100, 3.0), steady, np.zeros(100)]
    found = rescale_parts(np.stack(columns, axis=1))
    assert found[:4, 0].min() > 0.9
    assert found[4:, 0].max() < 0.15
    assert (found[:, 1] == 1).all()
    assert found[:, 2].min() > 0.85
    assert (found[:, 3] == 0).all()


@pytest.mark.parametrize(
    ("masks", "references", "message"),
    [
        (np.ones((2, 5)), None, r"masks: found an array of shape \(2, 5\)"),
        (np.zeros((1, 60)), None, "mask 0: is empty"),
        (np.full((1, 60), np.nan), None, "mask 0: holds NaN"),
        (np.ones((0, 60)), None, "masks: found none"),
        (np.ones((1, 60)), np.ones((2, 60)), r"references: found an array of shape \(2, 60\)"),
        (np.ones((1, 60)), np.full((1, 60), -1.0), "reference 0: its density sums to -60"),
    ],
)
def test_what_cannot_be_used(masks, references, message):
    with pytest.raises(InputError, match=message):
        part_occupancy(made(0)[0], masks, references)
