"""Verdicts on classifications: against closed forms, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.convergence import (
    collapsed_classes,
    fourier_coverage,
    settling,
    symmetry_operations,
    view_directions,
)


def random_directions(count, seed=0):
    views = np.random.default_rng(seed).normal(size=(count, 3))
    return views / np.linalg.norm(views, axis=1, keepdims=True)


def test_changes_of_the_last_three_iterations_decide():
    found = settling([1.0, 0.5, 0.1, 0.02, 0.012, 0.009, 0.006])
    assert (found.state, found.recent) == ("settled", pytest.approx(0.009))
    assert found.earlier == pytest.approx((0.5 + 0.1 + 0.02) / 3)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ([], "unknown"),
        ([1.0, 0.0], "unknown"),
        ([np.nan, np.nan, 1.0, 0.5], "unknown"),
        ([0.0, 0.0, 0.0], "settled"),
        ([0.01, 0.01, 0.01], "settled"),  # the limit counts as settled
        ([0.02, 0.02, 0.02], "moving"),  # nothing before to be level with
        ([0.1] * 6, "level"),
        ([0.1, 0.1, 0.1, 0.095, 0.092, 0.095], "level"),
        ([0.1, 0.1, 0.1, 0.089, 0.089, 0.089], "moving"),
        ([0.1, 0.1, 0.1, 0.3, 0.3, 0.3], "moving"),  # rising
        ([1.0, 0.2, np.nan, 0.004, 0.002, np.nan, 0.0], "settled"),
    ],
)
def test_states(changes, state):
    assert settling(changes).state == state


def test_limit_is_an_option():
    assert settling([0.04, 0.03, 0.02]).state == "moving"
    assert settling([0.04, 0.03, 0.02], limit=0.031).state == "settled"


@pytest.mark.parametrize(
    ("shares", "share", "expected"),
    [
        ([0.024, 0.226, 0.25, 0.5], None, [True, False, False, False]),  # below 0.1 / 4
        ([0.026, 0.224, 0.25, 0.5], None, [False] * 4),
        ([0.026, 0.224, 0.25, 0.5], 0.23, [True, True, False, False]),
        ([0.0, 1.0], None, [True, False]),
        ([0.5, 0.5], 0.0, [False, False]),
        ([1.0], None, [False]),
    ],
)
def test_collapsed(shares, share, expected):
    assert collapsed_classes(shares, share=share).tolist() == expected


@given(rot=st.floats(-180, 180), tilt=st.floats(0, 180), psi=st.floats(-180, 180))
@settings(max_examples=50, deadline=None)
def test_views_are_the_third_row_of_relions_matrix(rot, tilt, psi):
    matrix = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).as_matrix().T
    np.testing.assert_allclose(view_directions(rot, tilt), matrix[2], atol=1e-12)


def test_even_views_lose_nothing():
    found = fourier_coverage(random_directions(20_000), shell=16)
    assert found.sampling_factor == pytest.approx(1, abs=0.005)
    assert found.unsampled == 0
    assert not found.poor


def test_side_views_lose_a_fifth():
    # Sampling of side views goes with 1 / sin θ, so the factor is 1 / (<sin θ> <1 / sin θ>) =
    # (4 / π)(2 / π) = 8 / π² = 0.81 (Baldwin & Lyumkis 2020).
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, 30_000)
    side = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    found = fourier_coverage(side, shell=60)
    assert found.sampling_factor == pytest.approx(8 / np.pi**2, abs=0.01)
    assert found.unsampled == 0
    assert not found.poor


@pytest.mark.parametrize("shell", [8.0, 20.0, 60.0])
def test_a_single_view_samples_one_plane(shell):
    found = fourier_coverage(np.tile([0.0, 0.0, 1.0], (500, 1)), shell=shell)
    # A band of half width 1 / (2 shell) about the equator, by Archimedes' theorem.
    assert found.unsampled == pytest.approx(1 - 1 / (2 * shell), abs=0.002)
    assert found.sampling_factor < 0.15  # what is not sampled counts as half a particle
    assert found.poor


def test_views_within_a_cone_leave_a_cone_empty():
    # Views within 30° of z sample all that is within 30° of the equator; cos 60° = 1/2 is empty.
    rng = np.random.default_rng(2)
    height = rng.uniform(np.cos(np.deg2rad(30)), 1, 20_000)
    angle = rng.uniform(0, 2 * np.pi, len(height))
    radius = np.sqrt(1 - height**2)
    views = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    assert fourier_coverage(views, shell=200).unsampled == pytest.approx(0.5, abs=0.01)


def test_symmetry_adds_views():
    one_side = np.tile([1.0, 0.0, 0.0], (500, 1))
    alone = fourier_coverage(one_side, shell=4)
    with_axis = fourier_coverage(one_side, shell=4, operations=symmetry_operations("C13"))
    assert alone.poor
    assert with_axis.unsampled == 0  # a plane every 13.8°, each 14.4° thick
    copies = np.concatenate([one_side @ operation.T for operation in symmetry_operations("C13")])
    explicit = fourier_coverage(copies, shell=4)
    assert with_axis.sampling_factor == pytest.approx(explicit.sampling_factor, abs=0.03)


@pytest.mark.parametrize(("group", "count"), [("C1", 1), ("c4", 4), ("D2", 4), ("D7", 14)])
def test_point_groups(group, count):
    operations = symmetry_operations(group)
    assert operations.shape == (count, 3, 3)
    np.testing.assert_allclose(np.linalg.det(operations), 1)
    products = np.einsum("aij,bjk->abik", operations, operations).reshape(-1, 3, 3)
    distance = np.abs(products[:, None] - operations[None]).max(axis=(2, 3)).min(axis=1)
    assert distance.max() < 1e-12  # closed under multiplication


@pytest.mark.parametrize("group", ["T", "O", "I1", "C0", "nonsense"])
def test_other_groups_are_not_judged(group):
    assert symmetry_operations(group) is None


def test_more_particles_than_are_counted_give_the_same():
    views = random_directions(120_000, seed=3)
    many = fourier_coverage(views, shell=12)
    assert many.sampling_factor == pytest.approx(1, abs=0.002)


def test_no_particles():
    found = fourier_coverage(np.empty((0, 3)), shell=8)
    assert np.isnan(found.sampling_factor)
    assert not found.poor


@given(st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_factor_is_between_0_and_1_and_the_order_of_particles_is_nothing(count, seed):
    views = random_directions(count, seed)
    found = fourier_coverage(views, shell=10)
    assert 0 < found.sampling_factor <= 1
    assert 0 <= found.unsampled < 1
    assert fourier_coverage(views[::-1], shell=10) == found
    assert fourier_coverage(-views, shell=10) == found
