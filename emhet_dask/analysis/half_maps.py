"""Half maps: how far two maps of the same state agree, and the map that this allows to show.

The Fourier shell correlation (FSC) of maps inside a mask is raised by the mask itself; by how much
is seen where the phases beyond some shell are random (Chen et al. 2013).
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft, ndimage

from emhet_dask.analysis.fourier import low_pass
from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.analysis.mask import binarise_mask, grow_mask
from emhet_dask.analysis.shells import Shells, crossing, plan_shells, shell_rows

__all__ = [
    "GOLD_STANDARD",
    "fitted_b_factor",
    "fsc_curves",
    "half_map_mask",
    "post_processed",
    "random_phases",
]

Float32 = NDArray[np.float32]

GOLD_STANDARD = 0.143
# RELION's: phases are random from where the FSC without mask falls below this, and the correction
# starts two shells later.
_RANDOM_BELOW = 0.8
_RANDOM_GAP = 2
_MASK_RESOLUTION_ANGSTROM = 15.0
_MASK_GROWTH_VOXELS, _MASK_EDGE_VOXELS = 3.0, 6.0
# The Guinier plot is straight from here on (Rosenthal & Henderson 2003), and needs some shells.
_GUINIER_ANGSTROM = 10.0
_GUINIER_SHELLS = 5


def half_map_mask(volume: Float32, *, voxel_size_angstrom: float) -> Float32:
    """Return a soft mask around a molecule, from its map.

    Voxels of the map at 15 Å (or 5 voxels) beyond half of its 99.99th percentile, of which the
    largest connected piece and those of at least a tenth of its size stay; grown by three voxels
    and given a soft edge of six.

    Parameters
    ----------
    volume : ndarray of float32 (z, y, x)
    voxel_size_angstrom : float

    Returns
    -------
    ndarray of float32 (z, y, x), 0 to 1

    Raises
    ------
    InputError
        When the map has no positive density.
    """
    smooth = low_pass(
        volume,
        resolution_angstrom=max(_MASK_RESOLUTION_ANGSTROM, 5.0 * voxel_size_angstrom),
        voxel_size_angstrom=voxel_size_angstrom,
    )
    core = binarise_mask(smooth, threshold=0.5 * volume_threshold(smooth))
    pieces, _ = ndimage.label(core)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    return grow_mask(
        (sizes >= 0.1 * sizes.max())[pieces] & core,
        voxel_size_angstrom=voxel_size_angstrom,
        dilate_angstrom=_MASK_GROWTH_VOXELS * voxel_size_angstrom,
        cosine_edge_angstrom=_MASK_EDGE_VOXELS * voxel_size_angstrom,
    )


def random_phases(volume: Float32, *, from_shell: int, seed: int) -> Float32:
    """Give the coefficients of a map from a shell on the phases of noise.

    Parameters
    ----------
    volume : ndarray of float32 (z, y, x)
        Cubic.
    from_shell : int
    seed : int
    """
    box = volume.shape[-1]
    noise = fft.rfftn(np.random.default_rng(seed).standard_normal(volume.shape, dtype=np.float32))
    spectrum = fft.rfftn(volume)
    full, half = fft.fftfreq(box, 1 / box), fft.rfftfreq(box, 1 / box)
    radius = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    chosen = np.rint(radius) >= from_shell
    spectrum[chosen] = np.abs(spectrum[chosen]) * np.exp(1j * np.angle(noise[chosen]))
    return np.asarray(fft.irfftn(spectrum, s=volume.shape), dtype=np.float32)


def fsc_curves(
    first: Float32,
    second: Float32,
    *,
    mask: Float32 | None,
    voxel_size_angstrom: float,
    seed: int = 0,
) -> xr.Dataset:
    """Compare two half maps shell by shell.

    Parameters
    ----------
    first, second : ndarray of float32 (z, y, x)
    mask : ndarray (z, y, x), optional
        From 0 to 1; without it the masked curves are those without mask.
    voxel_size_angstrom : float
    seed : int
        Of the random phases.

    Returns
    -------
    xarray.Dataset
        Along ``shell`` (1, 2, …): ``unmasked``, ``masked``, ``randomised`` (masked, with random
        phases from the shell ``random_from`` on; NaN before it) and ``corrected``, ``(FSC masked -
        FSC randomised) / (1 - FSC randomised)`` from two shells later on (Chen et al. 2013).
        Attributes: ``random_from`` (0: nowhere), and in Å the resolution at 0.143 of the curves,
        ``unmasked_A``, ``masked_A``, ``corrected_A``.

    Raises
    ------
    InputError
        When the box is not cubic.
    """
    shells = plan_shells(first.shape, voxel_size_angstrom=voxel_size_angstrom)
    plain = _fsc(first, second, None, shells)
    masked = plain if mask is None else _fsc(first, second, mask, shells)
    randomised = np.full(shells.n_shells, np.nan, dtype=np.float32)
    corrected = masked.copy()
    below = np.flatnonzero(plain < _RANDOM_BELOW)
    start = int(below[0]) + 1 if mask is not None and len(below) else 0
    if start:
        one = random_phases(first, from_shell=start, seed=2 * seed)
        two = random_phases(second, from_shell=start, seed=2 * seed + 1)
        randomised[start - 1 :] = _fsc(one, two, mask, shells)[start - 1 :]
        later = slice(start - 1 + _RANDOM_GAP, None)
        chance = np.minimum(randomised[later], 0.999)
        # Where random phases agree better than the maps do, the maps do not agree.
        corrected[later] = np.where(
            chance > masked[later], 0.0, (masked[later] - chance) / (1.0 - chance)
        )
    curves = {
        "unmasked": plain,
        "masked": masked,
        "randomised": randomised,
        "corrected": corrected,
    }
    found = xr.Dataset(
        {name: ("shell", values) for name, values in curves.items()},
        coords={"shell": np.arange(1, shells.n_shells + 1)},
        attrs={"random_from": start},
    )
    for name in ("unmasked", "masked", "corrected"):
        found.attrs[f"{name}_A"] = float(
            crossing(curves[name], threshold=GOLD_STANDARD, extent_angstrom=shells.extent_angstrom)
        )
    return found


def _fsc(first: Float32, second: Float32, mask: Float32 | None, shells: Shells) -> Float32:
    one, two = shell_rows([first, second], mask, shells)
    return np.add.reduceat(one * two, shells.offset[:-1]).astype(np.float32)


def fitted_b_factor(
    volume: Float32, fsc: Float32, *, resolution_angstrom: float, voxel_size_angstrom: float
) -> float | None:
    """Fit the fall-off of a map's amplitudes (Rosenthal & Henderson 2003).

    Parameters
    ----------
    volume : ndarray of float32 (z, y, x)
    fsc : array (shell,)
        Of shells 1, 2, …, by which amplitudes are weighted.
    resolution_angstrom : float
        Up to which the fit goes; it begins at 10 Å.
    voxel_size_angstrom : float

    Returns
    -------
    float or None
        In Å², negative, so that the map divided by the fall-off is the map sharpened by it; None
        where fewer than five shells lie in between.
    """
    shells = plan_shells(volume.shape, voxel_size_angstrom=voxel_size_angstrom)
    spectrum = fft.rfftn(volume).reshape(-1)[shells.position] * shells.weight
    ends = shells.offset // 2
    power = np.add.reduceat(np.abs(spectrum) ** 2, ends[:-1])
    count = np.add.reduceat(shells.weight.astype(np.float64) ** 2, ends[:-1])
    amplitude = np.sqrt(power / count) * _weights(fsc)
    frequency = np.arange(1, shells.n_shells + 1) / shells.extent_angstrom
    used = (frequency >= 1 / _GUINIER_ANGSTROM) & (frequency <= 1 / resolution_angstrom)
    used &= amplitude > 0
    if np.count_nonzero(used) < _GUINIER_SHELLS:
        return None
    slope = np.polyfit(frequency[used] ** 2, np.log(amplitude[used]), 1)[0]
    return float(4.0 * slope)


def post_processed(
    volume: Float32,
    fsc: Float32,
    *,
    resolution_angstrom: float,
    voxel_size_angstrom: float,
    b_factor: float = 0.0,
) -> Float32:
    """Weigh a map by its FSC, sharpen it, and cut it at its resolution.

    Each shell is multiplied by ``√(2 FSC / (1 + FSC))``, the correlation of the map with a perfect
    one (Rosenthal & Henderson 2003), and by ``exp(-B / 4 d²)``.

    Parameters
    ----------
    volume : ndarray of float32 (z, y, x)
        Of all particles.
    fsc : array (shell,)
        Of its halves, shells 1, 2, ….
    resolution_angstrom : float
    voxel_size_angstrom : float
    b_factor : float
        In Å²; negative values sharpen.
    """
    box = volume.shape[-1]
    full, half = fft.fftfreq(box, 1 / box), fft.rfftfreq(box, 1 / box)
    radius = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    weights = np.concatenate([[1.0], _weights(fsc)])
    # Coefficients in the corners of the box lie beyond the last shell.
    factor = np.interp(radius, np.arange(len(weights)), weights, right=0.0)
    factor *= np.exp(-0.25 * b_factor * (radius / (box * voxel_size_angstrom)) ** 2)
    spectrum = fft.rfftn(volume)
    spectrum *= factor.astype(np.float32)
    return low_pass(
        fft.irfftn(spectrum, s=volume.shape),
        resolution_angstrom=resolution_angstrom,
        voxel_size_angstrom=voxel_size_angstrom,
    )


def _weights(fsc: Float32) -> NDArray[np.float64]:
    agree = np.clip(np.asarray(fsc, dtype=np.float64), 0.0, 1.0)
    return np.sqrt(2.0 * agree / (1.0 + agree))
