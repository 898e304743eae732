"""Which particle belongs to which volume, and lists of the particles of chosen volumes.

A particle is named by its row in the particle file before any subset (cryoDRGN's ``--ind``), and
by its image name and copy rank, or its uid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emhet_dask import formats
from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc
from emhet_dask.formats.cryodrgn import read_indices, write_indices
from emhet_dask.formats.relion import JobFolder, is_job_folder
from emhet_dask.formats.sources import VolumeSource, assign_particles
from emhet_dask.formats.tables import read_latents
from emhet_dask.options.ingest import Ingest

if TYPE_CHECKING:
    from emhet_dask.ensemble import Ensemble
    from emhet_dask.formats import star

__all__ = ["ParticleFile", "find_particles", "particle_rows"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class ParticleFile:
    """A STAR or ``.cs`` file of particles, of which subsets are written.

    Attributes
    ----------
    path : Path
    table : ParticleTable or ndarray
        As `emhet_dask.formats.star` or `emhet_dask.formats.cryosparc` reads it.
    names : ndarray
        Image names, or uids as texts.
    copies : ndarray of int
        Rank among particles of the same name.
    """

    path: Path
    table: star.ParticleTable | np.ndarray
    names: np.ndarray
    copies: np.ndarray

    @classmethod
    def open(cls, path: str | Path) -> ParticleFile:
        """Read a particle file.

        Parameters
        ----------
        path : path
            Ending in ``.cs``, or a STAR file.

        Raises
        ------
        InputError
            When it cannot be read.
        """
        path = Path(path)
        if path.suffix == ".cs":
            records = cryosparc.read_particles(path)
            names = records["uid"].astype(str)
            return cls(path, records, names, np.zeros(len(names), dtype=np.int64))
        table = formats.star.read_particles(path)
        identity = formats.star.particle_identity(table)
        return cls(path, table, np.asarray(identity.names, dtype=str), identity.copies)

    @property
    def suffix(self) -> str:
        """Return ``.cs`` or ``.star``."""
        return ".cs" if isinstance(self.table, np.ndarray) else ".star"

    def write(self, path: str | Path, rows: np.ndarray) -> None:
        """Write some of the particles, in the order of the file.

        Parameters
        ----------
        path : path
        rows : ndarray of int
        """
        if isinstance(self.table, np.ndarray):
            cryosparc.write_particles(path, self.table, rows=rows)
        else:
            formats.star.write_particles(path, self.table, rows=rows)

    def check(self, ensemble: Ensemble) -> None:
        """Refuse a file that does not hold the ensemble's particles at their rows.

        Raises
        ------
        InputError
            When a row is missing, or bears another name than it did when the ensemble was made; or,
            where it was made without names, when there are more.
        """
        rows = np.asarray(ensemble.dataset["particle_index"].values)
        if len(rows) and rows.max() >= len(self.names):
            raise InputError(
                f"{self.path}: {len(self.names)} particles, but the ensemble refers to row "
                f"{int(rows.max())}; expected the file that the ensemble was made from"
            )
        if "particle_name" in ensemble.dataset:
            known = np.asarray(ensemble.dataset["particle_name"].values).astype(str)
            differ = np.flatnonzero(known != self.names[rows])
            if len(differ):
                row = int(rows[differ[0]])
                raise InputError(
                    f"{self.path}: row {row} is {str(self.names[row])!r}, but the ensemble has "
                    f"{str(known[differ[0]])!r} there; expected the file that it was made from"
                )
        elif np.array_equal(np.sort(rows), np.arange(len(rows))) and len(rows) != len(self.names):
            raise InputError(
                f"{self.path}: {len(self.names)} particles, but the ensemble was made of "
                f"{len(rows)}; expected the file that its labels belong to"
            )


def particle_rows(ensemble: Ensemble, volumes: np.ndarray) -> np.ndarray:
    """Return the rows, before any subset, of the particles of chosen volumes.

    Parameters
    ----------
    ensemble : Ensemble
        With particles.
    volumes : ndarray of int
        Positions in the ensemble.

    Returns
    -------
    ndarray of int64
        Ascending.
    """
    of_particle = np.asarray(ensemble.dataset["particle_volume"].values)
    wanted = np.zeros(ensemble.n_volumes + 1, dtype=bool)  # the last stands for -1, no volume
    wanted[np.asarray(volumes, dtype=np.int64)] = True
    rows = np.asarray(ensemble.dataset["particle_index"].values)[wanted[of_particle]]
    return np.sort(rows.astype(np.int64))


def write_particle_list(path: str | Path, rows: np.ndarray, source: ParticleFile | None) -> None:
    """Write a list of particles in the format that the ending names.

    Parameters
    ----------
    path : path
        ``.pkl`` for cryoDRGN's indices, else that of the particle file.
    rows : ndarray of int
        Rows before any subset.
    source : ParticleFile or None
        Not needed for ``.pkl``.
    """
    if Path(path).suffix == ".pkl":
        write_indices(path, rows)
    elif source is not None:
        source.write(path, rows)


def find_particles(
    options: Ingest, sources: Sequence[VolumeSource]
) -> tuple[Arrays, dict[str, str]]:
    """Collect what is known of particles before an ensemble is made.

    Parameters
    ----------
    options : Ingest
    sources : sequence of VolumeSource
        In the order of the ensemble.

    Returns
    -------
    arrays : dict
        ``weight``, ``particle_volume``, ``particle_index``, ``particle_name``, ``particle_copy``,
        ``latent``, ``particle_latent``: those that are known.
    attributes : dict
        ``particle_file``: where they were read.

    Raises
    ------
    InputError
        When the tables do not fit one another or the volumes.
    """
    found: Arrays = {}
    known = [source.weight for source in sources]
    if all(weight is not None for weight in known):
        found["weight"] = np.asarray(known, dtype=np.float64)
    assigned, own_file = _assignment(options, sources)
    file = options.particles or own_file
    attributes: dict[str, str] = {}
    if assigned is not None:
        found["particle_volume"] = assigned
        found["weight"] = np.bincount(assigned[assigned >= 0], minlength=len(sources)).astype(
            np.float64
        )
        found["particle_index"] = _original_rows(options, len(assigned))
    elif options.particles or options.ind:
        raise InputError(
            f"{'--particles' if options.particles else '--ind'}: nothing says which particle "
            "belongs to which volume; give --labels"
        )
    if file is not None and assigned is not None:
        particles = ParticleFile.open(file)
        rows = found["particle_index"]
        _check_rows(options, particles, rows)
        if options.particles is not None and own_file is not None:
            _check_names(particles, rows, ParticleFile.open(own_file))
        found["particle_name"] = particles.names[rows]
        found["particle_copy"] = particles.copies[rows]
        attributes["particle_file"] = str(Path(file).absolute())
    if options.latents is not None:
        found.update(_latents(options.latents, len(sources), found.get("particle_volume")))
    return found, attributes


def _assignment(
    options: Ingest, sources: Sequence[VolumeSource]
) -> tuple[np.ndarray | None, Path | None]:
    """Return the volume of each particle, and the file that says so where it names particles."""
    folders = {source.path.parent for source in sources}
    if options.labels is None and len(folders) == 1 and is_job_folder(min(folders)):
        return _classes(JobFolder.open(min(folders)), sources)
    return assign_particles(sources, labels_path=options.labels), None


def _classes(
    job: JobFolder, sources: Sequence[VolumeSource]
) -> tuple[np.ndarray | None, Path | None]:
    """Return the class map of each particle of a RELION job, and the file of its particles."""
    if not job.has("data"):
        return None, None
    path = job.star_path("data")
    table = formats.star.read_particles(path)
    if "rlnClassNumber" not in table.particles:
        return None, None
    row_of_map = {source.path: row for row, source in enumerate(sources)}
    row_of_class = {
        number: row_of_map[map_path]
        for number, map_path in job.class_maps().items()
        if map_path in row_of_map
    }
    classes = table.particles["rlnClassNumber"].astype(int)
    return classes.map(row_of_class).fillna(-1).to_numpy(dtype=np.int64), path


def _original_rows(options: Ingest, count: int) -> np.ndarray:
    if options.ind is None:
        return np.arange(count, dtype=np.int64)
    rows = read_indices(options.ind)
    if len(rows) != count:
        raise InputError(
            f"{options.ind}: {len(rows)} indices, but the labels are of {count} particles"
        )
    return rows


def _check_rows(options: Ingest, particles: ParticleFile, rows: np.ndarray) -> None:
    available = len(particles.names)
    if options.ind is None and len(rows) != available:
        raise InputError(
            f"{particles.path}: {available} particles, but the labels are of {len(rows)}; "
            "give --ind if a subset was used"
        )
    if len(rows) and rows.max() >= available:
        raise InputError(
            f"{options.ind}: index {int(rows.max())} is beyond the {available} particles of "
            f"{particles.path}"
        )


def _check_names(particles: ParticleFile, rows: np.ndarray, own: ParticleFile) -> None:
    """Refuse particles that are not, row by row, those that the job assigned to its classes."""
    given = particles.names[rows]
    differ = np.flatnonzero(given != own.names)
    if len(differ):
        row = differ[0]
        raise InputError(
            f"{particles.path}: row {int(rows[row])} is {given[row]!r}, but {own.path} has "
            f"{own.names[row]!r} there; expected the particles of the job in its order"
        )


def _latents(path: str, n_volumes: int, assigned: np.ndarray | None) -> Arrays:
    n_rows = {"volume": n_volumes}
    if assigned is not None:
        n_rows["particle"] = len(assigned)
    of, latents = read_latents(path, n_rows=n_rows)
    name = "latent" if of == "volume" else "particle_latent"
    return {name: latents.astype(np.float32)}
