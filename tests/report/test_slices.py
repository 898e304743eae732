from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.report.slices import crop_around, grey_limits, mask_slices


@given(
    shape=st.tuples(*[st.integers(4, 20)] * 3),
    corner=st.tuples(*[st.floats(0, 0.8)] * 3),
    extent=st.tuples(*[st.floats(0.1, 1)] * 3),
)
def test_crop_holds_the_whole_mask(shape, corner, extent) -> None:
    mask = np.zeros(shape)
    first = [int(c * n) for c, n in zip(corner, shape, strict=True)]
    last = [min(n, f + max(1, int(e * n))) for f, e, n in zip(first, extent, shape, strict=True)]
    mask[tuple(slice(f, e) for f, e in zip(first, last, strict=True))] = 1
    crop = crop_around(mask)
    for axis in range(3):
        assert crop.start[axis] <= first[axis]
        assert last[axis] <= crop.start[axis] + crop.side
        assert first[axis] <= crop.centre[axis] < last[axis]


def test_slices_are_those_of_the_map() -> None:
    volume = np.arange(8 * 9 * 10, dtype=float).reshape(8, 9, 10)
    mask = np.zeros(volume.shape)
    mask[3:5, 2:8, 4:9] = 1
    crop = crop_around(mask, margin=0)
    assert crop.side == 6
    z, y, x = crop.start
    n = crop.side
    across_z, across_y, across_x = crop.slices(volume)
    np.testing.assert_array_equal(across_z, volume[crop.centre[0], y : y + n, x : x + n])
    np.testing.assert_array_equal(across_y, volume[z : z + n, crop.centre[1], x : x + n])
    np.testing.assert_array_equal(across_x, volume[z : z + n, y : y + n, crop.centre[2]])


def test_outside_of_a_flat_box_is_nan() -> None:
    slices = crop_around(np.ones((4, 10, 10))).slices(np.ones((4, 10, 10)))
    assert np.isfinite(slices[0]).all()
    assert np.isnan(slices[1][:3]).all()
    assert np.isnan(slices[1][-3:]).all()
    assert np.isfinite(slices[1][3:7]).all()


def test_centre_is_the_centre_of_mass() -> None:
    mask = np.zeros((20, 20, 20))
    mask[10:12, 10:12, 2:4] = 1
    mask[11, 11, 18] = 0.5
    expected = np.average(np.indices(mask.shape).reshape(3, -1), axis=1, weights=mask.ravel())
    np.testing.assert_array_equal(crop_around(mask).centre, np.round(expected))


def test_empty_mask_shows_the_whole_box() -> None:
    crop = crop_around(np.zeros((6, 6, 6)))
    assert (crop.start, crop.side) == ((0, 0, 0), 6)


def test_one_bright_voxel_does_not_set_the_grey_values() -> None:
    values = np.linspace(0, 1, 10_000)
    values[0] = 1e6
    low, high = grey_limits(values)
    assert high < 1.01
    assert low < 0.02


def test_grey_values_of_a_constant_map_have_a_range() -> None:
    low, high = grey_limits(np.full(10, 3.0))
    assert low < high


def test_mask_is_drawn_across_three_axes_in_angstrom(small) -> None:
    figure = mask_slices(small.mask, mean_map=small.means[0], voxel_size_angstrom=2.5)
    assert len(figure.axes) == 9
    labels = {(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes}
    assert labels == {("x (Å)", "y (Å)"), ("x (Å)", "z (Å)"), ("y (Å)", "z (Å)")}
    assert figure.axes[0].get_xlim() == (0.0, 16 * 2.5)
    inside = int(small.mask.sum())
    assert f"{inside:,} voxels" in figure.get_suptitle()
    assert f"{inside / 16**3:.1%}" in figure.get_suptitle()


def test_outline_of_the_mask_lies_around_it() -> None:
    mask = np.zeros((20, 20, 20))
    mask[8:12, 6:16, 4:10] = 1
    figure = mask_slices(mask, mean_map=mask, voxel_size_angstrom=2.0)
    across_z = figure.axes[1]
    outline = np.concatenate(
        [path.vertices for drawn in across_z.collections for path in drawn.get_paths()]
    )
    # x from 4 to 10 voxels and y from 6 to 16, of 2 Å.
    np.testing.assert_allclose(outline.min(axis=0), [8, 12], atol=0.5)
    np.testing.assert_allclose(outline.max(axis=0), [20, 32], atol=0.5)


@pytest.mark.parametrize("mask", [np.zeros((8, 8, 8)), np.ones((8, 8, 8))])
def test_mask_of_nothing_or_all_has_no_outline(mask) -> None:
    figure = mask_slices(mask, mean_map=np.ones((8, 8, 8)), voxel_size_angstrom=1.0)
    assert not any(axes.collections for axes in figure.axes)
