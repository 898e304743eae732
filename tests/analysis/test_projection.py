"""Slices against projections computed in real space, and against their adjoint."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.projection import (
    image_transforms,
    images_of,
    interpolation_dimming,
    particles_per_operator,
    plan_slices,
    pose_matrices,
    slice_operator,
    volume_transform,
)
from emhet_dask.analysis.rotations import matrix_of_angles
from emhet_dask.errors import InputError

BOX = 32


def blobs(points, *, box=BOX, width=2.0):
    """Gaussians at points (x, y, z), in voxels from the middle."""
    axis = np.arange(box) - box // 2
    found = np.zeros((box,) * 3)
    for x, y, z in points:
        square = [np.exp(-((axis - at) ** 2) / (2 * width**2)) for at in (z, y, x)]
        found += square[0][:, None, None] * square[1][:, None] * square[2]
    return found.astype(np.float32)


def shadows(points, turns, *, box=BOX, width=2.0):
    """Their projections along z, after turning: what a microscope sees, computed in real space."""
    axis = np.arange(box) - box // 2
    images = np.zeros((len(turns), box, box))
    for number, turn in enumerate(turns):
        for x, y, _ in points @ turn.T:
            line = [np.exp(-((axis - at) ** 2) / (2 * width**2)) for at in (y, x)]
            images[number] += line[0][:, None] * line[1] * width * np.sqrt(2 * np.pi)
    return images


@pytest.fixture(scope="module")
def angles():
    rng = np.random.default_rng(1)
    return rng.uniform([-180, 0, -180], [180, 180, 180], (12, 3))


POINTS = np.array([[4.0, 1.0, -2.0], [-3.0, 5.0, 1.0], [0.0, -4.0, 3.5]])


def test_angles_are_relions(angles):
    expected = [matrix_of_angles(*each) for each in angles]
    np.testing.assert_allclose(pose_matrices(angles), expected, atol=1e-12)


def test_slices_are_projections(angles):
    grid, turns = plan_slices(BOX), pose_matrices(angles)
    operator = slice_operator(turns, grid)
    found = operator.project(volume_transform(blobs(POINTS), grid)[:, None])[..., 0]
    expected = shadows(POINTS, turns)
    # What is left is of the interpolation, of a map that reaches far towards the edges.
    assert np.abs(images_of(found, grid) - expected).max() < 0.02 * expected.max()


def test_a_slice_along_the_grid_is_exact():
    grid = plan_slices(BOX)
    volume = np.random.default_rng(0).standard_normal((BOX,) * 3).astype(np.float32)
    operator = slice_operator(pose_matrices([[0.0, 0.0, 0.0]]), grid)
    found = operator.project(volume_transform(volume, grid)[:, None])[..., 0]
    flat = (volume / interpolation_dimming(BOX, padding=2)).sum(axis=0)
    np.testing.assert_allclose(found, image_transforms(flat[None], grid), atol=2e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), radius=st.integers(2, 8), padding=st.sampled_from([1, 2]))
def test_back_projection_is_the_adjoint(seed, radius, padding):
    rng = np.random.default_rng(seed)
    grid = plan_slices(16, radius=radius, padding=padding)
    operator = slice_operator(pose_matrices(rng.uniform(-180, 180, (5, 3))), grid)
    shape = (grid.n_voxels, 2)
    volumes = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    slices = rng.standard_normal((5, grid.n_pixels, 2)) + 1j
    data, weight = operator.back_project(
        slices.astype(np.complex64), np.ones(slices.shape, dtype=np.float32)
    )
    # Real and imaginary parts are what is linear: conjugates are looked up.
    one = np.vdot(operator.project(volumes), slices).real
    two = np.vdot(volumes, data).real
    assert one == pytest.approx(two, rel=1e-4, abs=1e-2)
    # Trilinear weights of a pixel sum to 1.
    assert weight.sum() == pytest.approx(2 * 5 * grid.n_pixels, rel=1e-4)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=4))
def test_any_chunking_gives_the_same_slices_and_sums(cuts):
    rng = np.random.default_rng(3)
    grid = plan_slices(16)
    turns = pose_matrices(rng.uniform(-180, 180, (12, 3)))
    volume = volume_transform(rng.standard_normal((16,) * 3), grid)[:, None]
    slices = slice_operator(turns, grid).project(volume)[..., 0]
    ones = np.ones(slices.shape, dtype=np.float32)
    whole = slice_operator(turns, grid).back_project(slices, ones)
    edges = [0, *sorted(set(cuts)), 12]
    parts = [slice(*pair) for pair in pairwise(edges)]
    again = [slice_operator(turns[part], grid).project(volume)[..., 0] for part in parts]
    np.testing.assert_array_equal(np.concatenate(again), slices)
    sums = [
        slice_operator(turns[part], grid).back_project(slices[part], ones[part]) for part in parts
    ]
    np.testing.assert_allclose(sum(data for data, _ in sums), whole[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sum(weight for _, weight in sums), whole[1], rtol=1e-4, atol=1e-4)


def test_images_and_transforms_lead_to_each_other():
    rng = np.random.default_rng(0)
    grid = plan_slices(BOX, radius=10)
    slices = image_transforms(rng.standard_normal((3, BOX, BOX)), grid)
    again = image_transforms(images_of(slices, grid), grid)
    np.testing.assert_allclose(again, slices, atol=1e-4)


@pytest.mark.parametrize("box", [16, 18])
def test_shifts_move_images_by_whole_pixels(box):
    rng = np.random.default_rng(0)
    grid = plan_slices(box, radius=box // 2 - 1)
    images = rng.standard_normal((2, box, box)).astype(np.float32)
    moved = np.stack([np.roll(images[0], (2, 3), (0, 1)), np.roll(images[1], (-1, 0), (0, 1))])
    found = image_transforms(images, grid, shifts=[[3.0, 2.0], [0.0, -1.0]])
    np.testing.assert_allclose(found, image_transforms(moved, grid), atol=1e-3)


def test_every_coefficient_of_the_disc_is_a_pixel_once():
    grid = plan_slices(16, radius=7)
    y, x = np.mgrid[-7:8, -7:8]
    assert grid.multiplicity.sum() == np.count_nonzero(x**2 + y**2 <= 49)
    mates = {(-a, -b) for a, b in zip(grid.x, grid.y, strict=True)} - {(0, 0)}
    assert not mates & set(zip(grid.x.tolist(), grid.y.tolist(), strict=True))


def test_memory_of_an_operator_is_bounded():
    grid = plan_slices(64)
    few = particles_per_operator(grid, nbytes=8 * 2**20)
    operator = slice_operator(pose_matrices(np.zeros((few, 3))), grid)
    held = operator.weights.data.nbytes + operator.weights.indices.nbytes
    assert 2 * held <= 8 * 2**20 * 1.1


@pytest.mark.parametrize(("box", "radius"), [(15, None), (2, None), (16, 9), (16, 0)])
def test_what_cannot_be_sliced_is_refused(box, radius):
    with pytest.raises(InputError, match="expected"):
        plan_slices(box, radius=radius)


def test_a_matrix_made_in_pieces_is_the_same(monkeypatch):
    grid = plan_slices(16)
    turns = pose_matrices(np.random.default_rng(4).uniform(-180, 180, (5, 3)))
    whole = slice_operator(turns, grid)
    monkeypatch.setattr("emhet_dask.analysis.projection._PIXELS_AT_ONCE", 2 * grid.n_pixels)
    pieces = slice_operator(turns, grid)
    np.testing.assert_array_equal(pieces.weights.data, whole.weights.data)
    np.testing.assert_array_equal(pieces.weights.indices, whole.weights.indices)
    np.testing.assert_array_equal(pieces.mate, whole.mate)
