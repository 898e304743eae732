"""What is said of a job, after planted faults."""

import json

import numpy as np

from emhet_dask.cli import main
from emhet_dask.workflows.stages import class_summary_page
from tests.workflows.class3d_summary.fake_job import make_job, write_iteration, write_particles


def test_collapsed_and_preferred_orientations(tmp_path, summarise):
    shares = [0.01, 0.49, 0.5]
    job = make_job(tmp_path / "job001", distribution=shares)
    labels = np.repeat([1, 2, 3], [20, 980, 1000])
    write_particles(job, 6, labels, polar=3)
    found = summarise(job, output=tmp_path / "out")
    assert found.verdicts["job001"].words == (
        "converged; class 1 collapsed; orientation coverage poor in class 3"
    )
    again = summarise(job, output=tmp_path / "out", collapsed_share=0.005)
    assert "collapsed" not in again.verdicts["job001"].words


def test_too_few_iterations(tmp_path, summarise):
    short, bare = (make_job(tmp_path / name, n_iterations=2) for name in ("short", "bare"))
    (bare / "run_it002_data.star").unlink()  # a job with views beside one without
    found = summarise(short, bare, output=tmp_path / "out")
    assert found.verdicts["short"].words.startswith("too few iterations to tell")
    assert "Fewer than 3 iterations say" in found.describe()
    assert set(found.tables.views["job"]) == {"short"}
    assert json.loads((tmp_path / "out/verdicts.json").read_text())[0]["classes"]["earlier"] is None


def test_without_any_optimiser_convergence_is_not_known(tmp_path, summarise):
    job = make_job(tmp_path / "job001", changes=None)
    found = summarise(job, output=tmp_path / "out")
    assert found.verdicts["job001"].words.startswith("too few iterations to tell")
    assert "No optimiser file says" in found.describe()


def test_still_moving_and_not_settling(tmp_path, summarise):
    for name, changes in (
        ("falling", [1.0, 0.8, 0.6, 0.4, 0.3, 0.2]),
        ("level", [1.0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
    ):
        for number, change in enumerate(changes, start=1):
            write_iteration(tmp_path / name, number, [0.5, 0.5], changes=(change, 0, 0))
    found = summarise(tmp_path / "falling", tmp_path / "level", output=tmp_path / "out")
    assert found.verdicts["falling"].words == "still moving"
    assert found.verdicts["level"].words == "not settling"


def test_subtomograms_and_high_symmetry_are_not_judged_by_their_views(tmp_path, summarise):
    tomo, round_one = (make_job(tmp_path / name) for name in ("tomo", "round"))
    data = tomo / "run_it006_data.star"
    data.write_text(
        data.read_text()
        .replace("_rlnImagePixelSize", "_rlnImageDimensionality")
        .replace("\n1 4.0\n", "\n1 3\n")
    )
    sampling = round_one / "run_it006_sampling.star"
    sampling.write_text(sampling.read_text().replace("c1", "O"))
    found = summarise(tomo, round_one, output=tmp_path / "out")
    assert [facts["coverage_unknown"] for facts in found.tables.facts] == [
        "subtomograms are no projections",
        "the symmetry O spreads any view over the sphere",
    ]


def test_command_prints_the_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(class_summary_page, "save_all", lambda *args, **kwargs: None)
    job = make_job(tmp_path / "job001")
    main_arguments = ["class3d", "summary", str(job), "-o", str(tmp_path / "out"), "-q"]
    main(main_arguments)
    said = capsys.readouterr().out
    assert said.startswith("job001: converged\n")
    assert f"Report: {tmp_path / 'out/report.html'}" in said
