"""Masks of parts, and reference maps of them, from two folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.analysis.fourier import resample_mask
from emhet_dask.ensemble import Ensemble
from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats.mrc import MapHeader, read_volume
from emhet_dask.formats.sources import find_volumes
from emhet_dask.runtime import fingerprint_file
from emhet_dask.workflows.stages.foreign import read_map_on_box, refuse_other_extent

__all__ = ["PartFiles", "find_parts"]

_PREFIX = "Mask_"
_COLUMNS = ("volume", "name")
# What a mask may lie outside of 0 to 1 by, having been filtered or stored in few bits.
_SLACK = 0.01


@dataclass(frozen=True)
class PartFiles:
    """What was found, with headers that were looked at and nothing else.

    Attributes
    ----------
    names : tuple of str
        In natural order.
    masks : tuple of MapHeader
    references : tuple of str or None
        Files, in the same order.
    """

    names: tuple[str, ...]
    masks: tuple[MapHeader, ...]
    references: tuple[str, ...] | None

    def recorded(self) -> dict[str, Any]:
        """Return the content of the files, for the record of a stage."""
        known: dict[str, Any] = {
            "masks": {
                name: fingerprint_file(header.path)
                for name, header in zip(self.names, self.masks, strict=True)
            }
        }
        known["references"] = None
        if self.references is not None:
            known["references"] = {
                name: fingerprint_file(path)
                for name, path in zip(self.names, self.references, strict=True)
            }
        return known

    def read_masks(self, box: int) -> Iterator[np.ndarray]:
        """Read the masks one after another, on a box of so many voxels a side.

        Raises
        ------
        InputError
            When a mask is not from 0 to 1, or empty.
        """
        for header in self.masks:
            values = read_volume(header)
            low, high = float(values.min()), float(values.max())
            if not (low >= -_SLACK and high <= 1 + _SLACK):
                raise InputError(
                    f"--masks {header.path}: values from {low:.4g} to {high:.4g}, expected a mask "
                    "from 0 to 1; emhet mask makes one from a map"
                )
            values = resample_mask(values, box)
            if not values.any():
                raise InputError(f"--masks {header.path}: is empty at {box}³ voxels")
            yield values

    def reference_sums(self, ensemble: Ensemble) -> np.ndarray | None:
        """Read the references, and sum the density of each.

        Raises
        ------
        InputError
            When one cannot be read, is of another extent, or does not sum to more than 0.
        """
        if self.references is None:
            return None
        sums = []
        for path in self.references:
            density = read_map_on_box(path, ensemble, option="--references").density
            sums.append(float(density.sum(dtype=np.float64)))
            if not sums[-1] > 0:
                raise InputError(
                    f"--references {path}: its density sums to {sums[-1]:.4g}, expected more than "
                    "0 to divide by"
                )
        return np.array(sums)


def find_parts(masks: str, references: str | None, ensemble: Ensemble) -> PartFiles:
    """Find masks and the reference of each, and refuse what cannot fit the volumes.

    Where a folder has files ``Mask_NAME.mrc``, only they are masks: references can lie beside them.

    Parameters
    ----------
    masks, references : str or None
        Folders.
    ensemble : Ensemble

    Raises
    ------
    InputError
        When there is no folder, no mask, or no reference for a mask, files cannot be read, or
        masks are of another extent than the volumes; all faulty files are named.
    """
    found = _maps_of(masks, option="--masks")
    marked = {name: header for name, header in found.items() if name.startswith(_PREFIX)}
    known = {name.removeprefix(_PREFIX): header for name, header in (marked or found).items()}
    reserved = [name for name in known if name in _COLUMNS]
    if reserved:
        raise InputError(
            f"--masks {known[reserved[0]].path}: a part cannot be called {reserved[0]!r}, which is "
            "a column of every table; rename the file"
        )
    problems = []
    for header in known.values():
        try:
            refuse_other_extent(header, ensemble, what=f"--masks {header.path}")
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(join_problems(problems, what="masks do not fit the volumes"))
    matched = None
    if references is not None:
        matched = _match(known, _maps_of(references, option="--references"), references)
    return PartFiles(tuple(known), tuple(known.values()), matched)


def _maps_of(folder: str, *, option: str) -> dict[str, MapHeader]:
    """Return the maps of a folder by name, in natural order."""
    if not Path(folder).is_dir():
        raise InputError(f"{option} {folder}: no such folder")
    try:
        sources = find_volumes([folder])
    except InputError as error:
        raise InputError(f"{option} {error}") from None
    return {source.name: source.header for source in sources}


def _match(
    masks: dict[str, MapHeader], references: dict[str, MapHeader], folder: str
) -> tuple[str, ...]:
    missing = [name for name in masks if name not in references]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"--references {folder}: no map {missing[0]}.mrc for {masks[missing[0]].path}{others}, "
            "expected one for each mask"
        )
    return tuple(references[name].path for name in masks)
