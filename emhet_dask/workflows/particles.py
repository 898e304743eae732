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
from emhet_dask.analysis.nearest import nearest_volume
from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc
from emhet_dask.formats.cryodrgn import read_indices, write_indices
from emhet_dask.formats.latents import Latents, find_volume_latents, read_latents
from emhet_dask.formats.relion import JobFolder, is_job_folder
from emhet_dask.formats.sources import VolumeSource, assign_particles
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
    of_volumes, of_particles = _latents(options, sources, assigned)
    if assigned is None and of_particles is not None:
        assigned = _nearest(of_particles, of_volumes)
    for name, latents in (("latent", of_volumes), ("particle_latent", of_particles)):
        if latents is not None:
            found[name] = latents.values.astype(np.float32)
    attributes: dict[str, str] = {}
    if assigned is None:
        if options.particles or options.ind:
            raise InputError(
                f"{'--particles' if options.particles else '--ind'}: nothing says which particle "
                "belongs to which volume; give --labels, or --particle-latents and --latents"
            )
        return found, attributes
    found["particle_volume"] = assigned
    found["weight"] = np.bincount(assigned[assigned >= 0], minlength=len(sources)).astype(
        np.float64
    )
    file = options.particles or own_file
    if file is None and of_particles is not None and of_particles.uids is not None:
        file = of_particles.path
    particles = None if file is None else ParticleFile.open(file)
    rows = _original_rows(options, len(assigned), of_particles, particles)
    found["particle_index"] = rows
    if particles is not None:
        if options.particles is not None and own_file is not None:
            _check_names(particles, rows, ParticleFile.open(own_file))
        found["particle_name"] = particles.names[rows]
        found["particle_copy"] = particles.copies[rows]
        attributes["particle_file"] = str(particles.path.absolute())
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


def _original_rows(
    options: Ingest, count: int, latents: Latents | None, particles: ParticleFile | None
) -> np.ndarray:
    """Return where each particle stands in the particle file, before any subset."""
    uids = None if latents is None else latents.uids
    if particles is not None and particles.suffix == ".cs" and uids is not None:
        return _rows_of_uids(uids, particles, of=str(options.particle_latents))
    if options.ind is not None:
        rows = read_indices(options.ind)
        if latents is not None and latents.kept is not None:
            raise InputError(
                f"{options.ind}: not needed, for {latents.path} has NaN where a particle was left "
                "out; leave --ind away"
            )
        if len(rows) != count:
            raise InputError(
                f"{options.ind}: {len(rows)} indices, but {_told_by(options)} {count} particles"
            )
    elif latents is not None and latents.kept is not None:
        rows = latents.kept
    else:
        rows = np.arange(count, dtype=np.int64)
    if particles is not None:
        _check_rows(options, particles, rows, latents)
    return rows


def _told_by(options: Ingest) -> str:
    named = options.particle_latents if options.labels is None else None
    return f"{named} is of" if named else "the labels are of"


def _rows_of_uids(uids: np.ndarray, particles: ParticleFile, *, of: str) -> np.ndarray:
    """Return the row of each uid in the particle file, whatever the order of the two."""
    row_of = {uid: row for row, uid in enumerate(particles.names.tolist())}
    rows = np.asarray([row_of.get(uid, -1) for uid in uids.tolist()], dtype=np.int64)
    if (rows < 0).any():
        raise InputError(
            f"{particles.path}: lacks {np.count_nonzero(rows < 0)} of the {len(rows)} particles of "
            f"{of}, by uid"
        )
    return rows


def _check_rows(
    options: Ingest, particles: ParticleFile, rows: np.ndarray, latents: Latents | None
) -> None:
    available = len(particles.names)
    told = latents.path if latents is not None and latents.kept is not None else options.ind
    if told is None and len(rows) != available:
        raise InputError(
            f"{particles.path}: {available} particles, but {_told_by(options)} {len(rows)}; "
            "give --ind if a subset was used"
        )
    if len(rows) and rows.max() >= available:
        raise InputError(
            f"{told}: index {int(rows.max())} is beyond the {available} particles of "
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


def _latents(
    options: Ingest, sources: Sequence[VolumeSource], assigned: np.ndarray | None
) -> tuple[Latents | None, Latents | None]:
    """Return the latents of the volumes and of the particles, as far as they are known."""
    of_particles = None
    of_volumes = None if options.latents is None else read_latents(options.latents)
    if options.particle_latents is not None:
        if of_volumes is None:
            of_volumes = _beside(sources)
        of_particles = read_latents(
            options.particle_latents,
            n_dims=None if of_volumes is None else of_volumes.n_dims,
            may_lack_rows=True,
        )
        if of_volumes is None:
            of_volumes = _beside(sources, of_particles)
        if assigned is not None and len(of_particles) != len(assigned):
            raise InputError(
                f"{of_particles.path}: {len(of_particles)} rows of latents, expected "
                f"{len(assigned)}, one per particle of the labels"
            )
    if of_volumes is None or len(of_volumes) == len(sources):
        return of_volumes, of_particles
    if of_particles is None and assigned is not None and len(of_volumes) == len(assigned):
        return None, of_volumes
    expected = f"{len(sources)}, one per volume"
    if of_particles is None and assigned is not None:
        expected += f" or {len(assigned)}, one per particle"
    elif of_particles is None:
        expected += " (one per particle: --particle-latents)"
    raise InputError(f"{of_volumes.path}: {len(of_volumes)} rows of latents, expected {expected}")


def _beside(sources: Sequence[VolumeSource], particles: Latents | None = None) -> Latents | None:
    """Return the latents that a program left beside its maps."""
    folders = {source.path.parent for source in sources}
    if len(folders) != 1:
        return None
    return find_volume_latents(
        min(folders),
        n_volumes=len(sources),
        particles=None if particles is None else particles.values,
    )


def _nearest(particles: Latents, volumes: Latents | None) -> np.ndarray:
    if volumes is None:
        raise InputError(
            f"{particles.path}: says where the particles are in latent space, but nothing says "
            "where the volumes are; give --latents with one row per volume, or --labels"
        )
    if volumes.n_dims != particles.n_dims:
        raise InputError(
            f"{volumes.path}: latents of {volumes.n_dims} dimensions, but {particles.path} has "
            f"{particles.n_dims}; expected one latent space"
        )
    return nearest_volume(particles.values, volumes.values)
