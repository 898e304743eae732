"""Which parts of a complex need, exclude or ignore one another, from where each is present.

Presence is a table of volumes against parts (blocks, or the parts of given masks). What chance does
to two of its columns is known exactly once their sums are: Fisher's test, in both directions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from emhet_dask.analysis.hypergeometric import log_p_values
from emhet_dask.errors import InputError

__all__ = ["RELATIONS", "block_relations", "presence", "state_table", "two_modes"]

RELATIONS = ("requires", "together", "excludes", "associated", "opposed", "independent")

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

_MIDDLE, _LOWEST, _HIGHEST = 0.5, 0.2, 0.8
# Halves of a normal distribution lie 2.6 and of a uniform one 3.5 of these apart, whatever the
# width; of 20 values 1% of normal ones reach 5.1. Modes of a part that comes and goes: 10 and more.
_LEAST_SEPARATION = 5.0
_WOOLF = 1.959963984540054  # 97.5% of a normal distribution
_SMALLEST_P = float(np.finfo(np.float64).tiny)


def presence(occupancy: ArrayLike) -> tuple[Bool, Float64]:
    """Decide in which volumes each block is present, from the share of it that is occupied.

    The cut lies between the two modes of a block (`two_modes`), but never below 0.2 or above 0.8: a
    block of which nine tenths are there is present, whatever the rest of the volumes say. Without
    two modes it is 0.5.

    Parameters
    ----------
    occupancy : array (volume, block)
        From 0 to 1; slightly outside where it is a ratio of densities. NaN: not present.

    Returns
    -------
    present : ndarray of bool (volume, block)
    cuts : ndarray of float64 (block,)
        Present is what is above.

    Raises
    ------
    InputError
        When the table is not of two dimensions.
    """
    values = _table(occupancy, "occupancy")
    found = two_modes(values)
    cuts = np.where(np.isnan(found), _MIDDLE, np.clip(found, _LOWEST, _HIGHEST))
    return values > cuts, cuts


def two_modes(values: ArrayLike) -> Float64:
    """Find where the values of each column fall apart into two modes, if they do.

    The cut is Otsu's (1979), which leaves the least variance on its two sides, here over the sorted
    values themselves. Anything can be cut so: it stands where Ashman's separation (1994) of the two
    sides, ``√2 |μ₁ − μ₂| / √(σ₁² + σ₂²)``, is at least 5, which does not depend on how many lie on
    either side nor on the scale.

    Parameters
    ----------
    values : array (volume, part)
        NaN is left out.

    Returns
    -------
    ndarray of float64 (part,)
        Halfway between the two values nearest to the cut; NaN where there are no two modes.
    """
    columns = _table(values, "values").T
    return np.array([_otsu(np.sort(column[np.isfinite(column)])) for column in columns])


def block_relations(
    present: ArrayLike,
    names: Sequence[Hashable],
    *,
    alpha: float = 0.05,
    tolerance: float = 0.05,
) -> pd.DataFrame:
    """Find for every pair of blocks whether one needs, excludes or ignores the other.

    A relation is significant where the two-sided p-value (twice the smaller of Fisher's two
    one-sided ones), corrected by Holm's method over all pairs, is at most alpha. Then, for blocks
    that come together more often than by chance: ``together`` where each is without the other in at
    most `tolerance` of its volumes, ``requires`` where one of them is (it is then `block_a`),
    ``associated`` otherwise. For blocks that avoid each other: ``excludes`` where both are present
    in at most `tolerance` of the volumes of the rarer one, ``opposed`` otherwise. All others are
    ``independent``, as far as these volumes tell.

    Of a block that is always or never present nothing can be said, and its pairs count for no
    test: p is 1, and the odds ratio NaN.

    Parameters
    ----------
    present : array of bool (volume, block)
    names : sequence (block,)
    alpha : float
        Probability of any wrong relation.
    tolerance : float
        Share of a block's volumes that may contradict a rule.

    Returns
    -------
    pandas.DataFrame
        A row per unordered pair, in the order of `names`: ``block_a``, ``block_b``, ``relation``,
        volumes with ``both``, ``a_only``, ``b_only``, ``neither``; ``odds_ratio`` (½ added to every
        cell: Haldane 1956, Anscombe 1956) with its 95% interval ``odds_low``, ``odds_high`` (Woolf
        1955); ``p_value`` (two-sided) and ``p_adjusted``.

    Raises
    ------
    InputError
        When there are not as many names as blocks.
    """
    table = _table(present, "presence").astype(bool)
    n_volumes, n_blocks = table.shape
    _check_names(names, n_blocks)
    volumes = table.sum(axis=0)
    first, second = np.triu_indices(n_blocks, 1)
    ones = table.astype(np.float64)  # sums of whole numbers below 2⁵³ are exact
    both = (ones.T @ ones)[first, second].astype(np.int64)
    a, b = volumes[first], volumes[second]
    varies = (volumes > 0) & (volumes < n_volumes)
    tested = varies[first] & varies[second]
    upper, lower = (
        np.where(tested, log_p_values(both, a, b, n_volumes, tail=tail), 0.0)
        for tail in ("positive", "negative")
    )
    p = np.exp(np.minimum(0.0, np.log(2) + np.minimum(upper, lower)))
    adjusted = np.ones(len(p))
    adjusted[tested] = _holm(p[tested])
    significant = adjusted <= alpha
    relation, swapped = _rules(
        both,
        a,
        b,
        attracted=significant & (upper < lower),
        repelled=significant & (lower < upper),
        tolerance=tolerance,
    )
    a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    cells = np.stack([both, a - both, b - both, n_volumes - a - b + both])
    odds = np.where(tested, _odds(cells), np.nan)
    return pd.DataFrame(
        {
            "block_a": [names[int(block)] for block in first],
            "block_b": [names[int(block)] for block in second],
            "relation": relation,
            **dict(zip(("both", "a_only", "b_only", "neither"), cells, strict=True)),
            **dict(zip(("odds_ratio", "odds_low", "odds_high"), odds, strict=True)),
            "p_value": np.maximum(p, _SMALLEST_P),
            "p_adjusted": np.maximum(adjusted, _SMALLEST_P),
        }
    )


def state_table(
    present: ArrayLike, names: Sequence[Hashable], *, particles: ArrayLike | None = None
) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """List the combinations of blocks that occur, the most frequent first.

    Parameters
    ----------
    present : array of bool (volume, block)
    names : sequence (block,)
        Become columns.
    particles : array (volume,), optional

    Returns
    -------
    table : pandas.DataFrame
        ``state`` from 0, a column of 0 and 1 for each block, ``volumes``, ``fraction`` of all
        volumes and, where given, ``particles``. Of equally frequent states the one with the earlier
        blocks comes first.
    states : ndarray of int (volume,)
        State of each volume.

    Raises
    ------
    InputError
        When there are not as many names as blocks, or as many numbers of particles as volumes.
    """
    table = _table(present, "presence").astype(bool)
    _check_names(names, table.shape[1])
    if particles is not None and len(np.asarray(particles)) != len(table):
        raise InputError(
            f"particles: found {len(np.asarray(particles))} numbers for {len(table)} volumes; "
            "one per volume is needed"
        )
    absent, kind, count = np.unique(~table, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    states = place[kind.reshape(-1)]
    patterns = (~absent[order]).astype(np.int64)
    columns: dict[Hashable, Any] = {"state": np.arange(len(order))}
    columns |= {name: patterns[:, block] for block, name in enumerate(names)}
    columns["volumes"] = count[order]
    columns["fraction"] = count[order] / max(1, len(table))
    if particles is not None:
        columns["particles"] = np.bincount(
            states, weights=np.asarray(particles, dtype=np.float64), minlength=len(order)
        )
    return pd.DataFrame(columns), states


# What is above is made of -------------------------------------------------------------------------


def _otsu(values: Float64) -> float:
    """Return the cut of sorted values into two modes, or NaN."""
    n = len(values)
    if n < 2 or values[0] == values[-1]:
        return np.nan
    # Sums of squares of deviations lose nothing to the size of the values.
    centred = (values - values.mean()) / (values[-1] - values[0])
    low = np.arange(1, n)
    sums = np.cumsum(centred)
    mean_low, mean_high = sums[:-1] / low, (sums[-1] - sums[:-1]) / (n - low)
    between = low * (n - low) * (mean_high - mean_low) ** 2
    between[values[1:] == values[:-1]] = -1.0  # equal values stay together
    cut = int(np.argmax(between)) + 1
    below, above = centred[:cut], centred[cut:]
    spread = np.sqrt((below.var() + above.var()) / 2)
    if above.mean() - below.mean() < _LEAST_SEPARATION * spread:
        return np.nan
    return float(0.5 * (values[cut - 1] + values[cut]))


def _rules(
    both: NDArray[np.int64],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    *,
    attracted: Bool,
    repelled: Bool,
    tolerance: float,
) -> tuple[NDArray[Any], Bool]:
    """Name the relation of each pair, and tell where the second block is the one that requires."""
    a_needs_b = a - both <= tolerance * a
    b_needs_a = b - both <= tolerance * b
    apart = both <= tolerance * np.minimum(a, b)
    relation = np.select(
        [
            attracted & a_needs_b & b_needs_a,
            attracted & (a_needs_b | b_needs_a),
            attracted,
            repelled & apart,
            repelled,
        ],
        ["together", "requires", "associated", "excludes", "opposed"],
        default="independent",
    )
    return relation, (relation == "requires") & b_needs_a


def _holm(p: Float64) -> Float64:
    """Adjust p-values by Holm's step-down method (1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def _odds(cells: NDArray[np.int64]) -> Float64:
    """Odds ratios and both ends of their intervals (3, pair) of tables (4, pair)."""
    filled = cells + 0.5
    log_ratio = np.log(filled[0] * filled[3] / (filled[1] * filled[2]))
    reach = _WOOLF * np.sqrt((1 / filled).sum(axis=0))
    return np.asarray(np.exp(np.stack([log_ratio, log_ratio - reach, log_ratio + reach])))


def _table(values: ArrayLike, what: str) -> Float64:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(
            f"{what}: found an array of shape {table.shape}; one of volumes and blocks is needed"
        )
    return table


def _check_names(names: Sequence[Hashable], n_blocks: int) -> None:
    if len(names) != n_blocks or len(set(names)) != n_blocks:
        raise InputError(
            f"names: found {len(set(names))} different ones for {n_blocks} blocks; one each is "
            "needed"
        )
