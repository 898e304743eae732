"""``emhet simulate``: maps with a known answer, as files."""

from __future__ import annotations

import functools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.simulation import (
    AssemblyModel,
    TransitionModel,
    assembly_model,
    simulate_map,
    transition_model,
)
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.options import command
from emhet_dask.options.simulate import SimulateAssembly, SimulateTransition
from emhet_dask.runtime import Progress, connect, state_plan
from emhet_dask.workflows.stages.volume_costs import simulate_work

__all__ = ["Simulated", "simulate_assembly", "simulate_transition"]

_SETTINGS = "simulation.json"
_MAPS_PER_TASK = 16


@dataclass(frozen=True)
class Simulated:
    """What was written.

    Attributes
    ----------
    folder : Path
    truth : pandas.DataFrame
        One row per map: ``volume``, ``state``, ``amplitude``, ``coordinate``, …
    """

    folder: Path
    truth: pd.DataFrame

    def describe(self) -> str:
        """Return it in words."""
        states = self.truth["state"].nunique()
        return f"{len(self.truth)} maps of {states} states in {self.folder}; truth in truth.csv"


@command(SimulateAssembly)
def simulate_assembly(options: SimulateAssembly) -> Simulated:
    """Simulate maps of a complex whose subunits come and go by planted rules.

    Returns
    -------
    Simulated
        The folder holds ``vol_00000.mrc`` …, ``truth.csv`` and ``truth_blocks.mrc``, in which each
        voxel bears the number of the subunit that it belongs to, 0 for none.

    Raises
    ------
    InputError
        When the folder holds other files, or maps of other settings.
    """
    recipe = _recipe("assembly", options, n_subunits=options.subunits, touching=options.touching)
    model = _model(recipe)
    assert isinstance(model, AssemblyModel)
    folder = _folder(options, extra={"subunits": options.subunits, "touching": options.touching})
    blocks = model.labels.astype(np.float32)
    write_map(folder / "truth_blocks.mrc", blocks, voxel_size_angstrom=options.apix)
    return _write(recipe, folder, options)


@command(SimulateTransition)
def simulate_transition(options: SimulateTransition) -> Simulated:
    """Simulate maps of two rigid bodies that move about a hinge.

    Returns
    -------
    Simulated
        The folder holds ``vol_00000.mrc`` … and ``truth.csv``; ``state`` is the basin, or 0
        throughout for a continuous motion.

    Raises
    ------
    InputError
        When the folder holds other files, or maps of other settings.
    """
    recipe = _recipe("transition", options, basins=options.basins or None)
    return _write(recipe, _folder(options, extra={"basins": options.basins}), options)


def _folder(options: SimulateAssembly | SimulateTransition, *, extra: dict[str, Any]) -> Path:
    """Make the folder, or find it as an interrupted run with the same settings left it."""
    folder = Path(options.output)
    shared = options.parameters("n", "box", "apix", "resolution", "snr", "amplitude_jitter", "seed")
    settings = {"what": type(options).__name__, **shared, **extra}
    record = folder / _SETTINGS
    if record.is_file():
        if _recorded(record) == settings:
            return folder
        if not options.overwrite:
            raise InputError(
                f"{folder}: holds maps simulated with other settings; --overwrite replaces them"
            )
        shutil.rmtree(folder)
    elif folder.exists() and (
        not folder.is_dir() or any(path != _partial(record) for path in folder.iterdir())
    ):
        raise InputError(f"{folder}: is not an empty folder, and no simulation made it")
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(record, json.dumps(settings, indent=2) + "\n")
    return folder


def _recorded(record: Path) -> dict[str, Any]:
    """Return the settings of the maps in a folder, which may be replaced only if they are ours."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:  # also what is not UTF-8
        found = None
    if not isinstance(found, dict) or "what" not in found:
        raise InputError(
            f"{record}: damaged, or not made by emhet simulate; remove its folder or choose "
            "another -o"
        )
    return found


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _write_whole(path: Path, text: str) -> None:
    """Write a file that is there when it is whole."""
    _partial(path).write_text(text, encoding="utf-8")
    os.replace(_partial(path), path)  # noqa: PTH105 - as everywhere where a rename has to be atomic


# What a model is made of travels to the workers, which make it once: the model itself is large.
_Recipe = tuple[str, tuple[tuple[str, Any], ...]]


def _recipe(kind: str, options: SimulateAssembly | SimulateTransition, **more: Any) -> _Recipe:
    shared = {
        "box": options.box,
        "voxel_size_angstrom": options.apix,
        "resolution_angstrom": options.resolution,
        "seed": options.seed,
    }
    return kind, tuple({**shared, **more}.items())


@functools.lru_cache(maxsize=1)
def _model(recipe: _Recipe) -> AssemblyModel | TransitionModel:
    kind, parameters = recipe
    make = assembly_model if kind == "assembly" else transition_model
    return make(**dict(parameters))


@dataclass(frozen=True)
class _Task:
    """A run of maps for one worker; maps depend on the seed and their number alone."""

    recipe: _Recipe
    folder: Path
    numbers: range
    snr: float
    amplitude_jitter: float
    seed: int

    def run(self) -> list[dict[str, Any]]:
        """Write the maps and return their rows of the truth table."""
        model = _model(self.recipe)
        rows = []
        for number in self.numbers:
            volume, row = simulate_map(
                model,
                number,
                snr=self.snr,
                seed=self.seed,
                amplitude_jitter=self.amplitude_jitter,
            )
            write_map(
                self.folder / f"vol_{number:05d}.mrc",
                volume,
                voxel_size_angstrom=model.grid.voxel_size_angstrom,
            )
            rows.append(row)
        return rows


def _write(
    recipe: _Recipe,
    folder: Path,
    options: SimulateAssembly | SimulateTransition,
) -> Simulated:
    truth_path = folder / "truth.csv"
    if truth_path.is_file():  # written last
        return Simulated(folder, pd.read_csv(truth_path))
    tasks = [
        _Task(
            recipe,
            folder.resolve(),
            range(start, min(start + _MAPS_PER_TASK, options.n)),
            options.snr,
            options.amplitude_jitter,
            options.seed,
        )
        for start in range(0, options.n, _MAPS_PER_TASK)
    ]
    rows: list[dict[str, Any]] = []
    progress = Progress(quiet=options.quiet)
    with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
        work = simulate_work(
            box=options.box,
            voxel_size_angstrom=options.apix,
            bodies=dict(recipe[1]).get("n_subunits", 1),
            tasks=len(tasks),
            maps=options.n,
        )
        state_plan(work, client, progress)
        for part in progress.map(client, _Task.run, tasks, label="simulate"):
            rows.extend(part)
    truth = pd.DataFrame(rows)
    _write_whole(truth_path, truth.to_csv(index=False))
    return Simulated(folder, truth)
