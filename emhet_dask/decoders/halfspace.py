"""Volumes from the Fourier coefficients of half of their space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["HalfSpace", "is_first_of_pair", "mirrored"]


def mirrored(coordinates: NDArray[np.int32], box: int) -> NDArray[np.int32]:
    """Return the frequencies at which a real volume has the conjugate coefficients.

    Parameters
    ----------
    coordinates : array of int (coordinate, 3)
        In cycles per box, from ``-box // 2``.
    box : int
        Even; the frequency ``-box // 2`` is its own mirror image.
    """
    found: NDArray[np.int32] = np.where(2 * coordinates == -box, coordinates, -coordinates)
    return found


def is_first_of_pair(coordinates: NDArray[np.int32], box: int) -> NDArray[np.bool_]:
    """Say which of each pair of mirrored frequencies comes first, in the order (z, y, x)."""
    here, there = coordinates, mirrored(coordinates, box)
    differ = here - there
    first = np.zeros(len(here), dtype=np.int64)
    for axis in (2, 1, 0):
        first = np.where(differ[:, axis] != 0, differ[:, axis], first)
    return first <= 0


@dataclass(frozen=True)
class HalfSpace:
    """Where coefficients lie that make up a real volume.

    Attributes
    ----------
    coordinates : ndarray of int32 (coordinate, 3)
        One of each pair of mirrored frequencies (z, y, x), in cycles per box.
    box : int
        Even.
    """

    coordinates: NDArray[np.int32]
    box: int

    @property
    def multiplicity(self) -> NDArray[np.float32]:
        """Return 2 where a coefficient stands for its conjugate too, 1 where it is its own."""
        alone = (mirrored(self.coordinates, self.box) == self.coordinates).all(axis=1)
        return np.where(alone, np.float32(1), np.float32(2))

    @property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Return where coefficients lie in the array that `scipy.fft.irfftn` takes.

        Returns
        -------
        rows : ndarray of int
            Of the coefficients; some lie at two places.
        flat : ndarray of int
            Positions in the flattened array of ``(box, box, box // 2 + 1)``.
        conjugate : ndarray of bool
            Whether the conjugate lies there.
        """
        box, width = self.box, self.box // 2 + 1
        rows, flat, conjugate = [], [], []
        for mirror in (False, True):
            at = (mirrored(self.coordinates, box) if mirror else self.coordinates) % box
            inside = np.flatnonzero(at[:, 2] < width)
            z, y, x = at[inside].T.astype(np.intp)
            rows.append(inside)
            flat.append((z * box + y) * width + x)
            conjugate.append(np.full(len(inside), mirror))
        return np.concatenate(rows), np.concatenate(flat), np.concatenate(conjugate)

    def volume(
        self,
        coefficients: NDArray[np.complex64],
        places: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]],
    ) -> NDArray[np.float32]:
        """Return the volume (z, y, x) of coefficients (coordinate,).

        Parameters
        ----------
        coefficients : array of complex (coordinate,)
        places : tuple
            From `places`, which is worth keeping.
        """
        rows, flat, conjugate = places
        values = coefficients[rows]
        values.imag[conjugate] *= -1
        half = np.zeros(self.box * self.box * (self.box // 2 + 1), dtype=np.complex64)
        half[flat] = values
        cube = (self.box,) * 3
        found: NDArray[np.float32] = fft.irfftn(half.reshape(*cube[:2], -1), s=cube, workers=1)
        return found
