"""Rotations: an even grid of all of them, the angle between two, and RELION's angles.

Matrices act on points (x, y, z). Arrays of maps have the axes z, y, x, so the matrix that acts on
array indices is the same one with rows and columns reversed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

__all__ = [
    "angle_between",
    "even_rotations",
    "matrix_of_angles",
    "relion_angles",
    "rotation_count",
]

# The constants of Alexa's spirals: the square root of 2, and the root above 1 of x^4 = x + 4.
_PHI = np.sqrt(2.0)
_PSI = 1.533751168755204288118041


def rotation_count(spacing_degrees: float) -> int:
    """Return how many rotations an even grid of this spacing has.

    All rotations have the volume 8π² where distance is the angle of rotation in radians; each one
    of a grid gets a cube with edges as long as the spacing.
    """
    return max(1, round(8.0 * np.pi**2 / np.deg2rad(spacing_degrees) ** 3))


def even_rotations(count: int) -> NDArray[np.float64]:
    """Return rotations that are spread evenly over all of them: super-Fibonacci spirals.

    Source: M. Alexa, *Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3)*, CVPR
    2022. With the spacing of `rotation_count`, any rotation is half a spacing from the nearest one
    on average, and less than a spacing in any case.

    Parameters
    ----------
    count : int

    Returns
    -------
    ndarray (count, 3, 3)
        Matrices that act on (x, y, z).
    """
    position = np.arange(count) + 0.5
    near, far = np.sqrt(position / count), np.sqrt(1.0 - position / count)
    alpha, beta = 2.0 * np.pi * position / _PHI, 2.0 * np.pi * position / _PSI
    quaternion = np.stack(
        [near * np.sin(alpha), near * np.cos(alpha), far * np.sin(beta), far * np.cos(beta)], axis=1
    )
    return np.asarray(Rotation.from_quat(quaternion).as_matrix())


def angle_between(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the angle in degrees of the rotation that leads from one rotation to another.

    Parameters
    ----------
    first, second : array (..., 3, 3)
        Rotation matrices; leading dimensions are broadcast.

    Returns
    -------
    ndarray (...)
        From 0 to 180.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    # |A - B|² = 8 sin²(angle / 2) keeps small angles, whose digits the trace loses.
    apart = np.sqrt(np.square(first - second).sum(axis=(-2, -1)))
    return np.asarray(np.rad2deg(2.0 * np.arcsin(np.minimum(apart / np.sqrt(8.0), 1.0))))


def relion_angles(matrix: ArrayLike) -> tuple[float, float, float]:
    """Return a rotation as RELION's angles ``(rot, tilt, psi)`` in degrees.

    For these angles, RELION's ``Euler_angles2matrix`` (the convention of Heymann, Chagoyen &
    Belnap, 2005) gives `matrix`. RELION's matrix takes points of a map to points of the view, so
    that the projection of a map at these angles is the projection of the rotated map along z.

    Parameters
    ----------
    matrix : array (3, 3)
        Acts on (x, y, z).

    Returns
    -------
    rot, tilt, psi : float
        Tilt from 0 to 180, the others from -180 to 180. At a tilt of 0 or 180 only psi ± rot
        counts, and rot is 0.
    """
    m = np.asarray(matrix, dtype=np.float64)
    sine = np.hypot(m[2, 0], m[2, 1])
    tilt = np.arctan2(sine, m[2, 2])
    if sine < 1e-7:
        rot, psi = 0.0, np.arctan2(-m[1, 0] * np.sign(m[2, 2]), m[1, 1])
    else:
        rot, psi = np.arctan2(m[2, 1], m[2, 0]), np.arctan2(m[1, 2], -m[0, 2])
    found = np.rad2deg([rot, tilt, psi]) + 0.0  # -0 becomes 0
    return float(found[0]), float(found[1]), float(found[2])


def matrix_of_angles(rot: float, tilt: float, psi: float) -> NDArray[np.float64]:
    """Return the matrix (3, 3) of RELION's angles in degrees: `relion_angles` the other way."""
    turns = [_axes_about_z(psi), _axes_about_y(tilt), _axes_about_z(rot)]
    return turns[0] @ turns[1] @ turns[2]


def _axes_about_z(degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def _axes_about_y(degrees: float) -> NDArray[np.float64]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
