"""The contrast transfer function of an electron microscope, as RELION computes it.

Defocus is positive for underfocus. The image is taken as ``CTF × projection`` in Fourier space,
with a CTF that is positive at the lowest frequencies where amplitude contrast is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CtfParameters", "contrast_transfer", "wavelength_angstrom"]

_ANGSTROM_PER_MM = 1e7
# RELION keeps CTFs from being 0, by which some of its programs divide.
_LEAST = 1e-8


@dataclass(frozen=True, eq=False)
class CtfParameters:
    """What the CTF of each particle is made of: arrays (particle,), float64.

    Attributes
    ----------
    defocus_u_angstrom, defocus_v_angstrom : array
        Along the two axes of astigmatism.
    defocus_angle_degrees : array
        From x to the axis of `defocus_u_angstrom`.
    voltage_kv : array
    spherical_aberration_mm : array
    amplitude_contrast : array
        From 0 to 1.
    phase_shift_degrees : array
        Of a phase plate.
    b_factor : array
        In Å².
    scale : array
    """

    defocus_u_angstrom: NDArray[np.float64]
    defocus_v_angstrom: NDArray[np.float64]
    defocus_angle_degrees: NDArray[np.float64]
    voltage_kv: NDArray[np.float64]
    spherical_aberration_mm: NDArray[np.float64]
    amplitude_contrast: NDArray[np.float64]
    phase_shift_degrees: NDArray[np.float64]
    b_factor: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.voltage_kv)

    def __getitem__(self, rows: Any) -> CtfParameters:
        """Return the parameters of some particles, an array of them."""
        return CtfParameters(*(getattr(self, field.name)[rows] for field in fields(self)))


def wavelength_angstrom(voltage_kv: ArrayLike) -> NDArray[np.float64]:
    """Return the relativistic wavelength of electrons in Å.

    Parameters
    ----------
    voltage_kv : array
    """
    volts = np.asarray(voltage_kv, dtype=np.float64) * 1e3
    return np.asarray(12.2643247 / np.sqrt(volts * (1.0 + 0.978466e-6 * volts)))


def contrast_transfer(
    parameters: CtfParameters,
    *,
    x: ArrayLike,
    y: ArrayLike,
    intact_first_peak: bool = False,
) -> NDArray[np.float32]:
    """Return the CTF of each particle at spatial frequencies.

    ``-sin(γ) exp(-B k² / 4)`` times the scale, with ``γ = -π λ Δf(k) k² + π/2 Cs λ³ k⁴ - φ -
    atan(Q / √(1 - Q²))`` for the defocus Δf in the direction of k, the phase shift φ and the
    amplitude contrast Q (RELION 3.1, ``CTF::getCTF``).

    Parameters
    ----------
    parameters : CtfParameters
        Of n particles.
    x, y : array (frequency,)
        In 1/Å.
    intact_first_peak : bool
        1 up to the first peak, as of images whose lowest frequencies are not to be trusted.

    Returns
    -------
    ndarray of float32 (particle, frequency)
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    square = x**2 + y**2
    column = {
        field.name: np.asarray(getattr(parameters, field.name), dtype=np.float64)[:, None]
        for field in fields(parameters)
    }
    lam = wavelength_angstrom(column["voltage_kv"])
    turn = np.deg2rad(column["defocus_angle_degrees"])
    mean = 0.5 * (column["defocus_u_angstrom"] + column["defocus_v_angstrom"])
    half = 0.5 * (column["defocus_u_angstrom"] - column["defocus_v_angstrom"])
    # Defocus times k², of which cos(2 (angle - turn)) k² is a quadratic form of x and y.
    focus = mean * square
    focus += half * (np.cos(2.0 * turn) * (x**2 - y**2) + np.sin(2.0 * turn) * (2.0 * x * y))
    contrast = column["amplitude_contrast"]
    constant = np.deg2rad(column["phase_shift_degrees"])
    constant += np.arctan2(contrast, np.sqrt(1.0 - contrast**2))
    aberration = 0.5 * np.pi * column["spherical_aberration_mm"] * _ANGSTROM_PER_MM * lam**3
    gamma = aberration * square**2 - np.pi * lam * focus - constant
    found = -np.sin(gamma)
    if intact_first_peak:
        found[np.abs(gamma) < 0.5 * np.pi] = 1.0
    if column["b_factor"].any():
        found *= np.exp(-0.25 * column["b_factor"] * square)
    found *= column["scale"]
    small = np.abs(found) < _LEAST
    found[small] = np.copysign(_LEAST, found[small])
    return found.astype(np.float32)
