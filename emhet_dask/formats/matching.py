"""The same particles in several files, found by name and copy rank.

Names are hashed, once for each file, so that the time grows with the number of particles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.formats.classification import Classification
from emhet_dask.formats.star import ParticleIdentity

__all__ = ["Matched", "ParticleIndex", "match_classifications"]

Ints = npt.NDArray[np.int64]
# Image names as objects, or uids.
Names = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Matched:
    """Particles that all classifications share.

    Attributes
    ----------
    rows : ndarray of int64, shape (job, particle)
        Where each shared particle is in each file, in the order of the first.
    n_unmatched : tuple of int
        For each classification, how many of its particles are not in all others.
    """

    rows: Ints
    n_unmatched: tuple[int, ...]

    @property
    def n_particles(self) -> int:
        """Number of particles that all share."""
        return int(self.rows.shape[1])

    def labels(self, jobs: Sequence[Classification]) -> Ints:
        """Return the classes (job, particle) of the shared particles."""
        return np.stack([job.labels[rows] for job, rows in zip(jobs, self.rows, strict=True)])


class ParticleIndex:
    """Finds particles by name and copy rank.

    Parameters
    ----------
    identity : ParticleIdentity
        The particles to be found.

    Attributes
    ----------
    names : Index
        The different names, in the order in which they come.
    multiplicity : ndarray of int64, shape (name,)
        How many particles bear each name.
    """

    def __init__(self, identity: ParticleIdentity) -> None:
        codes, names = pd.factorize(identity.names)
        self.names = pd.Index(names, dtype=identity.names.dtype)
        self.multiplicity = np.bincount(codes, minlength=len(names))
        self._first = np.cumsum(self.multiplicity) - self.multiplicity
        self._rows = np.empty(len(codes), dtype=np.int64)
        self._rows[self._first[codes] + identity.copies] = np.arange(len(codes))

    def codes_of(self, names: Names) -> Ints:
        """Return the number of each name among the different names; -1 where it is not known."""
        return self.names.get_indexer(pd.Index(names, dtype=names.dtype)).astype(np.int64)

    def rows_of(self, codes: Ints, copies: Ints) -> Ints:
        """Return the row of each copy of a name; -1 where it is not known.

        Parameters
        ----------
        codes : ndarray of int64
            From `codes_of`.
        copies : ndarray of int64
            Ranks among those of the same name.
        """
        found = np.full(len(codes), -1, dtype=np.int64)
        known = (codes >= 0) & (copies < np.append(self.multiplicity, 0)[codes])
        found[known] = self._rows[self._first[codes[known]] + copies[known]]
        return found


def match_classifications(jobs: Sequence[Classification]) -> Matched:
    """Find the particles that all classifications share.

    By ``uid`` where all are of cryoSPARC, else by image name. Where names repeat, as they do after
    symmetry expansion, copies are matched by their rank.

    Parameters
    ----------
    jobs : sequence of Classification
        At least one.

    Returns
    -------
    Matched

    Raises
    ------
    InputError
        When no particle is shared, or a shared name is there a different number of times, so that
        nothing says which copy is which.
    """
    by_image = len({job.suffix for job in jobs}) > 1
    index = ParticleIndex(_identity(jobs[0], by_image=by_image))
    codes, copies, counts = [], [], []
    for job in jobs:
        # The names of one file at a time: as Python texts they are larger than all the rest.
        names, ranks = _identity(job, by_image=by_image)
        codes.append(index.codes_of(names))
        copies.append(ranks)
        known = codes[-1][codes[-1] >= 0]
        if not len(known):
            raise _strangers(jobs[0], job, index, names)
        counts.append(np.bincount(known, minlength=len(index.multiplicity)))
    shared = _shared_names(jobs, np.stack(counts), index)

    chosen = np.flatnonzero(shared[codes[0]])
    place = np.full(jobs[0].n_particles, -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    rows = np.empty((len(jobs), len(chosen)), dtype=np.int64)
    for row_of, of_job, ranks in zip(rows, codes, copies, strict=True):
        in_first = index.rows_of(of_job, ranks)
        here = np.flatnonzero(in_first >= 0)
        target = place[in_first[here]]
        row_of[target[target >= 0]] = here[target >= 0]
    return Matched(rows, tuple(job.n_particles - len(chosen) for job in jobs))


def _identity(job: Classification, *, by_image: bool) -> ParticleIdentity:
    """Name particles; by their images where STAR and ``.cs`` files are mixed."""
    return _by_image(job) if by_image else job.identity


def _by_image(job: Classification) -> ParticleIdentity:
    """Name particles as ``1@path``, counted from 1 as RELION does, without leading zeros."""
    if not isinstance(job.particles, np.ndarray):
        names, copies = job.identity
        stripped = pd.Series(names, dtype=object).str.lstrip("0")
        return ParticleIdentity(stripped.to_numpy(dtype=object), copies)
    missing = {"blob/path", "blob/idx"} - set(job.particles.dtype.names or ())
    if missing:
        raise InputError(
            f"{job.path}: has no field {min(missing)}, by which its particles would be found in a "
            "STAR file; give a passthrough file that has it, or .cs files alone"
        )
    decoded = job.particles["blob/path"]
    if decoded.dtype.kind == "S":
        decoded = np.char.decode(decoded, "utf-8", "replace")
    # A leading > says that cryoSPARC imported the file by a link.
    paths = pd.Series(decoded, dtype=object).str.lstrip(">")
    numbers = pd.Series((job.particles["blob/idx"].astype(np.int64) + 1).astype(str), dtype=object)
    images = numbers.str.cat(paths, sep="@")
    ranks = images.groupby(images, sort=False).cumcount()
    return ParticleIdentity(images.to_numpy(dtype=object), ranks.to_numpy(dtype=np.int64))


def _strangers(
    first: Classification, other: Classification, index: ParticleIndex, names: Names
) -> InputError:
    examples = [repr(str(each[0])) for each in (index.names, names) if len(each)]
    return InputError(
        f"{first.path} and {other.path}: have no particle in common among {first.n_particles} and "
        f"{other.n_particles}; their names begin with {' and '.join(examples) or 'nothing'}"
    )


def _shared_names(
    jobs: Sequence[Classification], counts: Ints, index: ParticleIndex
) -> npt.NDArray[np.bool_]:
    """Tell which names all jobs have, each as many times as the others."""
    shared = np.asarray((counts > 0).all(axis=0))
    if not shared.any():
        raise InputError(
            f"{', '.join(str(job.path) for job in jobs)}: no particle is in all of them, although "
            "each shares some with the first"
        )
    differs = shared & (counts != counts[0]).any(axis=0)
    if differs.any():
        code = int(differs.argmax())
        job = int((counts[:, code] != counts[0, code]).argmax())
        raise InputError(
            f"{jobs[0].path} and {jobs[job].path}: {np.count_nonzero(differs)} of "
            f"{np.count_nonzero(shared)} shared names are there a different number of times, so "
            f"that copies cannot be told apart ({str(index.names[code])!r}: {counts[0, code]} and "
            f"{counts[job, code]} times); expected files of one expansion"
        )
    return shared
