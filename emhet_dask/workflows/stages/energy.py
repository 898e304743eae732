"""The stage ``energy``: free energy, basins and saddle points of points over two or three PCs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from emhet_dask.analysis.basins import Basins, find_basins
from emhet_dask.analysis.free_energy import FreeEnergy, free_energy
from emhet_dask.ensemble.groups import save_group
from emhet_dask.errors import InputError
from emhet_dask.options.energy import EnergyChoices
from emhet_dask.runtime import ResultsFolder

__all__ = ["Energy", "EnergyOptions", "Points", "energy_stage"]

_FORMAT = "%.6g"


@dataclass(frozen=True)
class Points:
    """What a landscape is of.

    Attributes
    ----------
    scores : ndarray, shape (point, component)
        Held in memory or mapped from a file.
    weights : ndarray, shape (point,), or None
        Particles of each volume; None where each point counts once.
    ratios : ndarray, shape (component,), or None
        Explained variance ratio, for labels.
    states : ndarray of int, shape (point,), or None
        State of each point; -1 for none.
    sketch : pandas.DataFrame or None
        Volumes to be told about in the page: ``name``, ``cluster``, ``pc1``, ….
    noun : {"particle", "volume"}
    title : str
        What it is of, for the page.
    """

    scores: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None = None
    ratios: npt.NDArray[Any] | None = None
    states: npt.NDArray[Any] | None = None
    sketch: pd.DataFrame | None = None
    noun: str = "particle"
    title: str = ""

    @property
    def counted(self) -> str:
        """Return what weights count: particles also where the points are volumes."""
        return "particle" if self.weights is not None else self.noun


@dataclass(frozen=True)
class EnergyOptions:
    """What the stage depends on beside the points.

    Attributes
    ----------
    axes : tuple of int
        Two or three components, from 1.
    density : {"kernel", "histogram"}
    bins : int or None
    min_depth : float
        In kT.
    n_bootstrap : int
    seed : int
    path : str or None
    path_maps : int
    """

    axes: tuple[int, ...] = (1, 2)
    density: str = "kernel"
    bins: int | None = None
    min_depth: float = 0.5
    n_bootstrap: int = 100
    seed: int = 0
    path: str | None = None
    path_maps: int = 12

    @classmethod
    def of(cls, options: EnergyChoices, *, seed: int) -> EnergyOptions:
        """Take them from the options of a command."""
        names = [name for name in cls.__dataclass_fields__ if name != "seed"]
        return cls(**{name: getattr(options, name) for name in names}, seed=seed)

    @property
    def names(self) -> list[str]:
        """Return the names of the components in tables: ``pc1``, ``pc2``, …."""
        return [f"pc{axis}" for axis in self.axes]

    def refuse_early(self, n_components: int) -> None:
        """Refuse axes that are not there.

        Raises
        ------
        InputError
            When a component is asked for that there is not.
        """
        if max(self.axes) > n_components:
            raise InputError(
                f"--axes: got {','.join(map(str, self.axes))}, but there are {n_components} "
                "components; expected numbers from 1 to that"
            )

    def parameters(self) -> dict[str, Any]:
        """Return what decides the landscape itself, for the record."""
        every = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: every[name] for name in every if name not in {"path", "path_maps"}}


@dataclass(frozen=True)
class Energy:
    """A landscape with its basins; computed again, to the same bits, where it was done before.

    Attributes
    ----------
    points : Points
    options : EnergyOptions
    """

    points: Points
    options: EnergyOptions

    @functools.cached_property
    def plane(self) -> npt.NDArray[Any]:
        """Return the coordinates (point, axis) that the landscape is over."""
        columns = [axis - 1 for axis in self.options.axes]
        return np.asarray(self.points.scores[:, columns])

    @functools.cached_property
    def landscape(self) -> FreeEnergy:
        """Return density and free energy on the grid."""
        options = self.options
        return free_energy(
            self.plane,
            weights=self.points.weights,
            method=options.density,
            bins=options.bins,
            n_bootstrap=options.n_bootstrap,
            seed=options.seed,
        )

    @functools.cached_property
    def basins(self) -> Basins:
        """Return basins and saddle points."""
        return find_basins(self.landscape, min_depth=self.options.min_depth)

    @property
    def basin_table(self) -> pd.DataFrame:
        """Return the basins as they are written: with units, and components by their names."""
        names = {"points": self.points.counted + "s", "depth": "depth_kT"}
        return self._named(self.basins.table, {**names, "depth_error": "depth_error_kT"})

    @property
    def saddle_table(self) -> pd.DataFrame:
        """Return the saddle points as they are written."""
        table = self.basins.saddles
        barriers = [str(name) for name in table if str(name).startswith("barrier")]
        return self._named(table, {name: f"{name}_kT" for name in barriers})

    def _named(self, table: pd.DataFrame, more: dict[str, str]) -> pd.DataFrame:
        axes = {f"x{k + 1}": name for k, name in enumerate(self.options.names)}
        common = {"free_energy": "free_energy_kT", "error": "error_kT"}
        return table.drop(columns="bin").rename(columns={**axes, **common, **more})

    def sentence(self) -> str:
        """Return the result in words."""
        table, options = self.basins.table, self.options
        where = " and ".join(f"PC{axis}" for axis in options.axes)
        if len(table) == 1:
            return (
                f"One basin over {where}: no other is deeper than {options.min_depth:g} kT and "
                "three times its standard error"
            )
        words = f"{len(table)} basins over {where}"
        pair = self.basins.saddles
        pair = pair[(pair["basin_a"] == 0) & (pair["basin_b"] == 1)]
        if len(pair):
            saddle = pair.iloc[0]
            words += (
                f"; from basin 0 to 1 it is {saddle['barrier_from_a']:.1f} ± "
                f"{saddle['barrier_error_a']:.1f} kT up, and back "
                f"{saddle['barrier_from_b']:.1f} ± {saddle['barrier_error_b']:.1f} kT"
            )
        return words


def energy_stage(
    results: ResultsFolder, points: Points, options: EnergyOptions, *, after: Sequence[str]
) -> Energy:
    """Run the stage, or find it done.

    It writes ``landscape.npz``, ``basins.csv``, ``saddles.csv`` and the group ``energy`` with the
    basin of each point.

    Parameters
    ----------
    results : ResultsFolder
    points : Points
    options : EnergyOptions
    after : sequence of str
        Stages that made the points.

    Returns
    -------
    Energy

    Raises
    ------
    InputError
        When the points have no landscape: too few, not finite, or without spread.
    """
    energy = Energy(points, options)

    def build(workspace: Path) -> dict[str, Any]:
        _write(energy, workspace)
        landscape = energy.landscape
        return {
            "basins": len(energy.basins),
            "bandwidth": landscape.bandwidth.tolist(),
            "bins": list(landscape.grid.shape),
            "outside": landscape.n_outside,
        }

    results.stage(
        "energy", parameters=options.parameters(), after=after, build=build, replaceable=True
    )
    return energy


def _write(energy: Energy, workspace: Path) -> None:
    landscape, basins, options = energy.landscape, energy.basins, energy.options
    edges = {f"edges_{k + 1}": line for k, line in enumerate(landscape.grid.edges)}
    np.savez(
        workspace / "landscape.npz",
        axes=np.array(options.axes),
        weight=landscape.weight,
        density=landscape.density,
        free_energy=landscape.free_energy,
        error=landscape.error,
        effective=landscape.effective,
        basin=basins.labels,
        bandwidth=landscape.bandwidth,
        **edges,  # type: ignore[arg-type]
    )
    energy.basin_table.to_csv(workspace / "basins.csv", index=False, float_format=_FORMAT)
    energy.saddle_table.to_csv(workspace / "saddles.csv", index=False, float_format=_FORMAT)
    noun = energy.points.noun
    found = xr.Dataset(
        {f"{noun}_basin": ((noun,), basins.of_points(landscape, energy.plane))},
        attrs={"axes": list(options.axes), "density": options.density, "unit": "kT"},
    )
    (workspace / "results.zarr").mkdir()
    save_group(workspace / "results.zarr" / "energy", found)
