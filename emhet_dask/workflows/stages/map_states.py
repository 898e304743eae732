"""The stages ``assignment`` and ``particles``: states of all particles, tables and lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.analysis.assignment import fit_states
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.runtime import fingerprint_values
from emhet_dask.workflows.particles import ParticleFile, write_particle_list
from emhet_dask.workflows.stages.map_job import MapJob
from emhet_dask.workflows.stages.map_scores import Mapped

__all__ = ["ParticleStates", "assignment_stage", "open_particles", "particles_stage"]

# A table of more rows is of use to nobody; results.zarr has all.
_MOST_IN_CSV = 1_000_000
_SURE = 0.8


@dataclass(frozen=True)
class ParticleStates:
    """States of all particles.

    Attributes
    ----------
    state : ndarray of int64 (particle,)
    confidence : ndarray of float32 (particle,)
    outlier : ndarray of bool (particle,)
    index : ndarray of int64 (particle,)
        Rows in the particle file before any subset.
    facts : dict
        ``accuracy``, ``mean_confidence``, ``n_neighbours``, ``n_signal``, ``n_outliers``.
    """

    state: np.ndarray
    confidence: np.ndarray
    outlier: np.ndarray
    index: np.ndarray
    facts: dict[str, Any]

    def table(self, sketch_states: np.ndarray) -> pd.DataFrame:
        """Return a row for each state: ``cluster``, ``volumes``, ``particles``, ``fraction``, …."""
        volumes = np.bincount(sketch_states)
        count = np.bincount(self.state, minlength=len(volumes))
        sums = np.bincount(self.state, self.confidence, minlength=len(volumes))
        mean = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
        return pd.DataFrame(
            {
                "cluster": np.arange(len(volumes)),
                "volumes": volumes,
                "particles": count,
                "fraction": count / len(self.state),
                "mean_confidence": mean,
                "sure": np.bincount(self.state[self.confidence >= _SURE], minlength=len(volumes)),
                "outliers": np.bincount(self.state[self.outlier], minlength=len(volumes)),
            }
        )


def assignment_stage(
    job: MapJob, mapped: Mapped, *, index: np.ndarray, particle_file: str | None
) -> ParticleStates:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : MapJob
        With the stage ``scores`` finished.
    mapped : Mapped
    index : ndarray of int64 (particle,)
        Rows in the particle file before any subset.
    particle_file : str or None

    Returns
    -------
    ParticleStates
    """
    sketch = job.sketch
    signal = slice(sketch.n_signal)

    def build(workspace: Path) -> dict[str, Any]:
        voters = fit_states(sketch.scores[:, signal], sketch.states, outlier=sketch.outlier)
        with job.progress.task("states"):
            state, confidence, outlier = voters.assign(mapped.scores[:, signal])
        found = xr.Dataset(
            {
                "particle_state": (("particle",), state),
                "particle_confidence": (("particle",), confidence),
                "particle_outlier": (("particle",), outlier),
                "particle_decoded": (("particle",), mapped.decoded),
                "particle_index": (("particle",), index),
                "particle_latent": (("particle", "latent_dim"), job.latents),
            },
            attrs={} if particle_file is None else {"particle_file": particle_file},
        )
        save_group(workspace / "results.zarr" / "particles", found)
        return {
            "accuracy": None if np.isnan(voters.accuracy) else voters.accuracy,
            "mean_confidence": None if np.isnan(voters.accuracy) else voters.mean_confidence,
            "n_neighbours": voters.n_neighbours,
            "n_signal": sketch.n_signal,
            "n_outliers": int(outlier.sum()),
        }

    record = job.results.stage(
        "assignment",
        parameters={
            "clusters": sketch.keys["clusters"],
            "index": fingerprint_values(index),
            "particle_file": particle_file,
        },
        after=("scores",),
        build=build,
        replaceable=True,
    )
    found = load_group(job.group("particles"))
    return ParticleStates(
        state=np.asarray(found["particle_state"].values),
        confidence=np.asarray(found["particle_confidence"].values),
        outlier=np.asarray(found["particle_outlier"].values),
        index=np.asarray(found["particle_index"].values),
        facts=dict(record.summary),
    )


def particles_stage(
    job: MapJob, mapped: Mapped, states: ParticleStates, file: ParticleFile | None
) -> None:
    """Write the table of all particles and lists of those of each state, or find them written.

    Parameters
    ----------
    job : MapJob
    mapped : Mapped
    states : ParticleStates
    file : ParticleFile or None
        That lists are written in the format of, beside ``.pkl``.
    """

    def build(workspace: Path) -> None:
        if job.n_particles <= _MOST_IN_CSV:
            _table(mapped, states).to_csv(
                workspace / "particle_pcs.csv", index=False, float_format="%.6g"
            )
        folder = workspace / "states"
        folder.mkdir()
        table = states.table(job.sketch.states)
        table.to_csv(folder / "states.csv", index=False, float_format="%.6g")
        for state in table["cluster"]:
            rows = np.sort(states.index[states.state == state])
            stem = folder / f"state_{state:03d}_particles"
            write_particle_list(stem.with_suffix(".pkl"), rows, None)
            if file is not None:
                write_particle_list(stem.with_suffix(file.suffix), rows, file)

    job.results.stage(
        "particles",
        parameters={"format": None if file is None else file.suffix},
        after=("assignment",),
        build=build,
        replaceable=True,
    )


def open_particles(path: str | None, index: np.ndarray, *, said: bool) -> ParticleFile | None:
    """Open the file that lists are written of; one that nobody asked for may be gone.

    Parameters
    ----------
    path : str or None
    index : ndarray of int (particle,)
        Rows that it must have.
    said : bool
        Whether the user named it.

    Raises
    ------
    InputError
        When a file that the user named cannot be read, or does not have these rows.
    """
    if path is None or not (said or Path(path).is_file()):
        return None
    try:
        file = ParticleFile.open(path)
        available = len(file.names)
        if len(index) and int(index.max()) >= available:
            raise InputError(  # noqa: TRY301 - one answer to all that is wrong with the file
                f"{path}: {available} particles, but the model was trained on row "
                f"{int(index.max())}; expected the file before any subset"
            )
        if len(index) != available and np.array_equal(index, np.arange(len(index))):
            raise InputError(  # noqa: TRY301
                f"{path}: {available} particles, but the latents are of {len(index)}; give --ind "
                "if a subset was used"
            )
    except InputError:
        if said:
            raise
        return None
    return file


def _table(mapped: Mapped, states: ParticleStates) -> pd.DataFrame:
    names = [f"pc{number}" for number in range(1, mapped.scores.shape[1] + 1)]
    table = pd.DataFrame(mapped.scores, columns=names)
    table.insert(0, "index", states.index)
    table.insert(0, "particle", np.arange(len(table)))
    table["state"] = states.state
    table["confidence"] = states.confidence
    table["outlier"] = states.outlier
    if not mapped.decoded.all():
        table["decoded"] = mapped.decoded
    return table
