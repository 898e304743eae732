"""How far two classifications of the same things agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from emhet_dask.errors import InputError

__all__ = ["adjusted_rand_index", "contingency"]


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
    table = contingency(first, second)
    together = _pairs(table).sum()
    in_first, in_second = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    everything = float(_pairs(table.sum()))
    if everything == 0:
        return 1.0
    expected = in_first * in_second / everything
    largest = 0.5 * (in_first + in_second)
    if largest == expected:
        return 1.0
    return float((together - expected) / (largest - expected))


def _pairs(count: npt.ArrayLike) -> npt.NDArray[np.float64]:
    number = np.asarray(count, dtype=np.float64)
    return number * (number - 1.0) / 2.0
