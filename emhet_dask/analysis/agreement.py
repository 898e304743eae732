"""How far two classifications of the same things agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from emhet_dask.errors import InputError

__all__ = [
    "Agreement",
    "adjusted_mutual_information",
    "adjusted_mutual_information_of",
    "adjusted_rand_index",
    "agreement_of",
    "contingency",
    "expected_mutual_information",
]

Table = npt.NDArray[np.int64]

# Terms so many standard deviations from the mean are below 1e-40 of the sum.
_TAIL = 14.0
# Tables in memory at once, when many are drawn.
_DRAWS_AT_ONCE = 1 << 22


class Agreement(NamedTuple):
    """How far two classifications agree, and how far two unrelated ones would.

    Attributes
    ----------
    adjusted_rand_index, adjusted_mutual_information : float
        1 for equal classifications, about 0 for unrelated ones.
    rand_z, information_z : float
        Their distance from the mean of the null, in its standard deviations.
    rand_null_95, information_null_95 : float
        The 95th percentile of the null.
    p_value : float
        Share of the null, with the observation counted in, that reaches the mutual information.
    """

    adjusted_rand_index: float
    adjusted_mutual_information: float
    rand_z: float
    information_z: float
    rand_null_95: float
    information_null_95: float
    p_value: float


def contingency(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count the things in each pair of classes.

    Parameters
    ----------
    first, second : array (thing,)
        Class of each thing, in any numbering.

    Returns
    -------
    ndarray of int64, shape (class of first, class of second)
        Classes in ascending order of their numbers.

    Raises
    ------
    InputError
        When the lengths differ.
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.shape != two.shape or one.ndim != 1:
        raise InputError(f"classifications of shapes {one.shape} and {two.shape}, need equal ones")
    names_one, in_one = np.unique(one, return_inverse=True)
    names_two, in_two = np.unique(two, return_inverse=True)
    cells = np.bincount(in_one * len(names_two) + in_two, minlength=len(names_one) * len(names_two))
    return cells.reshape(len(names_one), len(names_two)).astype(np.int64)


def adjusted_rand_index(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Share of pairs on which two classifications agree, adjusted for chance.

    The index of Hubert and Arabie (J. Classification 2, 193, 1985): the number of pairs that lie
    together in both, less its expectation for given class sizes, over the largest it could be, less
    the same.

    Parameters
    ----------
    first, second : array (thing,)
        Class of each thing, in any numbering.

    Returns
    -------
    float
        1 for equal classifications, about 0 for unrelated ones. 1 where neither leaves a choice
        (all things in one class, or each in its own, in both).

    Raises
    ------
    InputError
        When the lengths differ.
    """
    return float(_rand_indices(contingency(first, second)[None])[0])


def adjusted_mutual_information(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Information that two classifications share, adjusted for chance.

    The index of Vinh, Epps and Bailey (J. Mach. Learn. Res. 11, 2837, 2010): the mutual information
    less its expectation for given class sizes, over the mean of both entropies less the same.

    Parameters
    ----------
    first, second : array (thing,)
        Class of each thing, in any numbering.

    Returns
    -------
    float
        1 for equal classifications, about 0 for unrelated ones, and where only one of them has
        more than one class. 1 where neither leaves a choice.

    Raises
    ------
    InputError
        When the lengths differ.
    """
    return adjusted_mutual_information_of(contingency(first, second))


def adjusted_mutual_information_of(table: npt.ArrayLike) -> float:
    """Return `adjusted_mutual_information` from the counts (class of first, class of second)."""
    return float(_adjusted_informations(np.asarray(table, dtype=np.int64)[None])[0])


def agreement_of(table: npt.ArrayLike, *, n_draws: int = 999, seed: int = 0) -> Agreement:
    """Measure the agreement in a table of counts, beside that of unrelated classifications.

    Permuting the labels of one classification keeps both sets of class sizes, so a permutation is
    a random table with the same margins. Such tables are drawn directly (Patefield, Applied
    Statistics 30, 91, 1981), which gives exactly the distribution of permutations, at a cost that
    does not grow with the number of things: 999 tables of 12 × 12 take 0.1 s for any number.

    Parameters
    ----------
    table : array (class of first, class of second)
        Counts of things.
    n_draws : int
        Tables drawn.
    seed : int
        Of the draws.

    Returns
    -------
    Agreement
        With z scores of NaN where the margins leave no choice.
    """
    counts = np.asarray(table, dtype=np.int64)
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    if counts.size == 0:
        raise InputError("agreement: found no particles, need at least one")
    rand, information = [], []
    for drawn in _random_tables(counts, n_draws, np.random.default_rng(seed)):
        rand.append(_rand_indices(drawn))
        information.append(_adjusted_informations(drawn))
    null_rand, null_information = np.concatenate(rand), np.concatenate(information)
    found_rand = float(_rand_indices(counts[None])[0])
    found_information = float(_adjusted_informations(counts[None])[0])
    reached = np.count_nonzero(null_information >= found_information - 1e-12)
    return Agreement(
        found_rand,
        found_information,
        _z_score(found_rand, null_rand),
        _z_score(found_information, null_information),
        float(np.percentile(null_rand, 95)),
        float(np.percentile(null_information, 95)),
        (1 + int(reached)) / (1 + n_draws),
    )


def expected_mutual_information(rows: npt.ArrayLike, columns: npt.ArrayLike) -> float:
    """Mean mutual information, in nats, of all tables with given margins.

    Each cell is hypergeometric: ``E = Σ n/N log(N n / (a b)) P(n)`` over the cells (Vinh, Epps and
    Bailey, 2010, equation 24a). Terms far from a cell's mean are left out, so that the cost grows
    with the square root of the number of things.

    Parameters
    ----------
    rows, columns : array (class,)
        Things in each class, of equal sums.
    """
    a = np.asarray(rows, dtype=np.float64)
    b = np.asarray(columns, dtype=np.float64)
    total = a.sum()
    return float(sum(_expected_of_cell(one, two, total) for one in a for two in b))


def _random_tables(counts: Table, n_draws: int, rng: np.random.Generator) -> Iterator[Table]:
    """Draw tables (table, row, column) with the margins of one, so many at once as fit."""
    step = max(1, _DRAWS_AT_ONCE // counts.size)
    if min(counts.shape) == 1:  # there is no other, and SciPy would draw zeros
        yield counts[None].repeat(n_draws, axis=0)
        return
    # Imported here: a third of a second, which commands that ask for an index do without.
    from scipy.stats import random_table  # noqa: PLC0415

    source = random_table(counts.sum(axis=1), counts.sum(axis=0))
    for start in range(0, n_draws, step):
        size = min(step, n_draws - start)
        yield source.rvs(size, method="patefield", random_state=rng).astype(np.int64)


def _expected_of_cell(a: float, b: float, total: float) -> float:
    mean = a * b / total
    spread = np.sqrt(mean * (1 - a / total) * (1 - b / total) * total / max(total - 1, 1))
    reach = _TAIL * spread + _TAIL
    low = max(1.0, a + b - total, np.floor(mean - reach))
    count = np.arange(low, min(a, b, np.ceil(mean + reach)) + 1)
    margins = gammaln([a + 1, b + 1, total - a + 1, total - b + 1]).sum() - gammaln(total + 1)
    cells = [count, a - count, b - count, total - a - b + count]
    log_p = margins - sum(gammaln(cell + 1) for cell in cells)
    return float(np.sum(count / total * np.log(total * count / (a * b)) * np.exp(log_p)))


def _adjusted_informations(tables: Table) -> npt.NDArray[np.float64]:
    """Return the index of each table (table, row, column); all have the same margins."""
    rows, columns = tables[0].sum(axis=1), tables[0].sum(axis=0)
    if np.count_nonzero(rows) <= 1 and np.count_nonzero(columns) <= 1:
        return np.ones(len(tables))
    total = float(rows.sum())
    if np.max(rows) == 1 and np.max(columns) == 1:
        return np.ones(len(tables))
    expected = expected_mutual_information(rows[rows > 0], columns[columns > 0])
    entropy_rows, entropy_columns = (
        np.log(total) - xlogy(counts, counts).sum() / total for counts in (rows, columns)
    )
    shares = xlogy(tables, tables).sum(axis=(1, 2)) / total
    mutual = entropy_rows + entropy_columns - (np.log(total) - shares)
    scale = 0.5 * (entropy_rows + entropy_columns) - expected
    adjusted = (mutual - expected) / max(scale, np.finfo(np.float64).eps)
    return np.asarray(np.minimum(adjusted, 1.0))


def _rand_indices(tables: Table) -> npt.NDArray[np.float64]:
    """Return the index of each table (table, row, column); all have the same margins."""
    rows, columns = tables[0].sum(axis=1), tables[0].sum(axis=0)
    together = _pairs(tables).sum(axis=(1, 2))
    in_rows, in_columns = _pairs(rows).sum(), _pairs(columns).sum()
    everything = float(_pairs(rows.sum()))
    if everything == 0:
        return np.ones(len(tables))
    expected = in_rows * in_columns / everything
    largest = 0.5 * (in_rows + in_columns)
    if largest == expected:
        return np.ones(len(tables))
    return np.asarray((together - expected) / (largest - expected))


def _z_score(found: float, null: npt.NDArray[np.float64]) -> float:
    spread = float(null.std())
    return (found - float(null.mean())) / spread if spread > 1e-12 else float("nan")


def _pairs(count: npt.ArrayLike) -> npt.NDArray[np.float64]:
    number = np.asarray(count, dtype=np.float64)
    return number * (number - 1.0) / 2.0
