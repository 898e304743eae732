"""From simulated maps to states: as many as were planted, and none where there are none."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.mask import auto_mask
from emhet_dask.analysis.normalisation import divisors, normalisation_factors
from emhet_dask.analysis.pca import pca
from emhet_dask.analysis.simulation import assembly_model, simulate, transition_model
from emhet_dask.analysis.states import StateChoice, choose_states, signal_components
from emhet_dask.errors import InputError

SMALL = {"box": 32, "voxel_size_angstrom": 6.0}


def choice_of(ensemble: xr.Dataset, **options) -> StateChoice:
    """Mask, amplitudes, PCA and choice with all defaults."""
    volumes = da.from_array(ensemble.volumes.values, chunks=(64, -1, -1, -1))
    mask = auto_mask(volumes, voxel_size_angstrom=ensemble.attrs["voxel_size_angstrom"])
    matrix = da.from_array(ensemble.volumes.values[:, mask.mask.values > 0], chunks=(64, -1))
    found = pca(matrix, scale=divisors(normalisation_factors(matrix)))
    return choose_states(
        found.scores.values,
        explained_variance=found.eigenvalues.values,
        total_variance=found.attrs["total_variance"],
        **options,
    )


def truth_agreement(ensemble: xr.Dataset, choice: StateChoice) -> float:
    return adjusted_rand_score(ensemble.state.values, choice.labels)


@pytest.mark.parametrize("seed", [101, 102])
def test_states_of_an_assembly_are_found(seed):
    ensemble = simulate(assembly_model(**SMALL, seed=seed), 300, snr=8.0, seed=seed)
    choice = choice_of(ensemble)
    assert choice.separate_states
    assert truth_agreement(ensemble, choice) >= 0.99
    assert f"among the {choice.n_clusters} states" in choice.reason


@pytest.mark.slow
def test_many_rare_states_are_found_in_noise():
    ensemble = simulate(assembly_model(**SMALL, n_subunits=10, seed=103), 1000, snr=0.3, seed=103)
    choice = choice_of(ensemble)
    assert len(np.unique(ensemble.state)) > 120
    assert choice.separate_states
    assert truth_agreement(ensemble, choice) >= 0.9


def test_unequal_states_are_found():
    model = assembly_model(**SMALL, n_subunits=4, seed=104)
    four = replace(
        model, presence=model.presence[:4], probability=np.array([0.60, 0.25, 0.10, 0.05])
    )
    ensemble = simulate(four, 300, snr=0.5, seed=104)
    choice = choice_of(ensemble)
    assert choice.separate_states
    assert choice.n_clusters == 4
    assert truth_agreement(ensemble, choice) >= 0.99


@pytest.mark.parametrize("snr", [8.0, 1.0])
def test_an_even_transition_has_no_separate_states(snr):
    ensemble = simulate(transition_model(**SMALL, seed=105), 300, snr=snr, seed=105)
    choice = choice_of(ensemble)
    assert not choice.separate_states
    assert choice.n_clusters == 10
    assert "slices of a continuum" in choice.reason
    # The slices follow the motion: within each, the coordinate spreads over a part of it only.
    spans = [np.ptp(ensemble.coordinate.values[choice.labels == k]) for k in range(10)]
    assert max(spans) < 0.4


@pytest.mark.parametrize("basins", [2, 4])
def test_basins_of_a_transition_are_states(basins):
    ensemble = simulate(transition_model(**SMALL, basins=basins, seed=106), 200, snr=8.0, seed=1)
    choice = choice_of(ensemble)
    assert choice.separate_states
    assert choice.n_clusters == basins
    assert truth_agreement(ensemble, choice) == 1.0


def test_maps_of_one_state_are_one_cluster():
    ensemble = simulate(assembly_model(**SMALL, n_subunits=1, seed=107), 200, snr=8.0, seed=107)
    choice = choice_of(ensemble)
    assert not choice.separate_states
    assert choice.n_clusters == 1
    assert "No component stands out of the noise" in choice.reason


def test_six_volumes_get_clusters_but_no_claim():
    ensemble = simulate(transition_model(**SMALL, basins=2, seed=1), 6, snr=8.0, seed=5)
    choice = choice_of(ensemble)
    assert not choice.separate_states
    assert choice.n_clusters == 2
    assert "6 volumes are too few" in choice.reason


def blobs(sizes: list[int], *, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    points = rng.standard_normal((sum(sizes), 6))
    points += apart * rng.standard_normal((len(sizes), 6))[truth]
    return points, truth


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(8, 60), min_size=2, max_size=6), st.integers(0, 1000))
def test_order_and_scale_of_volumes_do_not_matter(sizes, seed):
    points, _ = blobs(sizes, apart=30.0, seed=seed)
    order = np.random.default_rng(seed).permutation(len(points))
    straight, shuffled = choose_states(points), choose_states(1e-4 * points[order])
    assert straight.n_clusters == shuffled.n_clusters
    assert straight.separate_states == shuffled.separate_states
    assert adjusted_rand_score(straight.labels[order], shuffled.labels) == 1.0


@pytest.mark.parametrize("shape", ["gaussian", "even", "curve", "heavy"])
def test_continua_seldom_pass_for_states(shape):
    claimed = 0
    for seed in range(6):
        rng = np.random.default_rng([seed, 11])
        t = rng.random(150)
        points = {
            "gaussian": rng.standard_normal((150, 3)) * [5, 2, 1],
            "even": rng.random((150, 2)),
            "curve": np.stack([np.cos(3 * t + j) / (j + 1) for j in range(4)], axis=1),
            "heavy": rng.standard_t(5, size=(150, 3)),
        }[shape]
        claimed += choose_states(points, explained_variance=[8, 4, 2, 1]).separate_states
    assert claimed == 0


def test_evidence_peaks_at_the_choice():
    points, truth = blobs([40, 40, 40, 40, 40], apart=25.0, seed=3)
    choice = choose_states(points)
    assert choice.n_clusters == 5
    assert adjusted_rand_score(choice.labels, truth) == 1.0
    evidence = choice.evidence
    strength = evidence.separation / evidence.critical_separation
    assert float(strength.sel(n_clusters=5)) > 2
    assert float(strength.sel(n_clusters=6)) < 1
    assert float(evidence.separate_fraction.sel(n_clusters=5)) == 1.0
    assert int(evidence.n_clusters[np.argmax(evidence.silhouette.values)]) == 5
    assert evidence.attrs["slices_of_continuum"] == pytest.approx(np.sqrt(12))


def test_excluded_volumes_are_no_evidence_but_have_a_cluster():
    rng = np.random.default_rng(4)
    points = rng.standard_normal((200, 3)) * [6, 3, 1]
    points[:5] += 400.0
    exclude = np.arange(200) < 5
    with_them = choose_states(points, explained_variance=[8, 4, 2, 1])
    without = choose_states(points, explained_variance=[8, 4, 2, 1], exclude=exclude)
    assert with_them.separate_states
    assert not without.separate_states
    assert len(without.labels) == 200


def test_more_clusters_than_allowed_are_not_chosen():
    points, _ = blobs([30] * 6, apart=30.0)
    assert choose_states(points).n_clusters == 6
    assert choose_states(points, max_clusters=4).n_clusters <= 4


@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
def test_other_linkages_find_clear_states_too(linkage):
    points, truth = blobs([30, 20, 40], apart=40.0, seed=8)
    choice = choose_states(points, linkage=linkage)
    assert choice.separate_states
    assert adjusted_rand_score(choice.labels, truth) == 1.0


def test_past_the_exact_size_the_choice_is_the_same():
    points, truth = blobs([300, 200, 400, 100], apart=40.0, seed=9)
    choice = choose_states(points, max_exact=500)
    assert choice.separate_states
    assert adjusted_rand_score(choice.labels, truth) == 1.0


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        ([50, 20, 9, 1.10, 1.08, 1.05, 1.03, 1.01, 1.0, 0.99], 3),
        ([1.10, 1.08, 1.05, 1.03, 1.01, 1.0, 0.99], 0),
        # Two floors: one state is noisier than the others.
        ([50, 20, 2.2, 2.1, 2.1, 2.0, 2.0, 1.9, 1.9, 1.0, 0.99, 0.98, 0.97, 0.96, 0.95], 2),
        ([50, 20, 9, 0, 0, 0], 3),
        ([3, 2], 2),
    ],
)
def test_components_above_the_noise_floor_are_counted(eigenvalues, expected):
    assert signal_components(eigenvalues, n_volumes=200) == expected


def test_equal_components_far_above_the_rest_are_signal():
    eigenvalues = np.linspace(101, 100, 20)
    arguments = {"explained_variance": eigenvalues, "n_volumes": 500}
    assert signal_components(**arguments, total_variance=eigenvalues.sum() + 480.0) == 20
    assert signal_components(**arguments, total_variance=eigenvalues.sum() + 480.0 * 60) == 0


def test_noise_has_no_signal_component():
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((100, 400))
        eigenvalues = np.linalg.svd(noise - noise.mean(axis=0), compute_uv=False) ** 2 / 99
        found = signal_components(
            eigenvalues, n_volumes=100, total_variance=eigenvalues.sum(), most=20
        )
        assert found == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_states(np.zeros(5)), "scores: found shape"),
        (lambda: choose_states([[0.0, np.nan], [0.0, 1.0]]), "NaN"),
        (lambda: choose_states(np.zeros((5, 2)), exclude=[True]), "exclude: found shape"),
    ],
)
def test_impossible_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
