"""Simulated ensembles hold what was planted, at the signal-to-noise ratio that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.analysis.simulation import (
    assembly_model,
    simulate,
    simulate_map,
    transition_model,
)
from emhet_dask.errors import InputError

SMALL = {"box": 32, "voxel_size_angstrom": 6.0}


@pytest.fixture(scope="module")
def assembly():
    return assembly_model(**SMALL, seed=1)


def test_rules_hold_in_every_state_and_all_patterns_they_allow_occur(assembly):
    core, presence = assembly.presence[:, 0], assembly.presence
    assert core.all()
    words = " ".join(assembly.rules)
    needed = next(rule.split() for rule in assembly.rules if "only with" in rule)
    tenant, host = int(needed[1]) - 1, int(needed[-1]) - 1
    assert not np.any(presence[:, tenant] & ~presence[:, host])
    either = next(rule.split() for rule in assembly.rules if "never both" in rule)
    first, second = int(either[1]) - 1, int(either[3]) - 1
    assert not np.any(presence[:, first] & presence[:, second])
    pair = next(rule.split() for rule in assembly.rules if "come together" in rule)
    one, other = int(pair[1]) - 1, int(pair[3]) - 1
    assert np.array_equal(presence[:, one], presence[:, other])
    assert "independently" in words
    assert len(presence) == len(np.unique(presence, axis=0)) == 3 * 3 * 2 * 2
    assert assembly.probability.sum() == pytest.approx(1.0)
    assert np.all(np.diff(assembly.probability) <= 1e-12)


@pytest.mark.parametrize(("n_subunits", "n_states"), [(1, 1), (2, 2), (3, 3), (6, 18), (10, 144)])
def test_number_of_states_follows_from_the_subunits(n_subunits, n_states):
    model = assembly_model(**SMALL, n_subunits=n_subunits, seed=0)
    assert len(model.presence) == n_states
    assert set(np.unique(model.labels)) == set(range(n_subunits + 1))


def test_states_occur_as_often_as_their_probability_says(assembly):
    n = 4000
    states = [assembly.draw(np.random.default_rng([5, i]))[1]["state"] for i in range(n)]
    counts = np.bincount(states, minlength=len(assembly.probability))
    expected = n * assembly.probability
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    dof = len(expected) - 1
    assert abs(chi_squared - dof) < 5 * np.sqrt(2 * dof)


@pytest.mark.parametrize("snr", [0.3, 8.0])
def test_signal_to_noise_ratio_is_what_was_asked_for(assembly, snr):
    found = []
    for i in range(20):
        noisy, truth = simulate_map(assembly, i, snr=snr, seed=2)
        present = np.array([truth[f"subunit_{k:03d}"] for k in range(1, 9)], dtype=bool)
        clean = truth["amplitude"] * assembly.densities[present].sum(axis=0)
        found.append(clean.var() / (noisy - clean).var())
    assert np.mean(found) == pytest.approx(snr, rel=0.03)


def test_a_map_depends_on_its_number_and_seed_alone(assembly):
    ensemble = simulate(assembly, 4, snr=2.0, seed=9)
    alone, truth = simulate_map(assembly, 3, snr=2.0, seed=9)
    assert np.array_equal(ensemble.volumes.values[3], alone)
    assert ensemble.state.values[3] == truth["state"]
    assert not np.array_equal(alone, simulate_map(assembly, 3, snr=2.0, seed=10)[0])
    assert list(truth)[:4] == ["volume", "state", "amplitude", "coordinate"]
    assert np.isnan(truth["coordinate"])
    assert np.array_equal(ensemble.presence.values[3], assembly.presence[truth["state"]])


def test_amplitudes_jitter_by_as_much_as_asked_for():
    model = assembly_model(box=16, voxel_size_angstrom=12.0, n_subunits=2, resolution_angstrom=30.0)
    ensemble = simulate(model, 600, snr=np.inf, amplitude_jitter=0.05)
    assert ensemble.amplitude.values.std() == pytest.approx(0.05, rel=0.1)
    assert ensemble.amplitude.values.mean() == pytest.approx(1.0, abs=0.01)
    one = np.flatnonzero(ensemble.state.values == 0)
    scaled = ensemble.volumes.values[one] / ensemble.amplitude.values[one, None, None, None]
    assert np.abs(scaled - scaled[0]).max() < 1e-5


def test_a_transition_moves_one_body_about_the_hinge():
    model = transition_model(**SMALL, seed=1)
    ends = [model.at(t) for t in (0.0, 0.5, 1.0)]
    masses = [float(m.sum()) for m in ends]
    assert masses == pytest.approx([masses[0]] * 3, rel=1e-3)
    apart = [np.linalg.norm(ends[0] - ends[k]) for k in (1, 2)]
    assert apart[1] > apart[0] > 0.1 * np.linalg.norm(ends[0])
    radius = np.linalg.norm(model.moving_atoms_angstrom, axis=1)
    moved = model.at(1.0) - model.fixed
    assert moved.sum() == pytest.approx(model.atom_mass * len(radius), rel=1e-3)


def test_an_even_transition_has_one_state_and_basins_have_as_many_as_asked_for():
    even = simulate(transition_model(**SMALL), 300, seed=3)
    assert set(even.state.values) == {0}
    histogram = np.histogram(even.coordinate.values, bins=5, range=(0, 1))[0]
    assert histogram.min() > 35
    basins = simulate(transition_model(**SMALL, basins=3), 300, seed=3)
    assert set(basins.state.values) == {0, 1, 2}
    offset = basins.coordinate.values - (basins.state.values + 0.5) / 3
    assert np.abs(offset).max() < 0.5 / 3
    assert offset.std() == pytest.approx(0.08 / 3, rel=0.15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assembly_model(n_subunits=0), "n_subunits: found 0"),
        (lambda: transition_model(basins=0), "basins: found 0"),
        (lambda: simulate_map(transition_model(**SMALL), 0, snr=0.0, seed=0), "snr: found 0.0"),
        (
            lambda: simulate_map(
                transition_model(**SMALL), 0, snr=1.0, seed=0, amplitude_jitter=-1.0
            ),
            "amplitude_jitter: found -1.0",
        ),
        (lambda: simulate(transition_model(**SMALL), 0), "n: found 0"),
    ],
)
def test_impossible_ensembles_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
