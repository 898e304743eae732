"""``emhet simulate``: maps with a known answer, as files."""

from __future__ import annotations

import json
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
from emhet_dask.runtime import Progress, connect

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
    model = assembly_model(
        box=options.box,
        voxel_size_angstrom=options.apix,
        resolution_angstrom=options.resolution,
        n_subunits=options.subunits,
        seed=options.seed,
        touching=options.touching,
    )
    folder = _folder(options, extra={"subunits": options.subunits, "touching": options.touching})
    blocks = model.labels.astype(np.float32)
    write_map(folder / "truth_blocks.mrc", blocks, voxel_size_angstrom=options.apix)
    return _write(model, folder, options)


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
    model = transition_model(
        box=options.box,
        voxel_size_angstrom=options.apix,
        resolution_angstrom=options.resolution,
        basins=options.basins or None,
        seed=options.seed,
    )
    return _write(model, _folder(options, extra={"basins": options.basins}), options)


def _folder(options: SimulateAssembly | SimulateTransition, *, extra: dict[str, Any]) -> Path:
    """Make the folder, or find it as an interrupted run with the same settings left it."""
    folder = Path(options.output)
    shared = options.parameters("n", "box", "apix", "resolution", "snr", "amplitude_jitter", "seed")
    settings = {"what": type(options).__name__, **shared, **extra}
    record = folder / _SETTINGS
    if record.is_file():
        if json.loads(record.read_text()) == settings:
            return folder
        if not options.overwrite:
            raise InputError(
                f"{folder}: holds maps simulated with other settings; --overwrite replaces them"
            )
        shutil.rmtree(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder, and no simulation made it")
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(settings, indent=2) + "\n")
    return folder


@dataclass(frozen=True)
class _Task:
    """A run of maps for one worker; maps depend on the seed and their number alone."""

    model: AssemblyModel | TransitionModel
    folder: Path
    numbers: range
    snr: float
    amplitude_jitter: float
    seed: int

    def run(self) -> list[dict[str, Any]]:
        """Write the maps and return their rows of the truth table."""
        rows = []
        for number in self.numbers:
            volume, row = simulate_map(
                self.model,
                number,
                snr=self.snr,
                seed=self.seed,
                amplitude_jitter=self.amplitude_jitter,
            )
            write_map(
                self.folder / f"vol_{number:05d}.mrc",
                volume,
                voxel_size_angstrom=self.model.grid.voxel_size_angstrom,
            )
            rows.append(row)
        return rows


def _write(
    model: AssemblyModel | TransitionModel,
    folder: Path,
    options: SimulateAssembly | SimulateTransition,
) -> Simulated:
    truth_path = folder / "truth.csv"
    if truth_path.is_file():  # written last
        return Simulated(folder, pd.read_csv(truth_path))
    tasks = [
        _Task(
            model,
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
        for part in progress.map(client, _Task.run, tasks, label="simulate"):
            rows.extend(part)
    truth = pd.DataFrame(rows)
    truth.to_csv(truth_path, index=False)
    return Simulated(folder, truth)
