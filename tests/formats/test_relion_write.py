"""Iterations as RELION writes them, read back by what reads RELION's."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import starfile

from emhet_dask.formats.relion_model import read_model, read_state, read_symmetry
from emhet_dask.formats.relion_write import (
    ClassSpectra,
    IterationFacts,
    class_resolutions,
    write_iteration,
)
from emhet_dask.formats.star import ParticleTable, read_particles

BOX, PIXEL = 16, 4.0
SHELLS = BOX // 2 + 1

FACTS = IterationFacts(
    number=7,
    box=BOX,
    pixel_size_angstrom=PIXEL,
    radius=6,
    shares=np.array([0.75, 0.25, 0.0]),
    log_likelihood=np.array([1.5, 2.5, 3.0, -1.0]),
    labels=np.array([1, 1, 2, 1]),
    pmax=np.array([1.0, 0.9, 0.8, 0.7]),
    significant=np.array([1, 2, 2, 2]),
    changed=0.25,
    tau2_fudge=4.0,
    particle_diameter_angstrom=50.0,
    n_planned=25,
    seed=3,
    zero_mask=False,
    sigma_offset_angstrom=2.5,
    groups=("optics_1",),
    group=np.ones(4, dtype=int),
    scale=np.ones(1),
    symmetry="D2",
    ctf_corrected=True,
    intact_first_peak=False,
    scale_corrected=False,
)


@pytest.fixture
def table():
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{row}@stack.mrcs" for row in range(1, 5)],
            "rlnOpticsGroup": [1, 1, 1, 1],
            "rlnAngleRot": [0.1, 0.2, 0.3, 0.4],
        }
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [PIXEL]})
    return ParticleTable("in.star", 30001, particles, optics)


@pytest.fixture
def spectra():
    tau2 = np.tile(4.0 ** -np.arange(SHELLS), (3, 1))
    tau2[2] = 0
    sigma2 = np.tile(np.array([[4.0**-4.5], [4.0**-2.5], [0.0]]), (1, SHELLS))
    return ClassSpectra(tau2, sigma2, np.ones((1, SHELLS)))


def test_what_is_written_is_read(tmp_path, table, spectra):
    write_iteration(tmp_path, "Class3D/job009", table, FACTS, spectra)
    model = read_model(tmp_path / "run_it007_model.star")
    assert model.classes["class"].tolist() == [1, 2, 3]
    assert model.classes["distribution"].tolist() == [0.75, 0.25, 0.0]
    # Signal is above noise up to shells 4 and 2.
    np.testing.assert_allclose(
        model.classes["resolution_A"], [BOX * PIXEL / 4, BOX * PIXEL / 2, np.nan], rtol=1e-6
    )
    assert model.resolution_angstrom == pytest.approx(BOX * PIXEL / 4)
    assert model.log_likelihood == pytest.approx(6.0)
    assert model.average_pmax == pytest.approx(0.85)
    first = model.shells[model.shells["class"] == 1]
    np.testing.assert_allclose(first["ssnr"], spectra.ssnr[0], rtol=1e-6)
    state = read_state(tmp_path / "run_it007_optimiser.star")
    assert state.changes_classes == 0.25
    assert not state.aligned
    assert state.n_planned == 25
    assert state.particle_diameter_angstrom == 50.0
    assert read_symmetry(tmp_path / "run_it007_sampling.star") == "D2"
    particles = read_particles(tmp_path / "run_it007_data.star")
    assert particles.particles["rlnClassNumber"].tolist() == [1, 1, 2, 1]
    assert particles.particles["rlnMaxValueProbDistribution"].tolist() == [1.0, 0.9, 0.8, 0.7]
    assert particles.particles["rlnAngleRot"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert particles.optics is not None


def test_the_same_gives_the_same_bytes(tmp_path, table, spectra):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_iteration(tmp_path / name, "job", table, FACTS, spectra)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_columns_of_an_earlier_classification_are_replaced(tmp_path, table, spectra):
    earlier = table.particles.assign(rlnClassNumber=9, rlnGroupNumber=[1, 2, 2, 1])
    write_iteration(tmp_path, "job", dataclasses.replace(table, particles=earlier), FACTS, spectra)
    particles = read_particles(tmp_path / "run_it007_data.star").particles
    assert particles["rlnClassNumber"].tolist() == [1, 1, 2, 1]
    # Which are numbers of the model's groups.
    assert particles["rlnGroupNumber"].tolist() == [1, 1, 1, 1]


def test_resolution_of_all_signal_and_of_none(spectra):
    everything = ClassSpectra(np.ones((1, SHELLS)), np.full((1, SHELLS), 0.1), spectra.noise)
    nothing = ClassSpectra(np.zeros((1, SHELLS)), np.ones((1, SHELLS)), spectra.noise)
    assert class_resolutions(everything, BOX, PIXEL).tolist() == [2 * PIXEL]
    assert class_resolutions(nothing, BOX, PIXEL).tolist() == [999.0]


def test_groups_are_numbered_as_relion_meets_them(tmp_path, table, spectra):
    particles = table.particles.assign(rlnMicrographName=["m3", "m1", "m2", "m1"])
    facts = dataclasses.replace(
        FACTS,
        groups=("first", "second", "nobody"),
        group=np.array([1, 2, 1, 2]),
        scale=np.array([0.9, 1.1, 1.0]),
    )
    noise = np.outer([1.0, 4.0, 9.0], np.ones(SHELLS))
    write_iteration(
        tmp_path,
        "job",
        dataclasses.replace(table, particles=particles),
        facts,
        dataclasses.replace(spectra, noise=noise),
    )
    written = read_particles(tmp_path / "run_it007_data.star").particles
    assert written["rlnGroupName"].tolist() == ["first", "second", "first", "second"]
    assert written["rlnGroupNumber"].tolist() == [2, 1, 2, 1]
    model = starfile.read(tmp_path / "run_it007_model.star")
    assert model["model_groups"]["rlnGroupName"].tolist() == ["second", "first", "nobody"]
    assert model["model_groups"]["rlnGroupScaleCorrection"].tolist() == [1.1, 0.9, 1.0]
    assert [model[f"model_group_{k}"]["rlnSigma2Noise"][0] for k in (1, 2, 3)] == [4.0, 1.0, 9.0]


@pytest.mark.shared_data
def test_labels_and_kinds_are_those_of_relion(shared_data, tmp_path, table, spectra):
    write_iteration(tmp_path, "Class3D/job009", table, FACTS, spectra)
    job = shared_data / "relion_project/Class3D/job085"
    for name in ("optimiser", "sampling", "model"):
        ours, theirs = (
            starfile.read(folder / f"{stem}_{name}.star", always_dict=True)
            for folder, stem in ((tmp_path, "run_it007"), (job, "run_it025"))
        )
        for block in ours:
            if not re.fullmatch(r"\w+_general|model_(classes|class_1|groups|group_1)", block):
                continue
            assert set(ours[block]) <= set(theirs[block]), block
            for label in ours[block] if block.endswith("_general") else ():
                if isinstance(theirs[block][label], int):
                    assert isinstance(ours[block][label], int), label
    model = starfile.read(tmp_path / "run_it007_model.star")
    for k, share in enumerate(FACTS.shares, start=1):
        directions = model[f"model_pdf_orient_class_{k}"]["rlnOrientationDistribution"]
        assert directions.sum() == pytest.approx(share, rel=1e-5)
