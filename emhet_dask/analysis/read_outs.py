"""Coordinates of volumes on components that were found before, as inner products.

A score is linear in a volume, and so is the amplitude that the volume is divided by. A volume is
therefore placed by a few inner products, with masked voxels or, by Parseval's theorem, with Fourier
coefficients: a volume that is decoded in Fourier space needs no inverse transform. Clipping is not
linear, and needs the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from emhet_dask.analysis.normalisation import AmplitudeFit, divisors

__all__ = ["ReadOuts", "fourier_weights", "products_in_fourier_space"]


@dataclass(frozen=True)
class ReadOuts:
    """What places volumes on components.

    Attributes
    ----------
    vectors : ndarray of float32 (read_out, voxel)
        One for each component and, where volumes are normalised, one for the amplitude; times the
        mask's values.
    voxel_index : ndarray of int64 (voxel,)
        Positions in the flattened box (z, y, x).
    offset : ndarray of float64 (component,)
        What a score is less than its inner product.
    amplitude_scale : float or None
        The raw amplitude is the last inner product times this; None without normalisation.
    repeatability : float
        What is kept of a raw amplitude's distance from 1.
    clip_negative : bool
        Whether negative density counts as 0.
    """

    vectors: NDArray[np.float32]
    voxel_index: NDArray[np.int64]
    offset: NDArray[np.float64]
    amplitude_scale: float | None
    repeatability: float
    clip_negative: bool

    @classmethod
    def of(
        cls,
        *,
        components: ArrayLike,
        mean: ArrayLike,
        voxel_index: ArrayLike,
        voxel_weight: ArrayLike,
        amplitude: AmplitudeFit | None,
        clip_negative: bool,
    ) -> ReadOuts:
        """Make them of a finished PCA.

        Parameters
        ----------
        components : array (component, voxel)
        mean : array (voxel,)
            Of the prepared volumes.
        voxel_index, voxel_weight : array (voxel,)
            Of the masked matrix.
        amplitude : AmplitudeFit or None
            Where volumes were normalised.
        clip_negative : bool
        """
        along = np.asarray(components, dtype=np.float64)
        rows, scale, repeatability = [along], None, 1.0
        if amplitude is not None:
            # A shape of large values would drown the components in single precision.
            length = float(np.linalg.norm(amplitude.shape))
            rows.append(amplitude.shape[None] / length)
            scale = 1.0 / (length * amplitude.mean_raw)
            repeatability = amplitude.repeatability
        soft = np.asarray(voxel_weight, dtype=np.float64)
        return cls(
            vectors=(np.concatenate(rows) * soft).astype(np.float32),
            voxel_index=np.asarray(voxel_index, dtype=np.int64),
            offset=along @ np.asarray(mean, dtype=np.float64),
            amplitude_scale=scale,
            repeatability=repeatability,
            clip_negative=clip_negative,
        )

    @property
    def n_components(self) -> int:
        """Return the number of components."""
        return len(self.offset)

    def products(self, volume: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the inner products (read_out,) of a volume (z, y, x)."""
        values = volume.reshape(-1)[self.voxel_index]
        if self.clip_negative:
            values = np.maximum(values, 0)
        return (self.vectors @ values).astype(np.float64)

    def scores(self, products: ArrayLike) -> NDArray[np.float32]:
        """Return the scores (volume, component) of volumes with these products (volume, read_out).

        Parameters
        ----------
        products : array (volume, read_out)
        """
        given = np.asarray(products, dtype=np.float64)
        along = given[:, : self.n_components]
        if self.amplitude_scale is not None:
            raw = given[:, -1] * self.amplitude_scale
            along = along / divisors(1.0 + self.repeatability * (raw - 1.0))[:, None]
        return (along - self.offset).astype(np.float32)


def fourier_weights(
    read_outs: ReadOuts, *, box: int, coordinates: ArrayLike, multiplicity: ArrayLike
) -> NDArray[np.complex64]:
    """Return by what Fourier coefficients are multiplied for the same inner products.

    Parameters
    ----------
    read_outs : ReadOuts
        Without clipping.
    box : int
        Voxels a side.
    coordinates : array of int (coordinate, 3)
        Frequencies (z, y, x) in cycles per box, of half of Fourier space; volumes have no others.
    multiplicity : array (coordinate,)
        2 where a coefficient stands for its conjugate too, 1 where it is its own.

    Returns
    -------
    ndarray of complex64 (read_out, coordinate)
        For `products_in_fourier_space`.

    Raises
    ------
    ValueError
        When volumes are clipped, which is not linear.
    """
    if read_outs.clip_negative:
        raise ValueError("clipped volumes have no read-outs in Fourier space")
    places = tuple(np.asarray(coordinates).T % box)
    count = np.asarray(multiplicity, dtype=np.float32) / np.float32(box) ** 3
    found = np.empty((len(read_outs.vectors), len(count)), dtype=np.complex64)
    for row, vector in enumerate(read_outs.vectors):
        cube = np.zeros(box**3, dtype=np.float32)
        cube[read_outs.voxel_index] = vector
        found[row] = fft.fftn(cube.reshape((box,) * 3), workers=1)[places] * count
    return found


def products_in_fourier_space(
    coefficients: NDArray[np.complex64], weights: NDArray[np.complex64]
) -> NDArray[np.float64]:
    """Return the inner products (volume, read_out) of volumes that are known in Fourier space.

    Parameters
    ----------
    coefficients : array of complex64 (volume, coordinate)
    weights : array of complex64 (read_out, coordinate)
        From `fourier_weights`.
    """
    # The real part of a product with a conjugate is an inner product of pairs of real numbers.
    rows = np.ascontiguousarray(coefficients, dtype=np.complex64).view(np.float32)
    columns = np.ascontiguousarray(weights).view(np.float32)
    # One volume at a time: its bits do not depend on what it is decoded with.
    return np.stack([(columns @ row).astype(np.float64) for row in rows])
