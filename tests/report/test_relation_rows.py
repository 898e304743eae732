"""Tables of relations and combinations, as a page shows them."""

import numpy as np
import pandas as pd
import pytest

from emhet_dask.analysis.relations import RELATIONS, block_relations, state_table
from emhet_dask.report.relation_rows import relation_rows, state_rows


def relations():
    """Three parts: 2 needs 1, 3 excludes 1."""
    first = np.arange(100) < 50
    second = np.arange(100) < 30
    present = np.stack([first, second, ~first], axis=1)
    return block_relations(present, [1, 2, 3])


def test_relations_in_words_the_most_significant_first():
    found = relation_rows(relations())
    assert found.columns.tolist() == [
        "Block", "Relation", "Other block", "Both", "First only", "Second only", "Neither",
        "Odds ratio", "95% interval", "p, corrected",
    ]  # fmt: skip
    rows = {
        frozenset((a, b)): (a, word, b)
        for a, word, b in zip(found["Block"], found["Relation"], found["Other block"], strict=True)
    }
    assert rows[frozenset((1, 2))] == (2, "requires", 1)
    assert rows[frozenset((1, 3))] == (1, "excludes", 3)
    first = found.iloc[0]
    assert {first["Block"], first["Other block"]} == {1, 3}
    assert first[["Both", "First only", "Second only", "Neither"]].tolist() == [0, 50, 50, 0]
    p = found["p, corrected"].astype(float)
    assert p.is_monotonic_increasing
    np.testing.assert_allclose(p, np.sort(relations()["p_adjusted"]), rtol=0.06)


def test_intervals_and_the_noun():
    table = relations()
    table["odds_low"], table["odds_high"] = 0.012345, 43210.0
    found = relation_rows(table, noun="part")
    assert (found["95% interval"] == "0.0123 to 4.32e+04").all()
    assert {"Part", "Other part"} <= set(found)


def test_every_relation_has_words():
    table = relations().iloc[[0] * len(RELATIONS)].assign(relation=RELATIONS)
    assert relation_rows(table)["Relation"].nunique() == len(RELATIONS)


def test_a_page_is_not_flooded_with_relations():
    table = pd.concat([relations()] * 40, ignore_index=True)
    table["p_adjusted"] = np.linspace(1, 0.001, len(table))
    found = relation_rows(table)
    assert len(found) == 60
    assert found["p, corrected"].iloc[0] == "1.0e-03"


@pytest.mark.parametrize("particles", [None, np.full(60, 10.25)])
def test_states_name_the_parts_that_are_there(particles):
    present = np.zeros((60, 3), dtype=bool)
    present[:30, [0, 2]] = True
    present[30:50, 1] = True
    names = ["block_001", "block_002", "block_010"]
    states, _ = state_table(present, names, particles=particles)
    found = state_rows(states, names)
    assert found["State"].tolist() == [0, 1, 2]
    assert found["Blocks present"].tolist() == ["1, 10", "2", "none"]
    assert found["Volumes"].tolist() == [30, 20, 10]
    assert found["Share"].tolist() == ["50.0%", "33.3%", "16.7%"]
    if particles is None:
        assert "Particles" not in found
    else:
        assert found["Particles"].tolist() == [308, 205, 102]  # 307.5 and 102.5 to even


def test_parts_with_names_and_many_states():
    patterns = np.array([[(row >> k) & 1 for k in range(5)] for row in range(32)], dtype=bool)
    patterns = np.concatenate([patterns, np.repeat(patterns[[31, 5]], [9, 4], axis=0)])
    names = ["sub_a", "block_003", "core", "d", "e"]
    found = state_rows(state_table(patterns, names)[0], names, noun="part")
    assert len(found) == 20  # of 32
    assert found["Parts present"].iloc[:2].tolist() == [
        "sub_a, block_003, core, d, e", "sub_a, core",
    ]  # fmt: skip
    assert found["Volumes"].iloc[:2].tolist() == [10, 5]
