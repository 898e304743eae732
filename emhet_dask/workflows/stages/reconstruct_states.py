"""The particles of ``emhet reconstruct``: their images, states and halves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask import formats
from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import read_labels
from emhet_dask.formats.particle_images import ParticleImages, open_images
from emhet_dask.formats.star import ParticleTable, particle_identity
from emhet_dask.formats.tables import read_csv
from emhet_dask.options.reconstruct import Reconstruct
from emhet_dask.runtime import fingerprint_file, fingerprint_values
from emhet_dask.workflows.particles import ParticleFile
from emhet_dask.workflows.select import members_of, source_of

__all__ = ["StateParticles", "open_states", "state_name"]

# Headings of a label, the first that a table has.
_LABELS = ("state", "cluster", "class", "consensus", "label", "labels", "source_volume")
_UNRESOLVED = {"consensus": 0}
_FEWEST = 2


def state_name(number: int) -> str:
    """Return what the files of a state are called."""
    return f"state_{number:03d}"


@dataclass(frozen=True, eq=False)
class StateParticles:
    """What is reconstructed.

    Attributes
    ----------
    table : ParticleTable
        As it was read.
    images : ParticleImages
        Of all particles.
    rows : dict of int to ndarray of int64
        Particles of each state.
    half : ndarray of int8 (particle,)
        1 or 2; 0 for particles of no state.
    notes : tuple of str
        What a reader has to know.
    """

    table: ParticleTable
    images: ParticleImages
    rows: Mapping[int, np.ndarray]
    half: np.ndarray
    notes: tuple[str, ...]

    @property
    def names(self) -> dict[int, str]:
        """Return the name of each state."""
        return {number: state_name(number) for number in self.rows}

    def inputs(self) -> dict[str, Any]:
        """Return what identifies the input, for the record of the run."""
        stacks = {stack.path: fingerprint_file(stack.path) for stack in self.images.stacks}
        return {
            "particles": str(Path(self.table.path).absolute()),
            "fingerprint": fingerprint_file(self.table.path),
            "stacks": stacks if len(stacks) < 10 else {"files": len(stacks), **_first(stacks)},
        }

    def of_half(self, number: int, half: int) -> ParticleImages:
        """Return the particles of one half of a state."""
        rows = self.rows[number]
        return self.images[rows[self.half[rows] == half]]

    def key(self, number: int) -> dict[str, str]:
        """Return what identifies the particles and halves of a state."""
        rows = self.rows[number]
        return {"rows": fingerprint_values(rows), "halves": fingerprint_values(self.half[rows])}


def _first(stacks: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stacks[name] for name in list(stacks)[:3]}


def open_states(options: Reconstruct) -> StateParticles:
    """Read the particles, find their states, and halve each state.

    Raises
    ------
    InputError
        When the particles cannot be reconstructed, the labels are not of these particles, a state
        is asked for that there is not, or one has fewer than two particles (or none in a half).
    """
    if options.labels is not None and options.clusters is not None:
        raise InputError("--labels and --clusters: exclude each other, expected one of them")
    table = formats.star.read_particles(options.particles)
    images = open_images(table, root=options.root, with_ctf=not options.no_ctf)
    labels = _labels(options, table)
    known = np.unique(labels[labels >= 0]).tolist()
    if options.states is not None:
        missing = sorted(set(options.states) - set(known))
        if missing:
            raise InputError(
                f"--states: there is no state {missing[0]}; there are {_listed(known)}"
            )
        known = sorted(set(options.states))
    if not known:
        raise InputError("--labels: no particle has a state")
    rows = {number: np.flatnonzero(labels == number) for number in known}
    half, source = _halves(images, rows, seed=options.seed)
    _refuse_few(rows, half)
    left_out = len(images) - sum(len(each) for each in rows.values())
    notes = [f"{left_out:,} of {len(images):,} particles are in none of the states"] * (
        left_out > 0
    )
    return StateParticles(table, images, rows, half, (source, *notes))


def _listed(numbers: list[int], limit: int = 12) -> str:
    more = len(numbers) - limit
    shown = ", ".join(map(str, numbers[:limit]))
    return shown + (f" and {more} more" if more > 0 else "")


def _halves(
    images: ParticleImages, rows: Mapping[int, np.ndarray], *, seed: int
) -> tuple[np.ndarray, str]:
    """Return 1 or 2 for each particle of a state, and where that comes from."""
    half = np.zeros(len(images), dtype=np.int8)
    subset = images.subset
    if subset is not None and set(np.unique(subset).tolist()) == {1, 2}:
        for each in rows.values():
            half[each] = subset[each]
        return half, "Halves are those of rlnRandomSubset"
    for number, each in rows.items():
        order = np.random.default_rng([seed, number]).permutation(len(each))
        half[each[order]] = 1 + np.arange(len(each)) % 2
    return half, f"Halves are random, of seed {seed}"


def _refuse_few(rows: Mapping[int, np.ndarray], half: np.ndarray) -> None:
    for number, each in rows.items():
        if len(each) < _FEWEST or len(np.unique(half[each])) < 2:
            raise InputError(
                f"state {number} has {len(each)} particles, not one in each half; leave it out "
                "with --states"
            )


# Labels -------------------------------------------------------------------------------------------


def _labels(options: Reconstruct, table: ParticleTable) -> np.ndarray:
    count = len(table.particles)
    if options.clusters is not None:
        return _of_landscape(options.clusters, table)
    if options.labels is None:
        return np.zeros(count, dtype=np.int64)
    if options.labels == "class":
        if "rlnClassNumber" not in table.particles:
            raise InputError(f"--labels class: {table.path} has no column _rlnClassNumber")
        return table.particles["rlnClassNumber"].to_numpy(dtype=np.int64)
    if Path(options.labels).suffix == ".csv":
        return _of_table(options.labels, table)
    labels = read_labels(options.labels)
    if len(labels) != count:
        raise InputError(
            f"--labels: {options.labels} is of {len(labels)} particles, but {table.path} has "
            f"{count}"
        )
    return labels


def _of_table(path: str, table: ParticleTable) -> np.ndarray:
    """Return the label of each particle; -1 for those that the table leaves out."""
    given = read_csv(path)
    headings = [str(column).strip() for column in given]
    label = next((name for name in _LABELS if name in headings), None)
    key = next((name for name in ("rlnImageName", "particle") if name in headings), None)
    if label is None or key is None:
        raise InputError(
            f"--labels: {path} has the columns {', '.join(headings)}; expected particle or "
            "rlnImageName, and state"
        )
    given.columns = pd.Index(headings)
    numbers = pd.to_numeric(given[label], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.rint(numbers)))
    if len(bad):
        raise InputError(
            f"--labels: {path}: the {label} of row {bad[0] + 1} is "
            f"{given[label].iloc[bad[0]]!r}, expected a whole number"
        )
    rows = _rows_of(path, key, given, table)
    labels = np.full(len(table.particles), -1, dtype=np.int64)
    labels[rows] = numbers.astype(np.int64)
    if label in _UNRESOLVED:
        labels[labels == _UNRESOLVED[label]] = -1
    return labels


def _rows_of(path: str, key: str, given: pd.DataFrame, table: ParticleTable) -> np.ndarray:
    """Return the row of each line among the particles."""
    count = len(table.particles)
    if key == "particle":
        rows = pd.to_numeric(given[key], errors="coerce").fillna(-1).to_numpy(dtype=np.int64)
    else:
        identity = particle_identity(table)
        index = pd.MultiIndex.from_arrays([identity.names.astype(str), identity.copies])
        names = given[key].astype(str)
        if "copy" in given:
            copies = pd.to_numeric(given["copy"], errors="coerce").fillna(-1).astype(np.int64)
        else:
            copies = names.groupby(names, sort=False).cumcount()
        rows = index.get_indexer(pd.MultiIndex.from_arrays([names.to_numpy(dtype=str), copies]))
    bad = np.flatnonzero((rows < 0) | (rows >= count))
    if len(bad):
        raise InputError(
            f"--labels: {path}: {key} {given[key].iloc[bad[0]]!r} is none of the {count} particles "
            f"of {table.path}" + (", rows 0 to " + str(count - 1) if key == "particle" else "")
        )
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"--labels: {path} lists a particle twice")
    return np.asarray(rows, dtype=np.int64)


def _of_landscape(results: str, table: ParticleTable) -> np.ndarray:
    """Return the state of each particle's volume."""
    ensemble = source_of(results)
    if not ensemble.has_particles:
        raise InputError(
            f"--clusters: nothing says which particles the volumes of {ensemble.path} stand for; "
            "ingest them with --labels (and --particles)"
        )
    identity = particle_identity(table)
    names = np.asarray(identity.names, dtype=str)
    ParticleFile(Path(table.path), table, names, identity.copies).check(ensemble)
    members = members_of(results, None)
    of_volume = np.full(ensemble.n_volumes + 1, -1, dtype=np.int64)  # the last: of no volume
    of_volume[members["volume"].to_numpy(dtype=np.int64)] = members["cluster"]
    labels = np.full(len(table.particles), -1, dtype=np.int64)
    volumes = np.asarray(ensemble.dataset["particle_volume"].values)
    labels[np.asarray(ensemble.dataset["particle_index"].values)] = of_volume[volumes]
    return labels
