"""What is read of a job: either version's files, of which run, missing and new ones."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.workflows.class3d_summary.fake_job import (
    EVEN,
    make_job,
    write_iteration,
    write_particles,
)


@pytest.mark.parametrize("old", [False, True])
def test_versions_of_relion_give_the_same(tmp_path, summarise, old):
    moved = (0.002, 3.0, 0.5 if old else 2.0)  # pixels of 4 Å in 3.0
    accuracy = (4.0, 0.6 if old else 2.4)
    job = make_job(tmp_path / "job001", old=old, changes=moved, aligned=True, accuracy=accuracy)
    found = summarise(job, output=tmp_path / "out")
    assert found.convergence["changes_offsets_A"].tolist() == pytest.approx([2.0] * 6)
    assert found.convergence["accuracy_translations_A"].tolist() == pytest.approx([2.4] * 6)
    assert found.classes["accuracy_translations_A"].tolist() == pytest.approx([2.4] * 18)
    assert found.classes["fourier_completeness"].isna().all() == old
    assert found.verdicts["job001"].words == "converged"  # 3° and 2 Å are below the accuracies
    assert found.tables.facts[0]["aligned"]


def test_a_continued_run_takes_the_place_of_the_first(tmp_path, summarise):
    job = tmp_path / "job001"
    for number in range(1, 11):
        write_iteration(job, number, [0.5, 0.5], changes=(0.3, 0, 0))
    for number in range(6, 13):
        write_iteration(job, number, [0.4, 0.6], changes=(0.0, 0, 0), prefix="run_ct05")
    write_particles(job, 12, np.repeat([1, 2], [40, 60]), prefix="run_ct05")
    found = summarise(job, output=tmp_path / "out")
    runs = found.convergence.set_index("iteration")["run"]
    assert runs.tolist() == [
        *(f"run_it{number:03d}" for number in range(1, 6)),
        *(f"run_ct05_it{number:03d}" for number in range(6, 13)),
    ]
    last = found.classes[found.classes["iteration"] == 12]
    assert last["distribution"].tolist() == [0.4, 0.6]
    assert found.verdicts["job001"].words.startswith("converged")
    assert found.tables.facts[0]["notes"] == []


def test_iterations_left_of_an_earlier_run_are_noted(tmp_path, summarise):
    job = make_job(tmp_path / "job001", n_iterations=8)
    for number in (5, 6):
        write_iteration(job, number, EVEN, prefix="run_ct04")
    notes = summarise(job, output=tmp_path / "out").tables.facts[0]["notes"]
    assert len(notes) == 1
    assert "of an earlier run" in notes[0]


def test_missing_files_are_skipped_and_said(tmp_path, summarise):
    job = make_job(tmp_path / "job001", n_iterations=9)
    for name in (
        "run_it003_model",
        "run_it004_model",
        "run_it004_optimiser",
        "run_it006_optimiser",
    ):
        (job / f"{name}.star").unlink()
    (job / "run_it010_sampling.star").touch()
    (job / "run_it009_data.star").unlink()
    found = summarise(job, output=tmp_path / "out")
    assert found.convergence["iteration"].tolist() == [1, 2, 5, 6, 7, 8, 9]
    changes = found.convergence.set_index("iteration")["changes_classes"]
    assert changes.isna().tolist() == [number == 6 for number in changes.index]
    said = found.describe()
    assert "skipped iterations 3–4, 10: no _model.star" in said
    assert "iteration 6 without _optimiser.star" in said
    assert "not judged: iteration 9 has no _data.star" in said
    assert found.classes["particles"].isna().all()
    assert "skipped iterations 3–4, 10" in (found.folder / "report.html").read_text()


def test_jobs_of_one_name_are_told_apart(tmp_path, summarise):
    jobs = [make_job(tmp_path / project / "job001") for project in ("a", "b")]
    found = summarise(*jobs, output=tmp_path / "out")
    assert list(found.verdicts) == ["a_job001", "b_job001"]
    assert set(found.classes["job"]) == {"a_job001", "b_job001"}


def test_nothing_is_done_twice_and_new_iterations_are_read(tmp_path, summarise, capsys):
    job = make_job(tmp_path / "job001")
    first = summarise(job, output=tmp_path / "out")
    before = (tmp_path / "out/classes.csv").stat().st_mtime_ns
    again = summarise(job, output=tmp_path / "out")
    assert (tmp_path / "out/classes.csv").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(first.classes, again.classes)
    write_iteration(job, 7, EVEN)
    grown = summarise(job, output=tmp_path / "out")  # a running job may be looked at again
    assert grown.convergence["iteration"].max() == 7
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert list(run["stages"]) == ["tables", "report"]
    capsys.readouterr()
