"""Slices of a continuum touch, states do not."""

from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.analysis.clustering import build_tree
from emhet_dask.analysis.separation import (
    SLICES,
    critical_separation,
    gaps_between,
    merge_touching,
)


def only(gaps):
    (gap,) = gaps.values()
    return gap


def halves(values: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    order = np.sort(values)
    return order[:, None], (order > at).astype(np.intp)


def test_halves_of_an_even_spread_are_apart_by_root_twelve():
    gap = only(gaps_between(*halves(np.random.default_rng(0).random(20_000), 0.5)))
    assert gap.separation == pytest.approx(SLICES, rel=0.01)
    assert gap.strength < 1


def test_halves_of_a_gaussian_are_apart_by_what_the_half_normal_says():
    gap = only(gaps_between(*halves(np.random.default_rng(1).standard_normal(20_000), 0.0)))
    mean, variance = np.sqrt(2 / np.pi), 1 - 2 / np.pi
    assert gap.separation == pytest.approx(2 * mean / np.sqrt(variance), rel=0.02)


def test_two_gaussians_are_apart_by_their_distance():
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 4000)
    points = rng.standard_normal((8000, 3))
    points[:, 1] += 7.0 * labels
    assert only(gaps_between(points, labels)).separation == pytest.approx(7.0, rel=0.02)


def test_a_line_through_the_noise_of_few_members_does_not_make_them_look_apart():
    # The centres of 5 + 5 members in 15 dimensions are sqrt(2 * 15 / 5) = 2.4 sd apart by chance.
    found = []
    for seed in range(100):
        points = np.random.default_rng(seed).standard_normal((10, 15))
        found.append(only(gaps_between(points, np.repeat([0, 1], 5))).separation)
    assert np.mean(found) < 0.7


def test_a_single_volume_is_measured_without_the_noise_of_the_other_dimensions():
    found = []
    for seed in range(60):
        points = np.random.default_rng(seed).standard_normal((201, 20))
        points[0, 0] += 8.0
        gap = only(gaps_between(points, np.array([1, *[0] * 200])))
        found.append(gap.separation)
    # The root of a mean of squares; noise alone would add 19 to the 64.
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(np.sqrt(65.0), rel=0.05)


def test_fewer_members_need_a_wider_gap():
    needed = [critical_separation(dof) for dof in (4, 10, 100, 1e6)]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] == pytest.approx(4.0, rel=1e-4)
    assert needed[-1] > SLICES


def cut(points: np.ndarray, k: int) -> np.ndarray:
    return build_tree(points).cut(k)


def test_slices_of_a_curve_merge_into_one_however_it_is_bent():
    rng = np.random.default_rng(3)
    t = rng.random(600)
    straight = np.stack([t, np.zeros(600)], axis=1)
    angle = 1.7 * np.pi * t
    horseshoe = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for curve in (straight, horseshoe):
        noisy = curve + 0.01 * rng.standard_normal(curve.shape)
        assert merge_touching(noisy, cut(noisy, 12))[0].max() == 0


def test_states_that_were_split_are_joined_again_and_stay_apart_from_others():
    rng = np.random.default_rng(4)
    truth = np.repeat([0, 1, 2], 100)
    points = rng.standard_normal((300, 4))
    points[:, 0] += 12.0 * (truth == 1)
    points[:, 1] += 12.0 * (truth == 2)
    merged, gaps = merge_touching(points, cut(points, 7))
    assert merged.max() == 2
    assert all(len(np.unique(truth[merged == group])) == 1 for group in range(3))
    assert all(gap.strength > 1 for gap in gaps.values())


def test_basins_of_one_motion_stay_apart_though_each_is_sliced():
    rng = np.random.default_rng(5)
    t = (rng.integers(3, size=300) + 0.5 + 0.08 * rng.standard_normal(300)) / 3
    points = np.stack([10 * np.cos(np.pi * t), 4 * np.sin(2 * np.pi * t)], axis=1)
    points = np.concatenate([points, np.zeros((300, 2))], axis=1)
    points += 0.02 * rng.standard_normal(points.shape)
    assert merge_touching(points, cut(points, 20))[0].max() == 2


def test_order_of_points_does_not_matter():
    rng = np.random.default_rng(6)
    points = rng.standard_normal((120, 3)) + 9.0 * rng.integers(2, size=(120, 3))
    labels = cut(points, 15)
    order = rng.permutation(120)
    straight, shuffled = (
        merge_touching(points, labels)[0],
        merge_touching(points[order], labels[order])[0],
    )
    same = straight[order][:, None] == straight[order][None, :]
    assert np.array_equal(same, shuffled[:, None] == shuffled[None, :])


def test_one_group_has_no_gaps():
    points = np.zeros((3, 2))
    assert gaps_between(points, np.zeros(3, dtype=np.intp)) == {}
    labels, gaps = merge_touching(points, np.zeros(3, dtype=np.intp))
    assert labels.tolist() == [0, 0, 0]
    assert gaps == {}
