"""Change the box of a map without moving it: Fourier cropping and padding, low-pass, masks.

All functions leave voxel 0 where it was, so that an MRC origin stays valid: voxel ``j`` of a box
of ``M`` voxels lies at ``j * extent / M``. The extent (voxels times voxel size) does not change;
the voxel size becomes ``voxel_size * N / M``. Between even boxes the centre ``N // 2`` stays the
centre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from emhet_dask.errors import InputError

__all__ = ["crop_box", "low_pass", "pad_box", "resample_mask"]

Box = int | tuple[int, int, int]


def crop_box(volume: ArrayLike, box: Box) -> NDArray[np.float32]:
    """Crop a map to a smaller box in Fourier space: the same extent on fewer, larger voxels.

    Density is preserved: a constant map stays the constant, and a function without power at or
    beyond the new Nyquist frequency is sampled exactly.

    Parameters
    ----------
    volume : array, shape (..., z, y, x)
        One map or a stack of them, of any real type; computed in float32.
    box : int or (z, y, x)
        New box in voxels, even or odd, at most the present one.

    Returns
    -------
    ndarray of float32, shape (..., *box)

    Raises
    ------
    InputError
        When the box is below 1 or larger than the map's.
    """
    volume = np.asarray(volume, dtype=np.float32)
    shape = _as_shape(box)
    if any(new > old for new, old in zip(shape, volume.shape[-3:], strict=True)):
        raise InputError(
            f"box {_words(shape)} is larger than the map's {_words(volume.shape[-3:])}; "
            "Fourier cropping only makes a box smaller"
        )
    return _resample(volume, shape)


def pad_box(volume: ArrayLike, box: Box) -> NDArray[np.float32]:
    """Pad a map to a larger box in Fourier space; `crop_box` of the result gives the map back.

    Parameters
    ----------
    volume : array, shape (..., z, y, x)
        One map or a stack of them, of any real type; computed in float32.
    box : int or (z, y, x)
        New box in voxels, even or odd, at least the present one.

    Returns
    -------
    ndarray of float32, shape (..., *box)

    Raises
    ------
    InputError
        When the box is smaller than the map's.
    """
    volume = np.asarray(volume, dtype=np.float32)
    shape = _as_shape(box)
    if any(new < old for new, old in zip(shape, volume.shape[-3:], strict=True)):
        raise InputError(
            f"box {_words(shape)} is smaller than the map's {_words(volume.shape[-3:])}; "
            "Fourier padding only makes a box larger"
        )
    return _resample(volume, shape)


def low_pass(
    volume: ArrayLike,
    *,
    resolution_angstrom: float,
    voxel_size_angstrom: float,
    edge_fraction: float = 0.1,
) -> NDArray[np.float32]:
    """Remove what is finer than a resolution, with a raised-cosine edge in Fourier space.

    Parameters
    ----------
    volume : array, shape (..., z, y, x)
        One map or a stack of them.
    resolution_angstrom : float
        Where the filter passes one half of the amplitude, in Å.
    voxel_size_angstrom : float
        Voxel size in Å.
    edge_fraction : float
        Width of the edge over the cut-off frequency; 0 is a sharp cut.

    Returns
    -------
    ndarray of float32, shape of `volume`
    """
    volume = np.asarray(volume, dtype=np.float32)
    shape = volume.shape[-3:]
    axes = (-3, -2, -1)
    frequency = np.sqrt(_frequency_squared(shape, voxel_size_angstrom))
    cutoff = 1.0 / resolution_angstrom
    if edge_fraction > 0:
        position = (frequency - cutoff) / (edge_fraction * cutoff)
        window = 0.5 * (1.0 - np.sin(np.pi * np.clip(position, -0.5, 0.5)))
    else:
        window = (frequency <= cutoff).astype(np.float64)
    spectrum = fft.rfftn(volume, axes=axes)
    spectrum *= window.astype(np.float32)
    return np.ascontiguousarray(fft.irfftn(spectrum, s=shape, axes=axes, overwrite_x=True))


def resample_mask(mask: ArrayLike, box: Box) -> NDArray[np.float32]:
    """Bring a mask to another box of the same extent, without the ringing of a Fourier method.

    Each new voxel is a weighted mean of the old ones around it (a triangle as wide as the larger
    of both voxels), so values stay within their range. A binary mask keeps its volume when cut at
    one half.

    Parameters
    ----------
    mask : array, shape (z, y, x)
        Values from 0 to 1.
    box : int or (z, y, x)
        New box in voxels; smaller or larger.

    Returns
    -------
    ndarray of float32, shape `box`
    """
    mask = np.asarray(mask, dtype=np.float32)
    for axis, new in enumerate(_as_shape(box)):
        if new != mask.shape[axis]:
            weights = _triangle_weights(mask.shape[axis], new)
            mask = np.moveaxis(np.tensordot(weights, mask, axes=(1, axis)), 0, axis)
    return np.clip(np.ascontiguousarray(mask, dtype=np.float32), 0.0, 1.0)


def _resample(volume: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Resample the last three axes, one at a time: the operator is separable and real.

    The last axis comes first, while rows are contiguous; the others then have less to do.
    """
    for axis in (-1, -2, -3):
        if volume.shape[axis] != shape[axis]:
            volume = _resample_axis(volume, shape[axis], axis)
    return np.ascontiguousarray(volume)


def _resample_axis(volume: NDArray[np.float32], new: int, axis: int) -> NDArray[np.float32]:
    """Trigonometric interpolation of real data along one axis, from ``old`` to ``new`` samples.

    The Nyquist term of an even box stands for both signs of its frequency. Cropping folds +k and
    -k into it (twice the real part, and the inverse transform ignores the imaginary one); padding
    hands each of the two its half.
    """
    old = volume.shape[axis]
    spectrum = np.moveaxis(fft.rfft(volume, axis=axis), axis, -1)
    small = min(old, new)
    kept = np.zeros((*spectrum.shape[:-1], new // 2 + 1), dtype=spectrum.dtype)
    terms = small // 2 + 1
    kept[..., :terms] = spectrum[..., :terms]
    if small % 2 == 0:
        kept[..., small // 2] *= 2.0 if new < old else 0.5
    kept *= np.float32(new / old)
    resampled = np.asarray(fft.irfft(kept, n=new, axis=-1, overwrite_x=True), dtype=np.float32)
    return np.moveaxis(resampled, -1, axis)


def _frequency_squared(shape: tuple[int, ...], voxel_size_angstrom: float) -> NDArray[np.float64]:
    """Squared spatial frequency in Å⁻² of each term of ``rfftn``."""
    z, y, x = shape
    kz = fft.fftfreq(z, voxel_size_angstrom)[:, None, None]
    ky = fft.fftfreq(y, voxel_size_angstrom)[None, :, None]
    kx = fft.rfftfreq(x, voxel_size_angstrom)[None, None, :]
    return np.asarray(kz**2 + ky**2 + kx**2)


def _triangle_weights(old: int, new: int) -> NDArray[np.float32]:
    """Row ``j`` weighs the old samples around the position of new sample ``j``; rows sum to 1."""
    position = np.arange(new)[:, None] * (old / new)
    distance = np.abs(position - np.arange(old)[None, :])
    distance = np.minimum(distance, old - distance)  # the box is periodic, as in Fourier space
    weights = np.maximum(0.0, 1.0 - distance / max(1.0, old / new))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def _as_shape(box: Box) -> tuple[int, int, int]:
    shape = (box, box, box) if isinstance(box, int | np.integer) else tuple(box)
    if len(shape) != 3 or any(length < 1 for length in shape):
        raise InputError(f"box {box}: a box is a positive number of voxels, or three (z, y, x)")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _words(shape: tuple[int, ...]) -> str:
    return "×".join(str(length) for length in shape)
