"""Fourier cropping against functions that are known at every point, and against its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.fourier import crop_box, low_pass, pad_box, resample_mask
from emhet_dask.errors import InputError


def band_limited(box: tuple[int, int, int], highest: int, seed: int) -> np.ndarray:
    """A sum of plane waves with integer frequencies up to `highest`, sampled on a grid."""
    rng = np.random.default_rng(seed)
    waves = rng.integers(-highest, highest + 1, size=(12, 3))
    phases = rng.uniform(0, 2 * np.pi, size=12)
    amplitudes = rng.uniform(0.5, 2.0, size=12)
    z, y, x = np.meshgrid(*(np.arange(n) / n for n in box), indexing="ij")
    total = np.full(box, 0.7)
    for (kz, ky, kx), phase, amplitude in zip(waves, phases, amplitudes, strict=True):
        total += amplitude * np.cos(2 * np.pi * (kz * z + ky * y + kx * x) + phase)
    return total


@given(
    new=st.tuples(*[st.integers(9, 16)] * 3),
    extra=st.tuples(*[st.integers(0, 9)] * 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_crop_and_pad_sample_a_band_limited_function(new, extra, seed):
    old = tuple(n + e for n, e in zip(new, extra, strict=True))
    fine, coarse = band_limited(old, 4, seed), band_limited(new, 4, seed)
    cropped = crop_box(fine, new)
    assert cropped.dtype == np.float32
    np.testing.assert_allclose(cropped, coarse, atol=2e-5)
    np.testing.assert_allclose(pad_box(coarse, old), fine, atol=2e-5)


@given(
    old=st.tuples(*[st.integers(1, 9)] * 3),
    extra=st.tuples(*[st.integers(0, 9)] * 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_cropping_undoes_padding_for_any_map_nyquist_included(old, extra, seed):
    volume = np.random.default_rng(seed).normal(size=old)
    padded = pad_box(volume, tuple(n + e for n, e in zip(old, extra, strict=True)))
    np.testing.assert_allclose(crop_box(padded, old), volume, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(8, 4), (9, 4), (12, 6)])
def test_a_wave_at_the_new_nyquist_frequency_is_sampled(old, new):
    k = new // 2
    fine = np.cos(2 * np.pi * k * np.arange(old) / old)
    expected = np.cos(2 * np.pi * k * np.arange(new) / new)
    volume = np.broadcast_to(fine, (old, old, old))
    np.testing.assert_allclose(crop_box(volume, new)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("new", [5, 6, 10, 11])
def test_mean_density_is_preserved_even_or_odd(new):
    volume = np.random.default_rng(0).normal(2.0, 1.0, size=(12, 12, 12))
    np.testing.assert_allclose(crop_box(volume, new).mean(), volume.mean(), rtol=1e-6)
    np.testing.assert_allclose(crop_box(np.full((12, 12, 12), 3.5), new), 3.5, rtol=1e-6)


def test_against_explicit_truncation_of_the_complex_spectrum():
    """The textbook way for an odd box: cut the centred cube out of the full spectrum."""
    volume = np.random.default_rng(1).normal(size=(16, 16, 16))
    spectrum = np.fft.fftshift(np.fft.fftn(volume))[3:14, 3:14, 3:14]
    expected = np.fft.ifftn(np.fft.ifftshift(spectrum)).real * (11 / 16) ** 3
    np.testing.assert_allclose(crop_box(volume, 11), expected, atol=1e-6)


def test_a_stack_is_cropped_map_by_map_and_half_precision_is_computed_in_single():
    stack = np.random.default_rng(2).normal(size=(3, 8, 8, 8)).astype(np.float16)
    cropped = crop_box(stack, 6)
    assert cropped.shape == (3, 6, 6, 6)
    for one, volume in zip(cropped, stack, strict=True):
        np.testing.assert_array_equal(one, crop_box(volume.astype(np.float32), 6))


def test_same_box_leaves_the_values_alone():
    volume = np.random.default_rng(3).normal(size=(7, 8, 9)).astype(np.float32)
    np.testing.assert_array_equal(crop_box(volume, (7, 8, 9)), volume)


def test_wrong_boxes_are_named():
    volume = np.zeros((8, 8, 8), dtype=np.float32)
    with pytest.raises(InputError, match="box 9×9×9 is larger than the map's 8×8×8"):
        crop_box(volume, 9)
    with pytest.raises(InputError, match="box 4×4×4 is smaller than the map's 8×8×8"):
        pad_box(volume, 4)
    with pytest.raises(InputError, match="positive number of voxels"):
        crop_box(volume, 0)


@pytest.mark.parametrize("edge_fraction", [0.0, 0.2])
def test_low_pass_keeps_coarse_waves_and_drops_fine_ones(edge_fraction):
    box, voxel_size = 24, 2.0
    x = np.arange(box) / box
    coarse = np.broadcast_to(np.cos(2 * np.pi * 3 * x), (box, box, box))  # 16 Å
    fine = np.broadcast_to(np.cos(2 * np.pi * 8 * x), (box, box, box))  # 6 Å
    filtered = low_pass(
        coarse + fine + 1.0,
        resolution_angstrom=10.0,
        voxel_size_angstrom=voxel_size,
        edge_fraction=edge_fraction,
    )
    assert filtered.dtype == np.float32
    np.testing.assert_allclose(filtered, coarse + 1.0, atol=1e-5)


def test_low_pass_halves_the_amplitude_at_its_resolution():
    x = np.arange(20) / 20
    wave = np.broadcast_to(np.cos(2 * np.pi * 4 * x)[:, None, None], (20, 20, 20))
    filtered = low_pass(wave, resolution_angstrom=5.0, voxel_size_angstrom=1.0)
    np.testing.assert_allclose(filtered, 0.5 * wave, atol=1e-5)


def ball(box: int, radius: float) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(box) / box - 0.5] * 3, indexing="ij")
    return (z**2 + y**2 + x**2 <= radius**2).astype(np.float32)


@pytest.mark.parametrize(("old", "new"), [(48, 32), (32, 48), (48, 24), (33, 20)])
def test_a_resampled_mask_is_the_same_shape_on_the_new_grid(old, new):
    moved = resample_mask(ball(old, 0.3), new)
    assert moved.min() >= 0.0
    assert moved.max() <= 1.0
    found, expected = moved >= 0.5, ball(new, 0.3) > 0
    assert (found & expected).sum() / (found | expected).sum() > 0.9


@given(old=st.integers(1, 20), new=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_a_constant_mask_stays_constant(old, new):
    np.testing.assert_allclose(resample_mask(np.full((old, old, old), 0.25), new), 0.25, rtol=1e-5)
