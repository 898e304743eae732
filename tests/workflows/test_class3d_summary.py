"""``emhet class3d summary`` on real jobs, and on jobs with planted faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.analysis.phantom import Grid, packed_bodies
from emhet_dask.cli import main
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.mrc_write import write_map
from emhet_dask.workflows.stages import class_summary_page

BOX, VOXEL_SIZE = 32, 4.0
QUIET_CHANGES = (0.002, 2.67e-7, 0.0)
EVEN = [0.25, 0.3, 0.45]
LABELS = np.repeat([1, 2, 3], [250, 300, 450])


# Jobs as RELION writes them, with chosen numbers --------------------------------------------------


def write_iteration(
    folder: Path,
    iteration: int,
    distribution: list[float],
    *,
    prefix: str = "run",
    old: bool = False,
    changes: tuple[float, float, float] | None = (0.0, 2.67e-7, 0.0),
    aligned: bool = False,
    planned: int = 25,
    resolution: float = 16.0,
    accuracy: tuple[float, float] = (0.0, 0.0),
    likelihood: float = 1e6,
) -> None:
    """Write model, optimiser (unless `changes` is None) and sampling of one iteration.

    `old` writes as RELION 3.0 does: no version lines, translations in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}_it{iteration:03d}"
    version = "" if old else "\n# version 30001\n"
    angst = "" if old else "Angst"
    rows = "\n".join(
        f"Class3D/job001/{stem}_class{k:03d}.mrc {share:.6f} {accuracy[0]:.6f} "
        f"{accuracy[1]:.6f} {resolution:.6f}" + ("" if old else " 0.990000")
        for k, share in enumerate(distribution, start=1)
    )
    shells = "\n".join(
        f"{shell} {shell / (BOX * VOXEL_SIZE):.6f} "
        f"{999 if shell == 0 else BOX * VOXEL_SIZE / shell:.6f} {1000 * 0.3**shell:.6f}"
        for shell in range(BOX // 2 + 1)
    )
    tables = "".join(
        f"{version}\ndata_model_class_{k}\n\nloop_\n_rlnSpectralIndex #1\n_rlnResolution #2\n"
        f"_rlnAngstromResolution #3\n_rlnSsnrMap #4\n{shells}\n\n"
        for k in range(1, len(distribution) + 1)
    )
    completeness = "" if old else "_rlnOverallFourierCompleteness #6\n"
    (folder / f"{stem}_model.star").write_text(
        f"{version}\ndata_model_general\n\n_rlnReferenceDimensionality 3\n"
        f"_rlnCurrentResolution {resolution:.6f}\n_rlnPixelSize {VOXEL_SIZE:.6f}\n"
        f"_rlnNrClasses {len(distribution)}\n_rlnSigmaOffsets{angst} 3.000000\n"
        f"_rlnLogLikelihood {likelihood:.6e}\n_rlnAveragePmax 0.800000\n\n"
        f"{version}\ndata_model_classes\n\nloop_\n_rlnReferenceImage #1\n"
        "_rlnClassDistribution #2\n_rlnAccuracyRotations #3\n"
        f"_rlnAccuracyTranslations{angst} #4\n_rlnEstimatedResolution #5\n{completeness}"
        f"{rows}\n\n{tables}"
    )
    (folder / f"{stem}_sampling.star").write_text(
        f"{version}\ndata_sampling_general\n\n_rlnIs3DSampling 1\n_rlnSymmetryGroup c1\n"
    )
    if changes is not None:
        (folder / f"{stem}_optimiser.star").write_text(
            f"{version}\ndata_optimiser_general\n\n_rlnCurrentIteration {iteration}\n"
            f"_rlnNumberOfIterations {planned}\n_rlnParticleDiameter 80.000000\n"
            f"_rlnDoSkipAlign {int(not aligned)}\n_rlnDoSkipRotate 0\n"
            f"_rlnOverallAccuracyRotations {accuracy[0] or 999:.6f}\n"
            f"_rlnOverallAccuracyTranslations{angst} {accuracy[1] or 999:.6f}\n"
            f"_rlnChangesOptimalClasses {changes[0]:.6f}\n"
            f"_rlnChangesOptimalOrientations {changes[1]:.6e}\n"
            f"_rlnChangesOptimalOffsets {changes[2]:.6f}\n"
        )


def write_particles(
    folder: Path,
    iteration: int,
    labels: np.ndarray,
    *,
    prefix: str = "run",
    old: bool = False,
    polar: int | None = None,
) -> None:
    """Write the particles of an iteration, seen from random sides, class `polar` from above."""
    rng = np.random.default_rng(1)
    rot = rng.uniform(-180, 180, len(labels))
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, len(labels))))
    if polar is not None:
        tilt[labels == polar] = 1.0
    rows = "\n".join(
        f"{k:06d}@Extract/p.mrcs {rot[k]:.4f} {tilt[k]:.4f} 0.0 {labels[k]} 0.9"
        + ("" if old else " 1")
        for k in range(len(labels))
    )
    columns = ["ImageName", "AngleRot", "AngleTilt", "AnglePsi", "ClassNumber"]
    columns += ["MaxValueProbDistribution"] + ([] if old else ["OpticsGroup"])
    header = "\n".join(f"_rln{name} #{k}" for k, name in enumerate(columns, start=1))
    optics = (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n"
        f"_rlnImagePixelSize #2\n1 {VOXEL_SIZE}\n\n\n# version 30001\n"
    )
    optics = "" if old else optics
    block = "data_" if old else "data_particles"
    (folder / f"{prefix}_it{iteration:03d}_data.star").write_text(
        f"{optics}\n{block}\n\nloop_\n{header}\n{rows}\n"
    )


def write_maps(folder: Path, iteration: int, count: int, *, prefix: str = "run") -> None:
    """Write class maps of a complex of eight bodies, of which each class lacks another one."""
    grid = Grid(BOX, VOXEL_SIZE, 16.0)
    bodies = packed_bodies(
        np.random.default_rng(0),
        n_bodies=8,
        radius_angstrom=grid.radius_angstrom,
        gap_angstrom=16.0,
    )
    for k in range(count):
        density = grid.render(np.concatenate(bodies[: -k or None]))
        noise = grid.noise(np.random.default_rng([1, k]))
        write_map(
            folder / f"{prefix}_it{iteration:03d}_class{k + 1:03d}.mrc",
            density + np.float32(0.2 * density.std()) * noise,
            voxel_size_angstrom=VOXEL_SIZE,
        )


@pytest.fixture
def summarise(client, monkeypatch):
    """Return the command without its figures, which take longer than all the rest."""
    monkeypatch.setattr(class_summary_page, "save_all", lambda *args, **kwargs: None)

    def run(*jobs, output, **options):
        return emhet_dask.class3d_summary(
            [str(job) for job in jobs], output=output, quiet=True, cluster=client, **options
        )

    return run


def make_job(folder, *, n_iterations=6, distribution=EVEN, labels=LABELS, **options):
    for number in range(1, n_iterations + 1):
        write_iteration(folder, number, distribution, **{"changes": QUIET_CHANGES, **options})
    write_particles(folder, n_iterations, labels, old=options.get("old", False))
    return folder


# Real jobs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data, client, tmp_path_factory):
    folder = shared_data / "relion_project/Class3D"
    return emhet_dask.class3d_summary(
        [folder / "job085", folder / "job086"],
        output=tmp_path_factory.mktemp("real") / "out",
        quiet=True,
        cluster=client,
    )


def test_tables_of_real_jobs(real):
    classes = pd.read_csv(real.folder / "classes.csv")
    assert len(classes) == 25 * 4 + 25 * 3
    assert list(classes)[:6] == [
        *("job", "iteration", "class", "distribution", "particles", "resolution_A"),
    ]
    last = classes[(classes["job"] == "job085") & (classes["iteration"] == 25)]
    assert last["distribution"].tolist() == [0.020973, 0.224776, 0.243750, 0.510500]
    np.testing.assert_allclose(last["particles"], 4000 * last["distribution"])
    assert last["resolution_A"].tolist() == [17.454545, 10.666667, 10.666667, 11.294118]
    assert last["assigned"].tolist() == [84, 899, 975, 2042]
    assert classes[classes["iteration"] < 25]["assigned"].isna().all()
    convergence = pd.read_csv(real.folder / "convergence.csv")
    assert convergence.groupby("job").size().to_dict() == {"job085": 25, "job086": 25}
    of_one = convergence[convergence["job"] == "job085"].set_index("iteration")
    changes = of_one["changes_classes"]
    assert changes[[1, 2, 5, 20, 23, 24, 25]].tolist() == [
        *(1.0, 0.317250, 0.163250, 0.00025, 0.0, 0.0, 0.00075),
    ]
    assert of_one.loc[12, ["log_likelihood", "average_pmax", "resolution_A"]].tolist() == [
        *(26621020.0, 0.999837, 12.8),
    ]
    assert of_one.loc[25, "run"] == "run_it025"
    assert of_one["changes_offsets_A"].eq(0).all()


def test_spectra_of_real_jobs(real):
    ssnr = pd.read_csv(real.folder / "ssnr.csv")
    assert len(ssnr) == 33 * (25 * 4 + 25 * 3)
    row = ssnr[(ssnr["job"] == "job085") & (ssnr["iteration"] == 25) & (ssnr["class"] == 2)]
    assert row.set_index("shell").loc[18, ["resolution_A", "ssnr"]].tolist() == [
        *(10.666667, 1.620833),
    ]


def test_verdicts_on_real_jobs(real):
    assert real.verdicts["job085"].words == "converged; class 1 collapsed"
    assert real.verdicts["job086"].words == "converged"
    facts = {
        facts["job"]: facts for facts in json.loads((real.folder / "verdicts.json").read_text())
    }
    found = facts["job085"]
    assert found["classes"]["recent"] == pytest.approx(0.00025)  # 0, 0 and 3 of 4,000
    assert found["collapsed_share"] == 0.025
    assert not found["aligned"]
    assert found["n_particles"] == 4000
    assert found["notes"] == []
    # Poses were drawn evenly; what class 1 has of them is few, and from few sides.
    assert all(found["coverage"][number]["sampling_factor"] > 0.95 for number in "234")
    assert found["coverage"]["1"]["poor"]
    said = real.describe()
    assert "of the angles that the job was given" in said
    assert "Class 1 holds 2.1% of the particles, less than 2.5%" in said


def test_page_of_real_jobs(real):
    page = (real.folder / "report.html").read_text()
    assert "2 classifications: 1 converged without objection" in page
    assert page.count("data:image/png;base64,") == 8
    assert {path.name for path in (real.folder / "figures").iterdir()} == {
        f"{job}_{name}.png"
        for job in ("job085", "job086")
        for name in ("convergence", "maps", "ssnr", "views")
    }
    run = json.loads((real.folder / "run.json").read_text())
    assert list(run["stages"]) == ["tables", "report"]


# Planted faults -----------------------------------------------------------------------------------


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


def test_without_any_optimiser_convergence_is_not_known(tmp_path, summarise):
    job = make_job(tmp_path / "job001", changes=None)
    found = summarise(job, output=tmp_path / "out")
    assert found.verdicts["job001"].words.startswith("too few iterations to tell")
    assert "No optimiser file says" in found.describe()


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


def test_jobs_of_one_name_are_told_apart(tmp_path, summarise):
    jobs = [make_job(tmp_path / project / "job001") for project in ("a", "b")]
    found = summarise(*jobs, output=tmp_path / "out")
    assert list(found.verdicts) == ["a_job001", "b_job001"]
    assert set(found.classes["job"]) == {"a_job001", "b_job001"}


# Maps ---------------------------------------------------------------------------------------------


def test_maps_are_fitted_on_request(tmp_path, summarise):
    job = make_job(tmp_path / "job001")
    write_maps(job, 6, 3)
    empty, path = (job / f"run_it006_class{number:03d}.mrc" for number in (1, 2))
    write_map(empty, np.zeros((BOX,) * 3, "f4"), voxel_size_angstrom=4.0)
    # A quarter turn about z and two voxels along x.
    turned = np.roll(np.rot90(read_volume(read_header(path)), axes=(1, 2)), 2, axis=2)
    write_map(path, np.ascontiguousarray(turned), voxel_size_angstrom=4.0)
    aligned = summarise(job, output=tmp_path / "out", align=True).folder / "aligned"
    table = pd.read_csv(aligned / "transforms.csv")
    assert table[["job", "class", "reference"]].to_numpy().tolist() == [
        ["job001", number, 3]
        for number in (1, 2, 3)  # equal resolutions: the largest class
    ]
    assert table["reason"].fillna("").tolist() == ["the map is constant", "", ""]
    second, third = (
        read_volume(read_header(aligned / f"job001_class{number:03d}.mrc")) for number in (2, 3)
    )
    assert np.corrcoef(turned.ravel(), third.ravel())[0, 1] < 0.5
    assert np.corrcoef(second.ravel(), third.ravel())[0, 1] > 0.75  # each lacks a body
    assert read_header(aligned / "job001_class001.mrc").voxel_size_angstrom == pytest.approx(4)


@pytest.mark.slow
def test_class_maps_of_jobs_go_into_an_ensemble_with_their_shares(tmp_path, client):
    jobs = [
        make_job(tmp_path / "job001"),
        make_job(tmp_path / "job002", distribution=[0.1, 0.5, 0.4]),
    ]
    for job in jobs:
        write_maps(job, 6, 3)
    store = tmp_path / "classes.zarr"
    options = {"quiet": True, "cluster": client}
    emhet_dask.ingest([str(job) for job in jobs], output=store, **options)
    ensemble = emhet_dask.open_ensemble(store)
    assert ensemble.names.tolist() == [
        f"{job.name}/run_it006_class{number:03d}" for job in jobs for number in (1, 2, 3)
    ]
    # Shares times the 1,000 particles of each job.
    assert ensemble.weights.tolist() == pytest.approx([250, 300, 450, 100, 500, 400])
    found = emhet_dask.similarity(
        store, output=tmp_path / "alike", mask="none", n_clusters=3, **options
    )
    # Classes of one number have the same bodies, and the same noise.
    labels = pd.read_csv(tmp_path / "alike/cluster_results.csv")["Cluster_Label"].to_numpy()
    assert (labels[:3] == labels[3:]).all()
    assert len(set(labels)) == 3
    assert found.folder == tmp_path / "alike"
    emhet_dask.landscape(
        store, output=tmp_path / "states", mask="none", n_clusters=3, n_components=3, **options
    )
    states = pd.read_csv(tmp_path / "states/clusters/states.csv")
    assert sorted(states["particles"]) == pytest.approx([350, 800, 850])


# Again, and what is refused -----------------------------------------------------------------------


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


def test_other_jobs_into_the_same_folder_are_refused(tmp_path, summarise):
    jobs = [make_job(tmp_path / name) for name in ("job001", "job002")]
    summarise(jobs[0], output=tmp_path / "out")
    with pytest.raises(InputError, match="holds results of other input"):
        summarise(jobs[1], output=tmp_path / "out")
    summarise(jobs[1], output=tmp_path / "out", overwrite=True)


def make_empty(folder):
    folder.mkdir()


def make_only_input(folder):
    write_iteration(folder, 0, EVEN)


def make_truncated(folder):
    make_job(folder)
    path = folder / "run_it004_model.star"
    path.write_text(path.read_text()[:-20])


def make_windows(folder):
    make_job(folder)
    path = folder / "run_it006_data.star"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def make_two_dimensional(folder):
    make_job(folder)
    path = folder / "run_it001_model.star"
    path.write_text(path.read_text().replace("_class001.mrc", "_classes.mrcs"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_empty, "not a RELION classification job"),
        (make_only_input, "has no finished iteration; expected files such as run_it001_model.star"),
        (make_truncated, "run_it004_model.star: line"),
        (make_windows, "has Windows line ends"),
        (make_two_dimensional, "(of a 3D classification)"),
        (lambda folder: folder.write_text("no folder"), "a file, expected the folder of a job"),
        (lambda folder: None, "no such folder"),
    ],
)
def test_bad_jobs_are_one_line_and_status_2(tmp_path, capsys, make, message):
    job = tmp_path / "job001"
    make(job)
    with pytest.raises(SystemExit) as left:
        main(["class3d", "summary", str(job), "-o", str(tmp_path / "out"), "-q"])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert str(job) in said
    assert not (tmp_path / "out/classes.csv").exists()


def test_a_job_given_twice_is_refused(tmp_path):
    job = make_job(tmp_path / "job001")
    with pytest.raises(InputError, match="given twice"):
        emhet_dask.class3d_summary([str(job), f"{job}/"], output=tmp_path / "out")


def test_command_prints_the_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(class_summary_page, "save_all", lambda *args, **kwargs: None)
    job = make_job(tmp_path / "job001")
    main_arguments = ["class3d", "summary", str(job), "-o", str(tmp_path / "out"), "-q"]
    main(main_arguments)
    said = capsys.readouterr().out
    assert said.startswith("job001: converged\n")
    assert f"Report: {tmp_path / 'out/report.html'}" in said
