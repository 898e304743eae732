"""The grid that volumes must share to lie in one store, and what to do where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from emhet_dask.errors import InputError
from emhet_dask.formats.volumes import VolumeSource

__all__ = ["Grid", "check_uniform"]

_SAME_SIZE = 1e-3  # relative; at 400 voxels the far ends still lie within half a voxel


@dataclass(frozen=True)
class Grid:
    """The grid that all volumes have in common.

    Attributes
    ----------
    box : int
        Voxels a side, in the files.
    voxel_size_angstrom : float
        Edge of a voxel of that box.
    origin_angstrom : tuple of float
        x, y, z of the first volume's origin.
    n_other_origins : int
        Volumes whose origin is more than a tenth of a voxel from that.
    """

    box: int
    voxel_size_angstrom: float
    origin_angstrom: tuple[float, float, float]
    n_other_origins: int


def check_uniform(
    volumes: Sequence[VolumeSource], *, apix: float | None = None, box: int | None = None
) -> Grid:
    """Judge whether volumes can share one store, and say what would make them.

    Parameters
    ----------
    volumes : sequence of VolumeSource
        From `find_volumes`.
    apix : float, optional
        Voxel size in Å that the user states; it overrides every header.
    box : int, optional
        Box that the user wants; volumes are cropped to it in Fourier space.

    Returns
    -------
    Grid
        With ``box`` given and boxes mixed (same extent in Å), that of the first volume.

    Raises
    ------
    InputError
        When voxel sizes are missing, mixed or differ between axes and ``apix`` is not given, when
        boxes are mixed and ``box`` is not given or extents differ, or ``box`` exceeds a box.
    """
    if not volumes:
        raise InputError("no map given; expected at least one")
    boxes = _by_value((volume.header.shape[0], volume) for volume in volumes)
    smallest = int(min(boxes))
    if box is not None and box > smallest:
        raise InputError(
            f"--box {box} is larger than the maps: {_described(boxes, 'voxels')}; "
            f"expected at most {smallest}"
        )
    sizes = _voxel_sizes(volumes, apix)
    if len(boxes) > 1:
        sides = [volume.header.shape[0] for volume in volumes]
        extents = [side * size for side, size in zip(sides, sizes, strict=True)]
        same_extent = max(extents) <= (1 + _SAME_SIZE) * min(extents)
        if not same_extent or box is None:
            remedy = (
                f"they have the same extent in Å, so --box {smallest} brings them to one box"
                if same_extent
                else "their extents in Å differ too, so no --box can bring them together"
            )
            raise InputError(f"boxes are mixed: {_described(boxes, 'voxels')}; {remedy}")
    elif max(sizes) > (1 + _SAME_SIZE) * min(sizes):
        values = _by_value(zip(sizes, volumes, strict=True))
        raise InputError(
            f"voxel sizes are mixed: {_described(values, 'Å')}; if the headers are wrong, "
            "--apix states one for all, else ingest them apart"
        )
    origins = np.array([volume.header.origin_angstrom for volume in volumes])
    away = np.abs(origins - origins[0]).max(axis=1) > 0.1 * sizes[0]
    return Grid(
        box=volumes[0].header.shape[0],
        voxel_size_angstrom=sizes[0],
        origin_angstrom=volumes[0].header.origin_angstrom,
        n_other_origins=int(np.count_nonzero(away)),
    )


def _voxel_sizes(volumes: Sequence[VolumeSource], apix: float | None) -> list[float]:
    """Return the voxel size of every volume, or say which have none."""
    if apix is not None:
        return [apix] * len(volumes)
    skewed = [volume for volume in volumes if volume.header.is_anisotropic]
    if skewed:
        x, y, z = skewed[0].header.voxel_sizes_angstrom or (0.0, 0.0, 0.0)
        raise InputError(
            f"{_some(skewed)}: voxels of {x:g} × {y:g} × {z:g} Å; expected equal edges; if the "
            "header is wrong, --apix states the right one"
        )
    silent = [volume for volume in volumes if volume.header.voxel_size_angstrom is None]
    if silent:
        stated = [volume.header.voxel_size_angstrom for volume in volumes]
        known = sorted({size for size in stated if size is not None})
        others = f" (the others state {known[0]:g})" if known else ""
        raise InputError(
            f"{_some(silent)}: no usable voxel size, the header says 0 or 1 Å; state it with "
            f"--apix{others}"
        )
    return [volume.header.voxel_size_angstrom or 0.0 for volume in volumes]


def _by_value(
    pairs: Iterable[tuple[float, VolumeSource]],
) -> dict[float, list[VolumeSource]]:
    values: dict[float, list[VolumeSource]] = {}
    for value, volume in pairs:
        values.setdefault(value, []).append(volume)
    return values


def _described(values: dict[float, list[VolumeSource]], unit: str, limit: int = 5) -> str:
    """Describe e.g. mixed boxes, the usual ones first: '64 voxels in 18 maps (a.mrc, …)'."""
    ordered = sorted(values.items(), key=lambda item: -len(item[1]))
    shown = [f"{value:g} {unit} in {_some(members)}" for value, members in ordered[:limit]]
    return ", ".join(shown) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")


def _some(volumes: Sequence[VolumeSource], limit: int = 3) -> str:
    names = [volume.header.path for volume in volumes[:limit]]
    if len(volumes) == 1:
        return names[0]
    more = ", …" if len(volumes) > limit else ""
    return f"{len(volumes)} maps ({', '.join(names)}{more})"
