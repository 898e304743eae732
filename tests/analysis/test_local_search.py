"""Poses that are searched near given ones: those that images were made with come back."""

import dask
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.local_search import (
    Poses,
    SearchRange,
    angles_between,
    angles_of,
    ball_grid,
    search_poses,
)
from emhet_dask.analysis.projection import plan_slices, pose_matrices
from tests.analysis.test_classification import prepared
from tests.fake_particles import fake_particles, fake_sources, perturbed


def compute(*collections):
    return dask.compute(*collections, scheduler="sync")


def test_angles_are_those_of_matrices():
    rng = np.random.default_rng(0)
    angles = rng.uniform([-180, 0, -180], [180, 180, 180], (50, 3))
    angles = np.concatenate([angles, [[30, 0, 20], [30, 180, 20], [0, 90, 0]]])
    found = angles_of(pose_matrices(angles))
    np.testing.assert_allclose(found[:50], angles[:50], atol=1e-6)
    np.testing.assert_allclose(pose_matrices(found), pose_matrices(angles), atol=1e-7)


def test_angle_between_turns():
    angles = np.array([[10.0, 60.0, -20.0]])
    other = angles + np.array([0, 5, 0])
    assert angles_between(angles, other)[0] == pytest.approx(5.0)
    expected = Rotation.from_matrix(
        pose_matrices(angles)[0] @ pose_matrices(angles + 7)[0].T
    ).magnitude()
    assert angles_between(angles, angles + 7)[0] == pytest.approx(np.rad2deg(expected))


@pytest.mark.parametrize(("dimensions", "steps", "count"), [(3, 2, 33), (3, 1, 27), (2, 2, 13)])
def test_a_grid_is_a_ball(dimensions, steps, count):
    points = ball_grid(dimensions, step=0.5, steps=steps)
    assert points.shape == (count, dimensions)
    np.testing.assert_array_equal(points[0], 0)
    np.testing.assert_allclose(points.sum(axis=0), 0, atol=1e-12)


@pytest.mark.parametrize("blocks", [1, 4])
def test_poses_come_back(blocks):
    particles = fake_particles(200, snr=4.0, shares=(1.0,), seed=3)
    _, mean, noise, _ = prepared(particles)
    moved = perturbed(particles, degrees=4.0, pixels=1.0, seed=1)
    sources = fake_sources(moved, blocks=blocks, mean=mean, noise=noise[0])
    grid = plan_slices(32, radius=9)
    present = Poses(moved.angles, moved.shifts)
    found = search_poses(
        sources,
        (mean(grid)[:, None], np.ones((200, 1), np.float32)),
        mean(grid),
        given=present,
        present=present,
        reach=SearchRange(8.0, 3.0),
        grid=grid,
        compute=compute,
    )
    assert np.median(angles_between(moved.angles, particles.angles)) > 2.5
    assert np.median(angles_between(found.angles, particles.angles)) < 1.5
    assert np.median(np.abs(found.shifts - particles.shifts)) < 0.15
