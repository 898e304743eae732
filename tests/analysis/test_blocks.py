"""What blocks are made of: likeness, merging, size, thickness, contrast, joining, pieces."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emhet_dask.analysis.blocks import (
    alike,
    ball_voxels,
    density_contrast,
    expand_blocks,
    halves_of,
    inscribed_radius,
    largest_first,
    merge_communities,
    merge_inseparable,
    pieces_of,
)

# Eight volumes: five patterns of mean 0 and variance 1, each uncorrelated with the others.
H = np.array([[(-1) ** (bin(row & k).count("1")) for row in range(8)] for k in range(1, 6)]).T


def halves(*columns):
    """Occupancies around a half, from patterns."""
    return 0.5 + 0.1 * np.stack(columns, axis=1)


# Likeness -----------------------------------------------------------------------------------------


def test_likeness_is_free_of_the_noise_of_either():
    # A: pattern 1, noise of ±0.6 pattern 2 in its halves: they correlate by 0.64 / 1.36, which is
    # 0.64 for the whole. B: patterns 1 and 3, noise of ±0.6 pattern 4: 1.64 / 2.36, which is 0.82.
    # A and B correlate by 1 / √2.
    a, b = H[:, 0], H[:, 0] + H[:, 2]
    found = alike(
        halves(a + 0.6 * H[:, 1], a - 0.6 * H[:, 1], b + 0.6 * H[:, 3], b - 0.6 * H[:, 3])
    )
    expected = np.sqrt(0.5) / np.sqrt(0.64 * 0.82)
    np.testing.assert_allclose(found, [[1, expected], [expected, 1]])


def test_the_same_pattern_under_different_noise_is_alike():
    rng = np.random.default_rng(0)
    pattern = rng.random(4000) < 0.4
    noisy = pattern[:, None] + 0.5 * rng.standard_normal((4000, 4))
    assert np.corrcoef(noisy[:, :2].mean(1), noisy[:, 2:].mean(1))[0, 1] < 0.75
    assert alike(noisy)[0, 1] == pytest.approx(1, abs=0.04)


def test_opposites_are_unlike_and_nothing_exceeds_one():
    a = H[:, 0].astype(float)
    found = alike(halves(a, a, -a, -a, a + 0.8 * H[:, 1], a - 0.8 * H[:, 1]))
    assert found[0, 1] == pytest.approx(-1)
    assert found[0, 2] == pytest.approx(1)  # 1 / √0.36, if it were not limited
    assert found[1, 2] == pytest.approx(-1)
    assert np.abs(found).max() <= 1


def test_constants_noise_and_lost_halves_are_like_nothing():
    a, lost = H[:, 0], np.full(8, np.nan)
    found = alike(halves(a, a, np.zeros(8), np.zeros(8), H[:, 1] + a, H[:, 1] - a, a, lost, a, a))
    expected = np.eye(5)
    expected[0, 4] = expected[4, 0] = 1
    np.testing.assert_allclose(found, expected)
    assert alike(np.empty((8, 0))).shape == (0, 0)


@given(arrays(np.int64, st.integers(0, 60), elements=st.integers(-1, 5)), st.integers(0, 3))
def test_halves_are_those_of_each_community(labels, seed):
    found = halves_of(labels, seed=seed)
    np.testing.assert_array_equal(np.where(found >= 0, found // 2, -1), labels)
    np.testing.assert_array_equal(found, halves_of(labels, seed=seed))


def test_halves_are_about_equal():
    counts = np.bincount(halves_of(np.repeat([0, 1], 500)))
    assert counts.sum() == 1000
    assert (np.abs(counts - 250) < 50).all()


# Groups -------------------------------------------------------------------------------------------


def test_what_comes_and_goes_together_is_one():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1])
    likeness = np.array([[1, 0.2, 0.1], [0.2, 1, 0.96], [0.1, 0.96, 1]])
    found = merge_communities(labels, likeness)
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 0, 0, 0, 0, 0, -1])


def test_merging_is_by_the_mean_likeness():
    labels = np.repeat([0, 1, 2], [4, 3, 2])
    likeness = np.array([[1, 0.99, 0.92], [0.99, 1, 0.8], [0.92, 0.8, 1]])  # the mean is 0.86
    np.testing.assert_array_equal(merge_communities(labels, likeness), np.repeat([0, 1], [7, 2]))
    likeness[1, 2] = likeness[2, 1] = 0.9  # 0.91
    np.testing.assert_array_equal(merge_communities(labels, likeness), np.zeros(9))


@pytest.mark.parametrize("labels", [[0, -1, 0], [-1, -1]])
def test_one_community_or_none_stays(labels):
    n = max(labels) + 1
    np.testing.assert_array_equal(merge_communities(np.array(labels), np.eye(n)), labels)


def test_groups_that_are_hardly_ever_apart_are_one():
    first = np.arange(100) < 40
    late = np.arange(100) < 38  # missing in 2 of 40
    part = np.arange(100) < 30  # only with the first, but missing in 10 of 40
    always, never = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    present = np.stack([part, first, always, never, always, late], axis=1)
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, -1])
    found = merge_inseparable(labels, present, tolerance=0.05)
    # 1 and 5 are one; groups that are always there are not known to belong together.
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 1, -1])
    apart = merge_inseparable(labels, present, tolerance=0.049)
    np.testing.assert_array_equal(apart, labels)
    same = merge_inseparable(labels, present[:, [1, 1, 2, 3, 4, 5]], tolerance=0.0)
    np.testing.assert_array_equal(same, [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, -1])


def test_inseparable_is_by_the_mean():
    rows = np.arange(1000)
    # 0 lacks 1 in 2% of its volumes, and 2 in 12%; 1 lacks 2 in 10.2%: 11.1% in the mean.
    present = np.stack([rows < 500, rows < 490, (rows >= 50) & (rows < 490)], axis=1)
    labels = np.array([0, 0, 1, 1, 2])
    found = merge_inseparable(labels, present, tolerance=0.108)
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(merge_inseparable(labels, present, tolerance=0.114), np.zeros(5))


@given(
    arrays(np.int64, st.integers(0, 40), elements=st.integers(-1, 9)),
    st.integers(1, 6),
)
def test_groups_are_numbered_by_size_then_place(labels, least):
    listed = labels.tolist()
    groups = {value for value in listed if value >= 0 and listed.count(value) >= least}
    order = sorted(groups, key=lambda value: (-listed.count(value), listed.index(value)))
    expected = [order.index(value) if value in groups else -1 for value in listed]
    np.testing.assert_array_equal(largest_first(labels, least=least), expected)


# Size ---------------------------------------------------------------------------------------------


def test_voxels_of_a_ball():
    assert [ball_voxels(radius) for radius in (0, 1, 2, 3)] == [0, 5, 34, 114]


def block(*sides):
    return np.argwhere(np.ones(sides, dtype=bool)) + np.array([3, 0, 5])


@pytest.mark.parametrize(
    ("coordinates", "radius"),
    [
        (block(1, 1, 1), 1),
        (block(9, 1, 12), 1),
        (block(2, 9, 9), 1),
        (block(3, 9, 9), 2),
        (block(9, 9, 5), 3),
        (np.concatenate([block(9, 9, 1), block(3, 3, 3) + 20]), 2),
    ],
    ids=["voxel", "sheet of one", "sheet of two", "sheet of three", "sheet of five", "two parts"],
)
def test_radius_inside_sheets(coordinates, radius):
    assert inscribed_radius(coordinates) == radius


@pytest.mark.parametrize("radius", [1.5, 2.0, 3.3, 5.0])
def test_radius_inside_a_ball(radius):
    reach = int(radius) + 2
    lattice = np.array(list(product(range(-reach, reach + 1), repeat=3)))
    distance = np.linalg.norm(lattice, axis=1)
    ball = lattice[distance <= radius]
    assert inscribed_radius(ball + 40) == pytest.approx(distance[distance > radius].min())


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (4, 5, 3)).filter(np.any))
def test_radius_is_the_largest_distance_to_a_voxel_outside(inside):
    padded = np.pad(inside, 1)
    within, without = np.argwhere(padded), np.argwhere(~padded)
    expected = max(np.sqrt(((without - voxel) ** 2).sum(axis=1).min()) for voxel in within)
    assert inscribed_radius(np.argwhere(inside)) == pytest.approx(expected)


# Contrast -----------------------------------------------------------------------------------------


def test_contrast_is_the_difference_in_thresholds():
    density = np.array([[1.0, 5.0, 2.0], [3.0, 6.0, 2.0], [0.5, 7.0, 2.0], [0.1, 8.0, 2.0]])
    present = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    found = density_contrast(density, present, level=0.5)
    np.testing.assert_allclose(found, [(2.0 - 0.3) / 0.5, 0, 0])
    np.testing.assert_allclose(density_contrast(density, present, level=-0.5), found)
    np.testing.assert_allclose(density_contrast(100 * density, present, level=50), found)
    np.testing.assert_allclose(density_contrast(density, ~present, level=0.5), -found)
    np.testing.assert_array_equal(density_contrast(density, present, level=0.0), [np.inf, 0, 0])


def test_contrast_against_plain_means():
    rng = np.random.default_rng(0)
    density, present = rng.standard_normal((50, 6)), rng.random((50, 6)) < 0.3
    expected = [
        (density[on, k].mean() - density[~on, k].mean()) / 0.2 for k, on in enumerate(present.T)
    ]
    np.testing.assert_allclose(density_contrast(density, present, level=0.2), expected)


# Joining ------------------------------------------------------------------------------------------


def links(voxels, tested, linked, phi):
    dims = ("voxel", "block")
    return xr.Dataset(
        {"tested": (dims, tested), "linked": (dims, linked), "phi": (dims, phi)},
        coords={"voxel": voxels, "block": np.arange(len(tested[0]))},
    )


def test_a_voxel_joins_the_block_that_it_is_associated_with_most():
    labels = np.array([0, -1, 1, -1, -1, -1, -1])
    found = expand_blocks(
        labels,
        links(
            [1, 3, 4, 5, 6],
            [[100, 100], [100, 100], [100, 100], [100, 100], [0, 4]],
            [[90, 30], [90, 24], [24, 24], [25, 0], [0, 1]],
            [[0.4, 0.5], [0.4, 0.9], [0.9, 0.9], [0.1, 0.0], [np.nan, 0.3]],
        ),
        least_fraction=0.25,
    )
    # 3: block 1 has too few of its voxels; 4: both have; 5: just enough; 6: none of block 0 is far.
    np.testing.assert_array_equal(found, [0, 1, 1, 0, -1, 0, 1])
    np.testing.assert_array_equal(labels, [0, -1, 1, -1, -1, -1, -1])


def test_voxels_of_blocks_stay_and_none_may_join():
    labels = np.array([1, 0, -1])
    found = expand_blocks(labels, links([2], [[9, 9]], [[4, 4]], [[0.5, 0.5]]), least_fraction=0.5)
    np.testing.assert_array_equal(found, labels)


# Pieces -------------------------------------------------------------------------------------------


def test_pieces_touch_at_a_corner_or_not():
    labels = np.zeros((12, 12, 12), dtype=int)
    labels[0:3, 0:3, 0:3] = 1
    labels[3:5, 3:5, 3:5] = 1  # at a corner of it
    labels[8:11, 8:11, 8:10] = 1
    labels[11, 0, 11] = 1  # less than a twentieth
    labels[0, 11, 0:4] = 3
    found = pieces_of(labels)
    assert found["block"].tolist() == [1, 3]  # no voxel has 2
    assert found["voxels"].tolist() == [27 + 8 + 18 + 1, 4]
    assert found["pieces"].tolist() == [2, 1]
    assert found["piece_voxels"].tolist() == ["35;18", "4"]


def flood(inside):
    """Sizes of the pieces, by walking from voxel to voxel."""
    left, sizes = set(map(tuple, np.argwhere(inside))), []
    while left:
        edge, size = [left.pop()], 1
        while edge:
            here = edge.pop()
            for step in product((-1, 0, 1), repeat=3):
                there = tuple(np.add(here, step).tolist())
                if there in left:
                    left.remove(there)
                    edge.append(there)
                    size += 1
        sizes.append(size)
    return sorted(sizes, reverse=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.02, 0.2))
def test_pieces_against_a_walk(seed, share):
    labels = np.random.default_rng(seed).random((7, 6, 5)) < share
    found = pieces_of(2 * labels)
    sizes = flood(labels)
    assert len(found) == bool(sizes)
    for row in found.itertuples():
        counted = [size for size in sizes if size >= 0.05 * sum(sizes)]
        assert (row.block, row.voxels, row.pieces) == (2, sum(sizes), len(counted))
        assert row.piece_voxels == ";".join(map(str, counted))


def test_no_block_has_no_pieces():
    found = pieces_of(np.zeros((4, 4, 4), dtype=np.int16))
    assert found.columns.tolist() == ["block", "voxels", "pieces", "piece_voxels"]
    assert len(found) == 0
