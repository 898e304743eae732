from __future__ import annotations

from emhet_dask.report.verdict import headline, verdict_warnings


def test_headlines() -> None:
    assert headline(n_volumes=1000, n_clusters=28, separate_states=True) == (
        "1,000 volumes, 28 separate states"
    )
    assert headline(n_volumes=300, n_clusters=1, separate_states=False) == "300 volumes, one state"
    assert (
        headline(n_volumes=300, n_clusters=10, separate_states=False, n_particles=5e4)
        == "300 volumes (50,000 particles), no separate states: cut into 10 clusters"
    )
    assert (
        headline(n_volumes=300, n_clusters=10, separate_states=True, automatic_n_clusters=28)
        == "300 volumes, cut into 10 clusters as asked; the data suggest 28 separate states"
    )


def test_slices_of_a_continuum_come_with_a_serious_warning() -> None:
    (remark,) = verdict_warnings(n_clusters=10, separate_states=False, automatic_n_clusters=10)
    assert remark.serious
    assert "no separate states" in remark.text
    assert "10 clusters" in remark.text


def test_separate_states_and_a_single_state_need_no_warning() -> None:
    assert verdict_warnings(n_clusters=28, separate_states=True, automatic_n_clusters=28) == []
    assert verdict_warnings(n_clusters=1, separate_states=False) == []


def test_another_number_than_the_automatic_one_is_noted() -> None:
    (merged,) = verdict_warnings(n_clusters=5, separate_states=True, automatic_n_clusters=9)
    (split,) = verdict_warnings(n_clusters=9, separate_states=True, automatic_n_clusters=5)
    assert "merge" in merged.text
    assert "split" in split.text
    assert not merged.serious


def test_outliers_are_noted() -> None:
    (one,) = verdict_warnings(n_clusters=5, separate_states=True, n_outliers=1)
    (many,) = verdict_warnings(n_clusters=5, separate_states=True, n_outliers=3)
    assert one.text.startswith("1 volume was unlike")
    assert many.text.startswith("3 volumes were unlike")
