"""Counts, edges and the strongest of them, against looking at every pair by itself."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from emhet_dask.analysis import association, cooccupancy
from emhet_dask.analysis.association import Association, phi_coefficient, significant_edges
from emhet_dask.analysis.binarised import count_occupied, kept_voxels, occupancy, pack
from emhet_dask.analysis.contingency import contingency_tiles, count_together
from emhet_dask.analysis.cooccupancy import associations, edge_kernel, task_bytes, tile_side
from emhet_dask.analysis.hypergeometric import log_p_values
from emhet_dask.errors import InputError


def simulated(n_volumes, n_voxels, *, seed=0, n_parts=4, noise=0.15):
    """Voxels of parts that come and go, some against another part, with errors."""
    rng = np.random.default_rng(seed)
    present = rng.random((n_volumes, n_parts)) < rng.uniform(0.2, 0.9, n_parts)
    present[:, 0] = ~present[:, 1]
    part = rng.integers(0, n_parts + 1, n_voxels)
    alone = rng.random((n_volumes, n_voxels)) < rng.uniform(0.1, 0.9, n_voxels)
    occupied = np.where(part == n_parts, alone, present[:, part % n_parts])
    return occupied ^ (rng.random(occupied.shape) < noise)


def pairs_by_scipy(occupied, *, positive, negative, min_enrichment=1.0):
    """All significant pairs, one test each: {(i, j): (n11, phi)}."""
    n = len(occupied)
    i, j = np.triu_indices(occupied.shape[1], 1)
    both = (occupied[:, i] & occupied[:, j]).sum(axis=0)
    a, b = occupied.sum(axis=0)[i], occupied.sum(axis=0)[j]
    together = hypergeom.sf(both - 1, n, a, b) <= positive
    together &= both >= min_enrichment * (a * b / n)
    apart = hypergeom.cdf(both, n, a, b) <= negative
    apart &= both <= (a * b / n) / min_enrichment
    phi = np.corrcoef(occupied.T)[i, j]
    return {(i[at], j[at]): (both[at], phi[at]) for at in np.flatnonzero(together | apart)}


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for pair, (both, phi) in expected.items():
        assert found[pair][0] == both
        assert found[pair][1] == pytest.approx(phi, abs=1e-6)


def by_pair(edges):
    return {
        (int(i), int(j)): (int(both), float(phi))
        for each in edges
        for i, j, both, phi in zip(*each, strict=True)
    }


@given(
    n_volumes=st.integers(1, 300),
    n_voxels=st.integers(1, 90),
    side=st.integers(1, 100),
    rows=st.integers(1, 120),
    columns=st.integers(1, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_counts_however_they_are_cut(n_volumes, n_voxels, side, rows, columns, seed):
    occupied = np.random.default_rng(seed).random((n_volumes, n_voxels)) < 0.6
    packed = pack(da.from_array(occupied, chunks=(rows, columns)))
    expected = occupied.T.astype(int) @ occupied.astype(int)
    np.testing.assert_array_equal(packed.margins, occupied.sum(axis=0))
    found = np.full((n_voxels, n_voxels), -1)
    for voxels, others, counts in contingency_tiles(packed, side=side):
        found[voxels, others] = counts
        found[others, voxels] = counts.T
    np.testing.assert_array_equal(found, expected)


def test_counts_over_many_strips_and_tiles():
    """More volumes than a strip, more voxels than a tile, an odd number of them; always occupied
    ones reach the largest numbers that two counts in one float32 can.
    """
    rng = np.random.default_rng(0)
    occupied = rng.random((5000, 1101)) < 0.97
    occupied[:, ::100] = True
    packed = pack(occupied)
    expected = occupied.T.astype(np.float64) @ occupied.astype(np.float64)
    n_bytes = packed.bits.shape[1]
    whole, left, right = slice(0, 1101), slice(0, 700), slice(700, 1101)
    np.testing.assert_array_equal(count_together(packed, whole, whole, n_bytes=n_bytes), expected)
    np.testing.assert_array_equal(
        count_together(packed, left, right, n_bytes=n_bytes), expected[left, right]
    )


def test_edges_are_those_of_testing_each_pair():
    occupied = simulated(120, 60)
    expected = pairs_by_scipy(occupied, positive=1e-4, negative=1e-3)
    assert min(phi for _, phi in expected.values()) < 0 < max(phi for _, phi in expected.values())
    found = significant_edges(pack(occupied), positive_alpha=1e-4, negative_alpha=1e-3, side=23)
    assert_same(by_pair(found), expected)


def test_fishers_test_of_scipy_agrees():
    occupied = simulated(40, 12, n_parts=2)
    found = by_pair(significant_edges(pack(occupied), positive_alpha=0.01, negative_alpha=0.01))
    n = len(occupied)
    expected = set()
    for i in range(12):
        for j in range(i + 1, 12):
            both = int((occupied[:, i] & occupied[:, j]).sum())
            a, b = int(occupied[:, i].sum()), int(occupied[:, j].sum())
            table = [[both, a - both], [b - both, n - a - b + both]]
            sides = ("greater", "less")
            if min(fisher_exact(table, alternative=side).pvalue for side in sides) <= 0.01:
                expected.add((i, j))
    assert set(found) == expected
    assert 0 < len(expected) < 66


@pytest.mark.parametrize("min_enrichment", [1.7, 4.0])
def test_enrichment_is_observed_over_expected(min_enrichment):
    occupied = simulated(100, 40, seed=3)
    every = pairs_by_scipy(occupied, positive=1e-2, negative=1e-2)
    expected = pairs_by_scipy(occupied, positive=1e-2, negative=1e-2, min_enrichment=min_enrichment)
    assert len(expected) < len(every)
    found = significant_edges(
        pack(occupied), positive_alpha=1e-2, negative_alpha=1e-2, min_enrichment=min_enrichment
    )
    assert_same(by_pair(found), expected)


@given(
    side=st.integers(9, 70),
    rows=st.integers(8, 90),
    n_neighbours=st.integers(1, 70),
    seed=st.integers(0, 9),
    few_tables=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_strongest_edges_however_they_are_cut(side, rows, n_neighbours, seed, few_tables):
    occupied = simulated(90, 60, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        if few_tables:
            patch.setattr(association, "MOST_MARGINS", 0)
        found = associations(
            da.from_array(occupied, chunks=(rows, 13)), side=side, n_neighbours=n_neighbours
        )
    expected = pairs_by_scipy(
        occupied, positive=float(found.alpha[0]), negative=float(found.alpha[1])
    )
    kept = min(n_neighbours, 59)
    assert found.neighbour.shape == (2, 60, kept)
    for tail, sign in (("positive", 1), ("negative", -1)):
        here = found.sel(tail=tail)
        for voxel in range(60):
            own = [
                # float32, as the strengths that are ranked
                (-sign * np.float32(phi_coefficient(both, *here.margin.values[list(pair)], 90)), j)
                for pair, (both, phi) in expected.items()
                if voxel in pair and sign * phi > 0
                for j in pair
                if j != voxel
            ]
            assert int(here.degree[voxel]) == len(own)
            best = sorted(own)[:kept]
            absent = kept - len(best)
            assert here.neighbour[voxel].values.tolist() == [j for _, j in best] + [-1] * absent
            np.testing.assert_array_equal(
                here.phi[voxel], [-sign * value for value, _ in best] + [np.nan] * absent
            )


def test_batches_of_tiles_make_no_difference(monkeypatch):
    packed = pack(simulated(90, 60))
    whole = associations(packed, side=64, n_neighbours=5)
    monkeypatch.setattr(cooccupancy, "_BATCH_BYTES", 1)
    calls = []

    def compute(*tasks):
        calls.append(len(tasks))
        return dask.compute(*tasks)

    assert associations(packed, side=7, n_neighbours=5, compute=compute).identical(whole)
    assert calls == [16, 16, 13]  # of the 45 pairs of nine bands


def test_the_last_of_the_kept_may_be_equal_to_others():
    occupied = np.zeros((40, 6), dtype=bool)
    occupied[:20] = True  # all alike: of equal edges those to the lowest voxels are kept
    found = associations(occupied, n_neighbours=2, side=2).sel(tail="positive")
    np.testing.assert_array_equal(found.neighbour, [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(found.phi, 1.0)
    np.testing.assert_array_equal(found.degree, 5)


def test_bonferroni_over_all_pairs():
    found = associations(simulated(90, 60), positive_p=0.02, negative_p=0.05)
    assert found.n_pairs == 1770
    np.testing.assert_allclose(found.alpha, [0.02 / 1770, 0.05 / 1770])
    assert associations(simulated(90, 60), correction="none").alpha.values.tolist() == [0.01, 0.05]


def test_false_discoveries_are_controlled_as_by_the_exact_procedure():
    occupied = simulated(90, 60, noise=0.15)
    rate = 0.05
    found = associations(
        occupied, positive_p=rate, negative_p=rate, correction="benjamini-hochberg", side=17
    )
    counts = occupied.T.astype(int) @ occupied.astype(int)
    margins = occupied.sum(axis=0)
    i, j = np.triu_indices(60, 1)
    for number, tail in enumerate(("positive", "negative")):
        p = np.exp(log_p_values(counts[i, j], margins[i], margins[j], 90, tail=tail))
        exact = false_discovery_control(p) <= rate
        level = float(found.alpha[number])
        kept = p <= level
        assert not (kept & ~exact).any()
        assert kept.sum() > 0.9 * exact.sum() > 0
        assert level > rate / len(p)
        assert int(found.degree[number].sum()) == 2 * kept.sum()


def test_no_discoveries():
    occupied = np.random.default_rng(0).random((60, 40)) < 0.5
    found = associations(occupied, correction="benjamini-hochberg")
    assert not found.degree.any()


def test_phi_is_the_correlation():
    occupied = simulated(70, 5)
    both = occupied.T.astype(int) @ occupied.astype(int)
    margins = occupied.sum(axis=0)
    np.testing.assert_allclose(
        phi_coefficient(both, margins[:, None], margins, 70), np.corrcoef(occupied.T), atol=1e-12
    )
    assert np.isnan(phi_coefficient([3, 0], [10, 0], [3, 4], 10)).all()


def test_occupied_is_above_the_threshold_of_its_volume():
    values = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], dtype=np.float32)
    np.testing.assert_array_equal(occupancy(values, 2.0), [[0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(
        occupancy(da.from_array(values, chunks=(1, 2)), [0.5, 2.5]), [[1, 1, 1], [0, 0, 1]]
    )
    # 0.1 as float32 is above 0.1
    np.testing.assert_array_equal(occupancy(np.full((1, 1), 0.1, np.float32), 0.1), [[True]])
    with pytest.raises(InputError, match="one for each of the 2 volumes"):
        occupancy(values, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="finite"):
        occupancy(values, [1.0, np.nan])


def test_voxels_that_are_sometimes_occupied_are_kept():
    margins = count_occupied(np.tril(np.ones((200, 200), dtype=np.uint8)))
    np.testing.assert_array_equal(margins, np.arange(200, 0, -1))
    kept = kept_voxels(margins, 200)
    np.testing.assert_array_equal(margins[kept], np.arange(199, 2, -1))
    with pytest.raises(InputError, match="higher threshold"):
        kept_voxels([200, 200, 1], 200)
    with pytest.raises(InputError, match="lower threshold"):
        kept_voxels([0, 2, 1], 200)


def test_some_voxels_are_packed():
    occupied = simulated(50, 30)
    voxels = np.array([3, 4, 17])
    packed = pack(da.from_array(occupied, chunks=(9, 8)), voxels=voxels)
    np.testing.assert_array_equal(packed.margins, occupied[:, voxels].sum(axis=0))
    assert packed.n_voxels == 3


def test_too_few_volumes_say_how_many_would_do():
    with pytest.raises(InputError, match=r"10 volumes are too few .* 22 or more are needed"):
        associations(simulated(10, 100))
    assert associations(simulated(30, 100)).fewest_volumes == 22


def test_options_that_make_no_sense():
    with pytest.raises(InputError, match="'holm' is unknown"):
        associations(simulated(50, 10), correction="holm")
    with pytest.raises(InputError, match=r"min_enrichment is 0\.5"):
        associations(simulated(50, 10), min_enrichment=0.5)


def test_tests_travel_to_other_processes():
    packed = pack(simulated(60, 20))
    tests = Association(packed.margins, 60, 1e-3, 1e-3)
    again = pickle.loads(pickle.dumps(tests))
    span = slice(0, 20)
    counts = count_together(packed, span, span, n_bytes=packed.n_bytes)
    for one, other in zip(
        *(each.edges(counts, span, span) for each in (tests, again)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_settings", [1, 3])
def test_a_task_needs_the_memory_that_is_stated(n_settings):
    import tracemalloc

    side, n_volumes = 512, 4000
    rng = np.random.default_rng(0)
    packed = pack(rng.random((n_volumes, 2 * side)) < 0.5)
    places = np.column_stack(np.unravel_index(np.arange(2 * side), (8, 8, 16)))
    levels = [(0.4, 0.4)] * n_settings  # nearly all pairs have an edge
    kernel = edge_kernel(packed, levels, correction="none", coordinates=places, least_distance=2.0)
    tracemalloc.start()
    kernel.tile(packed, slice(0, side), slice(side, 2 * side))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = task_bytes(n_volumes, side=side, n_settings=n_settings)
    assert 0.2 * stated < peak < stated


def test_bands_fit_the_memory_given():
    for n_voxels in (5, 1000, 10_000, 80_000):
        for n_volumes in (500, 100_000):
            for memory in (70 << 20, 150 << 20, 4 << 30):
                side = tile_side(n_voxels, n_volumes, memory, n_settings=3)
                assert side <= n_voxels
                assert task_bytes(n_volumes, side=side, n_settings=3) <= memory
    assert tile_side(80_000, 1000, 512 << 20) == 2048
    assert tile_side(10_000, 500, 512 << 20) == 1536
