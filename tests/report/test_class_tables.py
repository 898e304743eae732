"""The table of shares, and the rows of the report."""

import numpy as np
import pandas as pd

from emhet_dask.report.class_tables import (
    agreement_rows,
    consensus_rows,
    correspondence_rows,
    overlap_matrix,
)
from emhet_dask.report.style import MUTED


def test_overlap_is_written_in_percent():
    fractions = np.array(
        [[np.nan, np.nan, 0.75, 0.25], [np.nan, np.nan, 0.5, 0.5],
         [0.6, 0.4, np.nan, np.nan], [1.0, 0.001, np.nan, np.nan]]
    )  # fmt: skip
    residuals = np.where(fractions == 0.5, 0.1, 9.0)
    figure = overlap_matrix(
        fractions, residuals, names=["job085", "job086"], classes=[(1, 2), (1, 2)]
    )
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert {"75", "25", "50", "60", "40", "100", "job085", "job086"} == set(texts)
    assert texts["50"].get_color() == MUTED
    assert texts["75"].get_color() != MUTED


def test_many_classes_are_not_written():
    n = 60
    figure = overlap_matrix(
        np.full((n, n), 0.5), np.zeros((n, n)), names=["a", "b"], classes=[range(30)] * 2
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "a", "b", "b"]


def test_rows_of_the_report():
    agreement = pd.DataFrame(
        {
            "job1": ["job085"],
            "job2": ["job086"],
            "adjusted_rand_index": [-0.0001],
            "rand_null_95": [0.01],
            "adjusted_mutual_information": [0.61],
            "information_null_95": [0.02],
            "p_value": [0.001],
        }
    )
    row = agreement_rows(agreement).iloc[0]
    assert row["Jobs"] == "job085 and job086"
    assert row["Adjusted Rand index"] == "0.000"
    pairs = pd.DataFrame(
        {
            "job1": ["a"],
            "class1": [2],
            "job2": ["b"],
            "class2": [3],
            "count": [10],
            "fraction_of_class1": [0.5],
            "fraction_of_class2": [1.0],
            "map_correlation": [np.nan],
        }
    )
    assert correspondence_rows(pairs).iloc[0].tolist() == [
        "a class 2",
        "b class 3",
        10,
        "50%",
        "100%",
    ]
    classes = pd.DataFrame(
        {
            "consensus": [1, 2, 0],
            "particles": [8, 2, 0],
            "fraction": [0.8, 0.2, 0.0],
            "core": [7, 0, 0],
            "mean_confidence": [0.97, 0.5, np.nan],
            "a": ["1 (100%)", "2 (100%)", ""],
        }
    )
    shown = consensus_rows(classes, ["a"])
    assert shown["Consensus"].tolist() == ["1", "2"]
    assert shown["In a"].tolist() == ["1 (100%)", "2 (100%)"]
