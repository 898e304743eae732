"""Relations between blocks: SciPy's exact test, tables worked by hand, and what must not matter."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emhet_dask.analysis.relations import (
    RELATIONS,
    block_relations,
    presence,
    state_table,
    two_modes,
)
from emhet_dask.errors import InputError

COUNTS = ["both", "a_only", "b_only", "neither"]
ODDS = ["odds_ratio", "odds_low", "odds_high"]


def from_counts(both, a_only, b_only, neither):
    rows = [(1, 1)] * both + [(1, 0)] * a_only + [(0, 1)] * b_only + [(0, 0)] * neither
    return np.array(rows, dtype=bool)


def one(*counts, **options):
    return block_relations(from_counts(*counts), ["a", "b"], **options).iloc[0]


tables = st.tuples(*[st.integers(0, 30)] * 4).filter(lambda counts: sum(counts) > 0)


@given(tables)
@settings(deadline=None)
def test_p_values_are_those_of_fisher(counts):
    both, a_only, b_only, neither = counts
    row = one(*counts)
    tails = [
        stats.fisher_exact([[both, a_only], [b_only, neither]], alternative=side).pvalue
        for side in ("greater", "less")
    ]
    assert row["p_value"] == pytest.approx(min(1, 2 * min(tails)), rel=1e-9)
    assert row["p_adjusted"] == row["p_value"]  # one pair, one test


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(3, 80))
@settings(deadline=None, max_examples=40)
def test_blocks_named_in_another_order_have_the_same_relations(seed, n_blocks, n_volumes):
    rng = np.random.default_rng(seed)
    source = rng.random((n_volumes, 2)) < 0.5
    present = source[:, rng.integers(0, 2, n_blocks)] ^ (rng.random((n_volumes, n_blocks)) < 0.05)
    order = rng.permutation(n_blocks)
    found = block_relations(present, range(n_blocks))
    turned = block_relations(present[:, order], order.tolist())

    def known(table):
        return {
            (frozenset((row.block_a, row.block_b)), row.relation): (
                row.block_a if row.relation == "requires" else None, row.both,
                pytest.approx(row.p_adjusted),
            )
            for row in table.itertuples()
        }  # fmt: skip

    assert known(found) == known(turned)
    assert len(found) == n_blocks * (n_blocks - 1) // 2
    assert set(found["relation"]) <= set(RELATIONS)
    assert (found["p_adjusted"] >= found["p_value"]).all()
    assert (found["p_adjusted"] <= 1).all()
    assert (found[COUNTS].sum(axis=1) == n_volumes).all()
    plain = found["relation"] != "requires"
    assert (found["block_a"][plain] < found["block_b"][plain]).all()


@pytest.mark.parametrize(
    ("counts", "relation"),
    [
        ((100, 0, 0, 100), "together"),
        ((100, 5, 5, 90), "together"),  # 5 of 105 is within the twentieth
        ((100, 6, 5, 90), "requires"),  # 6 of 106 is not: b needs a
        ((50, 0, 60, 90), "requires"),
        ((70, 30, 30, 70), "associated"),
        ((0, 100, 80, 20), "excludes"),
        ((4, 96, 76, 24), "excludes"),
        ((30, 70, 70, 30), "opposed"),
        ((50, 50, 50, 50), "independent"),
        ((2, 0, 0, 2), "independent"),  # p = 1/3, whatever it looks like
        ((0, 2, 2, 0), "independent"),
        ((95, 5, 95, 5), "independent"),  # nearly always with b, which is nearly always there
    ],
)
def test_rules(counts, relation):
    assert one(*counts)["relation"] == relation


def test_which_one_requires_the_other():
    row = one(50, 0, 60, 90)
    assert (row["block_a"], row["block_b"]) == ("a", "b")
    assert row[COUNTS].tolist() == [50, 0, 60, 90]
    turned = one(50, 60, 0, 90)
    assert (turned["block_a"], turned["block_b"]) == ("b", "a")
    assert turned[COUNTS].tolist() == [50, 0, 60, 90]


def test_tolerance_and_level_are_options():
    assert one(50, 8, 60, 90)["relation"] == "associated"
    assert one(50, 8, 60, 90, tolerance=0.2)["relation"] == "requires"
    weak = one(30, 20, 20, 30)
    assert weak["relation"] == "independent"
    assert one(30, 20, 20, 30, alpha=weak["p_value"])["relation"] == "associated"


def test_odds_ratio_by_hand():
    # (10½ · 8½) / (2½ · 4½) = 7.9333…, standard error of its logarithm √(2/21 + 2/17 + 2/5 + 2/9)
    row = one(10, 2, 4, 8)
    ratio, error = 10.5 * 8.5 / (2.5 * 4.5), np.sqrt(2 / 21 + 2 / 17 + 2 / 5 + 2 / 9)
    reach = stats.norm.ppf(0.975) * error
    expected = [ratio, ratio * np.exp(-reach), ratio * np.exp(reach)]
    np.testing.assert_allclose(row[ODDS].astype(float), expected, rtol=1e-12)


def test_correction_by_holm():
    rng = np.random.default_rng(1)
    present = rng.random((60, 5)) < 0.5
    present[:, 1] = present[:, 0] ^ (rng.random(60) < 0.25)
    found = block_relations(present, range(5))
    p = np.sort(found["p_value"].to_numpy())
    stepped = [max(p[k] * (10 - k) for k in range(rank + 1)) for rank in range(10)]
    np.testing.assert_allclose(np.sort(found["p_adjusted"]), np.minimum(stepped, 1), rtol=1e-12)


def test_blocks_that_never_change_say_nothing_and_cost_no_test():
    changing = from_counts(9, 1, 1, 9)
    ones = np.ones((20, 1), dtype=bool)
    present = np.hstack([changing, ones, ~ones])
    found = block_relations(present, ["a", "b", "always", "never"])
    still = found[found["block_b"].isin(["always", "never"])]
    assert (still["relation"] == "independent").all()
    assert (still[["p_value", "p_adjusted"]] == 1).all().all()
    assert still[ODDS].isna().all().all()
    assert found["p_adjusted"][0] == one(9, 1, 1, 9)["p_adjusted"]


def test_certainty_beyond_the_smallest_number_is_not_zero():
    row = one(5000, 0, 0, 5000)
    assert 0 < row["p_value"] < 1e-300
    assert row["relation"] == "together"


def test_one_block_and_none():
    assert block_relations(np.ones((5, 1), dtype=bool), [1]).empty
    assert list(block_relations(np.ones((5, 0), dtype=bool), []).columns)[:2] == [
        "block_a", "block_b",
    ]  # fmt: skip


def test_planted_rules_are_found_and_nothing_else():
    rng = np.random.default_rng(7)
    core = rng.random(400) < 0.6
    tail = core & (rng.random(400) < 0.5)
    rival = ~core & (rng.random(400) < 0.8)
    free = rng.random(400) < 0.4
    present = np.stack([core, core, tail, rival, free], axis=1)
    present ^= rng.random(present.shape) < 0.005
    found = block_relations(present, ["core", "twin", "tail", "rival", "free"])
    relations = {(row.block_a, row.block_b): row.relation for row in found.itertuples()}
    assert relations["core", "twin"] == "together"
    assert relations["tail", "core"] == relations["tail", "twin"] == "requires"
    assert relations["core", "rival"] == relations["tail", "rival"] == "excludes"
    assert all(relation == "independent" for pair, relation in relations.items() if "free" in pair)


def test_presence_lies_between_two_modes():
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    low = np.where(truth, 0.55, 0.1) + rng.normal(0, 0.03, 200)
    steady = 0.85 + rng.normal(0, 0.05, 200)
    rare = np.where(np.arange(200) < 4, 0.9, 0.45) + rng.normal(0, 0.02, 200)
    present, cuts = presence(np.stack([low, steady, rare, np.full(200, 0.4)], axis=1))
    np.testing.assert_array_equal(present[:, 0], truth)
    assert 0.2 < cuts[0] < 0.5
    assert present[:, 1].all()
    assert cuts[1] == cuts[3] == 0.5
    assert present[:, 2].sum() == 4
    assert not present[:, 3].any()


def test_presence_is_bounded():
    lower = np.repeat([[0.01], [0.12]], 20, axis=0)
    upper = np.repeat([[0.84], [0.99]], 20, axis=0)
    present, cuts = presence(np.hstack([lower, upper]))
    np.testing.assert_array_equal(cuts, [0.2, 0.8])
    assert not present[:, 0].any()
    assert present[:, 1].all()


def test_a_volume_without_a_value_has_no_block():
    present, _ = presence([[0.9], [np.nan], [0.1]])
    assert present[:, 0].tolist() == [True, False, False]


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
@settings(deadline=None, max_examples=40)
def test_modes_do_not_depend_on_the_scale(seed, scale, offset):
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.4
    truth[:2] = True, False
    values = (truth + rng.uniform(-0.05, 0.05, 60))[:, None]
    cut = two_modes(values * scale + offset * scale)[0]
    np.testing.assert_array_equal(values[:, 0] * scale + offset * scale > cut, truth)


def test_the_cut_is_the_best_of_all():
    values = np.random.default_rng(3).permutation(np.r_[np.linspace(0, 0.2, 30), 0.9, 0.95, 1.0])
    cut = two_modes(values[:, None])[0]

    def within(where):
        below, above = values[values <= where], values[values > where]
        return len(below) * below.var() + len(above) * above.var()

    assert within(cut) == pytest.approx(min(within(where) for where in np.sort(values)[:-1]))


def test_one_mode_is_not_cut():
    rng = np.random.default_rng(4)
    one_mode = np.stack([rng.normal(size=500), rng.random(500), np.ones(500)], axis=1)
    assert np.isnan(two_modes(one_mode)).all()


def test_states_are_listed_most_frequent_first():
    present = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1]], dtype=bool)
    table, states = state_table(present, ["a", "b"], particles=[1, 2, 3, 4, 5, 6])
    expected = pd.DataFrame(
        {
            "state": [0, 1, 2, 3],
            "a": [1, 1, 0, 0],
            "b": [1, 0, 1, 0],
            "volumes": [2, 2, 1, 1],
            "fraction": [1 / 3, 1 / 3, 1 / 6, 1 / 6],
            "particles": [8.0, 4.0, 5.0, 4.0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)
    assert states.tolist() == [1, 0, 1, 3, 2, 0]
    assert "particles" not in state_table(present, [1, 2])[0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_states_give_back_where_blocks_are_present(seed, n_blocks, n_volumes):
    present = np.random.default_rng(seed).random((n_volumes, n_blocks)) < 0.5
    table, states = state_table(present, range(n_blocks))
    np.testing.assert_array_equal(table[list(range(n_blocks))].to_numpy()[states], present)
    np.testing.assert_array_equal(np.bincount(states), table["volumes"])
    assert (np.diff(table["volumes"]) <= 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: presence([0.5, 1.0]), r"occupancy: found an array of shape \(2,\)"),
        (lambda: block_relations(np.ones((3, 2)), ["a"]), "1 different ones for 2 blocks"),
        (lambda: block_relations(np.ones((3, 2)), ["a", "a"]), "1 different ones for 2 blocks"),
        (lambda: state_table(np.ones((3, 1)), ["a"], particles=[1]), "1 numbers for 3 volumes"),
    ],
)
def test_what_cannot_be_used(call, message):
    with pytest.raises(InputError, match=message):
        call()
