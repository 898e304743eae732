"""Occupancy and density of groups: plain loops, and the same answer however the matrix is cut."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.group_sums import group_sums


def plain(values, groups, n_groups, thresholds, factors):
    thresholds = np.broadcast_to(thresholds, len(values))
    occupancy, density = (np.full((len(values), n_groups), np.nan) for _ in range(2))
    for volume, row in enumerate(values):
        for group in range(n_groups):
            own = [float(value) for value, of in zip(row, groups, strict=True) if of == group]
            if own:
                above = [value > thresholds[volume] for value in own]
                occupancy[volume, group] = sum(above) / len(own)
                density[volume, group] = sum(own) / len(own) / factors[volume]
    return occupancy, density


def case(n=70, m=40, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, m)).astype(np.float32)
    return values, rng.integers(-1, 4, m), rng.normal(0, 0.3, n), rng.uniform(0.5, 2, n)


def test_against_plain_loops():
    values, groups, thresholds, factors = case()
    found = group_sums(values, groups, n_groups=4, thresholds=thresholds, factors=factors)
    occupancy, density = plain(values, groups, 4, thresholds, factors)
    np.testing.assert_allclose(found["occupancy"], occupancy, rtol=1e-12)
    np.testing.assert_allclose(found["density"], density, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found["voxels"], [(groups == g).sum() for g in range(4)])
    assert found["occupancy"].dims == found["density"].dims == ("volume", "group")


def test_one_threshold_and_no_factors():
    values, groups, _, _ = case(seed=1)
    found = group_sums(values, groups, n_groups=4, thresholds=0.25)
    occupancy, density = plain(values, groups, 4, 0.25, np.ones(len(values)))
    np.testing.assert_allclose(found["occupancy"], occupancy, rtol=1e-12)
    np.testing.assert_allclose(found["density"], density, rtol=1e-9, atol=1e-12)


def test_a_density_that_equals_the_threshold_is_not_occupied():
    found = group_sums(
        np.array([[0.5, 0.5, 0.75]], np.float32), [0, 0, 0], n_groups=1, thresholds=0.5
    )
    assert found["occupancy"].item() == pytest.approx(1 / 3)


def test_groups_without_voxels_are_nan():
    values, _, thresholds, factors = case(seed=2)
    groups = np.full(values.shape[1], -1)
    groups[3] = 2
    found = group_sums(values, groups, n_groups=4, thresholds=thresholds, factors=factors)
    for name in ("occupancy", "density"):
        assert np.isnan(found[name].values[:, [0, 1, 3]]).all()
    np.testing.assert_array_equal(found["occupancy"][:, 2], values[:, 3] > thresholds)
    np.testing.assert_array_equal(found["voxels"], [0, 0, 1, 0])
    nothing = group_sums(values, np.full(values.shape[1], -1), n_groups=2, thresholds=0)
    assert np.isnan(nothing["occupancy"].values).all()
    none = group_sums(values, np.full(values.shape[1], -1), n_groups=0, thresholds=0)
    assert none["density"].shape == (len(values), 0)


def test_the_matrix_is_gone_through_once():
    values, groups, thresholds, _ = case(seed=3)
    calls = []

    def compute(*parts, **options):
        calls.append(len(parts))
        return dask.compute(*parts, **options)

    lazy = da.from_array(values, chunks=(16, 7))
    group_sums(lazy, groups, n_groups=4, thresholds=thresholds, compute=compute)
    assert len(calls) == 1


cuts = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def chunks(cut, length):
    """Chunks of these sizes, over and over, that fill a length."""
    found, k = [], 0
    while sum(found) < length:
        found.append(min(cut[k % len(cut)], length - sum(found)))
        k += 1
    return tuple(found)


@settings(deadline=None, max_examples=40)
@given(cuts, cuts, st.integers(0, 5))
def test_any_chunking_gives_the_same_answer(rows, columns, seed):
    values, groups, thresholds, factors = case(n=67, m=31, seed=seed)
    options = {"n_groups": 4, "thresholds": thresholds, "factors": factors}
    lazy = da.from_array(values, chunks=(chunks(rows, 67), chunks(columns, 31)))
    whole, cut = group_sums(values, groups, **options), group_sums(lazy, groups, **options)
    for name in ("occupancy", "density"):
        np.testing.assert_array_equal(whole[name], cut[name])
