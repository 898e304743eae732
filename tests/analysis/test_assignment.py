"""States of particles: right where states are apart, and honest where they are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from emhet_dask.analysis.assignment import fit_states
from emhet_dask.errors import InputError


def two_states(n, gap, seed):
    rng = np.random.default_rng(seed)
    states = rng.integers(0, 2, n)
    points = rng.standard_normal((n, 2))
    points[:, 0] += gap * states
    return points, states


def test_states_that_are_apart_are_found_with_confidence():
    points, states = two_states(200, 20.0, 0)
    fitted = fit_states(points, states)
    assert fitted.accuracy == 1
    assert fitted.confusion.tolist() == [[np.sum(states == 0), 0], [0, np.sum(states == 1)]]
    others, truth = two_states(500, 20.0, 1)
    found, confidence, outlier = fitted.assign(others)
    np.testing.assert_array_equal(found, truth)
    assert confidence.min() > 0.95
    assert outlier.mean() < 0.05


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.0, 3.0])
def test_the_confidence_is_how_often_it_is_right(gap):
    fitted = fit_states(*two_states(600, gap, 0))
    others, truth = two_states(4000, gap, 1)
    found, confidence, _ = fitted.assign(others)
    assert abs((found == truth).mean() - confidence.mean()) < 0.07
    assert abs((found == truth).mean() - fitted.accuracy) < 0.07


def test_as_good_as_plain_neighbours_chosen_with_the_truth_at_hand():
    points, states = two_states(150, 1.5, 3)
    found = [
        cross_val_predict(KNeighborsClassifier(k), points, states, cv=LeaveOneOut())
        for k in (1, 3, 5, 8, 12, 20, 30)
    ]
    best = max(np.mean(each == states) for each in found)
    assert fit_states(points, states).accuracy > best - 0.05


def test_far_particles_are_outliers_that_still_have_a_state():
    fitted = fit_states(*two_states(100, 5.0, 0))
    found, _, outlier = fitted.assign([[0.0, 0.0], [80.0, 0.0]])
    assert found.tolist() == [0, 1]
    assert outlier.tolist() == [False, True]


def test_outlier_volumes_do_not_vote_unless_nobody_else_has_their_state():
    points = np.concatenate([np.zeros((10, 1)), np.ones((1, 1)), np.full((1, 1), 9.0)])
    points[:10, 0] = np.linspace(0, 0.5, 10)
    states = np.array([0] * 10 + [1, 2])
    outlier = np.array([False] * 9 + [True, False, True])
    fitted = fit_states(points, states, outlier=outlier)
    assert len(fitted.points) == 11
    assert fitted.assign([[9.0]])[0].tolist() == [2]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 99))
def test_any_volumes_give_every_particle_a_state(n, n_states, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3, (n, 2)).astype(float)  # many at one place
    states = rng.integers(0, n_states, n)
    found, confidence, outlier = fit_states(points, states).assign(rng.standard_normal((20, 2)))
    assert set(found) <= set(states)
    assert ((confidence > 0) & (confidence <= 1)).all()
    assert outlier.shape == (20,)


def test_as_many_states_as_volumes():
    with pytest.raises(InputError, match="states"):
        fit_states(np.zeros((3, 2)), [0, 1])
