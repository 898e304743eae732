"""``emhet class3d select``: the particles of chosen classes, as a file that RELION opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.formats.classification import (
    Classification,
    Particles,
    identity_of,
    read_particles,
    write_particles,
)
from emhet_dask.formats.matching import ParticleIndex
from emhet_dask.formats.where import columns_of, rows_where
from emhet_dask.options import command
from emhet_dask.options.class3d_select import Class3DSelect

if TYPE_CHECKING:
    from emhet_dask.formats.star import ParticleIdentity

__all__ = ["SelectedParticles", "class3d_select"]

Bools = npt.NDArray[np.bool_]

_NAME_COLUMNS = {".star": ("rlnImageName", "rlnTomoParticleName"), ".cs": ("uid",)}


@dataclass(frozen=True)
class SelectedParticles:
    """What was written.

    Attributes
    ----------
    path : Path
    n_particles : int
    n_of : int
        Particles there were to choose from.
    """

    path: Path
    n_particles: int
    n_of: int

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.path}: {self.n_particles} of {self.n_of} particles"


@command(Class3DSelect)
def class3d_select(options: Class3DSelect) -> SelectedParticles:
    """Write the particles of a classification that meet every condition given.

    Returns
    -------
    SelectedParticles

    Raises
    ------
    InputError
        When the particles or another file cannot be read, a class, column or cluster is asked for
        that is not there, no condition is given, no particle meets them, or the file to write
        exists or has another ending than the particles need.
    """
    _refuse_contradictions(options)
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise InputError(f"{output}: exists; --overwrite replaces it")
    source = _Source.open(options)
    _refuse_ending(output, source.suffix)
    chosen = source.chosen(options)
    rows = np.flatnonzero(chosen)
    output.parent.mkdir(parents=True, exist_ok=True)
    # The particles may be chosen from the very file that is replaced.
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        _write(unfinished, output.suffix, source, rows)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return SelectedParticles(output, len(rows), len(chosen))


@dataclass(frozen=True, eq=False)
class _Source:
    """The particles to choose from, with their classes where the conditions ask for these."""

    job: str
    particles: Particles
    identity: ParticleIdentity
    classification: Classification | None

    @classmethod
    def open(cls, options: Class3DSelect) -> _Source:
        passthrough = options.passthrough or ()
        of_job = options.classes is not None and options.consensus is None
        if of_job or options.min_pmax is not None:
            found = Classification.open(options.job, passthrough=passthrough)
            return cls(options.job, found.particles, found.identity, found)
        particles = read_particles(options.job, passthrough=passthrough)
        return cls(options.job, particles, identity_of(particles), None)

    @property
    def suffix(self) -> str:
        return ".cs" if isinstance(self.particles, np.ndarray) else ".star"

    def chosen(self, options: Class3DSelect) -> Bools:
        """Tell which particles meet all conditions."""
        n = len(self.identity.names)
        found = np.ones(n, dtype=bool)
        for condition, rows in (
            ("--consensus", self._of_consensus(options)),
            ("--classes", self._of_classes(options)),
            ("--min-pmax", self._sure_enough(options)),
            ("--where", self._where(options)),
            ("--results", self._of_results(options)),
        ):
            if rows is None:
                continue
            before = int(np.count_nonzero(found))
            found &= rows
            if not found.any():
                alone = int(np.count_nonzero(rows))
                why = f"it holds for none of its {n}"
                if alone:
                    why = f"it holds for {alone}, none of the {before} that met what came before"
                raise InputError(f"{condition}: no particle of {self.job} is left; {why}")
        return found

    def _of_classes(self, options: Class3DSelect) -> Bools | None:
        if options.classes is None or options.consensus is not None:
            return None
        assert self.classification is not None
        known = self.classification.classes
        _refuse_unknown(options.classes, known, of=self.job)
        return np.isin(self.classification.labels, options.classes)

    def _sure_enough(self, options: Class3DSelect) -> Bools | None:
        if options.min_pmax is None:
            return None
        assert self.classification is not None
        if self.classification.pmax is None:
            raise InputError(
                f"--min-pmax: {self.classification.path} has no column _rlnMaxValueProbDistribution"
            )
        return self.classification.pmax >= options.min_pmax

    def _where(self, options: Class3DSelect) -> Bools | None:
        if options.where is None:
            return None
        if isinstance(self.particles, np.ndarray):
            return rows_where(options.where, columns_of(self.particles), source=self.job)
        columns = columns_of(self.particles.particles)
        return rows_where(options.where, columns, source=self.particles.path)

    def _of_consensus(self, options: Class3DSelect) -> Bools | None:
        if options.consensus is None:
            return None
        table = _read_consensus(options.consensus, self.suffix)
        rows = self._rows_of_consensus(table, options.consensus)
        known = tuple(np.unique(table["consensus"]).tolist())
        wanted = np.ones(len(table), dtype=bool)
        if options.classes is not None:
            _refuse_unknown(options.classes, known, of=options.consensus)
            wanted &= np.isin(table["consensus"], options.classes)
        if options.min_confidence is not None:
            if "confidence" not in table:
                raise InputError(f"--min-confidence: {options.consensus} has no column confidence")
            wanted &= table["confidence"].to_numpy() >= options.min_confidence
        return self._mask(rows[wanted & (rows >= 0)])

    def _rows_of_consensus(self, table: pd.DataFrame, path: str) -> npt.NDArray[np.int64]:
        """Find the particles of a consensus, of which every copy has to be there."""
        index = ParticleIndex(self.identity)
        codes = index.codes_of(table["name"].to_numpy())
        known = codes[codes >= 0]
        counts = np.bincount(known, minlength=len(index.multiplicity))
        if not len(known):
            raise InputError(
                f"--consensus: {path} and {self.job} have no particle in common among "
                f"{len(table)} and {len(self.identity.names)}"
            )
        differs = np.count_nonzero((counts > 0) & (counts != index.multiplicity))
        if differs:
            raise InputError(
                f"--consensus: {path} and {self.job} have {differs} names a different number of "
                "times, so that copies cannot be told apart; expected a job that was compared"
            )
        return index.rows_of(codes, table["copy"].to_numpy())

    def _of_results(self, options: Class3DSelect) -> Bools | None:
        if options.results is None:
            return None
        names, copies = _particles_of_results(options)
        index = ParticleIndex(self.identity)
        if isinstance(self.particles, np.ndarray):
            names = names.astype(np.uint64)
        codes = index.codes_of(names)
        rows = index.rows_of(codes, copies)
        beyond = np.count_nonzero((codes >= 0) & (rows < 0))
        if beyond:
            raise InputError(
                f"--results: {options.results} knows {beyond} copies of particles that "
                f"{self.job} does not have, so that copies cannot be told apart"
            )
        return self._mask(rows[rows >= 0])

    def _mask(self, rows: npt.NDArray[np.int64]) -> Bools:
        mask = np.zeros(len(self.identity.names), dtype=bool)
        mask[rows] = True
        return mask


def _refuse_contradictions(options: Class3DSelect) -> None:
    conditions = (
        options.classes,
        options.min_pmax,
        options.where,
        options.consensus,
        options.results,
    )
    if all(condition is None for condition in conditions):
        raise InputError(
            "--classes, --min-pmax, --where, --consensus or --results: got none of them, expected "
            "at least one"
        )
    if options.min_confidence is not None and options.consensus is None:
        raise InputError("--min-confidence: expected --consensus with it")
    of_results = sum(value is not None for value in (options.clusters, options.block))
    if options.results is not None and of_results != 1:
        found = "both" if of_results else "neither"
        raise InputError(f"--results: expected --clusters or --block with it, got {found}")
    if options.results is None and of_results:
        given = "--block" if options.clusters is None else "--clusters"
        raise InputError(f"{given}: expected --results with it, the folder that has them")


def _refuse_ending(output: Path, suffix: str) -> None:
    if output.suffix not in {suffix, ".txt", ".csv"}:
        raise InputError(
            f"--output: {output.name} ends in {output.suffix or 'nothing'!r}, expected {suffix} as "
            "the particles have it, .txt or .csv"
        )


def _refuse_unknown(wanted: tuple[int, ...], known: tuple[int, ...], *, of: str) -> None:
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise InputError(
            f"--classes: {of} has no class {missing[0]}; it has "
            f"{', '.join(map(str, known)) or 'no particles'}"
        )


def _read_consensus(path: str, suffix: str) -> pd.DataFrame:
    """Return ``name``, ``copy``, ``consensus`` and, where it is there, ``confidence``."""
    try:
        columns = pd.read_csv(path, nrows=0).columns
        name = next((each for each in _NAME_COLUMNS[suffix] if each in columns), None)
        if name is None or "consensus" not in columns:
            raise InputError(
                f"--consensus: {path} has columns {', '.join(columns[:6])}; expected "
                f"{_NAME_COLUMNS[suffix][0]}, consensus and confidence"
            )
        wanted = [each for each in (name, "copy", "consensus", "confidence") if each in columns]
        kinds: dict[str, type] = {
            "copy": np.int64,
            "consensus": np.int64,
            "confidence": np.float64,
            name: object if suffix == ".star" else np.uint64,
        }
        table = pd.read_csv(path, usecols=wanted, dtype=kinds, na_filter=False)
    except FileNotFoundError:
        raise InputError(f"--consensus: {path}: no such file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"--consensus: {path}: cannot be read as a table ({reason})") from None
    table = table.rename(columns={name: "name"})
    if "copy" not in table:
        table["copy"] = table.groupby("name", sort=False).cumcount()
    return table


def _particles_of_results(
    options: Class3DSelect,
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Return the names and copy ranks of the particles of chosen volumes."""
    # The store comes with labelled and lazy arrays, which nothing else here needs.
    from emhet_dask.workflows.block_members import PresenceTables  # noqa: PLC0415
    from emhet_dask.workflows.select import members_of, source_of  # noqa: PLC0415

    assert options.results is not None
    if options.block is not None:
        volumes = PresenceTables.open(options.results, option="--block").having(options.block)
        members = volumes[volumes["present"] == 1]
    else:
        members = members_of(options.results, options.clusters)
    ensemble = source_of(options.results)
    missing = {"particle_volume", "particle_name", "particle_copy"} - set(ensemble.dataset)
    if missing:
        raise InputError(
            f"--results: {ensemble.path} does not name its particles; ingest it with --labels and "
            "--particles"
        )
    of_particle = ensemble.dataset["particle_volume"].values
    rows = np.flatnonzero(np.isin(of_particle, members["volume"]))
    names = ensemble.dataset["particle_name"].values[rows].astype(str).astype(object)
    return names, ensemble.dataset["particle_copy"].values[rows].astype(np.int64)


def _write(path: Path, suffix: str, source: _Source, rows: npt.NDArray[np.int64]) -> None:
    if suffix in {".star", ".cs"}:
        write_particles(path, source.particles, rows=rows)
        return
    names = source.identity.names[rows]
    if suffix == ".txt":
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        return
    table = pd.DataFrame({"row": rows, _name_column(source): names})
    if source.classification is not None:
        table["class"] = source.classification.labels[rows]
        if source.classification.pmax is not None:
            table["pmax"] = source.classification.pmax[rows]
    table.to_csv(path, index=False)


def _name_column(source: _Source) -> str:
    candidates = _NAME_COLUMNS[source.suffix]
    if isinstance(source.particles, np.ndarray):
        return candidates[0]
    return next(name for name in candidates if name in source.particles.particles)
