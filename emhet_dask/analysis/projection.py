"""Central slices of volumes in Fourier space, and back: the images of maps at given poses.

The projection of a map is, in Fourier space, the slice through the origin across its direction
(Bracewell 1956). Slices are looked up by trilinear interpolation in the transform of the map padded
to twice its box, with what the interpolation dims towards the edges of the box divided out before,
all as RELION does it (Scheres 2012). At given poses that look-up is a fixed sparse matrix, pixels
by voxels: its product with volumes gives slices, the product of its transpose with slices the sums
that a reconstruction starts from.

Transforms are unnormalised, as NumPy's, with the origin in the middle of the box, voxel
``box // 2``. Pixels are those of the half plane ``x >= 0`` up to a radius; of the line ``x = 0``,
which holds every coefficient twice, the half ``y >= 0``. Voxels are those of the half space
``x >= 0``, flattened in the order z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse
from scipy.spatial.transform import Rotation

from emhet_dask.errors import InputError

__all__ = [
    "SCATTER_OF_SUMS",
    "SliceGrid",
    "SliceOperator",
    "cropped",
    "image_transforms",
    "images_of",
    "interpolation_dimming",
    "part_of",
    "particles_per_operator",
    "plan_slices",
    "pose_matrices",
    "shift_ramps",
    "slice_operator",
    "volume_transform",
]

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

# Mean square of trilinear weights over their mean, (1/3 / 1/2)³: the variance of a sum of slices
# over the sum of their weights, for noise of variance 1.
SCATTER_OF_SUMS = 8 / 27
_CORNERS = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
# What is worked out at once for a matrix stays in a core's cache.
_PIXELS_AT_ONCE = 1 << 15
# Of each entry of the matrix: a position and a weight, and a reserve of as much.
_BYTES_PER_ENTRY = 16


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The pixels of a slice and the voxels that they are looked up in.

    Attributes
    ----------
    box : int
        Of images and maps, even.
    radius : int
        Highest frequency, in units of one over the extent of the box.
    padding : int
        Voxels of the transform per such unit.
    x, y : ndarray of int64 (pixel,)
        Frequency of each pixel.
    """

    box: int
    radius: int
    padding: int
    x: NDArray[np.int64]
    y: NDArray[np.int64]

    @property
    def n_pixels(self) -> int:
        """Return the number of pixels of a slice."""
        return len(self.x)

    @property
    def reach(self) -> int:
        """Return the highest coordinate of a voxel along any axis."""
        return self.padding * self.radius + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the voxels along z, y and x; 0 is in the middle of z and y, and first in x."""
        side = 2 * self.reach + 1
        return side, side, self.reach + 1

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels."""
        return int(np.prod(self.shape))

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """Return the place of each pixel in the flattened half transform of an image."""
        return (self.y % self.box) * (self.box // 2 + 1) + self.x

    @cached_property
    def shell(self) -> NDArray[np.int64]:
        """Return the shell of each pixel, as RELION numbers them."""
        return np.rint(np.hypot(self.x, self.y)).astype(np.int64)

    @cached_property
    def multiplicity(self) -> Float32:
        """Return how many coefficients of the whole plane each pixel stands for: 1 or 2."""
        alone = (self.x == 0) & ((self.y == 0) | (2 * self.y == self.box))
        return np.where(alone, 1.0, 2.0).astype(np.float32)

    @cached_property
    def voxel_radius(self) -> Float32:
        """Return the distance (voxel,) of each voxel from the origin, in the units of `radius`."""
        axis = np.arange(-self.reach, self.reach + 1, dtype=np.float32) ** 2
        square = axis[:, None, None] + axis[:, None] + axis[self.reach :]
        return np.asarray(np.sqrt(square).reshape(-1) / np.float32(self.padding))

    @cached_property
    def voxel_shell(self) -> NDArray[np.int32]:
        """Return the shell (voxel,) of each voxel."""
        return np.rint(self.voxel_radius).astype(np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without what follows from the three numbers, which is as large as a map."""
        return _replanned, (self.box, self.radius, self.padding)


def plan_slices(box: int, *, radius: int | None = None, padding: int = 2) -> SliceGrid:
    """List the pixels of a slice.

    Parameters
    ----------
    box : int
    radius : int, optional
        Highest frequency, in units of one over the extent of the box; default, and most: half of
        the box.
    padding : int
        How many times larger the box is made before its transform is taken.

    Raises
    ------
    InputError
        When the box is odd, or the radius beyond 1 to half of it.
    """
    if box < 4 or box % 2:
        raise InputError(f"images have {box} pixels, expected an even number of at least 4")
    radius = box // 2 if radius is None else radius
    if not 1 <= radius <= box // 2:
        raise InputError(f"radius {radius}: expected 1 to {box // 2}, half of the box")
    y, x = np.mgrid[-radius : radius + 1, : radius + 1]
    inside = (x**2 + y**2 <= radius**2) & ((x > 0) | (y >= 0))
    return SliceGrid(box, radius, padding, x[inside], y[inside])


def _replanned(box: int, radius: int, padding: int) -> SliceGrid:
    return plan_slices(box, radius=radius, padding=padding)


def pose_matrices(angles: ArrayLike) -> NDArray[np.float64]:
    """Return the matrices of RELION's angles.

    Parameters
    ----------
    angles : array (particle, 3)
        Rot, tilt and psi in degrees.

    Returns
    -------
    ndarray (particle, 3, 3)
        They act on (x, y, z) and take points of a map to points of its view along z.
    """
    turns = Rotation.from_euler("ZYZ", np.asarray(angles, dtype=np.float64), degrees=True)
    return np.ascontiguousarray(turns.as_matrix().swapaxes(-1, -2))


# The matrix ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SliceOperator:
    """Looks up the slices of particles in volumes, and adds slices up in volumes.

    Attributes
    ----------
    grid : SliceGrid
    weights : sparse.csr_array of float32 (particle * pixel, voxel)
        Trilinear weights.
    mate : ndarray of bool (particle, pixel)
        Where the pixel falls into the other half of space, and the conjugate is looked up.
    """

    grid: SliceGrid
    weights: Any
    mate: NDArray[np.bool_]

    def project(self, volumes: Complex64) -> Complex64:
        """Look up slices.

        Parameters
        ----------
        volumes : ndarray of complex64 (voxel, volume)
            From `volume_transform`.

        Returns
        -------
        ndarray of complex64 (particle, pixel, volume)
        """
        dense = np.ascontiguousarray(volumes, dtype=np.complex64)
        count = dense.shape[1]
        flat = np.asarray(self.weights @ dense.view(np.float32))
        found = flat.view(np.complex64).reshape(*self.mate.shape, count)
        np.negative(found.imag, out=found.imag, where=self.mate[..., None])
        return found

    def back_project(self, slices: Complex64, weights: Float32) -> tuple[Complex64, Float32]:
        """Add slices up: the adjoint of `project`.

        Parameters
        ----------
        slices : ndarray of complex64 (particle, pixel) or (particle, pixel, volume)
            Times CTF and weight, over the variance of the noise.
        weights : ndarray of float32, shape of `slices`
            CTF² times weight, over the variance of the noise.

        Returns
        -------
        data : ndarray of complex64 (voxel,) or (voxel, volume)
        weight : ndarray of float32, shape of `data`
        """
        single = slices.ndim == 2
        count = 1 if single else slices.shape[2]
        dense = np.empty((*self.mate.shape, 3, count), dtype=np.float32)
        dense[:, :, 0] = slices.real.reshape(*self.mate.shape, count)
        imaginary = slices.imag.reshape(*self.mate.shape, count)
        np.negative(imaginary, out=dense[:, :, 1], where=self.mate[..., None])
        np.copyto(dense[:, :, 1], imaginary, where=~self.mate[..., None])
        dense[:, :, 2] = weights.reshape(*self.mate.shape, count)
        sums = np.asarray(self.weights.T @ dense.reshape(-1, 3 * count)).reshape(-1, 3, count)
        data = np.empty((len(sums), count), dtype=np.complex64)
        data.real, data.imag = sums[:, 0], sums[:, 1]
        weight = np.ascontiguousarray(sums[:, 2])
        return (data[:, 0], weight[:, 0]) if single else (data, weight)


def particles_per_operator(grid: SliceGrid, *, nbytes: int = 64 * 2**20) -> int:
    """Return for how many particles an operator takes at most so many bytes while it is made."""
    return max(1, nbytes // (grid.n_pixels * len(_CORNERS) * _BYTES_PER_ENTRY))


def slice_operator(turns: ArrayLike, grid: SliceGrid) -> SliceOperator:
    """Make the matrix of slices at given poses.

    Parameters
    ----------
    turns : array (particle, 3, 3)
        From `pose_matrices`. A pixel (x, y) is looked up at ``x`` times the first row plus ``y``
        times the second.
    grid : SliceGrid
    """
    rows = np.asarray(turns, dtype=np.float32)[:, :2] * np.float32(grid.padding)
    mate = np.empty((len(rows), grid.n_pixels), dtype=np.bool_)
    values = np.empty((*mate.shape, len(_CORNERS)), dtype=np.float32)
    columns = np.empty((*mate.shape, len(_CORNERS)), dtype=np.int32)
    some = max(1, _PIXELS_AT_ONCE // grid.n_pixels)
    for at in range(0, len(rows), some):
        part = slice(at, at + some)
        mate[part] = _look_up(rows[part], grid, values[part], columns[part])
    starts = np.arange(0, values.size + 1, len(_CORNERS), dtype=np.int32)
    weights = sparse.csr_array(
        (values.reshape(-1), columns.reshape(-1), starts), shape=(mate.size, grid.n_voxels)
    )
    return SliceOperator(grid, weights, mate)


def _look_up(
    rows: Float32, grid: SliceGrid, values: Float32, columns: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Find the voxels (particle, pixel, corner) around pixels; return where they are mates."""
    places = np.empty((3, len(rows), grid.n_pixels), dtype=np.float32)
    x, y = grid.x.astype(np.float32), grid.y.astype(np.float32)
    for axis in range(3):
        np.multiply(rows[:, 0, axis, None], x, out=places[axis])
        places[axis] += rows[:, 1, axis, None] * y
    mate = places[0] < 0
    np.negative(places, out=places, where=mate)
    lower = np.floor(places)
    places -= lower
    depth, height, width = grid.shape
    corner = lower.astype(np.int32)
    base = (corner[2] + grid.reach) * np.int32(height * width)
    base += (corner[1] + grid.reach) * np.int32(width) + corner[0]
    # Rounding may lift a pixel on an axis at the full radius to the outermost voxel: its upper
    # corner, of weight 0, lies beyond.
    last = np.int32(depth * height * width - 1)
    parts = [(1.0 - places[axis], places[axis]) for axis in range(3)]
    for number, (above, behind, beside) in enumerate(_CORNERS):
        np.multiply(parts[2][above] * parts[1][behind], parts[0][beside], out=values[..., number])
        np.minimum(
            base + np.int32((above * height + behind) * width + beside),
            last,
            out=columns[..., number],
        )
    return mate


# Maps and images ----------------------------------------------------------------------------------


def interpolation_dimming(box: int, *, padding: int) -> Float32:
    """Return by how much trilinear interpolation in Fourier space dims each voxel of a box.

    ``sinc²`` of the distance from the middle, over the padded box (RELION takes the distance,
    where interpolation along three axes would take the product over them).
    """
    axis = np.square(np.arange(box, dtype=np.float32) - box // 2)
    distance = np.sqrt(axis[:, None, None] + axis[:, None] + axis)
    return np.asarray(np.sinc(distance / np.float32(box * padding)) ** 2, dtype=np.float32)


def volume_transform(volume: ArrayLike, grid: SliceGrid) -> Complex64:
    """Return the transform of a map in which slices are looked up.

    Parameters
    ----------
    volume : array (z, y, x)
        Of the grid's box.
    grid : SliceGrid

    Returns
    -------
    ndarray of complex64 (voxel,)
        0 beyond the radius.
    """
    density = np.asarray(volume, dtype=np.float32)
    density = density / interpolation_dimming(grid.box, padding=grid.padding)
    side = grid.box * grid.padding
    padded = np.zeros((side,) * 3, dtype=np.float32)
    # The middle of the box goes to the origin.
    half = grid.box // 2
    ends = ((slice(half), slice(side - half, side)), (slice(half, None), slice(half)))
    for z, to_z in ends:
        for y, to_y in ends:
            for x, to_x in ends:
                padded[to_z, to_y, to_x] = density[z, y, x]
    spectrum = fft.rfftn(padded)
    inside = grid.padding * grid.radius  # at most half of the side
    axis = np.arange(-inside, inside + 1)
    found = np.zeros(grid.shape, dtype=np.complex64)
    chosen = spectrum[np.ix_(axis % side, axis % side, axis[inside:])]
    chosen[axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis[inside:] ** 2 > inside**2] = 0
    found[1:-1, 1:-1, :-1] = chosen
    return found.reshape(-1)


def part_of(volume: Complex64, grid: SliceGrid, to: SliceGrid) -> Complex64:
    """Return the part (z, y, x) of a transform of one grid that a smaller one holds: a view."""
    cut = grid.reach - to.reach
    cube = volume.reshape(grid.shape)
    ends = slice(cut, cube.shape[0] - cut)
    return cube[ends, ends, : to.reach + 1]


def cropped(volume: Complex64, grid: SliceGrid, to: SliceGrid) -> Complex64:
    """Return the part (voxel,) of a transform of one grid that a smaller one holds."""
    found = np.array(part_of(volume, grid, to)).reshape(-1)
    found[to.voxel_radius > to.radius + 1] = 0
    return found


def image_transforms(
    images: ArrayLike, grid: SliceGrid, *, shifts: ArrayLike | None = None
) -> Complex64:
    """Return the transforms of images at the pixels of slices.

    Parameters
    ----------
    images : array (particle, y, x)
    grid : SliceGrid
    shifts : array (particle, 2), optional
        RELION's origins in pixels, x and y: how far each image is moved to be centred.

    Returns
    -------
    ndarray of complex64 (particle, pixel)
    """
    data = np.asarray(images, dtype=np.float32)
    spectrum = fft.rfft2(data).reshape(len(data), -1)[:, grid.position]
    spectrum *= _centring(grid)
    if shifts is not None and np.any(shifts):
        spectrum *= shift_ramps(shifts, grid)
    return np.asarray(spectrum, dtype=np.complex64)


def shift_ramps(shifts: ArrayLike, grid: SliceGrid) -> Complex64:
    """Return the phases (particle, pixel) that move images by shifts (particle, 2) in pixels."""
    by = np.asarray(shifts, dtype=np.float64)
    angle = by[:, 0, None] * grid.x + by[:, 1, None] * grid.y
    return np.exp(-2j * np.pi / grid.box * angle).astype(np.complex64)


def images_of(slices: Complex64, grid: SliceGrid) -> Float32:
    """Return the images of slices (particle, pixel): `image_transforms` the other way."""
    half = grid.box // 2 + 1
    spectrum = np.zeros((len(slices), grid.box * half), dtype=np.complex64)
    spectrum[:, grid.position] = slices * _centring(grid)
    # The other half of the line x = 0.
    line = np.flatnonzero((grid.x == 0) & (grid.y > 0))
    spectrum[:, (-grid.y[line] % grid.box) * half] = spectrum[:, grid.position[line]].conj()
    return np.asarray(
        fft.irfft2(spectrum.reshape(-1, grid.box, half), s=(grid.box, grid.box)), dtype=np.float32
    )


def _centring(grid: SliceGrid) -> Float32:
    """Return the signs that move the origin of a transform from the corner to the middle."""
    return np.where((grid.x + grid.y) % 2, -1.0, 1.0).astype(np.float32)
