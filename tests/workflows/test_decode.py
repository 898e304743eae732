"""Decoding into a store: what is written, going on after a kill, and equality with cryoDRGN.

Most tests decode with a formula, so that they need neither cryoDRGN nor torch.
"""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emhet_dask import blocks, decode, landscape, open_ensemble, select
from emhet_dask.ensemble import layout
from emhet_dask.errors import InputError
from emhet_dask.formats import star
from emhet_dask.formats.cryodrgn import read_indices
from emhet_dask.formats.cryodrgn_run import CryodrgnRun
from emhet_dask.workflows import decode as workflow
from tests.fake_run import BOX, FormulaModel, add_epoch, formula_decoder, some_latents, write_run


@pytest.fixture
def latents():
    return some_latents()


@pytest.fixture
def run(tmp_path, latents):
    return write_run(tmp_path / "run", latents)


@pytest.fixture
def by_formula(monkeypatch):
    monkeypatch.setattr(workflow, "_decoder", formula_decoder)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "ensemble.zarr"


@pytest.fixture
def call(run, store, client, by_formula):
    def decoded(folder=run, epoch=3, **options):
        options = {"output": str(store), "cluster": client, "quiet": True} | options
        return decode(str(folder), epoch, **options)

    return decoded


@pytest.fixture
def cryodrgn_installed():
    for package in ("torch", "cryodrgn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'emhet-dask[cryodrgn]'")


def volumes_of(store):
    return open_ensemble(store).dataset["volumes"].values


def one_line(caught, *parts):
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


# --- what is written ---


def test_volumes_are_of_particles_and_stand_for_their_clusters(call, run, store, latents):
    done = call(n=7)
    assert (done.n_volumes, done.box, done.n_particles, done.written) == (7, BOX, 60, 7)
    assert done.describe() == f"{store}: 7 volumes of 16³ at 3 Å, for 60 particles"
    found = open_ensemble(store).dataset
    rows = found["decoded_particle"].values
    assert np.array_equal(found["latent"], latents[rows])
    assert np.array_equal(found["volumes"], list(FormulaModel().volumes(latents[rows])))
    assert list(found["name"].values) == [f"vol_{number:05d}" for number in range(7)]
    assert set(found["source"].values) == {str(run / "weights.3.pkl")}
    assert np.array_equal(found["particle_latent"], latents)
    assert np.array_equal(found["particle_index"], np.arange(60))
    assert np.array_equal(found["weight"], np.bincount(found["particle_volume"]))
    assert np.array_equal(found["particle_volume"].values[rows], np.arange(7))
    assert found["usable"].all()
    assert found.attrs["voxel_size_angstrom"] == pytest.approx(3.0)


def test_the_store_says_what_it_was_decoded_from(call, run, store):
    call(n=3, box=8, flip=True, apix=2.0)
    ensemble = open_ensemble(store)
    assert ensemble.dataset.attrs["decoded_from"] == {
        "workdir": str(run),
        "epoch": 3,
        "weights_sha256": CryodrgnRun.open(run, 3).weights_sha256,
        "box": 8,
        "flip": True,
        "voxel_size_angstrom": 4.0,
        "trained_with": "cryodrgn 4.3.1",
        "decoded_with": "formula 1.0",
    }
    expected = list(FormulaModel(8, flip=True).volumes(ensemble.dataset["latent"].values))
    assert np.array_equal(ensemble.dataset["volumes"], expected)


def test_half_precision(call, store):
    call(n=5, dtype="float16")
    expected = list(FormulaModel().volumes(open_ensemble(store).dataset["latent"].values))
    assert np.allclose(volumes_of(store), expected, atol=2e-3)


def test_a_small_run_is_decoded_whole_unless_asked_otherwise(call, store, latents):
    assert call().n_volumes == 60
    found = open_ensemble(store).dataset
    assert np.array_equal(found["latent"].values[found["particle_volume"].values], latents)
    with pytest.raises(InputError, match="-n: got 61, but only 60 of 60 latents are different"):
        call(n=61, overwrite=True)


@pytest.mark.parametrize("ending", ["txt", "npy", "csv", "pkl"])
def test_latents_that_are_given(call, store, tmp_path, latents, ending):
    given = some_latents(4, seed=1)
    path = tmp_path / f"z.{ending}"
    if ending == "npy":
        np.save(path, given)
    elif ending == "pkl":
        path.write_bytes(pickle.dumps(given))
    else:
        np.savetxt(path, given, delimiter="," if ending == "csv" else " ")
    call(z=str(path))
    found = open_ensemble(store).dataset
    assert np.allclose(found["latent"], given, rtol=1e-6)
    distances = np.linalg.norm(latents[:, None] - given, axis=2)
    assert np.array_equal(found["particle_volume"], distances.argmin(axis=1))
    assert found["weight"].sum() == 60
    assert "decoded_particle" not in found


def test_one_latent_in_one_row(call, store, tmp_path, latents):
    np.savetxt(tmp_path / "z.txt", latents[:1])
    assert call(z=str(tmp_path / "z.txt")).n_volumes == 1
    np.savetxt(tmp_path / "z.txt", latents[0])  # as numpy writes one latent, and eval_vol takes it
    assert call(z=str(tmp_path / "z.txt")).written == 0


def test_particles_that_are_given(call, store, tmp_path, latents):
    np.savetxt(tmp_path / "rows.txt", [30, 2, 17], fmt="%d")
    call(indices=str(tmp_path / "rows.txt"))
    found = open_ensemble(store).dataset
    assert list(found["decoded_particle"].values) == [30, 2, 17]
    assert np.array_equal(found["latent"], latents[[30, 2, 17]])
    assert np.array_equal(found["particle_volume"].values[[30, 2, 17]], [0, 1, 2])


def test_particles_of_a_subset_keep_their_rows_and_names(call, store, run, tmp_path, shared_data):
    kept = np.arange(0, 120, 2)
    np.save(tmp_path / "ind.npy", kept)
    particles = shared_data / "relion_project" / "Class3D" / "job085" / "run_it025_data.star"
    call(n=4, ind=str(tmp_path / "ind.npy"), particles=str(particles))
    found = open_ensemble(store).dataset
    assert np.array_equal(found["particle_index"], kept)
    images = star.read_particles(particles).particles["rlnImageName"]
    assert list(found["particle_name"].values) == list(images.iloc[kept])
    assert found.attrs["particle_file"] == str(particles)
    with pytest.raises(InputError) as caught:
        call(n=4, particles=str(particles), overwrite=True)
    one_line(caught, "4000 particles, but the latents are of 60; give --ind")


# --- the same answer, however it is come by ---


def test_the_same_in_any_layout(call, store, tmp_path, monkeypatch):
    call(n=11)
    first = open_ensemble(store)
    for number, (per_chunk, least) in enumerate([(1, 1), (4, 2), (1 << 20, 64)]):
        other = tmp_path / f"{number}.zarr"
        monkeypatch.setattr(layout, "_CHUNK_BYTES", per_chunk * 4 * BOX**3)
        monkeypatch.setattr(workflow, "_LEAST_SHARDS", least)
        call(n=11, output=str(other))
        assert open_ensemble(other).fingerprint == first.fingerprint
        assert np.array_equal(volumes_of(other), volumes_of(store))


@pytest.mark.slow
def test_the_same_on_processes(call, tmp_path):
    call(n=11)
    call(n=11, output=str(tmp_path / "other.zarr"), cluster="local:2")
    first, other = (open_ensemble(tmp_path / name) for name in ("ensemble.zarr", "other.zarr"))
    assert other.fingerprint == first.fingerprint


def test_the_same_call_finds_it_done_wherever_the_run_lies_now(call, run, store, tmp_path):
    assert call(n=5).written == 5
    again = call(n=5)
    assert again.written == 0
    assert again.describe().endswith("nothing was left to do")
    moved = shutil.copytree(run, tmp_path / "elsewhere" / "run")
    assert call(moved, n=5).written == 0


def test_what_was_interrupted_goes_on_with_the_same_latents(call, store, monkeypatch):
    monkeypatch.setattr(layout, "_CHUNK_BYTES", 4 * BOX**3)
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "write_shard", dies_after(3))
        with pytest.raises(RuntimeError, match="the power is gone"):
            call(n=8)
    with pytest.raises(InputError, match="not finished"):
        open_ensemble(store)
    monkeypatch.setattr(workflow, "sketch_kmeans", None)  # not called again
    done = call(n=8)
    assert 0 < done.written < 8
    assert f"continued: {8 - done.written} volumes were there before" in done.describe()
    latents = open_ensemble(store).dataset["latent"].values
    assert np.array_equal(volumes_of(store), list(FormulaModel().volumes(latents)))


def dies_after(shards):
    written, write = [], workflow.write_shard

    def write_shard(*arguments):
        if len(written) >= shards:
            raise RuntimeError("the power is gone")
        written.append(write(*arguments))

    return write_shard


def test_other_settings_are_refused_and_replace_if_asked(call, run, store, latents):
    call(n=5)
    for other in ({"n": 6}, {"n": 5, "seed": 1}, {"n": 5, "flip": True}, {"n": 5, "apix": 2.5}):
        with pytest.raises(InputError) as caught:
            call(**other)
        one_line(caught, f"{store}: made from another model, other latents or options")
    add_epoch(run, latents, ".4")  # the same latents, other weights
    with pytest.raises(InputError, match="made from another model"):
        call(epoch=4, n=5)
    assert call(n=6, overwrite=True).written == 6


@pytest.mark.slow
def test_killed_before_any_change_it_ends_as_if_undisturbed(tmp_path):
    script = Path(__file__).with_name("killed_decode.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 6


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"box": 18}, ["--box: got 18", "up to the 16 voxels"]),
        ({"box": 9}, ["--box: got 9", "an even number"]),
        ({"n": 3, "z": "z.txt"}, ["-n and --z: exclude each other"]),
        ({"z": "z.txt", "indices": "i.txt"}, ["--z and --indices: exclude each other"]),
        ({"z": "wide.txt"}, ["wide.txt: rows of 4 numbers, expected latents of 3"]),
        ({"z": "absent.txt"}, ["absent.txt: no such file"]),
        ({"indices": "beyond.txt"}, ["beyond.txt: index 60 is beyond the 60 latents of epoch 3"]),
        ({"indices": "twice.txt"}, ["twice.txt: has 2 indices, of which 1 are different"]),
        ({"epoch": 4}, ["EPOCH: got 4", "has 3"]),
        ({"epoch": "first"}, ["EPOCH: got 'first'", "or last"]),
        ({"folder": "nowhere"}, ["expected the folder of a cryoDRGN run"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    call, store, tmp_path, monkeypatch, options, parts
):
    monkeypatch.chdir(tmp_path)
    np.savetxt("wide.txt", np.zeros((3, 4)))
    np.savetxt("beyond.txt", [3, 60], fmt="%d")
    np.savetxt("twice.txt", [3, 3], fmt="%d")
    with pytest.raises(InputError) as caught:
        call(**options)
    one_line(caught, *parts)
    assert not store.exists()


@dataclass(frozen=True)
class Broken(FormulaModel):
    value: float = np.nan

    def volumes(self, latents):
        for volume in super().volumes(latents):
            yield np.full_like(volume, self.value)


@pytest.mark.parametrize(
    ("value", "part"), [(np.nan, "NaN or infinite densities"), (0.5, "the density 0.5 everywhere")]
)
def test_a_model_that_gives_no_density(call, monkeypatch, value, part):
    monkeypatch.setattr(workflow, "_decoder", lambda *_: (Broken(value=value), ""))
    with pytest.raises(InputError) as caught:
        call(n=3)
    one_line(caught, f"weights.3.pkl: gives {part} at the latent (")


def test_without_cryodrgn_the_extra_is_named(run, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryodrgn", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError) as caught:
        decode(str(run), 3, output=str(store), n=3, quiet=True)
    one_line(caught, "emhet decode needs the package", 'pip install "emhet-dask[cryodrgn]"')
    assert not store.exists()


# --- cryoDRGN itself ---


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("options", [{}, {"box": 32}, {"flip": True}, {"box": 32, "flip": True}])
def test_volumes_are_those_of_eval_vol(cryodrgn_installed, shared_data, client, store, options):
    workdir = shared_data / "cryodrgn_run"
    decode(str(workdir), 3, output=str(store), n=2, cluster=client, quiet=True, **options)
    found = open_ensemble(store).dataset
    for latent, ours in zip(found["latent"].values, found["volumes"].values, strict=True):
        theirs = eval_vol(workdir, latent, **options)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 1e-4 * theirs.std()
    assert found.attrs["voxel_size_angstrom"] == pytest.approx(3.0 * 64 / options.get("box", 64))


@pytest.mark.slow
@pytest.mark.shared_data
def test_bits_do_not_depend_on_what_is_decoded_together(
    cryodrgn_installed, shared_data, client, tmp_path, monkeypatch
):
    for per_shard in (1, 4):
        monkeypatch.setattr(workflow, "_LEAST_SHARDS", 9 // per_shard)
        monkeypatch.setattr(layout, "_CHUNK_BYTES", 4 * 32**3 * per_shard)
        store = str(tmp_path / str(per_shard))
        workdir = str(shared_data / "cryodrgn_run")
        decode(workdir, 3, output=store, n=9, box=32, cluster=client, quiet=True)
    assert np.array_equal(volumes_of(tmp_path / "1"), volumes_of(tmp_path / "4"))


def eval_vol(workdir, latent, *, box=None, flip=False):
    """What ``cryodrgn eval_vol`` computes, by its own functions."""
    import torch
    from cryodrgn import config
    from cryodrgn.models import HetOnlyVAE

    settings = config.load(str(workdir / "config.yaml"))
    model, lattice = HetOnlyVAE.load(
        settings, str(workdir / "weights.3.pkl"), device=torch.device("cpu")
    )
    norm = settings["dataset_args"]["norm"]
    model.decoder.eval()
    side, extent, coordinates = lattice.D, lattice.extent, lattice.coords
    if box is not None:
        extent = lattice.extent * (box / (lattice.D - 1))
        side, coordinates = box + 1, lattice.get_downsample_coords(box + 1)
    volume = model.decoder.eval_volume(coordinates, side, extent, norm, latent)
    return np.asarray((volume.flip([0]) if flip else volume).cpu(), dtype=np.float32)


@pytest.mark.slow
@pytest.mark.shared_data
def test_from_a_trained_run_to_particle_lists(
    cryodrgn_installed, shared_data, client, store, tmp_path
):
    workdir = shared_data / "cryodrgn_run"
    particles, shared = str(workdir / "particles.star"), {"cluster": client, "quiet": True}
    decode(str(workdir), 3, output=str(store), n=100, box=32, particles=particles, **shared)
    found = open_ensemble(store).dataset
    names = star.read_particles(workdir / "particles.star").particles["rlnImageName"].to_numpy()

    def check_list(path, rows):
        assert np.array_equal(star.read_particles(path).particles["rlnImageName"], names[rows])
        assert np.array_equal(read_indices(path.with_suffix(".pkl")), rows)

    states = tmp_path / "states"
    landscape(str(store), output=str(states), n_clusters=3, mask="none", **shared)
    table = pd.read_csv(states / "clusters" / "cluster_labels.csv")
    for state in range(3):
        volumes = np.flatnonzero(table["cluster"] == state)
        rows = np.flatnonzero(np.isin(found["particle_volume"], volumes))
        check_list(states / "clusters" / f"cluster_{state:03d}_particles.star", rows)

    blocks(str(store), output=str(tmp_path / "parts"), mask="none", **shared)
    select(str(tmp_path / "parts"), block=1, output=str(tmp_path / "with.star"), quiet=True)
    select(str(tmp_path / "parts"), block=1, output=str(tmp_path / "with.pkl"), quiet=True)
    presence = pd.read_csv(tmp_path / "parts" / "block_presence.csv")
    volumes = presence["volume"][presence["block_001"] == 1]
    check_list(tmp_path / "with.star", np.flatnonzero(np.isin(found["particle_volume"], volumes)))
