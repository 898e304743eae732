"""The stage ``path``: the lowest path over a landscape, and maps along it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.analysis.binned import grid_counts
from emhet_dask.analysis.energy_paths import EnergyPath, lowest_path, nearest_bin, points_along
from emhet_dask.analysis.free_energy import free_energy
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.report.energy_chimerax import write_path_chimerax
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.energy import Energy

__all__ = ["Render", "WrittenPath", "path_stage"]

_FORMAT = "%.6g"


@dataclass(frozen=True)
class Render:
    """How maps of points are made.

    Attributes
    ----------
    latents : array, shape (point, latent_dim)
        Of which some rows are read.
    volumes : callable
        Yields a map (z, y, x) for each latent (point, latent_dim).
    voxel_size_angstrom : float
    origin_angstrom : tuple of float
        x, y and z of the first voxel.
    """

    latents: Any
    volumes: Callable[[npt.NDArray[Any]], Iterator[npt.NDArray[np.float32]]]
    voxel_size_angstrom: float
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class WrittenPath:
    """A path as it was written.

    Attributes
    ----------
    folder : Path
    ends : (str, str)
        What is at its start and end, in words.
    profile : pandas.DataFrame
        ``length``, the position, ``free_energy_kT``, ``error_kT`` of 200 points.
    frames : pandas.DataFrame
        ``frame``, ``length``, the position, ``free_energy_kT``, and the row of the point whose map
        it is, with its own position.
    """

    folder: Path
    ends: tuple[str, str]
    profile: pd.DataFrame
    frames: pd.DataFrame


def path_stage(
    results: ResultsFolder,
    progress: Progress,
    energy: Energy,
    *,
    render: Render | None,
) -> WrittenPath | None:
    """Run the stage, or find it done.

    It writes ``paths/path_0_1/`` with ``profile.csv``, ``frames.csv`` and, where maps can be made,
    ``vol_000.mrc``, … and ``open.cxc``. Each map is that of a point of the data near the path, not
    of a latent in between, which nobody measured.

    Parameters
    ----------
    results : ResultsFolder
        With the stage ``energy`` finished.
    progress : Progress
    energy : Energy
    render : Render or None

    Returns
    -------
    WrittenPath or None
        None where no path was asked for, or none is there and none was asked for by name.

    Raises
    ------
    InputError
        When there is no such basin or state, or no path between them.
    """
    options = energy.options
    if options.path == "none" or (options.path is None and len(energy.basins) < 2):
        return None
    ends = _ends(energy)
    name = "path_" + "_".join(re.sub(r"\W+", "_", end.removeprefix("basin ")) for end in ends)
    folder = Path("paths") / name

    def build(workspace: Path) -> None:
        path = lowest_path(energy.landscape, *(_bin_of(energy, end) for end in ends))
        frames = _frames(energy, path, render)
        (workspace / folder).mkdir(parents=True)
        _profile(energy, path).to_csv(
            workspace / folder / "profile.csv", index=False, float_format=_FORMAT
        )
        frames.to_csv(workspace / folder / "frames.csv", index=False, float_format=_FORMAT)
        if render is not None:
            rows = frames[energy.points.noun].to_numpy(dtype=np.intp)
            _write_maps(workspace / folder, rows, render, ends, progress)

    try:
        results.stage(
            "path",
            parameters={"path": list(ends), "maps": options.path_maps if render else 0},
            after=("energy",),
            build=build,
            replaceable=True,
        )
    except InputError as error:
        if options.path is not None or "no path" not in str(error):
            raise
        progress.say(f"path: none between {ends[0]} and {ends[1]}, where nothing joins them")
        return None
    profile, frames = (
        pd.read_csv(results.path(str(folder), file)) for file in ("profile.csv", "frames.csv")
    )
    return WrittenPath(results.path(str(folder)), ends, profile, frames)


def _ends(energy: Energy) -> tuple[str, str]:
    """Return what is at both ends: ``basin 0`` or ``state 3``."""
    given = energy.options.path
    if given is None:
        deepest = energy.basins.table.nsmallest(2, "free_energy")["basin"]
        one, two = sorted(int(basin) for basin in deepest)
        return f"basin {one}", f"basin {two}"
    kind, _, pair = given.rpartition(":")
    noun = "state" if kind else "basin"
    one, two = (int(number) for number in pair.split("-"))
    known = _states(energy) if kind else set(range(len(energy.basins)))
    for number in (one, two):
        if number not in known:
            found = f"0 to {max(known)}" if known else "none"
            raise InputError(f"--path: {given}, but there is no {noun} {number}; there is {found}")
    if one == two:
        raise InputError(f"--path: {given}, expected two different {noun}s")
    return f"{noun} {one}", f"{noun} {two}"


def _states(energy: Energy) -> set[int]:
    states = energy.points.states
    return set() if states is None else set(np.unique(states[states >= 0]).tolist())


def _bin_of(energy: Energy, end: str) -> int:
    """Return the minimum of a basin, or the place with a value where a state is densest."""
    noun, _, number = end.partition(" ")
    if noun == "basin":
        return int(energy.basins.table["bin"].iloc[int(number)])
    assert energy.points.states is not None
    rows = np.flatnonzero(energy.points.states == int(number))
    weights = None if energy.points.weights is None else energy.points.weights[rows]
    return nearest_bin(energy.landscape, _densest(energy, energy.plane[rows], weights))


def _densest(energy: Energy, points: npt.NDArray[Any], weights: Any) -> npt.NDArray[Any]:
    """Return where points are densest; of few points, their mean."""
    try:
        own = free_energy(points, weights=weights, n_bootstrap=2)
    except InputError:
        weight, _, _ = grid_counts(points, energy.landscape.grid, weights=weights)
        if weight.any():
            return energy.landscape.grid.positions([int(weight.argmax())])[0]
        return np.asarray(points.mean(axis=0))
    return own.grid.positions([own.deepest])[0]


def _profile(energy: Energy, path: EnergyPath) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "length": path.length,
            **_columns(energy, path.points),
            "free_energy_kT": path.free_energy,
            "error_kT": path.error,
        }
    )


def _columns(energy: Energy, positions: npt.NDArray[Any], prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{name}": positions[:, k] for k, name in enumerate(energy.options.names)}


def _frames(energy: Energy, path: EnergyPath, render: Render | None) -> pd.DataFrame:
    """Return a row for each map along the path."""
    n_maps = energy.options.path_maps
    positions = path.at(n_maps)
    landscape = energy.landscape
    scale = np.where(landscape.bandwidth > 0, landscape.bandwidth, landscape.grid.widths)
    features = energy.points.scores if render is None else render.latents
    rows = points_along(positions, energy.plane, features, scale=scale)
    length = np.linspace(0, path.length[-1], n_maps)
    return pd.DataFrame(
        {
            "frame": np.arange(n_maps),
            "length": length,
            **_columns(energy, positions),
            "free_energy_kT": np.interp(length, path.length, path.free_energy),
            energy.points.noun: rows,
            **_columns(energy, energy.plane[rows], f"{energy.points.noun}_"),
        }
    )


def _write_maps(
    folder: Path,
    rows: npt.NDArray[np.intp],
    render: Render,
    ends: tuple[str, str],
    progress: Progress,
) -> None:
    latents = np.asarray([render.latents[row] for row in rows.tolist()])
    peaks = []
    progress.say(f"path: {len(rows)} maps from {ends[0]} to {ends[1]}")
    for frame, volume in enumerate(render.volumes(latents)):
        write_map(
            folder / f"vol_{frame:03d}.mrc",
            volume,
            voxel_size_angstrom=render.voxel_size_angstrom,
            origin_angstrom=render.origin_angstrom,
        )
        peaks.append(float(np.percentile(volume, 99.99)))
    # Where the mask of a landscape is cut by default, too.
    level = float(np.mean(peaks)) / 2
    write_path_chimerax(folder / "open.cxc", n_maps=len(rows), level=level, ends=ends)
