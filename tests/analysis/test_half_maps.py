"""FSC of half maps: known agreement, the mask's part in it, and what is done with it."""

import numpy as np
import pytest
from scipy import fft

from emhet_dask.analysis.half_maps import (
    fitted_b_factor,
    fsc_curves,
    half_map_mask,
    post_processed,
    random_phases,
)

BOX = 32


def noise(seed, box=BOX):
    return np.random.default_rng(seed).standard_normal((box,) * 3).astype(np.float32)


def radius(box=BOX):
    full = fft.fftfreq(box, 1 / box)
    return np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + fft.rfftfreq(box, 1 / box) ** 2)


def sphere(at, box=BOX):
    axis = np.arange(box) - box // 2
    return (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= at**2).astype(np.float32)


def halves(ratio=2.0):
    """One signal, low-passed at shell 8, in two noises."""
    spectrum = fft.rfftn(noise(0))
    spectrum[radius() > 8.5] = 0
    signal = fft.irfftn(spectrum, s=(BOX,) * 3) * ratio
    return signal + noise(1), signal + noise(2)


def test_fsc_of_equal_power_is_signal_over_signal_and_noise():
    curves = fsc_curves(*halves(), mask=None, voxel_size_angstrom=2.0)
    expected = np.where(np.arange(1, 17) <= 8, 4 / 5, 0.0)
    # Of shells with hundreds of coefficients.
    np.testing.assert_allclose(curves["unmasked"][3:], expected[3:], atol=0.1)
    assert curves.attrs["unmasked_A"] == pytest.approx(64 / 8.8, rel=0.03)
    assert curves.attrs["random_from"] == 0
    np.testing.assert_array_equal(curves["corrected"], curves["unmasked"])


def test_a_mask_alone_gives_no_agreement_once_corrected():
    """A tight mask in which both halves are lifted by one constant: agreement of the mask."""
    mask = sphere(5)
    first, second = (2.0 + noise(seed) for seed in (3, 4))
    curves = fsc_curves(first, second, mask=mask, voxel_size_angstrom=2.0)
    assert curves.attrs["random_from"] == 1
    assert curves["masked"][:3].mean() > 0.5
    later = curves["corrected"][4:]
    assert abs(float(later.mean())) < 0.25


def test_corrected_is_as_chen_et_al_have_it():
    first, second = halves(1.2)
    curves = fsc_curves(first, second, mask=sphere(8), voxel_size_angstrom=2.0, seed=5)
    start = curves.attrs["random_from"]
    assert np.isnan(curves["randomised"][: start - 1]).all()
    np.testing.assert_array_equal(curves["corrected"][: start + 1], curves["masked"][: start + 1])
    masked, chance = curves["masked"][start + 1 :], curves["randomised"][start + 1 :]
    expected = np.where(chance > masked, 0.0, (masked - chance) / (1 - chance))
    np.testing.assert_allclose(curves["corrected"][start + 1 :], expected, rtol=1e-5)


def test_equal_halves_agree_to_nyquist():
    curves = fsc_curves(noise(0), noise(0), mask=sphere(10), voxel_size_angstrom=1.5)
    np.testing.assert_allclose(curves["corrected"], 1.0, atol=1e-5)
    assert curves.attrs["corrected_A"] == pytest.approx(3.0)


def test_random_phases_keep_amplitudes_and_what_comes_before():
    volume = noise(0)
    found = random_phases(volume, from_shell=6, seed=1)
    before, after = fft.rfftn(volume), fft.rfftn(found)
    low = np.rint(radius()) < 6
    np.testing.assert_allclose(after[low], before[low], atol=2e-3)
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=2e-3)
    high = (before * after.conj())[~low]
    assert abs(high.sum()) < 0.05 * np.abs(high).sum()


def test_mask_holds_the_molecule_and_no_specks():
    volume = 5.0 * sphere(6)
    volume[2, 2, 2] = 30.0
    mask = half_map_mask(volume + 0.1 * noise(0), voxel_size_angstrom=3.0)
    assert mask[sphere(6) > 0].min() > 0.99
    assert mask[2, 2, 2] == 0
    assert mask.min() >= 0.0
    assert mask.max() <= 1.0
    assert len(np.unique(mask)) > 10  # a soft edge


def test_b_factor_of_a_map_that_has_one():
    frequency = radius(64) / (64 * 1.0)
    spectrum = fft.rfftn(noise(0, 64)) * np.exp(-0.25 * 90.0 * frequency**2)
    volume = fft.irfftn(spectrum, s=(64,) * 3)
    found = fitted_b_factor(volume, np.ones(32), resolution_angstrom=2.5, voxel_size_angstrom=1.0)
    assert found == pytest.approx(-90.0, rel=0.05)
    assert (
        fitted_b_factor(volume, np.ones(32), resolution_angstrom=11.0, voxel_size_angstrom=1.0)
        is None
    )


def test_post_processing_weighs_sharpens_and_cuts():
    volume, fsc = noise(0), np.full(16, 0.5)
    found = post_processed(
        volume, fsc, resolution_angstrom=8.0, voxel_size_angstrom=2.0, b_factor=-50.0
    )
    before, after = fft.rfftn(volume), fft.rfftn(found)
    inside = (radius() > 0.5) & (radius() < 7.0)
    gain = np.sqrt(2 / 3) * np.exp(12.5 * (radius() / 64) ** 2)
    np.testing.assert_allclose(
        (after / before)[inside & (radius() > 1)].real, gain[inside & (radius() > 1)], rtol=2e-2
    )
    assert np.abs(after[radius() > 9]).max() < 1e-2
