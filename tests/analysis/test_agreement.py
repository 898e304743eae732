"""Agreement of classifications, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.metrics.cluster import expected_mutual_information as sklearn_expected

from emhet_dask.analysis.agreement import (
    adjusted_mutual_information,
    adjusted_rand_index,
    agreement_of,
    contingency,
    expected_mutual_information,
)
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


@given(pairs=LABELS)
def test_mutual_information_equals_scikit_learn(pairs):
    first, second = np.asarray(pairs).T
    found = adjusted_mutual_information(first, second)
    assert found == pytest.approx(adjusted_mutual_info_score(first, second), abs=1e-9)


def test_mutual_information_of_a_million_things():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 9, 1_000_000)
    second = np.where(rng.random(len(first)) < 0.4, rng.integers(0, 12, len(first)), first)
    rows, columns = np.bincount(first), np.bincount(second)
    oracle = sklearn_expected(contingency_matrix(first, second, sparse=True), 10**6)
    assert expected_mutual_information(rows, columns) == pytest.approx(oracle, rel=1e-6)
    assert adjusted_mutual_information(first, second) == pytest.approx(
        adjusted_mutual_info_score(first, second), abs=1e-9
    )


def test_the_null_is_that_of_permutations():
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    found = agreement_of(contingency(first, second), n_draws=4000, seed=0)
    shuffled = [rng.permutation(second) for _ in range(4000)]
    rand = np.array([adjusted_rand_index(first, each) for each in shuffled])
    assert found.rand_null_95 == pytest.approx(np.percentile(rand, 95), abs=0.006)
    z = (found.adjusted_rand_index - rand.mean()) / rand.std()
    assert found.rand_z == pytest.approx(z, abs=0.15)
    reached = np.mean(
        [
            adjusted_mutual_information(first, each) >= found.adjusted_mutual_information - 1e-12
            for each in shuffled[:1500]
        ]
    )
    assert found.p_value == pytest.approx(reached, abs=0.04)


def test_agreement_is_told_from_chance():
    rng = np.random.default_rng(3)
    first = rng.integers(0, 4, 2000)
    noisy = np.where(rng.random(2000) < 0.85, rng.integers(0, 4, 2000), first)
    assert agreement_of(contingency(first, noisy)).p_value == pytest.approx(0.001)
    unrelated = agreement_of(contingency(first, rng.integers(0, 4, 2000)))
    assert unrelated.p_value > 0.05
    assert abs(unrelated.rand_z) < 3


def test_no_choice_has_no_null():
    found = agreement_of([[5, 3]])
    assert np.isnan(found.information_z)
    assert found.p_value == 1.0
    with pytest.raises(InputError, match="no particles"):
        agreement_of([[0, 0]])
