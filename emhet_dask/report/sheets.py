"""Sheets of slices: the mean map of every state, or the principal components as maps.

All maps of a sheet share their crop and their scale, and maps of density their grey values, so that
they can be compared. A sheet is one image: hundreds of panels would take seconds to draw.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.interpolate import make_interp_spline

from emhet_dask.report.palette import state_colour
from emhet_dask.report.slices import Crop, crop_around, grey_limits
from emhet_dask.report.style import DPI, counted, new_figure, panel, styled

__all__ = ["component_sheet", "round_length", "slice_sheet", "state_sheet"]

Array = npt.NDArray[np.floating]

_LARGEST_SHEET = 30
_VIEWS = "Slices across z (x to the right, y up), y (x right, z up) and x (y right, z up)"
# Orange and blue stay apart for colour-blind readers, and from the grey of the map.
_MORE = np.array([1.0, 0.45, 0.0])
_LESS = np.array([0.15, 0.55, 1.0])


def state_sheet(
    means: Sequence[npt.ArrayLike] | npt.NDArray[np.floating],
    *,
    states: pd.DataFrame,
    voxel_size_angstrom: float,
    mask: npt.ArrayLike | None = None,
    noun: str = "state",
    most: int = _LARGEST_SHEET,
) -> Figure:
    """Draw three orthogonal slices of every state's mean map on one sheet.

    Parameters
    ----------
    means : sequence of arrays (z, y, x)
        ``means[k]`` is the mean map of state `k`; only the maps that are drawn are asked for.
    states : DataFrame
        A row per state: ``cluster``, ``volumes``, and ``particles`` where known.
    voxel_size_angstrom : float
    mask : array (z, y, x), optional
        Slices pass through its centre of mass, and what is shown is cropped to it.
    noun : str
        What a group is called: ``"state"``, or ``"cluster"`` where states are not separate.
    most : int
        At most so many states; of more, the largest are drawn, and the sheet says so.
    """
    chosen = states.sort_values("volumes", ascending=False, kind="stable").head(most)
    chosen = chosen.sort_values("cluster")
    numbers = [int(number) for number in chosen["cluster"]]
    title = f"Mean maps of {counted(len(numbers), noun)}"
    if len(numbers) < len(states):
        title = f"Mean maps of the {len(numbers)} largest of {len(states)} {noun}s"
    return slice_sheet(
        [means[number] for number in numbers],
        titles=[_count_title(row, noun) for row in chosen.to_dict("records")],
        colours=[state_colour(number) for number in numbers],
        voxel_size_angstrom=voxel_size_angstrom,
        mask=mask,
        title=title,
    )


@styled
def slice_sheet(
    maps: Sequence[npt.ArrayLike],
    *,
    titles: Sequence[str],
    voxel_size_angstrom: float,
    colours: Sequence[str] | None = None,
    mask: npt.ArrayLike | None = None,
    title: str = "",
    note: str = "",
    same_grey: bool = True,
) -> Figure:
    """Draw three orthogonal slices of each of several maps on one sheet.

    Parameters
    ----------
    maps : sequence of arrays (z, y, x)
        All of one shape.
    titles : sequence of str
        One per map.
    voxel_size_angstrom : float
    colours : sequence of str, optional
        Of the strip over each map.
    mask : array (z, y, x), optional
        Slices pass through its centre of mass, and what is shown is cropped to it.
    title : str
        Of the sheet.
    note : str
        Added to what is said below the sheet.
    same_grey : bool
        Give all maps the same grey values, or else each its own: maps of different jobs may be of
        different scales.
    """
    crop = _crop(mask, maps[0])
    sheet = _Sheet.of(len(maps))
    slices = np.stack([crop.slices(volume) for volume in maps])
    if same_grey:
        tiles = _grey_tiles(slices, sheet.pixels)
    else:
        tiles = np.stack([_grey_tiles(of_one[None], sheet.pixels)[0] for of_one in slices])
    grey = "same grey values and scale" if same_grey else "same scale, each its own grey values"
    return _draw(
        sheet,
        tiles,
        titles=titles,
        colours=colours,
        side_angstrom=crop.side * voxel_size_angstrom,
        title=title,
        note=f"{_VIEWS}; {grey}." + (f" {note}" if note else ""),
    )


@styled
def component_sheet(
    components: Sequence[npt.ArrayLike],
    *,
    mean_map: npt.ArrayLike,
    voxel_size_angstrom: float,
    ratios: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
) -> Figure:
    """Draw where density comes and goes along principal components, over the mean map.

    Parameters
    ----------
    components : sequence of arrays (z, y, x)
        Unit vectors as maps, 0 outside of the mask. A volume with a positive score has more
        density where the component is positive.
    mean_map : array (z, y, x)
    voxel_size_angstrom : float
    ratios : array (component,), optional
        Explained variance ratio, 0 to 1.
    mask : array (z, y, x), optional
        Slices pass through its centre of mass, and what is shown is cropped to it.
    """
    crop = _crop(mask, mean_map)
    sheet = _Sheet.of(len(components))
    # A dark mean map, so that colours stand out.
    backdrop = 0.6 * _grey_tiles(crop.slices(mean_map)[None], sheet.pixels)[0]
    tiles = []
    for component in components:
        values = np.nan_to_num(crop.slices(component))
        limit = float(np.percentile(np.abs(values), 99.5)) or 1.0
        strength = np.clip(_enlarge(values, sheet.pixels) / limit, -1, 1)[..., None]
        colour = np.where(strength > 0, _MORE, _LESS)
        # What is weaker than a sixth of the strongest is left grey: a component of noisy maps has
        # a little of everything.
        opacity = np.clip(1.2 * np.abs(strength) - 0.2, 0, 1)
        tiles.append(backdrop + opacity * (colour - backdrop))
    names = [f"PC{k + 1}" for k in range(len(components))]
    if ratios is not None:
        shares = np.asarray(ratios)
        names = [f"{name} · {shares[k]:.1%} of the variance" for k, name in enumerate(names)]
    return _draw(
        sheet,
        np.stack(tiles),
        titles=names,
        colours=None,
        side_angstrom=crop.side * voxel_size_angstrom,
        title="Where density changes along the principal components",
        note=f"{_VIEWS}.\nOrange: more density towards positive scores. Blue: less. "
        "Each component on its own scale, over the mean map.",
    )


def _crop(mask: npt.ArrayLike | None, example: npt.ArrayLike) -> Crop:
    return crop_around(np.ones(np.shape(example)) if mask is None else mask)


@dataclass(frozen=True)
class _Sheet:
    """Where each map lies on a sheet; inches from the upper left corner of the image."""

    n_maps: int
    n_columns: int
    slice_inches: float

    gap = 0.18
    heading = 0.26

    @classmethod
    def of(cls, n_maps: int) -> _Sheet:
        """Return a sheet that is about as wide as a page, with larger slices of few maps."""
        if n_maps <= 6:
            return cls(n_maps, min(2, n_maps), 1.65)
        return cls(n_maps, 3, 1.07)

    @property
    def pixels(self) -> int:
        """Side of a slice in pixels, as the sheet is saved."""
        return round(self.slice_inches * DPI)

    @property
    def width(self) -> float:
        return self.n_columns * (3 * self.slice_inches + self.gap) - self.gap

    @property
    def height(self) -> float:
        return -(-self.n_maps // self.n_columns) * (self.slice_inches + self.heading)

    def corner(self, k: int) -> tuple[float, float]:
        row, column = divmod(k, self.n_columns)
        return (
            column * (3 * self.slice_inches + self.gap),
            row * (self.slice_inches + self.heading) + self.heading,
        )

    def montage(self, tiles: Array) -> npt.NDArray[np.uint8]:
        """Put tiles (map, 3, pixel, pixel, 3) together; transparent between them."""
        size = self.pixels
        sheet = np.zeros((round(self.height * DPI) + 1, round(self.width * DPI) + 1, 4), np.uint8)
        for k in range(self.n_maps):
            left, top = (round(inches * DPI) for inches in self.corner(k))
            for axis in range(3):
                target = sheet[top : top + size, left + axis * size :][:, :size]
                # Rows of an image go down, coordinates go up.
                tile = tiles[k, axis, ::-1][: target.shape[0], : target.shape[1]]
                target[..., :3] = 255 * tile
                target[..., 3] = 255
                if axis:  # a thin line between the slices
                    target[:, :2] = 255
        return sheet


def _draw(
    sheet: _Sheet,
    tiles: Array,
    *,
    titles: Sequence[str],
    colours: Sequence[str] | None,
    side_angstrom: float,
    title: str,
    note: str,
) -> Figure:
    # So many letters of each size of type fit on an inch.
    title = textwrap.fill(title, round(9 * sheet.width))
    notes = [
        part for line in note.split("\n") for part in textwrap.wrap(line, int(13 * sheet.width))
    ]
    top = 0.45 + 0.17 * title.count("\n")
    figure = new_figure(
        width_inches=sheet.width + 0.24,
        height_inches=sheet.height + top + 0.2 + 0.15 * len(notes),
        title=title,
        note="\n".join(notes),
    )
    axes = panel(
        figure,
        left_inches=0.12,
        top_inches=top - 0.05,
        width_inches=sheet.width,
        height_inches=sheet.height,
    )
    axes.set_axis_off()
    axes.imshow(
        sheet.montage(tiles),
        extent=(0, sheet.width, sheet.height, 0),
        interpolation="nearest",
        aspect="auto",
    )
    for k, text in enumerate(titles):
        left, top = sheet.corner(k)
        axes.text(left, top - 0.07, text, fontsize=7.5, va="bottom")
        if colours is not None:
            axes.plot(
                [left, left + 3 * sheet.slice_inches],
                [top - 0.03, top - 0.03],
                color=colours[k],
                linewidth=2.5,
                solid_capstyle="butt",
            )
    axes.set_xlim(0, sheet.width)
    axes.set_ylim(sheet.height, 0)
    _scale_bar(axes, sheet, side_angstrom)
    return figure


def _grey_tiles(slices: Array, size: int) -> Array:
    """Return slices (map, 3, n, n) of density as colours (map, 3, size, size, 3), 0 to 1."""
    low, high = grey_limits(slices)
    enlarged = _enlarge(np.where(np.isnan(slices), low, slices), size)
    grey = np.clip((enlarged - low) / (high - low), 0, 1)
    return np.broadcast_to(grey[..., None], (*grey.shape, 3))


def _enlarge(slices: Array, size: int) -> Array:
    """Resample squares (…, n, n) to (…, size, size) with a cubic spline."""
    n = slices.shape[-1]
    if n < 2:
        return np.broadcast_to(slices, (*slices.shape[:-2], size, size))
    spline = make_interp_spline(np.arange(n), np.eye(n), k=3 if n > 3 else 1)
    # Pixel centres of the large image in units of the small one.
    weights = spline(np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1))
    return np.asarray(weights @ slices @ weights.T)


def _scale_bar(axes: Axes, sheet: _Sheet, side_angstrom: float) -> None:
    length = round_length(side_angstrom / 3)
    left, top = sheet.corner(0)
    bottom = top + sheet.slice_inches - 0.09
    width = sheet.slice_inches * length / side_angstrom
    axes.plot(
        [left + 0.08, left + 0.08 + width],
        [bottom, bottom],
        color="white",
        linewidth=1.8,
        solid_capstyle="butt",
    )
    axes.text(left + 0.08, bottom - 0.04, f"{length:g} Å", color="white", fontsize=6.5, va="bottom")


def round_length(most: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not above a length."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(power * max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def _count_title(state: Mapping[Any, Any], noun: str) -> str:
    words = [f"{noun} {state['cluster']}", counted(state["volumes"], "volume")]
    particles = state.get("particles")
    if particles is not None and not pd.isna(particles):
        words.append(counted(particles, "particle"))
    return " · ".join(words)
