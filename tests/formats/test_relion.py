"""RELION jobs: the last iteration by number, its class maps and what each stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.relion import JobFolder, is_job_folder
from emhet_dask.formats.star import read_particles, write_star


def job(folder: Path, *prefixes: str, shares=(0.25, 0.75), n_particles: int = 8) -> Path:
    """Write a job folder: for each prefix class maps, model and data files."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in prefixes:
        names = [f"{prefix}_class{number:03d}.mrc" for number in range(1, len(shares) + 1)]
        for name in names:
            write_map(folder / name, np.ones((4, 4, 4)), voxel_size_angstrom=2.0)
        classes = pd.DataFrame(
            {"rlnReferenceImage": [f"Class3D/x/{name}" for name in names],
             "rlnClassDistribution": shares}
        )  # fmt: skip
        particles = pd.DataFrame({"rlnImageName": [f"{i}@a.mrcs" for i in range(n_particles)]})
        write_star(folder / f"{prefix}_model.star", {"model_classes": classes}, version=30001)
        write_star(folder / f"{prefix}_data.star", {"particles": particles}, version=30001)
    return folder


def test_the_last_iteration_is_the_highest_number_not_the_last_name(tmp_path):
    opened = JobFolder.open(job(tmp_path, "run_it025", "run_ct12_it020", "run_it100"))
    assert opened.iterations == [20, 25, 100]
    assert opened.last_iteration == 100
    assert opened.class_maps() == {
        1: tmp_path / "run_it100_class001.mrc",
        2: tmp_path / "run_it100_class002.mrc",
    }


def test_a_continued_run_supersedes_the_iterations_it_repeats(tmp_path):
    folder = job(tmp_path, "run_it011", "run_it013", "run_ct12_it013", "run_ct9_it013")
    opened = JobFolder.open(folder)
    assert opened.prefixes == {11: "run_it011", 13: "run_ct12_it013"}
    assert opened.class_maps()[1].name == "run_ct12_it013_class001.mrc"
    assert opened.star_path("model", iteration=11).name == "run_it011_model.star"


def test_half_maps_masks_and_bodies_are_no_class_maps(tmp_path):
    folder = job(tmp_path, "run_it010")
    for name in ("run_it010_half1_class001.mrc", "run_it010_class001_mask.mrc", "mask.mrc",
                 "run_it011_body001.mrc", "run_class001.mrc"):  # fmt: skip
        (folder / name).touch()
    assert [path.name for path in JobFolder.open(folder).class_maps().values()] == [
        "run_it010_class001.mrc",
        "run_it010_class002.mrc",
    ]


def test_weights_are_shares_times_particles(tmp_path):
    opened = JobFolder.open(job(tmp_path, "run_it010"))
    assert opened.class_weights() == {1: 2.0, 2: 6.0}
    (tmp_path / "run_it010_data.star").unlink()
    assert opened.class_weights() == {1: 0.25, 2: 0.75}
    (tmp_path / "run_it010_model.star").unlink()
    assert opened.class_weights() is None
    assert list(opened.class_maps()) == [1, 2]


def test_missing_maps_are_named(tmp_path):
    folder = job(tmp_path, "run_it010")
    (folder / "run_it010_class001.mrc").unlink()
    with pytest.raises(InputError, match="maps of classes 1 of iteration 10 are missing"):
        JobFolder.open(folder).class_maps()


def test_a_job_that_has_not_finished_an_iteration_is_refused(tmp_path):
    opened = JobFolder.open(job(tmp_path, "run_it000"))
    with pytest.raises(InputError, match="no class maps of a finished iteration"):
        opened.class_maps()
    with pytest.raises(InputError, match="has no iteration 3; it has 0 to 0"):
        opened.star("model", iteration=3)
    with pytest.raises(InputError, match="no class maps of iteration 5"):
        opened.class_maps(iteration=5)


def test_a_folder_that_is_no_job_is_refused(tmp_path):
    assert not is_job_folder(tmp_path)
    with pytest.raises(InputError, match="not a RELION classification job"):
        JobFolder.open(tmp_path)
    with pytest.raises(InputError, match="cannot be listed"):
        JobFolder.open(tmp_path / "absent")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"rlnReferenceImage": ["run_it010_class001.mrc"]}, "no column _rlnClassDistribution"),
        ({"rlnReferenceImage": ["ref.mrc"], "rlnClassDistribution": [1.0]}, "that end in class001"),
        (
            {"rlnReferenceImage": ["run_it010_class001.mrc"], "rlnClassDistribution": ["x"]},
            "at least 0",
        ),
        (
            {"rlnReferenceImage": ["run_it010_class001.mrc"], "rlnClassDistribution": [-0.1]},
            "at least 0",
        ),
    ],
)
def test_a_faulty_class_table_is_refused(tmp_path, classes, message):
    folder = job(tmp_path, "run_it010")
    write_star(folder / "run_it010_model.star", {"model_classes": pd.DataFrame(classes)})
    with pytest.raises(InputError, match=message) as caught:
        JobFolder.open(folder).class_weights()
    assert "run_it010_model.star" in str(caught.value)


@pytest.mark.shared_data
def test_a_real_job(shared_data):
    opened = JobFolder.open(shared_data / "relion_project/Class3D/job085")
    assert opened.iterations == list(range(26))
    assert opened.last_iteration == 25
    assert list(opened.class_maps()) == [1, 2, 3, 4]
    distribution = opened.class_distribution()
    assert distribution.sum() == pytest.approx(1, abs=1e-5)
    weights = opened.class_weights()
    table = read_particles(opened.star_path("data"))
    counted = table.particles["rlnClassNumber"].value_counts()
    # Posterior shares and counts of best classes agree where RELION is sure of nearly all.
    for number, weight in weights.items():
        assert weight == pytest.approx(counted[number], abs=20)
