"""Latents as cryoDRGN, tomoDRGN, 3DVA, 3DFlex and RECOVAR write them."""

import pickle

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.latents import find_volume_latents, read_latents

Z = np.random.default_rng(0).normal(size=(6, 3))


def save_components(path, values, *, uids=None, numbers=None):
    """Write the fields that 3D Variability adds to its particles."""
    numbers = range(values.shape[1]) if numbers is None else numbers
    fields = [("uid", "<u8")]
    for k in numbers:
        fields += [(f"components_mode_{k}/component", "<u4"), (f"components_mode_{k}/value", "<f4")]
    records = np.zeros(len(values), fields)
    records["uid"] = np.arange(len(values)) + 100 if uids is None else uids
    for column, k in enumerate(numbers):
        records[f"components_mode_{k}/component"] = k
        records[f"components_mode_{k}/value"] = values[:, column]
    with path.open("wb") as file:
        np.save(file, records)
    return path


def save_pickles(path, *things):
    with path.open("wb") as file:
        for thing in things:
            pickle.dump(thing, file)
    return path


def write(path, kind):
    if kind == "npy":
        np.save(path, Z)
    elif kind == "pkl":
        save_pickles(path, Z, np.full_like(Z, 7.0))  # mean, then log-variance
    else:
        delimiter = "," if kind == "csv" else " "
        header = "z1,z2,z3" if kind == "csv" else ""
        np.savetxt(path, Z, delimiter=delimiter, header=header, comments="")


@pytest.mark.parametrize("kind", ["npy", "pkl", "csv", "txt"])
def test_plain_tables(tmp_path, kind):
    path = tmp_path / f"z.{kind}"
    write(path, kind)
    found = read_latents(path)
    np.testing.assert_allclose(found.values, Z)
    assert (len(found), found.n_dims, found.kept, found.uids) == (6, 3, None, None)


def test_components_of_cryosparc_come_in_the_order_of_their_numbers(tmp_path):
    values = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32)
    found = read_latents(save_components(tmp_path / "particles.cs", values))
    np.testing.assert_array_equal(found.values, values)  # mode 10 after mode 9, not after mode 1
    assert found.uids.tolist() == ["100", "101", "102", "103"]


def test_particles_that_recovar_left_out_are_nan(tmp_path):
    table = np.full((9, 3), np.nan)
    kept = np.asarray([0, 2, 3, 5, 6, 8])
    table[kept] = Z
    np.save(tmp_path / "latent_coords.npy", table)
    found = read_latents(tmp_path / "latent_coords.npy", may_lack_rows=True)
    np.testing.assert_array_equal(found.values, Z)
    np.testing.assert_array_equal(found.kept, kept)
    with pytest.raises(InputError, match=r"latent_coords\.npy: has latents that are NaN"):
        read_latents(tmp_path / "latent_coords.npy")
    table[0, 1] = np.nan  # half a row says nothing
    np.save(tmp_path / "latent_coords.npy", table)
    with pytest.raises(InputError, match="NaN or infinite"):
        read_latents(tmp_path / "latent_coords.npy", may_lack_rows=True)


@pytest.mark.parametrize("name", ["zs", "latent_coords"])
def test_embeddings_of_recovar_by_their_dimension(tmp_path, name):
    embeddings = {
        name: {3: Z, 2: Z[:, :2], "3_noreg": Z + 1},
        "cov_zs": {3: np.zeros((6, 3, 3))},
        "contrasts": {3: np.ones(6)},
    }
    path = save_pickles(tmp_path / "embeddings.pkl", embeddings)
    np.testing.assert_array_equal(read_latents(path, n_dims=3).values, Z)
    np.testing.assert_array_equal(read_latents(path, n_dims=2).values, Z[:, :2])
    with pytest.raises(InputError, match="embeddings of 3, 2 dimensions; expected one of 5"):
        read_latents(path, n_dims=5)
    with pytest.raises(InputError, match="expected latents of the volumes, which tell"):
        read_latents(path)
    path = save_pickles(tmp_path / "one.pkl", {name: {3: Z, "3_noreg": Z + 1}})
    np.testing.assert_array_equal(read_latents(path).values, Z)


def test_tables_beside_maps(tmp_path):
    assert find_volume_latents(tmp_path, n_volumes=6) is None
    np.savetxt(tmp_path / "centers_ind.txt", [4, 1], fmt="%d")
    assert find_volume_latents(tmp_path, n_volumes=2) is None
    found = find_volume_latents(tmp_path, n_volumes=2, particles=Z)
    np.testing.assert_array_equal(found.values, Z[[4, 1]])
    assert find_volume_latents(tmp_path, n_volumes=2, particles=Z[:3]) is None
    for name in ("z_values.txt", "latent_coords.txt", "centers.txt"):
        np.savetxt(tmp_path / name, Z)
        found = find_volume_latents(tmp_path, n_volumes=6, particles=Z)
        assert found.path.name == name
        np.testing.assert_allclose(found.values, Z)
    assert find_volume_latents(tmp_path, n_volumes=5) is None


def test_what_is_no_latents_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npy: no such file"):
        read_latents(tmp_path / "absent.npy")
    particles = save_components(tmp_path / "p.cs", Z[:, :0])
    with pytest.raises(InputError, match=r"p\.cs: has no latents; .*components_mode_0/value"):
        read_latents(particles)
    with pytest.raises(InputError, match="for K of 0, 2; expected all from 0"):
        read_latents(save_components(tmp_path / "p.cs", Z[:, :2], numbers=(0, 2)))
    (tmp_path / "junk.cs").write_bytes(b"no record")
    with pytest.raises(InputError, match=r"junk\.cs: cannot be read as a cryoSPARC"):
        read_latents(tmp_path / "junk.cs")
    save_pickles(tmp_path / "d.pkl", {"labels": np.arange(4)})
    with pytest.raises(InputError, match=r"d\.pkl: expected an array of latents .* of labels"):
        read_latents(tmp_path / "d.pkl")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match=r"rows and dimensions, found an array of \(2, 2, 2\)"):
        read_latents(tmp_path / "cube.npy")
    np.save(tmp_path / "inf.npy", np.full((2, 2), np.inf))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_latents(tmp_path / "inf.npy", may_lack_rows=True)


def test_code_in_a_pickle_is_not_run(tmp_path):
    path = save_pickles(tmp_path / "evil.pkl", {"zs": {3: print}})
    with pytest.raises(InputError, match=r"asks for builtins\.print"):
        read_latents(path)
