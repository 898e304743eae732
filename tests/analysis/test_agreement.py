"""Agreement of classifications, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from emhet_dask.analysis.agreement import adjusted_rand_index, contingency
from emhet_dask.errors import InputError

LABELS = st.lists(st.tuples(st.integers(-3, 5), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs=LABELS)
def test_equals_scikit_learn(pairs):
    first, second = np.asarray(pairs).T
    np.testing.assert_array_equal(contingency(first, second), contingency_matrix(first, second))
    assert adjusted_rand_index(first, second) == pytest.approx(
        adjusted_rand_score(first, second), abs=1e-12
    )


def test_by_hand():
    # Three of six pairs lie together in the first, two in the second, one in both.
    first, second = [0, 0, 0, 1], [0, 0, 1, 1]
    expected = 3 * 2 / 6
    assert adjusted_rand_index(first, second) == pytest.approx((1 - expected) / (2.5 - expected))
    assert adjusted_rand_index(first, [7, 7, 7, -1]) == 1.0


def test_a_million_things_do_not_overflow():
    labels = np.arange(1_000_000) % 2
    assert adjusted_rand_index(labels, labels) == 1.0


def test_lengths_must_be_equal():
    with pytest.raises(InputError, match="need equal ones"):
        adjusted_rand_index([0, 1], [0])
