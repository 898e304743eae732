"""Particles of a basin, a region or a state, as the folder of ``emhet map`` tells."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.analysis.regions import inside_polygon
from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError
from emhet_dask.formats.regions import read_region
from emhet_dask.urls import Place, place_of

__all__ = ["MappedFolder", "in_region", "is_map_folder"]


def is_map_folder(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder holds particles that were mapped."""
    return (place_of(folder) / "results.zarr" / "particles").is_dir()


def in_region(
    scores: npt.NDArray[Any], region_file: str, *, axes: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Tell which points lie in the polygon of a file.

    Parameters
    ----------
    scores : array (point, component)
    region_file : path
    axes : tuple of int
        Components of the landscape, from 1; taken where the file names none.

    Returns
    -------
    ndarray of bool, shape (point,)

    Raises
    ------
    InputError
        When the file is no region, names a component that there is not, or no point is inside.
    """
    region = read_region(region_file)
    over = region.axes if region.axes is not None else (axes[0], axes[1])
    if max(over) > scores.shape[1]:
        raise InputError(
            f"--region: {region_file} is over PC{max(over)}, but there are {scores.shape[1]} "
            "components"
        )
    inside = inside_polygon(scores[:, [over[0] - 1, over[1] - 1]], region.vertices)
    if not inside.any():
        raise InputError(
            f"--region: {region_file}: no point lies in it over PC{over[0]} and PC{over[1]}; "
            "expected a polygon that was drawn on this landscape"
        )
    return inside


@dataclass(frozen=True)
class MappedFolder:
    """The finished folder of ``emhet map``.

    Attributes
    ----------
    folder : Path or UrlPlace
    index : ndarray of int, shape (particle,)
        Row of each particle before any subset.
    states : ndarray of int, shape (particle,), or None
    particle_file : str or None
        Of which its particles are, where known.
    """

    folder: Place
    index: npt.NDArray[np.int64]
    states: npt.NDArray[Any] | None
    particle_file: str | None

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> MappedFolder:
        """Read what is known of the particles.

        Raises
        ------
        InputError
            When the folder holds no mapped particles.
        """
        if not is_map_folder(folder):
            raise InputError(
                f"{folder}: no particles in results.zarr, expected the finished folder of emhet map"
            )
        place = place_of(folder)
        found = load_group(place / "results.zarr" / "particles")
        states = found["particle_state"].values if "particle_state" in found else None
        file = found.attrs.get("particle_file")
        index = np.asarray(found["particle_index"].values, dtype=np.int64)
        return cls(place, index, states, None if file is None else str(file))

    def in_states(self, chosen: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Tell which particles are in states; an unknown one is refused."""
        if self.states is None:
            raise InputError(f"--clusters: {self.folder} knows no states of particles")
        _refuse_unknown("--clusters", "state", self.folder, chosen, self.states)
        return np.isin(self.states, chosen)

    def in_basins(self, chosen: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Tell which particles are in basins; an unknown one is refused."""
        basins = self._energy()["particle_basin"].values
        _refuse_unknown("--basin", "basin", self.folder, chosen, basins)
        return np.isin(basins, chosen)

    def in_region(self, region_file: str) -> npt.NDArray[np.bool_]:
        """Tell which particles lie in the polygon of a file; see `in_region`."""
        return in_region(self._scores(), region_file, axes=self._axes())

    def table(self, rows: npt.NDArray[np.intp]) -> pd.DataFrame:
        """Return rows of particles for reading: ``particle``, ``index``, ``pc1``, …, ``basin``."""
        scores = self._scores()[rows]
        names = [f"pc{number}" for number in range(1, scores.shape[1] + 1)]
        table = pd.DataFrame(scores, columns=names)
        table.insert(0, "index", self.index[rows])
        table.insert(0, "particle", rows)
        if self.states is not None:
            table["state"] = np.asarray(self.states)[rows]
        table["basin"] = self._energy()["particle_basin"].values[rows]
        return table

    def _scores(self) -> npt.NDArray[Any]:
        scores = load_group(self.folder / "results.zarr" / "scores")["particle_scores"].values
        return np.asarray(scores)

    def _energy(self) -> Any:
        path = self.folder / "results.zarr" / "energy"
        if not path.is_dir():
            raise InputError(
                f"{self.folder}: no landscape of particles yet; run emhet map to its end"
            )
        return load_group(path)

    def _axes(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in self._energy().attrs["axes"])


def _refuse_unknown(
    option: str, noun: str, folder: Place, chosen: tuple[int, ...], labels: npt.NDArray[Any]
) -> None:
    known = np.unique(labels[labels >= 0])
    missing = sorted(set(chosen) - set(known.tolist()))
    if missing:
        found = f"it has {known[0]} to {known[-1]}" if len(known) else "it has none"
        raise InputError(f"{option}: {folder} has no {noun} {missing[0]}; {found}")
