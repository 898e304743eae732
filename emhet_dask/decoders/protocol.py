"""What a decoder is, whatever program trained it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decoder", "DecoderModel"]


class Decoder(Protocol):
    """A model in memory, ready to decode.

    Coefficients are those of `numpy.fft.fftn` of a volume, whose first voxel is the origin, at
    `coordinates`: one half of Fourier space, since volumes are real. By Parseval's theorem the
    inner product of a volume ``v`` with a map ``w`` is ::

        sum(v * w) == sum(multiplicity * real(V * conj(W))) / box**3

    with the coefficients ``V`` and ``W`` at `coordinates`, as long as the decoder gives 0 at all
    others.

    Attributes
    ----------
    box : int
        Voxels a side of a volume.
    n_latent : int
        Dimensions of a latent.
    coordinates : ndarray of int32 (coordinate, 3)
        Frequencies (z, y, x) in cycles per box, from ``-box // 2``.
    multiplicity : ndarray of float32 (coordinate,)
        2 where a coefficient stands for its conjugate too, 1 where it is its own.
    """

    box: int
    n_latent: int
    coordinates: NDArray[np.int32]
    multiplicity: NDArray[np.float32]

    def fourier(
        self, latents: NDArray[np.floating], rows: NDArray[np.intp] | None = None
    ) -> NDArray[np.complex64]:
        """Decode coefficients.

        Parameters
        ----------
        latents : array (volume, latent)
        rows : array of int (coordinate,), optional
            Which of `coordinates`; by default all.

        Returns
        -------
        ndarray of complex64 (volume, coordinate)
            Each row depends on its own latent alone, to the last bit.
        """
        ...

    def volumes(self, latents: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
        """Decode volumes, one after another.

        Parameters
        ----------
        latents : array (volume, latent)

        Yields
        ------
        ndarray of float32 (z, y, x)
            Of the caller's to keep.
        """
        ...


class DecoderModel(Protocol):
    """How to come by a decoder: small, and the same on every worker."""

    def load(self) -> Decoder:
        """Return the decoder; loaded once per process, however often it is asked for."""
        ...
