"""Maps from images with CTFs, shifts and noise."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.fourier import crop_box
from emhet_dask.analysis.projection import image_transforms, images_of, shift_ramps
from emhet_dask.analysis.reconstruction import (
    add_up,
    complete,
    plan_sampling,
    reconstruct_map,
)
from emhet_dask.analysis.rotations import even_rotations
from emhet_dask.analysis.symmetry import symmetry_operators
from emhet_dask.errors import InputError

BOX, PIXEL, COUNT = 24, 3.0, 500
CENTRE, VARIANCE = np.array([3.0, -2.0, 1.0]), 4.0
ONE = symmetry_operators("C1")


def ball(box=BOX, centre=CENTRE, variance=VARIANCE):
    axis = np.arange(box) - box // 2
    parts = [np.exp(-((axis - at) ** 2) / (2 * variance)) for at in centre[::-1]]
    return (parts[0][:, None, None] * parts[1][:, None] * parts[2]).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    turns = even_rotations(COUNT)
    axis = np.arange(BOX) - BOX // 2
    at = turns @ CENTRE
    rows = np.exp(-((axis - at[:, 1, None]) ** 2) / (2 * VARIANCE))
    columns = np.exp(-((axis - at[:, 0, None]) ** 2) / (2 * VARIANCE))
    plain = rows[:, :, None] * columns[:, None] * np.sqrt(2 * np.pi * VARIANCE)
    ctf = CtfParameters(
        rng.uniform(8000, 20000, COUNT),
        rng.uniform(8000, 20000, COUNT),
        rng.uniform(0, 180, COUNT),
        *(np.full(COUNT, value) for value in (300.0, 2.7, 0.1, 0.0, 0.0, 1.0)),
    )
    sampling = plan_sampling(BOX, pixel_size_angstrom=PIXEL)
    grid, extent = sampling.images, BOX * PIXEL
    shifts = rng.normal(0, 2, (COUNT, 2))
    seen = image_transforms(plain, grid)
    seen *= contrast_transfer(ctf, x=grid.x / extent, y=grid.y / extent) * shift_ramps(
        -shifts, grid
    )
    return {"images": images_of(seen, grid), "turns": turns, "shifts": shifts, "ctf": ctf}


def chunked(images, sampling, edges):
    total = None
    for start, stop in pairwise(edges):
        some = {name: values[start:stop] for name, values in images.items()}
        found = add_up(some.pop("images"), sampling=sampling, **some)
        total = found if total is None else total + found
    return total


def test_ctf_and_shifts_are_undone(images):
    sampling = plan_sampling(BOX, pixel_size_angstrom=PIXEL)
    sums = complete(chunked(images, sampling, [0, COUNT]), sampling, operators=ONE)
    found = reconstruct_map(sums, sampling, iterations=10)
    assert np.abs(found - ball()).max() < 0.05


def test_without_its_ctf_the_map_is_another(images):
    sampling = plan_sampling(BOX, pixel_size_angstrom=PIXEL)
    sums = add_up(
        images["images"],
        turns=images["turns"],
        shifts=images["shifts"],
        ctf=None,
        sampling=sampling,
    )
    found = reconstruct_map(complete(sums, sampling, operators=ONE), sampling, iterations=0)
    assert np.abs(found - ball()).max() > 0.3


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, COUNT - 1), max_size=5))
def test_any_chunking_gives_the_same_map(images, cuts):
    sampling = plan_sampling(BOX, pixel_size_angstrom=PIXEL, resolution_angstrom=9.0)
    edges = [0, *sorted(set(cuts)), COUNT]
    maps = [
        reconstruct_map(
            complete(chunked(images, sampling, each), sampling, operators=ONE),
            sampling,
            iterations=0,
        )
        for each in ([0, COUNT], edges)
    ]
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-4)


def test_a_smaller_box_is_the_cropped_map(images):
    small = plan_sampling(BOX, pixel_size_angstrom=PIXEL, map_box=16)
    assert small.voxel_size_angstrom == pytest.approx(4.5)
    sums = complete(chunked(images, small, [0, COUNT]), small, operators=ONE)
    found = reconstruct_map(sums, small, iterations=10)
    assert found.shape == (16, 16, 16)
    assert np.abs(found - crop_box(ball(), 16)).max() < 0.06


def test_symmetry_repeats_the_molecule(images):
    sampling = plan_sampling(BOX, pixel_size_angstrom=PIXEL)
    operators = symmetry_operators("C2")
    sums = complete(chunked(images, sampling, [0, COUNT]), sampling, operators=operators)
    found = reconstruct_map(sums, sampling, iterations=10)
    expected = 0.5 * (ball() + ball(centre=CENTRE * [-1, -1, 1]))
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.parametrize(
    ("resolution", "radius"), [(None, 12), (6.0, 12), (9.0, 8), (10.0, 8), (1.0, 12)]
)
def test_radius_of_a_resolution(resolution, radius):
    found = plan_sampling(24, pixel_size_angstrom=3.0, resolution_angstrom=resolution)
    assert found.images.radius == radius


def test_a_larger_box_is_refused():
    with pytest.raises(InputError, match="--box 32: expected at most 24"):
        plan_sampling(24, pixel_size_angstrom=3.0, map_box=32)
