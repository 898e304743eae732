"""``emhet class3d run`` from particle images to a RELION job, on images with known states."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import zarr
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.analysis.ctf import contrast_transfer
from emhet_dask.analysis.fourier import crop_box
from emhet_dask.analysis.local_search import angles_between
from emhet_dask.analysis.projection import image_transforms
from emhet_dask.cli import main
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.mrc_write import write_map
from emhet_dask.formats.particle_images import open_images
from emhet_dask.formats.star import read_particles, write_star
from emhet_dask.workflows.stages.class_run_blocks import Particles, block_rows, cut_blocks
from tests.fake_particles import PIXEL, fake_particles, perturbed, write_particles

OPTIONS = {"components": 3, "restarts": 1, "quiet": True}


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("particles")
    fake = fake_particles(600, snr=0.3, seed=11, shifted=True)
    return fake, write_particles(folder, fake)


@pytest.fixture(scope="module")
def finished(particles, client, tmp_path_factory):
    out = tmp_path_factory.mktemp("Class3D") / "job001"
    run = emhet_dask.class3d_run(particles[1], output=out, k=3, cluster=client, **OPTIONS)
    return run, out


def test_states_are_found_and_what_is_too_much_stays_empty(particles, finished):
    run, out = finished
    assert run.n_supported == 2
    assert adjusted_rand_score(particles[0].states, run.labels) > 0.97
    assert "the other 1 of 3 stay empty" in run.describe()
    assert run.settled
    page = (out / "report.html").read_text()
    assert "speak for 2 classes, not 3" in page
    evidence = pd.read_csv(out / "n_classes.csv")
    assert evidence["n_classes"].tolist() == [1, 2, 3, 4]


def test_the_folder_is_a_job_of_relion(finished, client, tmp_path):
    run, out = finished
    last = max(out.glob("run_it*_data.star")).name[:10]
    table = read_particles(out / f"{last}data.star")
    np.testing.assert_array_equal(table.particles["rlnClassNumber"], run.labels)
    assert table.particles["rlnMaxValueProbDistribution"].between(0.5 - 1e-6, 1).all()
    summary = emhet_dask.class3d_summary(
        str(out), output=tmp_path / "summary", cluster=client, quiet=True
    )
    classes = summary.classes[summary.classes["iteration"] == summary.classes["iteration"].max()]
    np.testing.assert_allclose(sorted(classes["distribution"]), [0, 0.4, 0.6], atol=0.03)
    assert classes["assigned"].sum() == 600
    assert np.isfinite(summary.convergence["log_likelihood"]).all()


def test_posteriors_are_of_all_classes_and_maps_of_their_states(particles, finished):
    run, out = finished
    last = max(out.glob("run_it*_posteriors.zarr"))
    stored = np.asarray(zarr.open_group(str(last), mode="r")["posteriors"])
    np.testing.assert_array_equal(stored, run.posteriors)
    np.testing.assert_allclose(stored.sum(axis=1), 1, atol=1e-5)
    stem = last.name.removesuffix("_posteriors.zarr")
    maps = [read_volume(read_header(out / f"{stem}_class{k:03d}.mrc")) for k in (1, 2, 3)]
    assert read_header(out / f"{stem}_class001.mrc").voxel_size_angstrom == pytest.approx(PIXEL)
    consensus = read_volume(read_header(out / "consensus.mrc"))
    np.testing.assert_allclose(maps[2], consensus, atol=1e-4 * np.abs(consensus).max())
    # State 1 lacks a body: the classes differ by something positive in one place.
    difference = maps[0] - maps[1]
    if abs(difference.min()) > difference.max():
        difference = -difference
    assert difference.max() > 2.5 * abs(difference.min())


def test_again_does_nothing_and_more_iterations_go_on(particles, finished, client, capsys):
    run, out = finished
    again = emhet_dask.class3d_run(
        particles[1], output=out, k=3, cluster=client, **{**OPTIONS, "quiet": False}
    )
    said = capsys.readouterr().err
    assert "iteration 1: done before" in said
    assert "report: done before" in said
    np.testing.assert_array_equal(again.posteriors, run.posteriors)


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bits(particles, finished, tmp_path):
    run, _ = finished
    other = emhet_dask.class3d_run(
        particles[1], output=tmp_path / "two", k=3, cluster="local:2", **OPTIONS
    )
    np.testing.assert_array_equal(other.posteriors, run.posteriors)


def test_references_begin_the_classes(particles, finished, client, tmp_path):
    run, out = finished
    last = max(out.glob("run_it*_class001.mrc")).name[:9]
    maps = [str(out / f"{last}_class{k:03d}.mrc") for k in (1, 2)]
    other = emhet_dask.class3d_run(
        particles[1], output=tmp_path / "job", ref=maps, cluster=client, **OPTIONS
    )
    assert other.n_supported is None
    assert adjusted_rand_score(run.labels, other.labels) > 0.97


def test_references_may_be_of_another_box_and_grey_scale(particles, finished, client, tmp_path):
    run, out = finished
    last = max(out.glob("run_it*_class001.mrc")).name[:9]
    maps = []
    for k, factor in ((1, 5.0), (2, 0.3)):
        density = read_volume(read_header(out / f"{last}_class{k:03d}.mrc"))
        maps.append(str(tmp_path / f"{k}.mrc"))
        coarse = crop_box(np.pad(density, 4), 20)
        write_map(maps[-1], factor * coarse, voxel_size_angstrom=PIXEL * 40 / 20)
    other = emhet_dask.class3d_run(
        particles[1],
        output=tmp_path / "job",
        ref=maps,
        firstiter_cc=True,
        cluster=client,
        **OPTIONS,
    )
    assert adjusted_rand_score(run.labels, other.labels) > 0.97


@pytest.mark.parametrize(
    ("options", "corrected"), [({"no_ctf": True}, 0), ({"ctf_intact_first_peak": True}, 1)]
)
def test_what_is_said_of_the_ctf_is_done(particles, client, tmp_path, options, corrected):
    fake, star = particles
    out = tmp_path / "job"
    emhet_dask.class3d_run(
        star, output=out, k=2, iterations=1, cluster=client, **options, **OPTIONS
    )
    optimiser = (out / "run_it001_optimiser.star").read_text()
    assert f"_rlnDoCorrectCtf {corrected}" in " ".join(optimiser.split())
    images = open_images(read_particles(star), with_ctf=bool(corrected))
    owned = Particles(
        path=str(out / "images.zarr"),
        key="",
        images=images,
        centred=images.shifts,
        groups=np.zeros(len(images), dtype=np.int64),
        names=("optics_1",),
        scale=np.ones(1),
        intact_first_peak=bool(corrected),
    )
    block = cut_blocks(owned)[1].load(10)
    rows = slice(block_rows(images)[1].start, block_rows(images)[1].stop)
    extent = fake.box * PIXEL
    expected = contrast_transfer(
        fake.parameters()[rows],
        x=block.grid.x / extent,
        y=block.grid.y / extent,
        intact_first_peak=True,
    )
    np.testing.assert_allclose(block.transfer, expected if corrected else 1.0, rtol=1e-5)
    pixels = image_transforms(fake.images[rows], block.grid, shifts=fake.shifts[rows])
    np.testing.assert_allclose(block.slices, pixels, atol=1e-3 * np.abs(pixels).max())


def test_classes_have_the_symmetry(client, tmp_path):
    star = write_particles(tmp_path / "set", fake_particles(300, snr=1.0, seed=6))
    out = tmp_path / "job"
    emhet_dask.class3d_run(
        star, output=out, k=2, symmetry="c2", iterations=2, cluster=client, **OPTIONS
    )
    for name in ("consensus.mrc", "run_it001_class001.mrc", "run_it001_class002.mrc"):
        density = read_volume(read_header(out / name))[1:, 1:, 1:]
        turned = density[:, ::-1, ::-1]
        assert np.abs(density - turned).max() < 0.02 * np.abs(density).max()
    assert "C2" in (out / "run_it001_sampling.star").read_text()


def test_amplitudes_and_noise_of_micrographs_are_found(client, tmp_path):
    fake = fake_particles(600, snr=1.5, seed=11)
    rng = np.random.default_rng(0)
    micrographs = rng.integers(0, 3, len(fake))
    truth = np.array([0.7, 1.0, 1.4])
    weak = fake.images * truth[micrographs][:, None, None].astype(np.float32)
    # Of one noise, but for the last.
    noise = fake.images[:, :3].std()
    level = np.sqrt(np.maximum(0, np.array([1.4, 1.4, 2.8]) ** 2 - truth**2))[micrographs] * noise
    weak += level[:, None, None] * rng.normal(size=weak.shape)
    star = write_particles(tmp_path / "set", replace(fake, images=weak.astype(np.float32)))
    table = read_particles(star)
    names = [f"m{number}.mrc" for number in micrographs]
    blocks = {
        "optics": table.optics,
        "particles": table.particles.assign(rlnMicrographName=names),
    }
    write_star(star, blocks, version=30001)
    out = tmp_path / "job"
    run = emhet_dask.class3d_run(
        star, output=out, k=2, groups="micrograph", scale=True, cluster=client, **OPTIONS
    )
    assert adjusted_rand_score(fake.states, run.labels) > 0.85
    model = starfile.read(max(out.glob("run_it*_model.star")))
    found = model["model_groups"]["rlnGroupScaleCorrection"].to_numpy()
    expected = truth / np.average(truth, weights=np.bincount(micrographs))
    np.testing.assert_allclose(found, expected, rtol=0.05)
    assert model["model_groups"]["rlnGroupNrParticles"].tolist() == (
        np.bincount(micrographs).tolist()
    )
    spectra = [model[f"model_group_{k}"]["rlnSigma2Noise"].to_numpy()[6:12] for k in (1, 2, 3)]
    np.testing.assert_allclose(spectra[2].mean() / spectra[0].mean(), 4.0, rtol=0.15)
    data = read_particles(max(out.glob("run_it*_data.star"))).particles
    np.testing.assert_array_equal(data["rlnGroupNumber"], micrographs + 1)


def test_images_may_be_filled_with_noise(client, tmp_path):
    fake = fake_particles(400, snr=0.5, seed=11)
    star = write_particles(tmp_path / "set", fake)
    run = emhet_dask.class3d_run(
        star,
        output=tmp_path / "job",
        k=2,
        noise_mask=True,
        particle_diameter=26 * PIXEL,
        cluster=client,
        **OPTIONS,
    )
    assert adjusted_rand_score(fake.states, run.labels) > 0.9


@pytest.mark.slow
def test_what_varies_elsewhere_does_not_matter_to_a_focused_run(client, tmp_path):
    fake = fake_particles(600, snr=1.0, seed=8, elsewhere=0.5)
    star = write_particles(tmp_path / "set", fake)
    axis = np.arange(32) - 16
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.linalg.norm(np.stack([x, y, z], axis=-1) - fake.bodies[1], axis=-1)
    mask = np.clip((7.0 - distance) / 3.0, 0, 1).astype(np.float32)
    write_map(tmp_path / "mask.mrc", mask, voxel_size_angstrom=PIXEL)
    found = {}
    for name, focus in (
        ("whole", {}),
        ("masked", {"mask": str(tmp_path / "mask.mrc")}),
        ("subtracted", {"mask": str(tmp_path / "mask.mrc"), "subtract": True}),
    ):
        run = emhet_dask.class3d_run(
            star, output=tmp_path / name, k=2, cluster=client, **focus, **OPTIONS
        )
        found[name] = adjusted_rand_score(fake.states, run.labels)
    assert found["whole"] < 0.2
    assert found["masked"] > 0.8
    assert found["subtracted"] > 0.8
    density = read_volume(read_header(tmp_path / "subtracted/consensus.mrc"))
    whole = read_volume(read_header(tmp_path / "subtracted/whole.mrc"))
    inside, outside = mask > 0.9, distance > 12
    np.testing.assert_allclose(density[inside].sum(), whole[inside].sum(), rtol=0.15)
    assert np.square(density[outside]).mean() < 0.05 * np.square(whole[outside]).mean()


@pytest.mark.slow
def test_poses_that_are_wrong_come_back(client, tmp_path):
    fake = fake_particles(300, snr=8.0, seed=3)
    wrong = perturbed(fake, degrees=4.0, pixels=1.0, seed=2)
    star = write_particles(tmp_path / "set", wrong)
    found = {}
    for name, search in (("fixed", {}), ("searched", {"local_search": 8.0})):
        run = emhet_dask.class3d_run(
            star, output=tmp_path / name, k=2, iterations=4, cluster=client, **search, **OPTIONS
        )
        found[name] = adjusted_rand_score(fake.states, run.labels)
    last = max((tmp_path / "searched").glob("run_it*_data.star"))
    images = open_images(read_particles(last), root=star.parent)
    error = angles_between(images.angles, fake.angles)
    off = np.linalg.norm(images.shifts - fake.shifts, axis=1)
    assert np.median(angles_between(wrong.angles, fake.angles)) > 3
    assert np.median(error) < 1.5
    assert np.median(off) < 0.5
    assert found["searched"] > max(0.9, found["fixed"])
    again = emhet_dask.class3d_run(
        star,
        output=tmp_path / "searched",
        k=2,
        iterations=5,
        local_search=8.0,
        cluster=client,
        **OPTIONS,
    )
    assert adjusted_rand_score(run.labels, again.labels) > 0.9


@pytest.mark.slow
def test_poses_are_found_from_nothing(client, tmp_path):
    fake = fake_particles(300, snr=8.0, seed=3)
    rng = np.random.default_rng(1)
    lost = replace(fake, angles=rng.uniform(-180, 180, fake.angles.shape))
    star = write_particles(tmp_path / "true", fake)
    emhet_dask.reconstruct(star, output=tmp_path / "map", cluster=client, quiet=True)
    star = write_particles(tmp_path / "set", lost)
    out = tmp_path / "job"
    run = emhet_dask.class3d_run(
        star,
        output=out,
        k=2,
        ref=str(tmp_path / "map" / "state_000.mrc"),
        global_search=15.0,
        iterations=3,
        cluster=client,
        **OPTIONS,
    )
    last = max(out.glob("run_it*_data.star"))
    images = open_images(read_particles(last), root=star.parent)
    error = angles_between(images.angles, fake.angles)
    assert np.median(angles_between(lost.angles, fake.angles)) > 90
    assert (error < 10).mean() > 0.9
    assert adjusted_rand_score(fake.states, run.labels) > 0.8
    stages = json.loads((out / "run.json").read_text())["stages"]
    for name in ("global poses", "iteration 1"):
        assert f"{name}: global search" in [plan["stage"] for plan in stages[name]["plans"]]
    rounds = pd.read_csv(out / "global_search.csv")
    assert rounds["median_turn_degrees"].iloc[-1] < 5


def test_one_state_is_one_class(client, tmp_path):
    star = write_particles(tmp_path / "one", fake_particles(300, shares=(1.0,), seed=4))
    run = emhet_dask.class3d_run(star, output=tmp_path / "job", k="auto", cluster=client, **OPTIONS)
    assert run.posteriors.shape == (300, 1)
    assert "do not speak for any difference" in (tmp_path / "job/report.html").read_text()


def test_a_reference_of_the_other_hand_is_refused(particles, finished, tmp_path):
    _, out = finished
    consensus = read_volume(read_header(out / "consensus.mrc"))
    mirrored = np.roll(consensus[::-1], 1, axis=0)
    write_map(tmp_path / "hand.mrc", mirrored, voxel_size_angstrom=PIXEL)
    with pytest.raises(InputError, match=r"hand\.mrc is of the other hand than the poses"):
        emhet_dask.class3d_run(
            particles[1], output=tmp_path / "job", ref=str(tmp_path / "hand.mrc"), **OPTIONS
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "--k"),
        ({"particle_diameter": 1000.0}, "--particle-diameter: 1000 Å"),
        ({"limit_resolution": 1000.0}, "--limit-resolution: 1000 Å"),
        ({"ini_high": 1000.0}, "--ini-high: 1000 Å"),
        ({"ref": "flat.mrc"}, "flat.mrc has 4 × 8 × 8 voxels, expected a cube of an even side"),
        ({"zero_mask": True, "noise_mask": True}, "--zero-mask and --noise-mask: expected one"),
        ({"no_ctf": True, "ctf_intact_first_peak": True}, "--no-ctf and --ctf-intact-first-peak"),
        ({"subtract": True}, "--subtract: expected --mask"),
        (
            {"subtract": True, "mask": "loud.mrc", "local_search": 5.0},
            "--subtract and --local-search: expected one of them",
        ),
        ({"global_search": 10.0}, "--global-search: expected --ref, one or more maps"),
        (
            {"subtract": True, "mask": "loud.mrc", "global_search": 10.0},
            "--subtract and --global-search: expected one of them",
        ),
        ({"firstiter_cc": True}, "--firstiter-cc: expected a map per class with --ref, got none"),
        ({"symmetry": "X3"}, "--symmetry: got 'X3'"),
        ({"groups": "micrograph"}, "--groups micrograph needs the column _rlnMicrographName"),
        ({"mask": "small.mrc"}, "--mask: .*small.mrc has 8 × 8 × 8 voxels"),
        ({"mask": "loud.mrc"}, "--mask: .*loud.mrc has values from 5 to 5, expected 0 to 1"),
    ],
)
def test_bad_options_are_named(particles, tmp_path, options, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map("small.mrc", np.ones((8, 8, 8), np.float32), voxel_size_angstrom=PIXEL)
    write_map("flat.mrc", np.ones((4, 8, 8), np.float32), voxel_size_angstrom=PIXEL)
    write_map("loud.mrc", np.full((32, 32, 32), 5, np.float32), voxel_size_angstrom=PIXEL)
    with pytest.raises(InputError, match=words):
        emhet_dask.class3d_run(particles[1], output=tmp_path / "job", **{**OPTIONS, **options})
    assert not (tmp_path / "job").exists()


def _without(column):
    def spoil(folder: Path) -> None:
        path = folder / "particles.star"
        table = read_particles(path)
        blocks = {
            "optics": table.optics,
            "particles": table.particles.drop(columns=column),
        }
        write_star(path, blocks, version=30001)

    return spoil


def _shorten(folder: Path) -> None:
    with mrcfile.new(folder / "images.mrcs", overwrite=True) as file:
        file.set_data(np.zeros((10, 32, 32), np.float32))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without("rlnAngleTilt"), "have no poses"),
        (_without("rlnDefocusU"), "have no CTF"),
        (_shorten, "holds 10 images, but .* lists image 120"),
        (lambda folder: (folder / "images.mrcs").unlink(), "there is no such stack"),
    ],
)
def test_bad_particles_are_named(tmp_path, spoil, words):
    star = write_particles(tmp_path, fake_particles(120, seed=2))
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        emhet_dask.class3d_run(star, output=tmp_path / "job", **OPTIONS)


def test_the_command_says_what_it_found(particles, tmp_path, capsys):
    quick = ["--k", "2", "--components", "2", "--restarts", "0", "--iterations", "1", "-q"]
    main(["class3d", "run", str(particles[1]), "-o", str(tmp_path / "job"), *quick])
    assert capsys.readouterr().out.startswith("2 classes: ")


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    script = Path(__file__).parent / "killed_class3d_run.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_shared_particles_are_sorted_into_their_states(shared_data, client, tmp_path):
    folder = shared_data / "relion_project/Extract"
    run = emhet_dask.class3d_run(
        folder / "particles.star", output=tmp_path / "job", cluster=client, quiet=True
    )
    truth = pd.read_csv(folder / "truth.csv")["source_volume"]
    assert adjusted_rand_score(truth, run.labels) > 0.99
