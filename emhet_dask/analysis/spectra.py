"""The Fourier transform of a map at any point, so that turning the map is looking up elsewhere.

Frequencies are (x, y, z) in cycles per box, phases count from the centre voxel ``N // 2``, and of
each pair k, -k of a real map one half is kept. They are ordered by shell, ``round(|k|)`` as in
RELION, so that a coarser band is the beginning of a finer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["Band", "SpectrumTable", "band", "central_density", "coefficients", "density_of"]

# The table is finer than the transform of the box by this factor; read linearly, that is RELION's.
_PADDING = 2
# Where the soft edge of the sphere begins, of its radius.
_EDGE = 0.8


@dataclass(frozen=True, eq=False)
class Band:
    """Half of all frequencies up to a shell.

    Attributes
    ----------
    frequencies : ndarray (frequency, 3), int
        (x, y, z) in cycles per box, ordered by shell; zero is left out.
    ends : ndarray (shells + 1,), int
        Shell ``s`` (from 1) is ``frequencies[ends[s - 1]:ends[s]]``.
    """

    frequencies: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def shells(self) -> int:
        """Return the number of the last shell."""
        return len(self.ends) - 1

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum values (..., frequency) over each shell; shape (..., shells)."""
        return np.add.reduceat(values, self.ends[:-1], axis=-1, dtype=np.float64)

    def spread(self, by_shell: NDArray[np.floating]) -> NDArray[np.float32]:
        """Repeat values (shells,) for each frequency of their shell; shape (frequency,)."""
        return np.repeat(by_shell, np.diff(self.ends)).astype(np.float32)


@lru_cache(maxsize=8)
def band(shells: int) -> Band:
    """Return the band up to a shell."""
    axis = np.arange(-shells, shells + 1)
    z, y, x = (part.ravel() for part in np.meshgrid(axis, axis, axis[shells:], indexing="ij"))
    shell = np.rint(np.sqrt(x**2 + y**2 + z**2)).astype(np.int64)
    half = (x > 0) | (y > 0) | ((y == 0) & (z > 0))
    kept = np.flatnonzero(half & (shell >= 1) & (shell <= shells))
    kept = kept[np.argsort(shell[kept], kind="stable")]
    ends = np.searchsorted(shell[kept], np.arange(1, shells + 2))
    return Band(np.stack([x, y, z], axis=1)[kept], ends)


def coefficients(volume: NDArray[np.float32], shells: int) -> NDArray[np.complex64]:
    """Return the Fourier coefficients (frequency,) of a map (z, y, x) in a band.

    Parameters
    ----------
    volume : ndarray (z, y, x)
        A cube of more than ``2 * shells`` voxels a side.
    shells : int
    """
    box = volume.shape[0]
    k = band(shells).frequencies
    # The mean, which may be far from zero, costs precision, and is left out anyway.
    found = fft.rfftn(volume - volume.mean(dtype=np.float64).astype(np.float32))[
        k[:, 2], k[:, 1], k[:, 0]
    ]
    found *= np.exp(2j * np.pi * (box // 2) / box * k.sum(axis=1))
    return (found / np.float32(volume.size)).astype(np.complex64)


def density_of(found: NDArray[np.complex64], shells: int) -> NDArray[np.float32]:
    """Return the density of coefficients (frequency,) on the smallest even box; the mean is zero.

    Returns
    -------
    ndarray (z, y, x)
        ``2 * shells + 2`` voxels a side; the centre is the centre voxel.
    """
    box = 2 * shells + 2
    x, y, z = band(shells).frequencies.T
    spectrum = np.zeros((box, box, box // 2 + 1), dtype=np.complex64)
    spectrum[z, y, x] = found
    plane = x == 0  # which the real transform holds in full
    spectrum[-z[plane], -y[plane], 0] = found[plane].conj()
    density = fft.fftshift(fft.irfftn(spectrum, s=(box,) * 3))
    return np.asarray(density * np.float32(box**3), dtype=np.float32)


def central_density(volume: NDArray[np.float32], shells: int) -> NDArray[np.float32]:
    """Return a band of a map on the smallest even box, inside a soft sphere.

    Only what is inside the inscribed sphere stays in the box however the map is turned.

    Returns
    -------
    ndarray (z, y, x)
        ``2 * shells + 2`` voxels a side, of the same extent; the centre is the centre voxel.
    """
    density = density_of(coefficients(volume, shells), shells)
    half = density.shape[0] // 2
    position = np.arange(-half, half) / half
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(position, position, position)))
    at_edge = (radius > _EDGE) & (radius < 1)
    inside = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - _EDGE) / (1 - _EDGE), 0, 1))
    return ((density - density[at_edge].mean()) * inside).astype(np.float32)


class SpectrumTable:
    """Values and gradients of the Fourier transform of a density, tabulated and read linearly.

    Parameters
    ----------
    density : ndarray (z, y, x)
        From `central_density`.
    """

    def __init__(self, density: NDArray[np.float32]) -> None:
        box = density.shape[0]
        self._half = box  # all of a band, twice as fine, and a neighbour
        position = np.arange(box) - box // 2
        # Reading linearly multiplies the density by sinc²; this divides it out.
        ready = density.copy()
        for axis in range(3):
            ready /= np.expand_dims(
                np.sinc(position / (_PADDING * box)) ** 2, tuple({0, 1, 2} - {axis})
            )
        scale = np.float32(1.0 / box**3)
        parts = [self._transform(ready * scale)]
        for axis in (2, 1, 0):  # d/dk of exp(-2πi k x / box)
            lever = np.expand_dims(position, tuple({0, 1, 2} - {axis})) * scale
            parts.append(self._transform(ready * lever) * np.complex64(-2j * np.pi / box))
        self._shape = parts[0].shape
        self._values = parts[0].reshape(-1, 1).view(np.float32)
        self._all = np.stack(parts, axis=-1).reshape(-1, 4).view(np.float32)

    def _transform(self, density: NDArray[np.floating]) -> NDArray[np.complex64]:
        """Transform a density about its centre; z and y from -half to half, x from 0."""
        box = density.shape[0]
        padded = np.zeros((_PADDING * box,) * 3, dtype=np.float32)
        padded[:box, :box, :box] = density
        spectrum = fft.rfftn(np.roll(padded, (-(box // 2),) * 3, axis=(0, 1, 2)))
        both = np.arange(-self._half, self._half + 1)
        return np.ascontiguousarray(spectrum[np.ix_(both, both, both[self._half :])])

    def read(
        self, frequencies: NDArray[np.float32], *, gradient: bool = False
    ) -> NDArray[np.complex64]:
        """Read the transform at any frequencies of the band.

        Parameters
        ----------
        frequencies : ndarray (..., 3), float32
            (x, y, z) in cycles per box.
        gradient : bool

        Returns
        -------
        ndarray (..., 1) or (..., 4)
            The value and, if asked for, its derivatives along x, y and z.
        """
        table = self._all if gradient else self._values
        # The other half is the complex conjugate; derivatives change sign besides.
        sign = np.where(frequencies[..., 0] < 0, np.float32(-1), np.float32(1))
        place = frequencies * (_PADDING * sign)[..., None]
        corner = np.floor(place)
        upper = place - corner
        lower = 1 - upper
        x, y, z = np.moveaxis(corner.astype(np.int64), -1, 0)
        _, rows, columns = self._shape
        start = ((z + self._half) * rows + y + self._half) * columns + x
        found = np.zeros((*sign.shape, table.shape[1]), dtype=np.float32)
        for dz, dy, dx in product((0, 1), repeat=3):
            weight = (upper if dz else lower)[..., 2] * (upper if dy else lower)[..., 1]
            weight *= (upper if dx else lower)[..., 0]
            part = table.take(start + ((dz * rows + dy) * columns + dx), axis=0)
            part *= weight[..., None]
            found += part
        spectrum = found.view(np.complex64)
        spectrum.imag *= sign[..., None]
        if gradient:
            spectrum[..., 1:] *= sign[..., None]
        return spectrum
