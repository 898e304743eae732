"""Rigid motions of maps: what a rotation, a shift and a mirror image mean, and doing them.

A point at ``p`` = (x, y, z), counted from the centre voxel ``N // 2`` of the box, goes to

    p' = R M p + t

where ``M`` is diag(-1, 1, 1) for a mirrored map and the identity otherwise (what
``relion_image_handler --invert_hand`` does), ``R`` is a rotation and ``t`` a shift. In voxels or in
Å, as `t` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = ["Motion", "mirror", "move"]

# A motion that displaces no point of the inscribed sphere by more voxels than this is none: an
# interpolation would cost more than it mends.
_STILL = 0.1
# Of this order, the spline passes 0.3% less of the amplitude at two thirds of Nyquist, and 3% less
# at 0.84 of it; the cubic one 3% and 9%, in a third of the time.
_SPLINE_ORDER: Literal[5] = 5


@dataclass(frozen=True, eq=False)
class Motion:
    """A rigid motion about the centre of a box.

    Attributes
    ----------
    rotation : ndarray (3, 3)
        `R`, acts on (x, y, z).
    shift_voxels : ndarray (3,)
        `t` along x, y and z.
    mirrored : bool
        Whether x was reversed first.
    """

    rotation: NDArray[np.float64]
    shift_voxels: NDArray[np.float64]
    mirrored: bool = False

    def is_still(self, box: int) -> bool:
        """Tell whether it leaves a map of so many voxels a side where it is."""
        # The Frobenius norm of R - 1 is √2 times the largest displacement of a unit vector.
        turned = np.linalg.norm(self.rotation - np.eye(3)) / np.sqrt(2.0)
        return not self.mirrored and bool(
            turned * box / 2 + np.linalg.norm(self.shift_voxels) < _STILL
        )

    def settled(self, box: int) -> Motion:
        """Return the motion, or none at all where it leaves a map where it is."""
        return Motion(np.eye(3), np.zeros(3)) if self.is_still(box) else self

    def placement(
        self, box: int, *, voxel_size_angstrom: float, origin_angstrom: ArrayLike = (0.0, 0.0, 0.0)
    ) -> NDArray[np.float64]:
        """Return the motion as a matrix (3, 4) for coordinates in Å, as programs place models.

        ChimeraX moves a map so with ``view matrix models #1,`` and its twelve numbers, row by
        row; an atomic model goes with its map.

        Parameters
        ----------
        box : int
            Voxels a side.
        voxel_size_angstrom : float
        origin_angstrom : array (3,)
            Coordinates (x, y, z) of the first voxel.
        """
        centre = np.asarray(origin_angstrom) + box // 2 * voxel_size_angstrom
        linear = self.rotation @ np.diag([-1.0 if self.mirrored else 1.0, 1.0, 1.0])
        shift = centre + self.shift_voxels * voxel_size_angstrom - linear @ centre
        return np.concatenate([linear, shift[:, None]], axis=1)


def move(volume: NDArray[np.float32], motion: Motion) -> NDArray[np.float32]:
    """Move a map, with one interpolation at most (a spline of fifth order).

    Parameters
    ----------
    volume : ndarray (z, y, x)
        A cube.
    motion : Motion
        Where it is still, the very same values come back.

    Returns
    -------
    ndarray (z, y, x), float32
        What comes in from outside the box has the mean density of its faces.
    """
    box = volume.shape[0]
    if motion.is_still(box):
        return volume
    if motion.mirrored:
        volume = mirror(volume)
    # The map at p' is the one at p = R'(p' - t); arrays count z, y, x.
    back = motion.rotation.T[::-1, ::-1]
    centre = np.full(3, float(box // 2))
    offset = centre - back @ (centre + motion.shift_voxels[::-1])
    background = _faces_mean(volume)
    moved = np.empty_like(volume)
    ndimage.affine_transform(
        volume - background, back, offset, output=moved, order=_SPLINE_ORDER, mode="constant"
    )
    moved += background
    return moved


def mirror(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reverse x about the centre voxel; of an even box, the first plane stays where it is."""
    return np.ascontiguousarray(np.roll(volume[..., ::-1], 1 - volume.shape[-1] % 2, axis=-1))


def _faces_mean(volume: NDArray[np.float32]) -> np.float32:
    faces = [np.take(volume, [0, -1], axis=axis).ravel() for axis in range(3)]
    return np.float32(np.concatenate(faces).mean(dtype=np.float64))
