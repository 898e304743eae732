"""How much of each given part is there in each volume: sums of density inside masks.

As MAVEn defines it: the sum of mask × map, divided, where references are given, by the sum of the
reference map of the part (Kinman et al. 2023, doi:10.1038/s41596-022-00763-x).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from emhet_dask.analysis.relations import two_modes
from emhet_dask.errors import InputError

__all__ = ["Parts", "part_dataset", "part_occupancy", "part_presence", "part_sums", "rescale_parts"]

Float64 = NDArray[np.float64]

_LEAST_RELATIVE = 0.2


@dataclass(frozen=True)
class Parts:
    """Masks of parts, without the voxels that are in none of them.

    Attributes
    ----------
    voxels : ndarray of int (voxel,)
        Their positions in the flattened box.
    weights : scipy.sparse.csr_array of float64 (part, voxel)
        Values of the masks at them.
    """

    voxels: NDArray[np.int64]
    weights: Any

    @classmethod
    def of(cls, masks: Iterable[ArrayLike]) -> Parts:
        """Gather masks, which are looked at one after another.

        Parameters
        ----------
        masks : iterable of array
            Each of any shape, flattened; all of one size.

        Raises
        ------
        InputError
            When a mask is 0 everywhere, or not finite.
        """
        where, values = [], []
        for number, mask in enumerate(masks):
            flat = np.asarray(mask).reshape(-1)
            inside = np.flatnonzero(flat)
            if not len(inside) or not np.isfinite(flat[inside]).all():
                raise InputError(
                    f"mask {number}: {'holds NaN or infinity' if len(inside) else 'is empty'}; "
                    "values from 0 to 1 are needed"
                )
            where.append(inside)
            values.append(flat[inside].astype(np.float64))
        if not where:
            raise InputError("masks: found none; one for each part is needed")
        voxels, column = np.unique(np.concatenate(where), return_inverse=True)
        starts = np.concatenate([[0], np.cumsum([len(each) for each in where])])
        weights = sparse.csr_array(
            (np.concatenate(values), column.reshape(-1), starts), shape=(len(where), len(voxels))
        )
        return cls(voxels, weights)

    @property
    def sums(self) -> Float64:
        """Return the sum of each mask (part,)."""
        return np.asarray(self.weights.sum(axis=1), dtype=np.float64).reshape(-1)


def part_sums(volumes: Iterable[ArrayLike], parts: Parts) -> Float64:
    """Sum mask × map over the box, for every part of each volume.

    Volumes are looked at one after another, in float64, so that it does not matter which ones come
    together.

    Parameters
    ----------
    volumes : iterable of array
        Each of any shape, flattened.
    parts : Parts

    Returns
    -------
    ndarray of float64 (volume, part)
    """
    rows = [
        parts.weights @ np.asarray(volume).reshape(-1)[parts.voxels].astype(np.float64)
        for volume in volumes
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), parts.weights.shape[0])


def part_occupancy(array: Any, masks: ArrayLike, references: ArrayLike | None = None) -> xr.Dataset:
    """Occupancy of given parts in each volume.

    Parameters
    ----------
    array : dask or NumPy array (volume, voxel)
        Volumes, flattened. A dask array stays lazy and is read once.
    masks : array (part, voxel)
        From 0 to 1.
    references : array (part, voxel), optional
        A map of each part on its own, on the grey scale of the volumes.

    Returns
    -------
    xarray.Dataset
        See `part_dataset`; lazy where the array is.

    Raises
    ------
    InputError
        When shapes do not fit, a mask is empty, or a reference does not sum to more than 0.
    """
    values = np.asarray(masks)
    if values.ndim != 2 or values.shape[1] != array.shape[1]:
        raise InputError(
            f"masks: found an array of shape {values.shape}; one of parts × {array.shape[1]} "
            "voxels is needed"
        )
    parts = Parts.of(values)
    denominators = None
    if references is not None:
        given = np.asarray(references, dtype=np.float64)
        if given.shape != values.shape:
            raise InputError(
                f"references: found an array of shape {given.shape}; {values.shape} is needed, "
                "like the masks"
            )
        denominators = given.sum(axis=1)
    if isinstance(array, da.Array):
        whole = array.rechunk({1: -1})
        sums = da.map_blocks(
            part_sums,
            whole,
            parts,
            chunks=(whole.chunks[0], (len(values),)),
            dtype=np.float64,
            meta=np.empty((0, 0)),
        )
    else:
        sums = part_sums(array, parts)
    return part_dataset(sums, parts, denominators)


def part_dataset(sums: Any, parts: Parts, reference_sums: ArrayLike | None = None) -> xr.Dataset:
    """Make occupancies of the sums of mask × map.

    Parameters
    ----------
    sums : dask or NumPy array (volume, part)
    parts : Parts
    reference_sums : array (part,), optional
        Sums of the reference maps.

    Returns
    -------
    xarray.Dataset
        ``occupancy`` (volume, part): the sums, or their ratio to the references, which is 1 for a
        part that is there as in its reference; ``density`` (volume, part): weighted mean of the
        density inside the mask.

    Raises
    ------
    InputError
        When a reference does not sum to more than 0.
    """
    scale = np.ones(sums.shape[1])
    if reference_sums is not None:
        scale = np.asarray(reference_sums, dtype=np.float64)
        wrong = np.flatnonzero(~(scale > 0))
        if len(wrong):
            raise InputError(
                f"reference {wrong[0]}: its density sums to {scale[wrong[0]]:.4g}; more than 0 is "
                "needed to divide by"
            )
    dims = ("volume", "part")
    return xr.Dataset(
        {"occupancy": (dims, sums / scale), "density": (dims, sums / parts.sums)},
        attrs={"relative": reference_sums is not None},
    )


def part_presence(
    occupancy: ArrayLike, *, relative: bool, cut: float | None = None
) -> tuple[NDArray[np.bool_], Float64]:
    """Decide in which volumes each part is present.

    Occupancies of real maps reach neither 0 (there is noise, and neighbours reach in) nor 1 (the
    reference is of another resolution), so that the cut is looked for between two modes
    (`emhet_dask.analysis.relations.two_modes`), which works for a part in 2% of the volumes and for
    one in 98%. Where there are no two modes, nothing tells one volume from another: the part counts
    as present throughout, or, where its occupancy is relative and at most 0.2 in the middle one of
    the volumes, as missing throughout.

    Parameters
    ----------
    occupancy : array (volume, part)
    relative : bool
        To references.
    cut : float, optional
        Takes the place of all that.

    Returns
    -------
    present : ndarray of bool (volume, part)
        What is above the cut.
    cuts : ndarray of float64 (part,)
        NaN where there is none.
    """
    values = np.asarray(occupancy, dtype=np.float64)
    cuts = two_modes(values) if cut is None else np.full(values.shape[1], float(cut))
    throughout = np.isnan(cuts)
    if relative:
        throughout &= np.median(values, axis=0) > _LEAST_RELATIVE
    return (values > cuts) | throughout, cuts


def rescale_parts(occupancy: ArrayLike, *, percentiles: tuple[float, float] = (10, 90)) -> Float64:
    """Bring the occupancies of each part to 0 to 1, for a picture in which parts can be compared.

    As in MAVEn's notebook: clipped to the 10th and the 90th percentile over the volumes, which
    become 0 and 1. In two cases that would show what is not so. A part that is present in fewer
    than a tenth of the volumes, or missing in fewer, would be lost: there the extremes take the
    place of the percentiles. A part without two modes, which may be in all volumes alike, would
    seem to come and go: there 0 stays 0.

    Parameters
    ----------
    occupancy : array (volume, part)
    percentiles : (float, float)

    Returns
    -------
    ndarray of float64 (volume, part)
        A part that is 0 throughout is 0.
    """
    values = np.asarray(occupancy, dtype=np.float64)
    cuts = two_modes(values)
    low, high = np.percentile(values, percentiles, axis=0)
    outside = (cuts <= low) | (cuts >= high)
    low = np.where(outside, values.min(axis=0), low)
    high = np.where(outside, values.max(axis=0), high)
    low = np.where(np.isnan(cuts), np.minimum(low, 0.0), low)
    span = high - low
    moved = np.clip(values, low, high) - low
    return np.divide(moved, span, out=np.zeros_like(values), where=span > 0)
