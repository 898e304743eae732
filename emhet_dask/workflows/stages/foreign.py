"""A map of another program, brought into the box of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emhet_dask.analysis.fourier import crop_box, pad_box
from emhet_dask.ensemble import Ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import MapHeader, read_header, read_volume

__all__ = ["ForeignMap", "read_map_on_box", "refuse_other_extent"]

_SAME_EXTENT = 1e-2  # relative; voxel sizes are often rounded to two digits


@dataclass(frozen=True)
class ForeignMap:
    """A map in the box of an ensemble.

    Attributes
    ----------
    path : str
    density : ndarray of float32, shape (z, y, x)
    side : int
        Voxels a side before.
    """

    path: str
    density: np.ndarray
    side: int


def read_map_on_box(path: str, ensemble: Ensemble, *, option: str) -> ForeignMap:
    """Read a map; cropped or padded in Fourier space where its box is another of the same extent.

    Parameters
    ----------
    path : str
    ensemble : Ensemble
    option : str
        That named it, for the message.

    Raises
    ------
    InputError
        When it cannot be read, is not one cubic map, holds NaN, or is of another extent.
    """
    header = read_header(path)
    refuse_other_extent(header, ensemble, what=f"{option} {path}")
    density = read_volume(header)
    if not np.isfinite(density).all():
        raise InputError(
            f"{option} {path}: holds NaN or infinite densities, expected finite numbers"
        )
    side, box = header.shape[0], ensemble.box
    if side != box:
        density = crop_box(density, box) if side > box else pad_box(density, box)
    return ForeignMap(path, density, side)


def refuse_other_extent(header: MapHeader, ensemble: Ensemble, *, what: str) -> None:
    """Refuse a map that is not one cube of the extent of the volumes.

    Parameters
    ----------
    header : MapHeader
    ensemble : Ensemble
    what : str
        Option and file, for the message.

    Raises
    ------
    InputError
    """
    if header.n_volumes != 1 or not header.is_cubic:
        several = f"{header.n_volumes} of " if header.n_volumes > 1 else ""
        shape = "×".join(str(length) for length in header.shape)
        raise InputError(f"{what}: holds {several}{shape} voxels, expected one cubic map")
    side, box = header.shape[0], ensemble.box
    size, wanted = header.voxel_size_angstrom, ensemble.voxel_size_angstrom
    if size is None and side != box:
        raise InputError(
            f"{what}: {side}³ voxels of unknown size, expected {box}³ like the volumes"
        )
    if size is not None and abs(side * size / (box * wanted) - 1) > _SAME_EXTENT:
        raise InputError(
            f"{what}: {side}³ voxels of {size:g} Å are {side * size:g} Å, but the volumes are "
            f"{box * wanted:g} Å; expected the same extent"
        )
