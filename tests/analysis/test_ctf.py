"""The CTF, against its textbook form and the properties of microscopes."""

import numpy as np
import pytest

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer, wavelength_angstrom

NAMES = tuple(CtfParameters.__dataclass_fields__)


def parameters(n=1, **given):
    values = {
        "defocus_u_angstrom": 15000.0,
        "defocus_v_angstrom": 14000.0,
        "defocus_angle_degrees": 30.0,
        "voltage_kv": 300.0,
        "spherical_aberration_mm": 2.7,
        "amplitude_contrast": 0.1,
        "phase_shift_degrees": 0.0,
        "b_factor": 0.0,
        "scale": 1.0,
    } | given
    return CtfParameters(*(np.full(n, values[name]) for name in NAMES))


def textbook(k, angle, p):
    """Phase of a lens in the direction of k (Rohou & Grigorieff 2015), one frequency."""
    lam = float(wavelength_angstrom(p.voltage_kv[0]))
    u, v = p.defocus_u_angstrom[0], p.defocus_v_angstrom[0]
    turn = np.deg2rad(p.defocus_angle_degrees[0])
    defocus = 0.5 * (u + v + (u - v) * np.cos(2 * (angle - turn)))
    cs = p.spherical_aberration_mm[0] * 1e7
    chi = np.pi * lam * k**2 * (defocus - 0.5 * lam**2 * k**2 * cs)
    chi += np.deg2rad(p.phase_shift_degrees[0]) + np.arcsin(p.amplitude_contrast[0])
    return np.sin(chi)


@pytest.mark.parametrize(
    ("voltage", "expected"), [(100, 0.0370144), (200, 0.0250793), (300, 0.0196875)]
)
def test_wavelengths_are_those_of_tables(voltage, expected):
    assert wavelength_angstrom(voltage) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("phase", [0.0, 60.0])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5, -1.1])
def test_every_direction_has_its_defocus(angle, phase):
    p = parameters(phase_shift_degrees=phase)
    k = np.linspace(0.0, 0.3, 50)
    found = contrast_transfer(p, x=k * np.cos(angle), y=k * np.sin(angle))[0]
    expected = [textbook(each, angle, p) for each in k]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_amplitude_contrast_alone_is_left_at_the_origin():
    assert contrast_transfer(parameters(), x=[0.0], y=[0.0])[0, 0] == pytest.approx(0.1, rel=1e-6)


def test_b_factor_and_scale_multiply():
    k = np.linspace(0.01, 0.2, 20)
    plain = contrast_transfer(parameters(), x=k, y=0 * k)
    found = contrast_transfer(parameters(b_factor=80.0, scale=0.5), x=k, y=0 * k)
    np.testing.assert_allclose(found, 0.5 * plain * np.exp(-20.0 * k**2), rtol=1e-5, atol=1e-8)


def test_intact_up_to_the_first_peak_and_the_same_beyond():
    k = np.linspace(0.0, 0.2, 400)
    plain = contrast_transfer(parameters(), x=k, y=0 * k)[0]
    found = contrast_transfer(parameters(), x=k, y=0 * k, intact_first_peak=True)[0]
    peak = int(np.argmax(plain > 0.9999))
    assert np.all(found[:peak] == 1.0)
    np.testing.assert_array_equal(found[peak + 2 :], plain[peak + 2 :])


def test_no_value_is_zero():
    k = np.linspace(0.0, 0.5, 2001)
    found = contrast_transfer(parameters(amplitude_contrast=0.0), x=k, y=0 * k)
    assert np.abs(found).min() > 0


def test_particles_keep_their_own_parameters():
    several = CtfParameters(*(np.arange(1.0, 4.0) * 0.1 for _ in NAMES))
    some = several[np.array([2, 0])]
    assert len(some) == 2
    np.testing.assert_allclose(some.voltage_kv, [0.3, 0.1])
