"""A job folder of ``emhet class3d run`` in the hands of RELION itself, where it is installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import starfile

import emhet_dask
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.mrc_write import write_map
from emhet_dask.formats.particle_images import open_images, read_images
from emhet_dask.formats.star import read_particles, write_star
from tests.fake_particles import fake_particles, write_particles
from tests.relion import needs_relion, relion

pytestmark = pytest.mark.slow

JOB = "Class3D/job001"


@pytest.fixture(scope="module")
def project(tmp_path_factory, client):
    """Return a RELION project with a finished job, its last iteration, and the run.

    Particles of two optics groups, one with stronger noise, come from micrographs in no order.
    """
    folder = tmp_path_factory.mktemp("project")
    fake = fake_particles(600, snr=0.3, seed=11, shifted=True)
    rng = np.random.default_rng(5)
    noisy = np.arange(600) % 3 == 0
    added = rng.normal(scale=0.7 * fake.images.std(), size=fake.images.shape)
    images = fake.images + noisy[:, None, None] * added
    star = write_particles(folder, replace(fake, images=images.astype(np.float32)))
    blocks = starfile.read(star)
    optics = pd.concat([blocks["optics"]] * 2, ignore_index=True)
    optics["rlnOpticsGroup"], optics["rlnOpticsGroupName"] = [1, 2], ["quiet", "noisy"]
    particles = blocks["particles"].assign(
        rlnOpticsGroup=1 + noisy,
        rlnMicrographName=[f"m{number}.mrc" for number in rng.permutation(600) % 7],
    )
    write_star(star, {"optics": optics, "particles": particles}, version=30001)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = emhet_dask.class3d_run(
            "particles.star",
            output=JOB,
            k=3,
            components=3,
            restarts=1,
            cluster=client,
            quiet=True,
        )
    last = max((folder / JOB).glob("run_it*_optimiser.star")).name[:9]
    return folder, last, run


def blocks_of(folder, stem, name):
    return starfile.read(folder / JOB / f"{stem}_{name}.star", always_dict=True)


@needs_relion("refine")
def test_relion_goes_on_from_our_last_iteration(project):
    folder, last, run = project
    following = f"it{int(last[-3:]) + 1:03d}"
    relion(
        "refine", "--continue", f"{JOB}/{last}_optimiser.star", "--o", f"{JOB}/relion",
        "--iter", int(last[-3:]) + 1, "--skip_align", folder=folder,
    )  # fmt: skip
    ours, theirs = (blocks_of(folder, stem, "model") for stem in (last, f"relion_{following}"))
    particles = blocks_of(folder, f"relion_{following}", "data")["particles"]
    order = particles["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    assert (run.labels[order] == particles["rlnClassNumber"]).mean() > 0.99
    np.testing.assert_allclose(
        theirs["model_classes"]["rlnClassDistribution"],
        ours["model_classes"]["rlnClassDistribution"],
        atol=0.01,
    )
    assert theirs["model_groups"]["rlnGroupName"].tolist() == (
        ours["model_groups"]["rlnGroupName"].tolist()
    )
    # RELION measures noise of images that are masked, shells 0 and the last of a few pixels.
    inner = slice(1, -1)
    for group in (1, 2):
        noise = [each[f"model_group_{group}"]["rlnSigma2Noise"][inner] for each in (ours, theirs)]
        np.testing.assert_allclose(*noise, rtol=0.15)
    for k in (1, 2):
        spectra = [each[f"model_class_{k}"][inner] for each in (ours, theirs)]
        np.testing.assert_allclose(
            *(each["rlnReferenceSigma2"] for each in spectra), rtol=0.2, err_msg=f"class {k}"
        )
        np.testing.assert_allclose(
            *(each["rlnReferenceTau2"] for each in spectra), rtol=0.2, err_msg=f"class {k}"
        )
        maps = [
            read_volume(read_header(folder / JOB / f"{stem}_class{k:03d}.mrc"))
            for stem in (last, f"relion_{following}")
        ]
        assert np.corrcoef(*(each.ravel() for each in maps))[0, 1] > 0.97
        assert np.vdot(*maps) / np.vdot(maps[0], maps[0]) == pytest.approx(1, abs=0.1)


@needs_relion("particle_subtract")
def test_relion_subtracts_our_classes(project):
    folder, last, _ = project
    header = read_header(folder / JOB / "consensus.mrc")
    inside = np.zeros(header.shape, dtype=np.float32)
    inside[: header.shape[0] // 2] = 1
    write_map(folder / "mask.mrc", inside, voxel_size_angstrom=header.voxel_size_angstrom)
    relion(
        "particle_subtract", "--i", f"{JOB}/{last}_optimiser.star", "--mask", "mask.mrc",
        "--o", "Subtract", folder=folder,
    )  # fmt: skip
    written = starfile.read(folder / "Subtract/particles_subtracted.star", always_dict=True)
    particles = written["particles"]
    assert len(particles) == 600
    # What is left of an image is less by what was outside of the mask: half of the map.
    half = open_images(read_particles(folder / "Subtract/particles_subtracted.star"), root=folder)
    whole = open_images(read_particles(folder / "particles.star"), root=folder)
    left, all_of_it = (np.square(read_images(each)).sum() for each in (half, whole))
    assert left < 0.98 * all_of_it


@needs_relion("star_printtable")
def test_relion_prints_our_classes(project):
    folder, last, run = project
    told = relion(
        "star_printtable", f"{JOB}/{last}_model.star", "data_model_classes",
        "_rlnReferenceImage", "_rlnClassDistribution", folder=folder,
    )  # fmt: skip
    rows = [line.split() for line in told.strip().splitlines()]
    assert [name for name, _ in rows] == [f"{JOB}/{last}_class00{k}.mrc" for k in (1, 2, 3)]
    np.testing.assert_allclose(
        [float(share) for _, share in rows[:2]], run.posteriors.mean(axis=0), atol=1e-5
    )
    assert float(rows[2][1]) == 0


@needs_relion("reconstruct")
def test_relion_reconstructs_our_class(project):
    folder, last, _ = project
    relion(
        "reconstruct", "--i", f"{JOB}/{last}_data.star", "--class", 1, "--ctf", "--maxres", 16,
        "--o", "class1.mrc", folder=folder,
    )  # fmt: skip
    theirs = read_volume(read_header(folder / "class1.mrc")).ravel()
    likeness = [
        np.corrcoef(
            theirs, read_volume(read_header(folder / JOB / f"{last}_class00{k}.mrc")).ravel()
        )
        for k in (1, 2)
    ]
    assert likeness[0][0, 1] > likeness[1][0, 1]
    assert likeness[0][0, 1] > 0.9
