from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from emhet_dask.analysis.relations import RELATIONS
from emhet_dask.report.block_pairs import block_matrix
from emhet_dask.report.style import to_png

COLUMNS = ["block_a", "block_b", "relation", "odds_ratio"]


def signs(figure, n: int) -> np.ndarray:
    found = np.full((n, n), "", dtype=object)
    for text in figure.axes[0].texts:
        column, row = (int(place) for place in text.get_position())
        found[row, column] = text.get_text()
    return found


def test_signs_and_odds_of_a_hand_made_table() -> None:
    rows = [
        (2, 1, "requires", 16.0),  # 2 only with 1
        (1, 3, "excludes", 1 / 16),
        (2, 3, "independent", 1.0),
    ]
    figure = block_matrix(pd.DataFrame(rows, columns=COLUMNS), n_blocks=3)
    assert signs(figure, 3).tolist() == [["", "⊃", "×"], ["⊂", "", ""], ["×", "", ""]]
    drawn = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_allclose(
        drawn, [[np.nan, 4, -4], [4, np.nan, 0], [-4, 0, np.nan]], equal_nan=True
    )
    key = {text.get_text() for text in figure.axes[-1].texts}
    assert {"⊂", "row only with column"} <= key


def test_every_relation_has_a_sign_of_its_own() -> None:
    rows = [(1, k + 2, relation, 2.0) for k, relation in enumerate(RELATIONS)]
    figure = block_matrix(pd.DataFrame(rows, columns=COLUMNS), n_blocks=len(RELATIONS) + 1)
    row = signs(figure, len(RELATIONS) + 1)[0, 1:]
    assert len(set(row)) == len(RELATIONS)


def test_colours_go_as_far_for_more_as_for_less_and_hold_infinite_odds() -> None:
    rows = [(1, 2, "together", np.inf), (1, 3, "excludes", 0.0), (2, 3, "independent", np.nan)]
    figure = block_matrix(pd.DataFrame(rows, columns=COLUMNS), n_blocks=3)
    image = figure.axes[0].images[0]
    assert image.norm.vmin == -image.norm.vmax
    assert len(to_png(figure)) > 1000


def test_one_block_none_and_too_many() -> None:
    nothing = pd.DataFrame([], columns=COLUMNS)
    for n_blocks in (0, 1, 61):
        figure = block_matrix(nothing, n_blocks=n_blocks)
        assert len(to_png(figure)) > 1000
        assert ("The first 60 of 61 blocks" in figure.texts[-1].get_text()) == (n_blocks == 61)


def test_an_unknown_relation_is_refused() -> None:
    table = pd.DataFrame([(1, 2, "likes", 2.0)], columns=COLUMNS)
    with pytest.raises(ValueError, match="'likes'"):
        block_matrix(table, n_blocks=2)
