"""Maps from slices: what went in comes out, and priors shrink it."""

import numpy as np
import pytest

from emhet_dask.analysis.gridding import (
    density_at,
    hermitian_sums,
    shell_mean,
    soft_sphere,
    solve_map,
    transform_at,
)
from emhet_dask.analysis.projection import (
    image_transforms,
    plan_slices,
    pose_matrices,
    slice_operator,
)
from emhet_dask.analysis.rotations import even_rotations

BOX = 24


def phantom():
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    found = np.exp(-((x - 2) ** 2 + (y + 1) ** 2 + z**2) / 8.0)
    return (found + 0.5 * np.exp(-((x + 4) ** 2 + y**2 + (z - 3) ** 2) / 6.0)).astype(np.float32)


@pytest.fixture(scope="module")
def sums():
    """Sums over views computed in real space, not by the slices that are tested."""
    grid, turns = plan_slices(BOX), even_rotations(400)
    axis = np.arange(BOX) - BOX // 2
    images = np.zeros((len(turns), BOX, BOX))
    for centre, variance, height in (((2, -1, 0), 4.0, 1.0), ((-4, 0, 3), 3.0, 0.5)):
        at = turns @ np.array(centre, dtype=float)
        line = np.exp(-((axis - at[:, 1, None]) ** 2) / (2 * variance))
        column = np.exp(-((axis - at[:, 0, None]) ** 2) / (2 * variance))
        images += height * np.sqrt(2 * np.pi * variance) * line[:, :, None] * column[:, None]
    slices = image_transforms(images, grid)
    ones = np.ones(slices.shape, dtype=np.float32)
    data, weight = slice_operator(turns, grid).back_project(slices, ones)
    return grid, *hermitian_sums(data, weight, grid)


@pytest.mark.parametrize("iterations", [0, 10])
def test_projections_give_the_map_back(sums, iterations):
    grid, data, weight = sums
    found, expected = solve_map(data, weight, grid, iterations=iterations), phantom()
    assert np.abs(found - expected).max() < 0.03 * expected.max()
    assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("iterations", [0, 10])
def test_scale_of_the_weights_does_not_matter(sums, iterations):
    grid, data, weight = sums
    plain = solve_map(data, weight, grid, iterations=iterations)
    scaled = solve_map(data * 1e-6, weight * 1e-6, grid, iterations=iterations)
    np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_a_prior_as_heavy_as_the_data_halves_the_map(sums):
    grid, data, weight = sums
    even = np.full_like(weight, 10.0)
    plain = solve_map(data, even, grid)
    prior = np.full(grid.radius + 1, 10.0)
    np.testing.assert_allclose(
        solve_map(data, even, grid, prior_weight=prior), plain / 2, atol=1e-4 * plain.max()
    )


def test_the_plane_is_completed_by_conjugates():
    grid = plan_slices(8)
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(grid.n_voxels) * (1 + 1j)).astype(np.complex64)
    found, weight = hermitian_sums(data, np.abs(data), grid)
    plane, heavy = found.reshape(grid.shape)[..., 0], weight.reshape(grid.shape)[..., 0]
    np.testing.assert_allclose(plane, plane[::-1, ::-1].conj())
    np.testing.assert_allclose(heavy, heavy[::-1, ::-1])
    inner = (slice(None), slice(None), slice(1, None))
    np.testing.assert_array_equal(found.reshape(grid.shape)[inner], data.reshape(grid.shape)[inner])


def test_shell_means_are_of_shells():
    grid = plan_slices(12)
    np.testing.assert_allclose(
        shell_mean(grid.voxel_shell.astype(np.float32), grid), np.arange(7), atol=1e-6
    )


def test_beyond_the_sphere_is_the_mean_of_what_was_there():
    volume = np.random.default_rng(0).standard_normal((20, 20, 20)).astype(np.float32)
    found = soft_sphere(volume)
    assert np.ptp([found[0, 0, 0], found[-1, 0, 0], found[0, 19, 19]]) < 1e-6
    np.testing.assert_array_equal(found[5:15, 5:15, 5:15], volume[5:15, 5:15, 5:15])


def test_views_along_one_axis_leave_the_rest_at_zero():
    grid = plan_slices(BOX)
    turns = pose_matrices(np.zeros((3, 3)))
    slices = image_transforms(np.random.default_rng(0).standard_normal((3, BOX, BOX)), grid)
    data, weight = slice_operator(turns, grid).back_project(
        slices, np.ones(slices.shape, dtype=np.float32)
    )
    for iterations in (0, 5):
        assert np.isfinite(solve_map(data, weight, grid, iterations=iterations)).all()


@pytest.mark.parametrize(("side", "reach", "first"), [(12, 4, -3), (15, 7, -7), (16, 2, -8)])
def test_parts_of_a_density_and_its_transform_are_those_of_the_whole(side, reach, first):
    rng = np.random.default_rng(side)
    frequencies, rows = np.arange(-reach, reach + 1), np.arange(first, first + side // 2)
    every = np.ix_(frequencies % side, frequencies % side, np.arange(reach + 1))
    whole = np.zeros((side, side, side // 2 + 1), dtype=np.complex64)
    whole[every] = np.fft.rfftn(rng.normal(size=(side,) * 3))[every]
    found = density_at(whole[every], rows, side=side, frequencies=frequencies)
    inside = np.ix_(rows % side, rows % side, rows % side)
    density = np.fft.irfftn(whole, s=(side,) * 3, axes=(0, 1, 2))
    np.testing.assert_allclose(found, density[inside], atol=1e-5)
    alone = np.zeros_like(density)
    alone[inside] = density[inside]
    np.testing.assert_allclose(
        transform_at(found, rows, side=side, frequencies=frequencies),
        np.fft.rfftn(alone)[every],
        atol=1e-4,
    )
