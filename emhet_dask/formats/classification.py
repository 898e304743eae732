"""Classifications: which class each particle was given, and with what posterior probability.

RELION writes the best class of each particle and its probability into the particles' STAR file;
cryoSPARC writes the posterior of every class into a ``.cs`` file.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc, star
from emhet_dask.formats.relion import JobFolder

__all__ = ["Classification", "Particles", "identity_of", "read_particles", "write_particles"]

# As `emhet_dask.formats.star` or `emhet_dask.formats.cryosparc` read them.
Particles = star.ParticleTable | np.ndarray

_CLASS = "rlnClassNumber"
_PMAX = "rlnMaxValueProbDistribution"
_DATA = "_data.star"
_CLASS_MAP = re.compile(r"_class(\d{3,})\.mrc")
_ALL_POSTERIORS = "alignments3D_multi/class_posterior"
_ALL_CLASSES = "alignments3D_multi/class"
# Heterogeneous refinement says alignments_class_0, 3D classification of some versions
# alignments_class3D_0.
_ONE_POSTERIOR = re.compile(r"alignments_class(?:3D)?_?(\d+)/class_posterior")


@dataclass(frozen=True, eq=False)
class Classification:
    """Particles with their classes.

    Attributes
    ----------
    name : str
        ``"job085"``: the folder of a RELION job, else the file without its ending.
    path : Path
        The ``_data.star`` or ``.cs`` file.
    particles : ParticleTable or ndarray
        What the file holds.
    labels : ndarray of int64, shape (particle,)
        Class of each particle, numbered as the program numbers them: RELION from 1, cryoSPARC
        from 0.
    classes : tuple of int
        All classes, ascending; empty ones too, where the model or the posteriors know of them.
    pmax : ndarray of float64, shape (particle,), or None
        Posterior probability of that class; of RELION, of the best class and orientation.
    class_maps : dict of int to Path
        Maps of the classes of the same iteration, as far as they are there.
    """

    name: str
    path: Path
    particles: Particles
    labels: np.ndarray
    classes: tuple[int, ...]
    pmax: np.ndarray | None
    class_maps: dict[int, Path]

    @classmethod
    def open(cls, path: str | Path, *, passthrough: Sequence[str | Path] = ()) -> Classification:
        """Read a classification.

        Parameters
        ----------
        path : path
            Folder of a RELION job, of which the last iteration is read; a particle STAR file; or
            a ``.cs`` file with class posteriors.
        passthrough : sequence of path
            Files that complete a ``.cs`` file, joined on ``uid``.

        Returns
        -------
        Classification

        Raises
        ------
        InputError
            When the particles cannot be read, have no classes, or classes that their program
            would not write.
        """
        particles = read_particles(path, passthrough=passthrough)
        if isinstance(particles, np.ndarray):
            file = Path(path)
            labels, classes, pmax = _of_posteriors(particles, file)
            maps: dict[int, Path] = {}
        else:
            file = Path(particles.path)
            labels, classes, pmax = _of_table(particles)
            maps = _class_maps(file)
        return cls(
            name=_name(Path(path)),
            path=file,
            particles=particles,
            labels=labels,
            classes=classes,
            pmax=pmax,
            class_maps=maps,
        )

    @property
    def n_particles(self) -> int:
        """Number of particles."""
        return len(self.labels)

    @property
    def identity(self) -> star.ParticleIdentity:
        """Image name, or ``uid``, of each particle, and its rank among those of the same name.

        Made anew each time: names as Python texts take more memory than all other columns.
        """
        return identity_of(self.particles)

    @property
    def suffix(self) -> str:
        """Return ``.cs`` or ``.star``."""
        return ".cs" if isinstance(self.particles, np.ndarray) else ".star"

    def write(self, path: str | Path, rows: np.ndarray) -> None:
        """Write some of the particles in the format they came in, in the order of `rows`.

        A STAR file keeps its columns, other blocks and the optics groups that are still used.

        Raises
        ------
        InputError
            When a row is asked for that is not there.
        """
        write_particles(path, self.particles, rows=rows)


def read_particles(path: str | Path, *, passthrough: Sequence[str | Path] = ()) -> Particles:
    """Read particles, whether or not they have classes.

    Parameters
    ----------
    path : path
        Folder of a RELION job, of which the last iteration is read; a STAR or ``.cs`` file.
    passthrough : sequence of path
        Files that complete a ``.cs`` file, joined on ``uid``.

    Returns
    -------
    ParticleTable or ndarray

    Raises
    ------
    InputError
        When they cannot be read, or passthrough files are given to a STAR file.
    """
    path = Path(path)
    if path.suffix == ".cs":
        return cryosparc.read_particles(path, passthrough=passthrough)
    if passthrough:
        raise InputError(
            f"{passthrough[0]}: passthrough files belong to .cs files, and {path} is none"
        )
    return star.read_particles(_last_data_star(path) if path.is_dir() else path)


def write_particles(path: str | Path, particles: Particles, *, rows: np.ndarray) -> None:
    """Write some particles in the format they came in.

    Parameters
    ----------
    path : path
        Written anew if it exists.
    particles : ParticleTable or ndarray
        From `read_particles`.
    rows : ndarray of int or bool
        Which particles, in this order.

    Raises
    ------
    InputError
        When a row is asked for that is not there.
    """
    if isinstance(particles, np.ndarray):
        cryosparc.write_particles(path, particles, rows=rows)
    else:
        star.write_particles(path, particles, rows=rows)


def identity_of(particles: Particles) -> star.ParticleIdentity:
    """Name every particle: by ``uid``, or by image name and copy rank."""
    if isinstance(particles, np.ndarray):
        return star.ParticleIdentity(
            particles["uid"].astype(np.uint64), np.zeros(len(particles), dtype=np.int64)
        )
    return star.particle_identity(particles)


def _name(path: Path) -> str:
    if not path.is_dir():
        return path.stem
    return path.name if path.name not in ("", "..") else path.resolve().name


def _last_data_star(folder: Path) -> Path:
    job = JobFolder.open(folder)
    finished = [
        iteration
        for iteration in job.iterations
        if iteration > 0 and job.has("data", iteration=iteration)
    ]
    if not finished:
        raise InputError(
            f"{folder}: has no particles of a finished iteration; expected files such as "
            "run_it025_data.star"
        )
    return job.star_path("data", iteration=max(finished))


def _class_maps(data_star: Path) -> dict[int, Path]:
    """Find the maps that were written with a ``_data.star``."""
    if not data_star.name.endswith(_DATA):
        return {}
    prefix = data_star.name.removesuffix(_DATA)
    found = {}
    for path in data_star.parent.glob(f"{glob.escape(prefix)}_class*.mrc"):
        match = _CLASS_MAP.fullmatch(path.name.removeprefix(prefix))
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _n_classes(data_star: Path) -> int | None:
    """Read how many classes the model has that was written with a ``_data.star``."""
    model = data_star.with_name(data_star.name.removesuffix(_DATA) + "_model.star")
    if not data_star.name.endswith(_DATA) or not model.is_file():
        return None
    general = star.read_star(model).table("model_general")
    if "rlnNrClasses" not in general:
        raise InputError(f"{model}: data_model_general has no _rlnNrClasses")
    number = pd.to_numeric(general["rlnNrClasses"], errors="coerce").iloc[0]
    if not number >= 1:
        raise InputError(
            f"{model}: _rlnNrClasses is {general['rlnNrClasses'].iloc[0]}, expected a number of "
            "at least 1"
        )
    return int(number)


Classes = tuple[np.ndarray, tuple[int, ...], np.ndarray | None]


def _of_table(table: star.ParticleTable) -> Classes:
    """Return labels, classes and probabilities of a RELION table."""
    if _CLASS not in table.particles:
        raise InputError(
            f"{table.path}: has no column _{_CLASS}; expected the particles of a classification, "
            "such as run_it025_data.star"
        )
    numbers = _numbers(table, _CLASS)
    labels = numbers.astype(np.int64)
    if not np.array_equal(labels, numbers) or (len(labels) and labels.min() < 1):
        wrong = numbers[(labels != numbers) | (labels < 1)]
        raise InputError(
            f"{table.path}: _{_CLASS} is {wrong[0]:g} for {len(wrong)} particles; RELION numbers "
            "classes from 1"
        )
    n_classes = _n_classes(Path(table.path))
    if n_classes is None:
        classes = tuple(np.unique(labels).tolist())
    else:
        classes = tuple(range(1, n_classes + 1))
        if len(labels) and labels.max() > n_classes:
            raise InputError(
                f"{table.path}: _{_CLASS} goes up to {labels.max()}, but the model beside it has "
                f"{n_classes} classes"
            )
    return labels, classes, _numbers(table, _PMAX) if _PMAX in table.particles else None


def _numbers(table: star.ParticleTable, column: str) -> np.ndarray:
    values = pd.to_numeric(table.particles[column], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(
            f"{table.path}: _{column} is {table.particles[column].iloc[int(bad.argmax())]!r} in "
            f"row {int(bad.argmax())} of the particles, expected a number"
        )
    return values


def _of_posteriors(records: np.ndarray, path: Path) -> Classes:
    """Return labels, classes and probabilities of cryoSPARC records."""
    numbers, posterior = _posteriors(records, path)
    bad = ~np.isfinite(posterior).all(axis=1) | (posterior < 0).any(axis=1)
    bad |= ~posterior.any(axis=1)
    if bad.any():
        raise InputError(
            f"{path}: {np.count_nonzero(bad)} of {len(bad)} particles have class posteriors that "
            "are all zero, negative or not a number"
        )
    best = posterior.argmax(axis=1)
    rows = np.arange(len(records))
    labels = numbers[rows, best] if numbers.ndim == 2 else numbers[best]
    pmax = posterior[rows, best].astype(np.float64)
    return labels.astype(np.int64), tuple(np.unique(numbers).tolist()), pmax


def _posteriors(records: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each class and its posterior (particle, class).

    Class numbers are (class,), or (particle, class) where each particle lists its own.
    """
    names = records.dtype.names or ()
    if _ALL_POSTERIORS in names and records[_ALL_POSTERIORS].ndim == 2:
        posterior = records[_ALL_POSTERIORS]
        if _ALL_CLASSES in names and records[_ALL_CLASSES].shape == posterior.shape:
            return records[_ALL_CLASSES].astype(np.int64), posterior
        return np.arange(posterior.shape[1]), posterior
    found = {
        int(match[1]): name
        for name in names
        if (match := _ONE_POSTERIOR.fullmatch(name)) and records[name].ndim == 1
    }
    if not found:
        raise InputError(
            f"{path}: has no class posteriors; expected {_ALL_POSTERIORS} or "
            "alignments_class_0/class_posterior, …, which may be in a passthrough file"
        )
    numbers = sorted(found)
    return np.array(numbers), np.stack([records[found[number]] for number in numbers], axis=1)
