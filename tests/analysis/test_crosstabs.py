"""Counts between the classes of several jobs, against pandas, SciPy and by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import contingency as scipy_contingency

from emhet_dask.analysis.crosstabs import best_correspondence, class_codes, pair_tables
from emhet_dask.errors import InputError

LABELS = st.integers(2, 4).flatmap(
    lambda jobs: st.lists(st.tuples(*[st.integers(-2, 4)] * jobs), min_size=1, max_size=50)
)


@given(rows=LABELS)
def test_equal_to_crosstab(rows):
    labels = np.array(rows).T
    tables = pair_tables(labels)
    assert [(t.first, t.second) for t in tables] == list(
        itertools.combinations(range(len(labels)), 2)
    )
    for table in tables:
        oracle = pd.crosstab(labels[table.first], labels[table.second])
        np.testing.assert_array_equal(table.counts, oracle.to_numpy())
        shares = pd.crosstab(labels[table.first], labels[table.second], normalize="index")
        np.testing.assert_allclose(table.of_first, shares.to_numpy())
        np.testing.assert_allclose(
            table.expected, scipy_contingency.expected_freq(oracle.to_numpy())
        )


def test_residuals_by_hand():
    labels = np.repeat([[0, 0, 1, 1], [0, 1, 0, 1]], [30, 10, 20, 40], axis=1)
    table = pair_tables(labels)[0]
    # Row 40 of 100, column 50 of 100: 20 expected, variance 20 × 0.6 × 0.5.
    assert table.residual[0, 0] == pytest.approx(10 / np.sqrt(6))
    # In a table of two by two all are equal but for the sign, and their square is chi squared.
    chi2 = ((table.counts - table.expected) ** 2 / table.expected).sum()
    assert table.residual[1, 1] ** 2 == pytest.approx(chi2)


def test_residuals_of_unrelated_jobs_are_normal():
    rng = np.random.default_rng(0)
    found = np.concatenate(
        [pair_tables(rng.integers(0, 3, (2, 400)))[0].residual.ravel() for _ in range(150)]
    )
    assert found.std() == pytest.approx(1.0, abs=0.06)


def test_empty_classes_stay():
    table = pair_tables([[1, 1, 3], [2, 2, 2]], classes=[(1, 2, 3), (1, 2)])[0]
    np.testing.assert_array_equal(table.counts, [[0, 2], [0, 0], [0, 1]])
    assert np.isnan(table.of_first[1]).all()
    assert np.isnan(table.residual[1]).all()


def test_codes_count_among_the_classes():
    codes, known = class_codes([[5, 7, 5], [0, 0, 1]], [(5, 6, 7), (0, 1)])
    np.testing.assert_array_equal(codes, [[0, 2, 0], [0, 0, 1]])
    assert [each.tolist() for each in known] == [[5, 6, 7], [0, 1]]
    with pytest.raises(InputError, match="job 1 has class 3"):
        class_codes([[1], [3]], [(1,), (1, 2)])
    with pytest.raises(InputError, match="need whole numbers"):
        class_codes([[0.5, 1.0]])


@given(cells=st.lists(st.integers(0, 20), min_size=12, max_size=12))
def test_correspondence_is_the_best_of_all(cells):
    table = np.array(cells).reshape(3, 4)
    found = best_correspondence(table)
    best = max(
        sum(table[i, j] for i, j in enumerate(columns))
        for columns in itertools.permutations(range(4), 3)
    )
    assert sum(table[i, j] for i, j in found) == best
    assert all(table[i, j] > 0 for i, j in found)
    assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
