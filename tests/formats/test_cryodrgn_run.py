"""A run folder: which epoch, how large a voxel, which particles; and nothing outside of it."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import yaml

from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn_run import CryodrgnRun
from tests.fake_run import BOX, add_epoch, some_latents, write_run


@pytest.fixture
def latents():
    return some_latents(20)


def dataset(**arguments):
    return {"dataset_args": {"ctf": "ctf.pkl", "ind": None, "norm": [0.0, 1.0]} | arguments}


def one_line(caught, *parts):
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_an_epoch_is_its_latents_and_weights(tmp_path, latents):
    write_run(tmp_path / "run", latents)
    add_epoch(tmp_path / "run", 2 * latents, ".12")
    run = CryodrgnRun.open(tmp_path / "run", 12)
    assert np.array_equal(run.latents, 2 * latents)  # the means, not the variances behind them
    assert run.latents.dtype == np.float32
    assert (run.epoch, run.box, run.n_particles, run.version) == (12, BOX, 20, "4.3.1")
    assert run.weights_path == tmp_path / "run" / "weights.12.pkl"
    assert run.weights_sha256 == hashlib.sha256(b"weights.12").hexdigest()
    assert run.model_config["dataset_args"] == {"norm": [0.0, 1.0]}
    assert "cmd" not in run.model_config


def test_the_last_epoch_is_the_finished_run_or_else_the_highest_number(tmp_path, latents):
    write_run(tmp_path, latents, epoch=".9")
    add_epoch(tmp_path, 2 * latents, ".10")
    assert CryodrgnRun.open(tmp_path, "last").epoch == 10
    add_epoch(tmp_path, 3 * latents, "")
    last = CryodrgnRun.open(tmp_path, "last")
    assert last.epoch == "last"
    assert last.weights_path.name == "weights.pkl"
    assert np.array_equal(last.latents, 3 * latents)


def test_an_absent_epoch_is_told_which_there_are(tmp_path, latents):
    write_run(tmp_path, latents, epoch=".0")
    for epoch in (".1", ".2", ".5", ""):
        add_epoch(tmp_path, latents, epoch)
    (tmp_path / "z.7.pkl").write_bytes(b"")  # its weights were deleted
    with pytest.raises(InputError) as caught:
        CryodrgnRun.open(tmp_path, 7)
    one_line(caught, "EPOCH: got 7", "has 0-2, 5, last")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"data_norm_mean": 0.0}, ["abinit (DRGN-AI)", "train_vae or train_dec"]),
        ({"model_args": {"layers": 3, "dim": 64}}, ["without latents", "train_vae"]),
        ({"model_args": {"zdim": 0, "players": 3}}, ["without latents"]),
        (
            {"model_args": {"zdim": 5, "players": 3}},
            ["z.3.pkl: 3 numbers per particle", "zdim is 5"],
        ),
        ({"model_args": None}, ["no model_args"]),
        ({"lattice_args": {"D": 64}}, ["lattice_args.D is 64"]),
        ({"lattice_args": {"D": "65"}}, ["lattice_args.D is '65'"]),
        ({"lattice_args": {"D": 65, "when": yaml.safe_load("2020-01-01")}}, ["numbers and texts"]),
    ],
)
def test_runs_that_are_not_supported_are_told_so_in_one_line(tmp_path, latents, config, parts):
    write_run(tmp_path, latents, **config)
    with pytest.raises(InputError) as caught:
        CryodrgnRun.open(tmp_path, 3)
    one_line(caught, str(tmp_path), *parts)


def test_folders_that_are_no_run(tmp_path, latents):
    with pytest.raises(InputError, match="expected the folder of a cryoDRGN run"):
        CryodrgnRun.open(tmp_path, 3)
    write_run(tmp_path, latents)
    (tmp_path / "weights.3.pkl").unlink()
    with pytest.raises(InputError, match=r"no z.N.pkl with its weights.N.pkl inside"):
        CryodrgnRun.open(tmp_path, 3)


def test_a_run_of_train_dec_is_supported(tmp_path, latents):
    write_run(tmp_path, latents, model_args={"zdim": 3, "layers": 3, "dim": 64})
    (tmp_path / "z.3.pkl").write_bytes(pickle.dumps(latents))  # one pickle
    assert CryodrgnRun.open(tmp_path, 3).n_particles == 20


def test_the_voxel_is_that_of_the_binned_images(tmp_path, latents):
    write_run(tmp_path, latents, apix=1.5)
    assert CryodrgnRun.open(tmp_path, 3).voxel_size_angstrom() == pytest.approx(1.5 * 32 / BOX)


@pytest.mark.parametrize("named", ["data/ctf.pkl", "{above}/data/ctf.pkl", "../data/ctf.pkl"])
def test_files_beside_the_run_are_found(tmp_path, latents, named):
    run = write_run(tmp_path / "run", latents, **dataset(ctf=named.format(above=tmp_path)))
    (tmp_path / "data").mkdir()
    (run / "ctf.pkl").rename(tmp_path / "data" / "ctf.pkl")
    assert CryodrgnRun.open(run, 3).voxel_size_angstrom() == pytest.approx(3.0)


@pytest.mark.parametrize("named", ["../../ctf.pkl", "{far}/ctf.pkl", "link.pkl", "sub/ctf.pkl"])
def test_files_elsewhere_are_not_followed(tmp_path, latents, named):
    run = write_run(tmp_path / "a" / "run", latents, **dataset(ctf=named.format(far=tmp_path)))
    (run / "ctf.pkl").rename(tmp_path / "ctf.pkl")
    (run / "link.pkl").symlink_to(tmp_path / "ctf.pkl")
    (run / "sub").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        CryodrgnRun.open(run, 3).voxel_size_angstrom()
    one_line(caught, "config.yaml: the voxel size is in", "neither in", "give --apix")


def test_a_voxel_size_that_is_not_known(tmp_path, latents):
    run = write_run(tmp_path, latents, **dataset(ctf=None))
    with pytest.raises(InputError, match="names no file with CTF parameters; give --apix"):
        CryodrgnRun.open(run, 3).voxel_size_angstrom()
    write_run(tmp_path, latents)
    table = np.tile([32.0, 1.5, 0, 0, 0, 0, 0, 0, 0], (20, 1))
    table[3, 1] = 1.6
    (run / "ctf.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(InputError, match=r"image sizes from 48 to 51.2 Å, expected one; give --ap"):
        CryodrgnRun.open(run, 3).voxel_size_angstrom()
    (run / "ctf.pkl").write_bytes(pickle.dumps(table[:, 1:]))
    with pytest.raises(InputError, match=r"9 columns, found an array of \(20, 8\); give --apix"):
        CryodrgnRun.open(run, 3).voxel_size_angstrom()


def test_particles_are_rows_before_the_subset(tmp_path, latents):
    run = write_run(tmp_path / "run", latents)
    assert np.array_equal(CryodrgnRun.open(run, 3).particle_index(), np.arange(20))
    write_run(tmp_path / "run", latents, **dataset(ind=20))
    assert np.array_equal(CryodrgnRun.open(run, 3).particle_index(), np.arange(20))
    write_run(tmp_path / "run", latents, **dataset(ind="ind.pkl"))
    kept = np.arange(0, 60, 3)
    (tmp_path / "ind.pkl").write_bytes(pickle.dumps(kept))
    assert np.array_equal(CryodrgnRun.open(run, 3).particle_index(), kept)
    np.save(tmp_path / "other.npy", kept + 1)
    assert np.array_equal(CryodrgnRun.open(run, 3).particle_index(tmp_path / "other.npy"), kept + 1)


def test_a_subset_that_cannot_be_known(tmp_path, latents):
    run = write_run(tmp_path / "run", latents, **dataset(ind="/nowhere/ind.pkl"))
    with pytest.raises(InputError) as caught:
        CryodrgnRun.open(run, 3).particle_index()
    one_line(caught, "trained on the particles in /nowhere/ind.pkl", "give --ind")
    write_run(tmp_path / "run", latents, **dataset(ind=19))
    with pytest.raises(InputError, match=r"config.yaml: 19 indices, but the latents are of 20 pa"):
        CryodrgnRun.open(run, 3).particle_index()
    np.save(tmp_path / "few.npy", np.arange(7))
    with pytest.raises(InputError, match=r"few.npy: 7 indices, but the latents are of 20 particle"):
        CryodrgnRun.open(run, 3).particle_index(tmp_path / "few.npy")


def test_a_run_of_cryodrgn_itself(shared_data):
    run = CryodrgnRun.open(shared_data / "cryodrgn_run", 3)
    assert run.latents.shape == (6000, 4)
    assert run.box == 64
    assert run.voxel_size_angstrom() == pytest.approx(3.0)
    assert np.array_equal(run.particle_index(), np.arange(6000))
    with pytest.raises(InputError, match=r"EPOCH: got 2, but .*cryodrgn_run has 3$"):
        CryodrgnRun.open(shared_data / "cryodrgn_run", 2)
