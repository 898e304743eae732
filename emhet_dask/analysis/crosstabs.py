"""Counts of particles in the classes of several jobs, beside what chance alone would put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from emhet_dask.errors import InputError

__all__ = ["PairTable", "best_correspondence", "class_codes", "pair_tables"]

Counts = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairTable:
    """Particles in each pair of classes of two jobs.

    Attributes
    ----------
    first, second : int
        Rows of the jobs in what was given.
    counts : array (class of first, class of second)
    """

    first: int
    second: int
    counts: Counts

    @property
    def of_first(self) -> Array:
        """Share of each class of the first job; NaN in the rows of empty classes."""
        return _shares(self.counts)

    @property
    def of_second(self) -> Array:
        """Share of each class of the second job, as (class of second, class of first)."""
        return _shares(self.counts.T)

    @property
    def expected(self) -> Array:
        """Counts expected by chance: the product of both margins over the total."""
        rows, columns = self.counts.sum(axis=1), self.counts.sum(axis=0)
        return np.outer(rows, columns) / max(int(self.counts.sum()), 1)

    @property
    def residual(self) -> Array:
        """Standardised residuals, normal for unrelated jobs; NaN where chance leaves no choice.

        The adjusted residual of Haberman (Biometrics 29, 205, 1973): the difference from the
        expected count over the square root of ``expected (1 - row share) (1 - column share)``.
        """
        total = max(int(self.counts.sum()), 1)
        rows, columns = self.counts.sum(axis=1) / total, self.counts.sum(axis=0) / total
        variance = self.expected * np.outer(1 - rows, 1 - columns)
        spread = np.sqrt(np.where(variance > 0, variance, np.nan))
        return np.asarray((self.counts - self.expected) / spread)


def class_codes(
    labels: npt.ArrayLike, classes: Sequence[Sequence[int]] | None = None
) -> tuple[npt.NDArray[np.intp], list[npt.NDArray[np.int64]]]:
    """Replace class numbers by their positions among the classes of their job.

    Parameters
    ----------
    labels : array (job, particle)
        Class numbers, in any numbering.
    classes : sequence of sequence of int, optional
        All classes of each job, ascending, empty ones too; by default those that occur.

    Returns
    -------
    codes : array (job, particle)
    classes : list of array (class,)

    Raises
    ------
    InputError
        When there is no job or particle, or a label is not among the classes of its job.
    """
    table = np.asarray(labels)
    if table.ndim != 2 or 0 in table.shape or table.dtype.kind not in "iu":
        raise InputError(
            f"labels: found {table.dtype} of shape {table.shape}, need whole numbers "
            "(job, particle), at least one of each"
        )
    codes = np.empty(table.shape, dtype=np.intp)
    found = []
    for job, row in enumerate(table):
        if classes is None:
            known, codes[job] = np.unique(row, return_inverse=True)
        else:
            known = np.asarray(classes[job], dtype=np.int64)
            codes[job] = np.clip(np.searchsorted(known, row), 0, max(len(known) - 1, 0))
            unknown = np.ones(1, dtype=bool) if not len(known) else known[codes[job]] != row
            if unknown.any():
                raise InputError(
                    f"labels: job {job} has class {row[int(unknown.argmax())]}, which is not among "
                    f"its {len(known)} classes"
                )
        found.append(known.astype(np.int64))
    return codes, found


def pair_tables(
    labels: npt.ArrayLike, *, classes: Sequence[Sequence[int]] | None = None
) -> list[PairTable]:
    """Count the particles in each pair of classes of different jobs.

    Parameters
    ----------
    labels : array (job, particle)
        Class numbers.
    classes : sequence of sequence of int, optional
        All classes of each job, ascending; by default those that occur.

    Returns
    -------
    list of PairTable
        Of jobs 0 and 1, 0 and 2, …, 1 and 2, …

    Raises
    ------
    InputError
        As `class_codes`.
    """
    codes, known = class_codes(labels, classes)
    tables = []
    for first in range(len(codes)):
        for second in range(first + 1, len(codes)):
            shape = len(known[first]), len(known[second])
            cells = np.bincount(
                codes[first] * shape[1] + codes[second], minlength=shape[0] * shape[1]
            )
            tables.append(PairTable(first, second, cells.reshape(shape).astype(np.int64)))
    return tables


def best_correspondence(counts: npt.ArrayLike) -> list[tuple[int, int]]:
    """Pair the classes of two jobs so that the most particles are in paired classes.

    Kuhn's Hungarian method. Each class is paired once at most, and not at all where it shares no
    particle with the partner left for it.

    Parameters
    ----------
    counts : array (class of first, class of second)

    Returns
    -------
    list of (int, int)
        Positions of paired classes, in the order of the first.
    """
    table = np.asarray(counts)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if table[i, j] > 0]


def _shares(counts: Counts) -> Array:
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(total > 0, total, np.nan))
