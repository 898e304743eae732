"""``emhet select``: the particles or volumes of chosen states, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.subset import Select
from emhet_dask.runtime import read_run
from emhet_dask.workflows.particles import ParticleFile, particle_rows, write_particle_list

__all__ = ["Selected", "members_of", "select", "source_of"]


@dataclass(frozen=True)
class Selected:
    """What was written.

    Attributes
    ----------
    path : Path
    n_volumes : int
    n_particles : int or None
        None for a list of volumes.
    """

    path: Path
    n_volumes: int
    n_particles: int | None

    def describe(self) -> str:
        """Return it in words."""
        if self.n_particles is None:
            return f"{self.path}: {self.n_volumes} volumes"
        return f"{self.path}: {self.n_particles} particles of {self.n_volumes} volumes"


@command(Select)
def select(options: Select) -> Selected:
    """Write the volumes or particles of chosen states.

    Returns
    -------
    Selected

    Raises
    ------
    InputError
        When there is no such state, the file exists, its ending is not known, or particles are
        asked for and not known.
    """
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: exists; --overwrite replaces it")
    labels = members_of(options.results, options.clusters)
    if options.exclude_outliers:
        labels = labels[~labels["outlier"].astype(bool)]
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".txt":
        output.write_text("".join(f"{name}\n" for name in labels["name"]))
        return Selected(output, len(labels), None)
    if output.suffix == ".csv":
        labels.to_csv(output, index=False)
        return Selected(output, len(labels), None)
    if output.suffix not in {".star", ".pkl", ".cs"}:
        raise InputError(
            f"--output: {output.name} ends in {output.suffix or 'nothing'!r}, expected .star, "
            ".cs, .pkl, .txt or .csv"
        )
    ensemble = source_of(options.results)
    rows = particle_rows(_with_particles(ensemble), labels["volume"].to_numpy())
    write_particle_list(output, rows, _particle_file(options, ensemble, output))
    return Selected(output, len(labels), len(rows))


def members_of(results: str | Path, clusters: tuple[int, ...] | None) -> pd.DataFrame:
    """Return the rows of ``cluster_labels.csv`` that belong to chosen states.

    Parameters
    ----------
    results : path
        Folder of a landscape.
    clusters : tuple of int or None
        None for all.

    Returns
    -------
    pandas.DataFrame
        ``volume``, ``name``, ``cluster``, ``outlier``.

    Raises
    ------
    InputError
        When the folder holds no finished landscape, or no such state.
    """
    table = Path(results) / "clusters" / "cluster_labels.csv"
    if not table.is_file():
        raise InputError(f"{results}: no clusters/cluster_labels.csv, expected a landscape folder")
    labels = pd.read_csv(table, dtype={"name": str}, keep_default_na=False)
    if clusters is None:
        return labels
    known = np.unique(labels["cluster"])
    missing = sorted(set(clusters) - set(known.tolist()))
    if missing:
        raise InputError(
            f"--clusters: {results} has no state {missing[0]}; it has {known[0]} to {known[-1]}"
        )
    return labels[labels["cluster"].isin(clusters)]


def source_of(results: str | Path) -> Ensemble:
    """Open the ensemble that a results folder was made of.

    Raises
    ------
    InputError
        When it has moved or changed, or the results were made of an array in memory.
    """
    inputs = read_run(results).inputs
    path, source = inputs.get("ensemble"), inputs.get("source")
    if path is None:
        raise InputError(f"{results}: made of an array in memory; there is no store to read from")
    ensemble = open_ensemble(path)
    # Behind a slash is which volumes were selected, before the ensemble went into the landscape.
    if source is not None and str(source).split("/")[0] != ensemble.fingerprint:
        raise InputError(
            f"the store {path} changed since these results were made; run emhet landscape again"
        )
    return ensemble


def _with_particles(ensemble: Ensemble) -> Ensemble:
    if not ensemble.has_particles:
        raise InputError(
            f"{ensemble.path}: nothing says which particles its volumes stand for; ingest it with "
            "--labels (and --particles)"
        )
    return ensemble


def _particle_file(options: Select, ensemble: Ensemble, output: Path) -> ParticleFile | None:
    if output.suffix == ".pkl":
        return None
    path = options.particles or ensemble.dataset.attrs.get("particle_file")
    if path is None:
        raise InputError(f"{output.name}: the particle file is not known; give --particles")
    source = ParticleFile.open(path)
    if source.suffix != output.suffix:
        raise InputError(
            f"--output: {output.name}, but the particles are in {source.path.name}; expected a "
            f"name ending in {source.suffix}"
        )
    source.check(ensemble)
    return source
