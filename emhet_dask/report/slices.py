"""Slices through a map: where they are taken, what of them is shown, and the mask over the mean.

Positions are in Å from the corner of the box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from emhet_dask.report.style import new_figure, panel, styled

__all__ = ["Crop", "crop_around", "grey_limits", "mask_slices"]

Array = npt.NDArray[np.floating]

# Image axes (vertical, horizontal) of the slice across each axis of a (z, y, x) map.
_ACROSS = {"z": ("y", "x"), "y": ("z", "x"), "x": ("z", "y")}
_AXIS_ORDER = ("z", "y", "x")


@dataclass(frozen=True)
class Crop:
    """Where slices are taken and which part of them is shown.

    Attributes
    ----------
    centre : tuple of int
        Voxel (z, y, x) that the three slices pass through.
    start : tuple of int
        First voxel (z, y, x) that is shown; negative where the box is smaller than the window.
    side : int
        Voxels shown along each axis.
    """

    centre: tuple[int, int, int]
    start: tuple[int, int, int]
    side: int

    def slices(self, volume: npt.ArrayLike) -> Array:
        """Return the slices (3, side, side) of a map across z, y and x; NaN outside the box."""
        volume = np.asarray(volume)
        window = np.full((3, self.side, self.side), np.nan)
        for axis in range(3):
            first, second = (other for other in range(3) if other != axis)
            plane = np.take(volume, self.centre[axis], axis=axis)
            rows, into_rows = self._overlap(first, plane.shape[0])
            columns, into_columns = self._overlap(second, plane.shape[1])
            window[axis, into_rows, into_columns] = plane[rows, columns]
        return window

    def _overlap(self, axis: int, size: int) -> tuple[slice, slice]:
        start = self.start[axis]
        low, high = max(start, 0), min(start + self.side, size)
        return slice(low, high), slice(low - start, high - start)


def crop_around(mask: npt.ArrayLike, *, margin: float = 0.06) -> Crop:
    """Return the crop that a mask (z, y, x) fills, with slices through its centre of mass.

    Parameters
    ----------
    mask : array (z, y, x)
        What is above 0 counts, by its value. An empty mask gives the whole box.
    margin : float
        Added on each side, as a share of the mask's longest extent.
    """
    mask = np.maximum(np.nan_to_num(np.asarray(mask, dtype=np.float32)), 0)
    if not mask.any():
        mask = np.ones_like(mask)
    profiles = [mask.sum(axis=tuple(k for k in range(3) if k != axis)) for axis in range(3)]
    spans = [np.flatnonzero(profile)[[0, -1]] for profile in profiles]
    extent = max(int(last - first) + 1 for first, last in spans)
    side = min(extent + 2 * int(np.ceil(margin * extent)), max(mask.shape))
    centre, start = [], []
    for profile, (first, last), size in zip(profiles, spans, mask.shape, strict=True):
        centre.append(round(float(np.average(np.arange(size), weights=profile))))
        begin = round((first + last + 1 - side) / 2)
        # Inside the box where it is large enough, in its middle where it is not.
        begin = int(np.clip(begin, 0, size - side)) if size >= side else (size - side) // 2
        start.append(begin)
    return Crop((centre[0], centre[1], centre[2]), (start[0], start[1], start[2]), side)


@styled
def mask_slices(
    mask: npt.ArrayLike, *, mean_map: npt.ArrayLike, voxel_size_angstrom: float
) -> Figure:
    """Draw the outline of the mask over the mean map: three slices across each axis.

    Parameters
    ----------
    mask : array (z, y, x)
        1 inside, 0 outside, between at a soft edge; the outline is drawn at 0.5.
    mean_map : array (z, y, x)
        Mean of all volumes.
    voxel_size_angstrom : float
    """
    mask = np.asarray(mask, dtype=np.float32)
    mean_map = np.asarray(mean_map, dtype=np.float32)
    inside = int(np.count_nonzero(mask > 0))
    title = f"Mask: {inside:,} voxels, {inside / mask.size:.1%} of the box"
    figure = new_figure(
        width_inches=8.9,
        height_inches=9.45,
        title=title,
        note="Mean map in grey, outline of the mask in orange; positions in Å from the corner.",
    )
    low, high = grey_limits(mean_map)
    spans = [_extent(mask, axis) for axis in range(3)]
    for row, axis in enumerate(_AXIS_ORDER):
        first, last = spans[row]
        for column, share in enumerate((0.25, 0.5, 0.75)):
            index = round(first + share * (last - first))
            axes = panel(
                figure,
                left_inches=0.65 + 2.75 * column,
                top_inches=0.6 + 2.87 * row,
                width_inches=2.15,
                height_inches=2.15,
            )
            plane = np.take(mean_map, index, axis=row)
            height, width = (size * voxel_size_angstrom for size in plane.shape)
            box = (0.0, width, 0.0, height)
            axes.imshow(
                plane,
                cmap="gray",
                vmin=low,
                vmax=high,
                origin="lower",
                extent=box,
                interpolation="bilinear",
            )
            outline = np.take(mask, index, axis=row)
            if outline.min() < 0.5 < outline.max():
                axes.contour(
                    outline,
                    levels=[0.5],
                    colors="#e69f00",
                    linewidths=1.1,
                    extent=box,
                    origin="lower",
                )
            axes.set_title(f"{axis} = {index * voxel_size_angstrom:.0f} Å")
            axes.locator_params(nbins=4)
            vertical, horizontal = _ACROSS[axis]
            axes.set_xlabel(f"{horizontal} (Å)")
            axes.set_ylabel(f"{vertical} (Å)")
    return figure


def grey_limits(values: Array) -> tuple[float, float]:
    """Return the values drawn black and white; single bright or dark voxels do not set them."""
    low, high = np.nanpercentile(values, [1.0, 99.9])
    return float(low), float(high if high > low else low + 1)


def _extent(mask: Array, axis: int) -> tuple[int, int]:
    others = tuple(other for other in range(3) if other != axis)
    filled = np.flatnonzero((mask > 0).any(axis=others))
    return (int(filled[0]), int(filled[-1])) if filled.size else (0, mask.shape[axis] - 1)
