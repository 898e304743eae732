"""``emhet select``: the particles or volumes of states, basins, regions or blocks, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.subset import Select
from emhet_dask.runtime import read_run
from emhet_dask.urls import place_of
from emhet_dask.workflows.block_members import PresenceTables, has_landscape, is_presence_folder
from emhet_dask.workflows.map_members import MappedFolder, in_region, is_map_folder
from emhet_dask.workflows.particles import ParticleFile, particle_rows, write_particle_list

__all__ = ["Selected", "members_of", "select", "source_of"]


@dataclass(frozen=True)
class Selected:
    """What was written.

    Attributes
    ----------
    path : Path
    n_volumes : int or None
        None where each particle was mapped by itself.
    n_particles : int or None
        None for a list of volumes.
    """

    path: Path
    n_volumes: int | None
    n_particles: int | None

    def describe(self) -> str:
        """Return it in words."""
        if self.n_volumes is None:
            return f"{self.path}: {self.n_particles} particles"
        if self.n_particles is None:
            return f"{self.path}: {self.n_volumes} volumes"
        return f"{self.path}: {self.n_particles} particles of {self.n_volumes} volumes"


@command(Select)
def select(options: Select) -> Selected:
    """Write the volumes or particles of chosen states, basins or blocks, or of a region.

    What is chosen is one of five: `clusters` of a landscape or of a map of particles; a `basin` of
    a map; a `region`, a polygon over two components of either; a `block`, which is present, absent
    or occupied to a least share; or a `state`, a combination of blocks.

    Returns
    -------
    Selected

    Raises
    ------
    InputError
        When there is no such state, basin or block, or nothing is left, options contradict each
        other or the folder, the region cannot be read, the file exists, its ending is not known, or
        particles are asked for and not known.
    """
    _refuse_contradictions(options)
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: exists; --overwrite replaces it")
    if is_map_folder(options.results):
        return _select_mapped(options, output)
    labels = _chosen(options)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".txt":
        output.write_text("".join(f"{name}\n" for name in labels["name"]))
        return Selected(output, len(labels), None)
    if output.suffix == ".csv":
        labels.to_csv(output, index=False)
        return Selected(output, len(labels), None)
    if output.suffix not in {".star", ".pkl", ".cs"}:
        raise _unknown_ending(output)
    ensemble = source_of(options.results)
    rows = particle_rows(_with_particles(ensemble), labels["volume"].to_numpy())
    write_particle_list(output, rows, _particle_file(options, ensemble, output))
    return Selected(output, len(labels), len(rows))


def _unknown_ending(output: Path) -> InputError:
    return InputError(
        f"--output: {output.name} ends in {output.suffix or 'nothing'!r}, expected .star, .cs, "
        ".pkl, .txt or .csv"
    )


def _select_mapped(options: Select, output: Path) -> Selected:
    """Write particles that were mapped each by itself."""
    mapped = MappedFolder.open(options.results)
    if options.basin is not None:
        chosen = mapped.in_basins(options.basin)
    elif options.region is not None:
        chosen = mapped.in_region(options.region)
    elif options.clusters is not None and not options.exclude_outliers:
        chosen = mapped.in_states(options.clusters)
    else:
        given = "--exclude-outliers" if options.exclude_outliers else "--block or --state"
        raise InputError(
            f"{given}: {options.results} is a map of particles; expected --clusters, --basin or "
            "--region alone"
        )
    positions = np.flatnonzero(chosen)
    rows = np.sort(mapped.index[positions])
    source = None
    if output.suffix in {".star", ".cs"}:
        source = _mapped_file(options, mapped, output)
    elif output.suffix not in {".pkl", ".csv", ".txt"}:
        raise _unknown_ending(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".csv":
        mapped.table(positions).to_csv(output, index=False, float_format="%.6g")
    elif output.suffix == ".txt":
        output.write_text("".join(f"{row}\n" for row in rows.tolist()))
    else:
        write_particle_list(output, rows, source)
    return Selected(output, None, len(rows))


def _mapped_file(options: Select, mapped: MappedFolder, output: Path) -> ParticleFile:
    path = options.particles or mapped.particle_file
    if path is None:
        raise InputError(f"{output.name}: the particle file is not known; give --particles")
    source = ParticleFile.open(path)
    _refuse_other_kind(source, output)
    n, last = len(source.names), int(mapped.index.max())
    # Where all particles were mapped, a file with more of them is another one.
    whole = np.array_equal(np.sort(mapped.index), np.arange(len(mapped.index)))
    if last >= n or (whole and n != len(mapped.index)):
        raise InputError(
            f"{source.path}: {n} particles, but those of {mapped.folder} are "
            f"{f'{last + 1}' if whole else f'rows up to {last}'}; expected the file that the model "
            "was trained on"
        )
    return source


def _refuse_other_kind(source: ParticleFile, output: Path) -> None:
    if source.suffix != output.suffix:
        raise InputError(
            f"--output: {output.name}, but the particles are in {source.path.name}; expected a "
            f"name ending in {source.suffix}"
        )


def _refuse_contradictions(options: Select) -> None:
    given = [
        spelled
        for spelled, value in (
            ("--clusters", options.clusters),
            ("--basin", options.basin),
            ("--region", options.region),
            ("--block", options.block),
            ("--state", options.state),
        )
        if value is not None
    ]
    if len(given) != 1:
        found = f"got {' and '.join(given)}" if given else "got none of them"
        raise InputError(
            f"--clusters, --basin, --region, --block or --state: {found}, expected one"
        )
    how = [
        spelled
        for spelled, value in (
            ("--present", options.present),
            ("--absent", options.absent),
            ("--min", options.min is not None),
        )
        if value
    ]
    if len(how) > 1:
        raise InputError(f"{', '.join(how)}: exclude each other, expected one of them")
    if how and options.block is None:
        raise InputError(f"{how[0]}: got {given[0]}, expected --block with it")
    if options.exclude_outliers and options.clusters is None and options.region is None:
        raise InputError(
            f"--exclude-outliers: got {given[0]}, expected --clusters or --region, since only a "
            "landscape has outliers"
        )


def _chosen(options: Select) -> pd.DataFrame:
    """Return a row for each volume that is asked for, with ``volume`` and ``name``."""
    if options.clusters is not None:
        if not has_landscape(options.results) and is_presence_folder(options.results):
            raise InputError(
                f"--clusters: {options.results} is no landscape but holds blocks or parts; "
                "expected --block or --state"
            )
        return _usual(members_of(options.results, options.clusters), options)
    if options.basin is not None:
        raise InputError(
            f"--basin: {options.results} holds no mapped particles; expected the finished folder "
            "of emhet map"
        )
    if options.region is not None:
        labels = members_of(options.results, None)
        inside = in_region(_volume_scores(options.results), options.region, axes=(1, 2))
        return _usual(labels[inside], options)
    if options.state is not None:
        return PresenceTables.open(options.results, option="--state").in_states(options.state)
    assert options.block is not None
    tables = PresenceTables.open(options.results, option="--block")
    volumes = tables.having(options.block)
    present = volumes["present"] == 1
    if options.min is not None:
        chosen = volumes[volumes["occupancy"] >= options.min]
        why = f"none has so much of it; the most is {volumes['occupancy'].max():.4g}"
    else:
        chosen = volumes[~present if options.absent else present]
        why = f"it is present in {int(present.sum())} of {len(volumes)}"
    if not len(chosen):
        option = (
            f"--min {options.min:g}"
            if options.min is not None
            else ("--absent" if options.absent else "--present")
        )
        raise InputError(f"{option}: no volume is left for --block {options.block}: {why}")
    return chosen


def _usual(labels: pd.DataFrame, options: Select) -> pd.DataFrame:
    return labels[~labels["outlier"].astype(bool)] if options.exclude_outliers else labels


def _volume_scores(results: str) -> npt.NDArray[np.floating]:
    """Return the scores of the volumes of a landscape, in the order of its table."""
    return np.asarray(load_group(place_of(results) / "results.zarr" / "pca")["scores"].values)


def members_of(results: str | PathLike[str], clusters: tuple[int, ...] | None) -> pd.DataFrame:
    """Return the rows of ``cluster_labels.csv`` that belong to chosen states.

    Parameters
    ----------
    results : path or URL
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
    table = place_of(results) / "clusters" / "cluster_labels.csv"
    if not table.is_file():
        raise InputError(f"{results}: no clusters/cluster_labels.csv, expected a landscape folder")
    labels = pd.read_csv(BytesIO(table.read_bytes()), dtype={"name": str}, keep_default_na=False)
    if clusters is None:
        return labels
    known = np.unique(labels["cluster"])
    missing = sorted(set(clusters) - set(known.tolist()))
    if missing:
        raise InputError(
            f"--clusters: {results} has no state {missing[0]}; it has {known[0]} to {known[-1]}"
        )
    return labels[labels["cluster"].isin(clusters)]


def source_of(results: str | PathLike[str]) -> Ensemble:
    """Open the ensemble that a results folder was made of.

    Raises
    ------
    InputError
        When it has moved or changed, or the results were made of an array in memory.
    """
    run = read_run(results)
    inputs = run.inputs
    path, source = inputs.get("ensemble"), inputs.get("source")
    if path is None:
        raise InputError(f"{results}: made of an array in memory; there is no store to read from")
    ensemble = open_ensemble(path)
    # Behind a slash is which volumes were selected, before the ensemble went into the landscape.
    if source is not None and str(source).split("/")[0] != ensemble.fingerprint:
        raise InputError(
            f"the store {path} changed since these results were made; run emhet {run.command} again"
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
    _refuse_other_kind(source, output)
    source.check(ensemble)
    return source
