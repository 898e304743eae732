"""The mask of an ensemble: the voxels that the molecule reaches in enough of the volumes.

A voxel counts in a volume when its density exceeds one threshold. The union over all volumes swells
with their number and, on noise, fills the box. So a voxel enters only when more volumes reach it
than noise explains. How often noise does is read off the volumes themselves: solvent scatters about
its level as far down as up, so that the mirror image of the threshold is crossed as often.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, special

from emhet_dask.analysis.bands import tree
from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.errors import InputError

__all__ = [
    "auto_mask",
    "background_rate",
    "binarise_mask",
    "count_beyond",
    "grow_mask",
    "least_volumes",
    "select_voxels",
]

# Expected number of voxels of pure noise in the whole box; alone, they are dropped as specks.
_FALSE_VOXELS = 2.0
# A state rarer than this may be lost; junk rarer than this cannot swell the mask.
_LEAST_FRACTION = 0.002
_SPECK_VOXELS = 8
_LEVEL_SAMPLE = 16
# A byte counts so far; adding bytes is eight times as fast as adding to integers.
_MOST_IN_A_BYTE = 255
_SAMPLE_STEP = 61  # prime, so that it does not run along an axis of the box


def auto_mask(
    volumes: da.Array,
    *,
    voxel_size_angstrom: float,
    threshold: float | None = None,
    thresholds: ArrayLike | None = None,
    dilate_angstrom: float | None = None,
    cosine_edge_angstrom: float = 0.0,
    compute: Callable[..., tuple[Any, ...]] = dask.compute,
) -> xr.Dataset:
    """Find the voxels that the molecule reaches in enough of the volumes.

    Parameters
    ----------
    volumes : dask array (volume, z, y, x)
        Read once (and a few volumes twice), block by block along the volumes.
    voxel_size_angstrom : float
    threshold : float, optional
        Density above which a voxel counts, 0 and negative values included; by default the mean of
        `thresholds`.
    thresholds : array (volume,), optional
        `volume_threshold` of each volume, where they are known from before.
    dilate_angstrom : float, optional
        How far the mask grows, in Å; two voxels by default.
    cosine_edge_angstrom : float
        Width of a soft edge around it, in Å.
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    xarray.Dataset
        ``mask`` (z, y, x), float32 from 0 to 1, and ``occupancy`` (z, y, x): in how many volumes a
        voxel exceeds the threshold. Attributes: ``threshold``, ``least_volumes`` (as many must
        exceed it), ``background_rate`` (how often noise does, from 0 to 1), ``n_voxels`` and
        ``fraction`` of the box, where the mask is above 0.

    Raises
    ------
    InputError
        When no voxel enters; the message gives the range of densities.
    """
    given = threshold is not None
    if threshold is None:
        known = thresholds if thresholds is not None else compute(volume_thresholds(volumes))[0]
        threshold = float(np.mean(np.asarray(known, dtype=np.float64)))
    level = float(np.median(compute(_sampled_levels(volumes))[0]))
    above, below = compute(_count_pass(volumes, threshold, 2.0 * level - threshold))[0]
    n_volumes = volumes.shape[0]
    rate = background_rate(above, below, n_volumes=n_volumes)
    least = least_volumes(rate, n_volumes=n_volumes, n_voxels=above.size)
    core = select_voxels(above, least=least)
    if not core.any():
        raise _empty(volumes, threshold, least, compute, given=given)
    if dilate_angstrom is None:
        dilate_angstrom = 2.0 * voxel_size_angstrom
    mask = grow_mask(
        core,
        voxel_size_angstrom=voxel_size_angstrom,
        dilate_angstrom=dilate_angstrom,
        cosine_edge_angstrom=cosine_edge_angstrom,
    )
    support = int(np.count_nonzero(mask))
    return xr.Dataset(
        {"mask": (("z", "y", "x"), mask), "occupancy": (("z", "y", "x"), above)},
        attrs={
            "threshold": threshold,
            "least_volumes": least,
            "background_rate": rate,
            "n_voxels": support,
            "fraction": support / mask.size,
            "dilate_angstrom": dilate_angstrom,
            "cosine_edge_angstrom": cosine_edge_angstrom,
        },
    )


def volume_thresholds(volumes: da.Array) -> da.Array:
    """`volume_threshold` of every volume, lazily."""
    return da.map_blocks(
        lambda block: np.array([volume_threshold(volume) for volume in block]),
        _whole_volumes(volumes),
        drop_axis=[1, 2, 3],
        dtype=np.float64,
    )


def count_beyond(block: NDArray[Any], *, upper: float, lower: float) -> NDArray[np.int32]:
    """Count for each voxel the volumes of a block above `upper` and those below `lower`.

    Parameters
    ----------
    block : array (volume, z, y, x)
    upper, lower : float

    Returns
    -------
    ndarray of int32, shape (2, z, y, x)
    """
    counts = np.zeros((2, *block.shape[1:]), dtype=np.int32)
    for start in range(0, len(block), _MOST_IN_A_BYTE):
        part = np.zeros(counts.shape, dtype=np.uint8)
        for volume in block[start : start + _MOST_IN_A_BYTE]:
            part[0] += (volume > upper).view(np.uint8)
            part[1] += (volume < lower).view(np.uint8)
        counts += part
    return counts


def background_rate(above: NDArray[np.int32], below: NDArray[np.int32], *, n_volumes: int) -> float:
    """How often a voxel without a molecule exceeds the threshold.

    It crosses the mirror image as often, where nothing of the molecule adds to the count. Voxels
    whose two counts differ by more than chance allows (three standard deviations of the difference
    of two Poisson counts) are left out: there, something is systematically low. The mean weighs
    each voxel by its count, so that parts of the box that were set to zero do not hide the noise
    in the rest; ``Σ b (b − 1) / Σ b`` is free of the bias that such a weight brings.

    Parameters
    ----------
    above, below : array (z, y, x)
        Volumes beyond the threshold and beyond its mirror image.
    n_volumes : int

    Returns
    -------
    float
        From 0 to 1.
    """
    high, low = above.astype(np.float64), below.astype(np.float64)
    noise = low[np.abs(high - low) <= 3.0 * np.sqrt(high + low + 1.0)]
    if not noise.any():
        return 0.0
    weighted = float(noise @ (noise - 1.0)) / float(noise.sum())
    return min(1.0, max(weighted, float(noise.mean())) / n_volumes)


def least_volumes(rate: float, *, n_volumes: int, n_voxels: int) -> int:
    """Volumes that must exceed the threshold at a voxel for it to enter the mask.

    More than noise reaches at any voxel of the box (the binomial quantile, by Bonferroni over the
    voxels), and at least one volume in 500.
    """
    by_chance = 0
    if rate > 0:
        exceeded = special.bdtrc(np.arange(n_volumes + 1), n_volumes, rate)
        by_chance = int(np.argmax(exceeded <= _FALSE_VOXELS / n_voxels))
    return max(by_chance + 1, math.ceil(_LEAST_FRACTION * n_volumes))


def select_voxels(
    above: NDArray[np.int32], *, least: int, speck_voxels: int = _SPECK_VOXELS
) -> NDArray[np.bool_]:
    """Take the voxels that enough volumes reach, and drop specks of a few voxels.

    Parameters
    ----------
    above : array (z, y, x)
        Volumes that exceed the threshold.
    least : int
        As many must; see `least_volumes`.
    speck_voxels : int
        Connected pieces smaller than this are dropped.
    """
    chosen = above >= least
    labels, n_pieces = ndimage.label(chosen, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.reshape(-1), minlength=n_pieces + 1)
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= speck_voxels)[labels]
    return kept


def grow_mask(
    core: NDArray[np.bool_],
    *,
    voxel_size_angstrom: float,
    dilate_angstrom: float,
    cosine_edge_angstrom: float = 0.0,
) -> NDArray[np.float32]:
    """Dilate a mask by a ball and give it a soft edge.

    Parameters
    ----------
    core : array of bool (z, y, x)
    voxel_size_angstrom : float
    dilate_angstrom : float
        Every voxel within this distance of a core voxel enters; 0 adds none.
    cosine_edge_angstrom : float
        Width over which the mask falls from 1 to 0 outside the dilated core, as a raised cosine.

    Returns
    -------
    ndarray of float32 (z, y, x), 0 to 1
    """
    reach = dilate_angstrom + cosine_edge_angstrom
    if reach <= 0:
        return core.astype(np.float32)
    distance = ndimage.distance_transform_edt(~core, sampling=voxel_size_angstrom)
    tolerance = 1e-6 * voxel_size_angstrom  # 2 × 3 Å must reach a voxel at 6 Å
    outside = np.asarray(distance) - dilate_angstrom - tolerance
    if cosine_edge_angstrom <= 0:
        return (outside <= 0).astype(np.float32)
    phase = np.clip(outside / cosine_edge_angstrom, 0.0, 1.0)
    return (0.5 * (1.0 + np.cos(np.pi * phase))).astype(np.float32)


def binarise_mask(values: ArrayLike, *, threshold: float = 0.5) -> NDArray[np.bool_]:
    """Cut a mask (or a map) at a threshold.

    Parameters
    ----------
    values : array (z, y, x)
    threshold : float
        Voxels at or above it are inside; those that are 0 are not, whatever the threshold.

    Raises
    ------
    InputError
        When values are not finite, or nothing is inside; the message gives their range.
    """
    array = np.asarray(values)
    if not np.isfinite(array).all():
        raise InputError("the mask holds NaN or infinity; it must be finite everywhere")
    inside: NDArray[np.bool_] = (array >= threshold) & (array != 0)
    if not inside.any():
        low, high = float(array.min()), float(array.max())
        advice = (
            f"a threshold of {high / 2:.4g} would cut it at half of its height"
            if high > 0
            else "it has no positive value, so it is no mask"
        )
        raise InputError(
            f"the mask is empty at threshold {threshold:.4g}: its values range from {low:.4g} to "
            f"{high:.4g}; {advice}"
        )
    return inside


def _empty(
    volumes: da.Array,
    threshold: float,
    least: int,
    compute: Callable[..., tuple[Any, ...]],
    *,
    given: bool,
) -> InputError:
    low, high, usual = compute(volumes.min(), volumes.max(), volume_thresholds(volumes))
    where = f"densities range from {low:.4g} to {high:.4g}"
    what = "--threshold:" if given else "the automatic threshold"
    other = "; for maps on different grey scales use --mask none or a mask file"
    if least > len(volumes):
        return InputError(
            f"{what} {threshold:.4g} lies inside the noise, which exceeds it anywhere in the "
            f"box; {where}, expected something near {np.mean(usual):.4g}{other}"
        )
    return InputError(
        f"the mask is empty: no voxel exceeds the threshold {threshold:.4g} in {least} of "
        f"{len(volumes)} volumes, which noise alone could not do; {where} and the usual threshold "
        f"is {np.mean(usual):.4g}; give a threshold near it or below{other}"
    )


def _count_pass(volumes: da.Array, upper: float, lower: float) -> Any:
    count = dask.delayed(count_beyond, pure=False)
    blocks = _whole_volumes(volumes).to_delayed().ravel()
    return tree([count(block, upper=upper, lower=lower) for block in blocks], _add)


def _add(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _sampled_levels(volumes: da.Array) -> da.Array:
    """Median density of a few volumes spread over the ensemble: the level of the solvent."""
    n_volumes = volumes.shape[0]
    chosen = np.unique(np.linspace(0, n_volumes - 1, min(n_volumes, _LEVEL_SAMPLE)).astype(int))
    # One by one: volumes chosen by a list are read with all that are stored beside them.
    few = da.concatenate([volumes[number : number + 1] for number in chosen.tolist()])
    return da.map_blocks(
        lambda block: np.median(block.reshape(len(block), -1), axis=1).astype(np.float64),
        _whole_volumes(few),
        drop_axis=[1, 2, 3],
        dtype=np.float64,
    )


def _whole_volumes(volumes: da.Array) -> da.Array:
    return volumes.rechunk({1: -1, 2: -1, 3: -1}, method="tasks")
