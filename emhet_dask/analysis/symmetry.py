"""Point groups, in the setting of RELION, and their averages in Fourier space."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.projection import Complex64, Float32, SliceGrid
from emhet_dask.errors import InputError

__all__ = ["symmetrise", "symmetrise_columns", "symmetry_operators"]

# Axes that generate a group: fold and direction (x, y, z), of RELION's settings. I is I2.
_GOLDEN = (1.0 + np.sqrt(5.0)) / 2.0
_AXES: dict[str, list[tuple[int, tuple[float, float, float]]]] = {
    "T": [(3, (0.0, 0.0, 1.0)), (2, (0.0, np.sqrt(2.0), 1.0))],
    "O": [(3, (1.0, 1.0, 1.0)), (4, (0.0, 0.0, 1.0))],
    "I1": [(2, (1.0, 0.0, 0.0)), (5, (_GOLDEN, 0.0, -1.0))],
    "I2": [(2, (0.0, 0.0, 1.0)), (5, (1.0, 0.0, _GOLDEN))],
    "I3": [(2, (-1.0, 0.0, _GOLDEN)), (5, (0.0, 0.0, 1.0))],
    "I4": [(2, (1.0, 0.0, _GOLDEN)), (5, (2.0, 0.0, 1.0))],
}
_MOST_FOLD = 100
_SAME = 1e-6
_ON_PLANE = 1e-4
# Voxels that are looked up at a time.
_SLAB_VOXELS = 1 << 16


def symmetry_operators(group: str) -> NDArray[np.float64]:
    """Return the rotations of a point group, as ``relion_refine --print_symmetry_ops`` has them.

    Parameters
    ----------
    group : str
        ``C1``, ``C4``, ``D2``, …, ``T``, ``O``, ``I`` (which is ``I2``), ``I1`` to ``I4``.

    Returns
    -------
    ndarray (operator, 3, 3)
        The identity first. Cn has its axis along z, Dn another of order 2 along x.

    Raises
    ------
    InputError
        When there is no such group.
    """
    name = group.upper()
    name = "I2" if name == "I" else name
    match = re.fullmatch(r"([CD])(\d{1,3})", name)
    if match and 1 <= int(match[2]) <= _MOST_FOLD:
        axes = [(int(match[2]), (0.0, 0.0, 1.0))]
        axes += [(2, (1.0, 0.0, 0.0))] if match[1] == "D" else []
    elif name in _AXES:
        axes = _AXES[name]
    else:
        raise InputError(
            f"--symmetry: got {group!r}, expected C1, C2, …, D2, …, T, O, I or I1 to I4"
        )
    return _closure([_turn(fold, axis) for fold, axis in axes])


def _turn(fold: int, axis: tuple[float, float, float]) -> NDArray[np.float64]:
    unit = np.asarray(axis) / np.linalg.norm(axis)
    return np.asarray(Rotation.from_rotvec(2.0 * np.pi / fold * unit).as_matrix())


def _closure(generators: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Multiply generators until nothing new comes."""
    found = [np.eye(3)]
    for known in found:  # which grows meanwhile
        for generator in generators:
            new = known @ generator
            if all(np.abs(new - other).max() > _SAME for other in found):
                found.append(new)
    return np.asarray(found)


def symmetrise(
    data: Complex64, weight: Float32, grid: SliceGrid, operators: NDArray[np.floating]
) -> tuple[Complex64, Float32]:
    """Add up sums of slices over the operators of a group.

    Parameters
    ----------
    data : ndarray of complex64 (voxel,)
        From `emhet_dask.analysis.gridding.hermitian_sums`.
    weight : ndarray of float32 (voxel,)
    grid : SliceGrid
    operators : array (operator, 3, 3)

    Returns
    -------
    data, weight
        Each voxel's sum of what lies at its turned places, by trilinear interpolation.
    """
    total, heavy = data.reshape(grid.shape).copy(), weight.reshape(grid.shape).copy()
    source, mass = data.reshape(grid.shape), weight.reshape(grid.shape)
    reach = grid.reach
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    y, x = axis[:, None], axis[None, reach:]
    for turn in np.asarray(operators, dtype=np.float32):
        if np.abs(turn - np.eye(3)).max() < _SAME:
            continue
        for plane, z in enumerate(axis):  # so that memory is that of a plane
            inside = x**2 + y**2 + z**2 <= (reach - 1) ** 2
            rows, columns = np.nonzero(inside)
            place = [
                turn[i, 0] * x[0, columns] + turn[i, 1] * y[rows, 0] + turn[i, 2] * z
                for i in range(3)
            ]
            found, much = _look_up(source, mass, np.stack(place), reach)
            total[plane, rows, columns] += found
            heavy[plane, rows, columns] += much
    return total.reshape(-1), heavy.reshape(-1)


def symmetrise_columns(
    values: NDArray[Any], grid: SliceGrid, operators: NDArray[np.floating]
) -> NDArray[Any]:
    """Add up many sums over the operators of a group, as `symmetrise` does two.

    Parameters
    ----------
    values : ndarray of complex64 or float32 (voxel, column)
        Completed along ``x = 0``.
    grid : SliceGrid
    operators : array (operator, 3, 3)

    Returns
    -------
    ndarray, as `values`
    """
    dense = np.ascontiguousarray(values)
    total = dense.copy()
    reach = grid.reach
    inside = np.flatnonzero(grid.voxel_radius * grid.padding <= reach - 1)
    turns = [turn for turn in operators if np.abs(turn - np.eye(3)).max() >= _SAME]
    for at in range(0, len(inside), _SLAB_VOXELS):
        rows = inside[at : at + _SLAB_VOXELS]
        z, y, x = np.unravel_index(rows, grid.shape)
        middle = np.stack([x, y - reach, z - reach]).astype(np.float32)
        for turn in turns:
            weights, mate = _look_up_matrix(np.asarray(turn, np.float32) @ middle, grid)
            found = (weights @ dense.view(np.float32)).view(dense.dtype)
            if np.iscomplexobj(found):
                np.negative(found.imag, out=found.imag, where=mate[:, None])
            total[rows] += found
    return total


def _look_up_matrix(place: Float32, grid: SliceGrid) -> tuple[Any, NDArray[np.bool_]]:
    """Return trilinear weights (point, voxel) of places (x y z, point), and where mates are."""
    mate = place[0] < 0
    place = _snapped(np.where(mate, -place, place))
    lower = np.floor(place)
    part = place - lower
    corner = lower.astype(np.int64) + np.array([0, grid.reach, grid.reach])[:, None]
    values, columns = [], []
    for corners in np.ndindex(2, 2, 2):
        weight = np.prod([part[i] if c else 1 - part[i] for i, c in enumerate(corners)], axis=0)
        spot = [np.minimum(corner[i] + c, grid.shape[2 - i] - 1) for i, c in enumerate(corners)]
        values.append(weight)
        columns.append(np.ravel_multi_index(tuple(spot[::-1]), grid.shape))
    starts = np.arange(0, 8 * place.shape[1] + 1, 8)
    flat = np.stack(values, axis=1).ravel(), np.stack(columns, axis=1).ravel(), starts
    return sparse.csr_array(flat, shape=(place.shape[1], grid.n_voxels)), mate


def _snapped(place: Float32) -> Float32:
    """Return places; those on a plane of the grid that rounding has put beside it are on it."""
    nearest = np.rint(place)
    return np.where(np.abs(place - nearest) < _ON_PLANE, nearest, place)


def _look_up(
    source: Complex64, mass: Float32, place: Float32, reach: int
) -> tuple[Complex64, Float32]:
    """Interpolate at places (x y z, point); of the half that is not stored, the conjugate."""
    mate = place[0] < 0
    place = _snapped(np.where(mate, -place, place))
    at = place[::-1] + np.array([reach, reach, 0], dtype=np.float32)[:, None]
    found = ndimage.map_coordinates(source, at, order=1, prefilter=False)
    much = ndimage.map_coordinates(mass, at, order=1, prefilter=False)
    return np.where(mate, found.conj(), found), much
