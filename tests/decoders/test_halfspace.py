"""Volumes from half of Fourier space, against NumPy's transform of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.decoders.halfspace import HalfSpace, is_first_of_pair, mirrored


def whole_grid(box):
    axis = np.arange(-(box // 2), box // 2, dtype=np.int32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def half_of(box):
    grid = whole_grid(box)
    return HalfSpace(grid[is_first_of_pair(grid, box)], box)


@pytest.mark.parametrize("box", [2, 4, 6, 10])
def test_a_volume_comes_back(box):
    volume = np.random.default_rng(box).normal(size=(box,) * 3)
    half = half_of(box)
    z, y, x = half.coordinates.T
    coefficients = np.fft.fftn(volume)[z, y, x].astype(np.complex64)
    assert half.volume(coefficients, half.places) == pytest.approx(volume, abs=1e-5)


@pytest.mark.parametrize("box", [2, 4, 6])
def test_one_of_each_pair(box):
    grid, half = whole_grid(box), half_of(box)
    both = np.concatenate([half.coordinates, mirrored(half.coordinates, box)])
    assert {tuple(row) for row in both} == {tuple(row) for row in grid}
    assert half.multiplicity.sum() == box**3


@given(seed=st.integers(0, 1000), box=st.sampled_from([4, 6, 8]))
def test_parseval(seed, box):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(2, box, box, box))
    half = half_of(box)
    z, y, x = half.coordinates.T
    product = np.fft.fftn(first)[z, y, x] * np.conj(np.fft.fftn(second)[z, y, x])
    found = (half.multiplicity * product.real).sum() / box**3
    assert found == pytest.approx((first * second).sum(), abs=1e-6)
