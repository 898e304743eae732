from __future__ import annotations

import numpy as np
import pytest

from emhet_dask.report.evidence import separation_evidence
from emhet_dask.report.style import to_png


def _texts(figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts]
        if axes.get_legend() is not None:
            texts += [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(texts)


@pytest.mark.parametrize(("separate", "title"), [(True, "yes"), (False, "NO")])
def test_verdict_and_reason_are_in_the_picture(small, separate: bool, title: str) -> None:
    figure = separation_evidence(
        small.evidence, n_clusters=4, separate_states=separate, reason="Because of the gaps."
    )
    assert figure.get_suptitle() == f"Separate states: {title}"
    assert "Because of the gaps." in _texts(figure)
    assert "4 clusters: these results" in _texts(figure)


def test_gaps_are_drawn_beside_what_a_continuum_gives(small) -> None:
    figure = separation_evidence(small.evidence, n_clusters=4, separate_states=True, reason="")
    left, right = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()) for line in left.lines}
    np.testing.assert_array_equal(
        drawn["closest two clusters"], small.evidence["separation"].values
    )
    np.testing.assert_array_equal(
        drawn["pieces of a continuum hardly reach this"],
        small.evidence["critical_separation"].values,
    )
    assert drawn["slices of an even continuum"][0] == pytest.approx(np.sqrt(12))
    np.testing.assert_array_equal(
        right.lines[0].get_ydata(), small.evidence["separate_fraction"].values
    )
    assert {axes.get_xlabel() for axes in figure.axes} == {"number of clusters"}
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_another_number_than_the_automatic_one_is_marked_beside_it(small) -> None:
    figure = separation_evidence(
        small.evidence, n_clusters=12, separate_states=True, reason="", automatic_n_clusters=4
    )
    assert "12 clusters: these results" in _texts(figure)
    assert "4 clusters: automatic choice" in _texts(figure)
    low, high = figure.axes[0].get_xlim()
    assert low < 4
    assert high > 12


def test_convincing_separation_is_drawn_where_known(small) -> None:
    evidence = small.evidence.assign(
        convincing_separation=1.5 * small.evidence["critical_separation"]
    )
    figure = separation_evidence(evidence, n_clusters=4, separate_states=True, reason="")
    assert "one gap above this convinces" in _texts(figure)


def test_candidates_without_a_measured_gap_are_left_out(small) -> None:
    evidence = small.evidence.copy(deep=True)
    evidence["separation"][0] = np.nan
    figure = separation_evidence(evidence, n_clusters=4, separate_states=True, reason="")
    assert list(figure.axes[0].lines[0].get_xdata()) == [3, 4, 5, 6]


def test_no_candidate_at_all(small) -> None:
    evidence = small.evidence * np.nan
    figure = separation_evidence(evidence, n_clusters=1, separate_states=False, reason="Too few.")
    assert "nothing to compare" in _texts(figure)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_clusters_without_spread_or_gap_leave_a_hole_and_no_warning(small, value) -> None:
    evidence = small.evidence.assign(
        separation=small.evidence["separation"] * 0 + value,
        critical_separation=small.evidence["critical_separation"] * 0 + value,
    )
    figure = separation_evidence(evidence, n_clusters=4, separate_states=False, reason="")
    assert len(to_png(figure)) > 1000
