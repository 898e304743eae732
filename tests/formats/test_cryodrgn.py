"""cryoDRGN runs: what counts from 0, what from 1, and how we know."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import (
    epochs,
    find_labels,
    match_labels,
    read_array,
    read_config,
    read_indices,
    read_labels,
    read_z,
    training_subset,
    volume_number,
    write_indices,
)


def pickled(path: Path, *things: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pickle.dumps(thing) for thing in things))
    return path


@pytest.mark.parametrize(
    ("place", "written", "expected"),
    [
        ("analyze.20/kmeans4/labels.pkl", [0, 3, 1], [0, 3, 1]),
        ("analyze.20/kmeans4/labels.pkl", [1, 3, 1], [1, 3, 1]),  # no particle in the first
        ("landscape.20/kmeans4/labels.pkl", [1, 3, 1], [0, 2, 0]),
        ("landscape.20/kmeans4/labels.pkl", [2, 3, 2], [1, 2, 1]),
        ("landscape.20/kmeans4/labels.pkl", [0, 3, 1], [0, 3, 1]),  # --vol-start-index 0
        ("landscape.20/sketch_clustering_average_10/state_labels.pkl", [2, 4], [1, 3]),
        ("landscape.20/landscape_full/full_clustering/cluster_labels.pkl", [2, 4], [1, 3]),
        ("elsewhere/state_labels.pkl", [2, 4], [1, 3]),
        ("elsewhere/labels.pkl", [1, 2], [0, 1]),
        ("elsewhere/labels.pkl", [0, 2], [0, 2]),
    ],
)
def test_labels_count_from_zero_whatever_the_file_counts_from(tmp_path, place, written, expected):
    labels = read_labels(pickled(tmp_path / place, np.array(written)))
    assert labels.dtype == np.int64
    assert list(labels) == expected


@pytest.mark.parametrize(
    "thing", [[0, 2, 1], (0, 2, 1), np.array([0.0, 2.0, 1.0]), np.array([0, 2, 1], "i4")]
)
def test_labels_may_be_lists_or_whole_floats(tmp_path, thing):
    assert list(read_labels(pickled(tmp_path / "labels.pkl", thing))) == [0, 2, 1]


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (np.array([0.5, 1.0]), "expected labels, one whole number each"),
        (np.array([0.0, np.nan]), "expected labels, one whole number each"),
        (np.zeros((2, 2), int), r"shape \(2, 2\)"),
        (np.zeros(0, int), "expected labels"),
        (np.array([-1, 0]), "has the label -1"),
        ({"a": 1}, "expected one array of numbers, found dict"),
        (["a", "b"], "expected one array of numbers, found list"),
        ([[1, 2], [3]], "expected one array of numbers, found list"),
    ],
)
def test_what_are_no_labels_is_refused(tmp_path, thing, message):
    with pytest.raises(InputError, match=message) as caught:
        read_labels(pickled(tmp_path / "labels.pkl", thing))
    assert "labels.pkl" in str(caught.value)


def test_z_is_the_first_of_two_pickles(tmp_path):
    mean = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_z(pickled(tmp_path / "z.3.pkl", mean, mean * 0)), mean)
    np.testing.assert_array_equal(read_z(pickled(tmp_path / "z.pkl", mean[:, 0])), mean[:, :1])
    whole = read_z(pickled(tmp_path / "z.pkl", np.array([[1, 2]])))
    assert whole.dtype == np.float64
    with pytest.raises(InputError, match="NaN or infinite"):
        read_z(pickled(tmp_path / "z.pkl", mean * np.inf))
    with pytest.raises(InputError, match="expected latents as rows and dimensions"):
        read_z(pickled(tmp_path / "z.pkl", np.zeros((2, 2, 2))))


def test_arrays_of_numbers_in_text_and_npy(tmp_path):
    expected = np.array([[1.0, 2.5], [3.0, -4.0]])
    np.save(tmp_path / "a.npy", expected)
    np.savetxt(tmp_path / "a.txt", expected)
    (tmp_path / "a.csv").write_text("z1,z2\n1,2.5\n3,-4\n")
    for name in ("a.npy", "a.txt", "a.csv"):
        np.testing.assert_array_equal(read_array(tmp_path / name), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"not npy", "cannot be read as an array"),
        ("a.txt", b"1 2\n3\n", "cannot be read as an array"),
        ("a.txt", b"1 x\n", "cannot be read as an array"),
        ("a.txt", b"", "holds no numbers"),
        ("a.txt", b"\xff\xfe", "cannot be read as an array"),
        ("a.csv", b"volume,z1\n0,1\n", "its column volume is no coordinate; leave it out"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_array(tmp_path / name)


def test_an_npy_file_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an array"):
        read_array(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"absent\.npy: no such file"):
        read_array(tmp_path / "absent.npy")


@given(st.sets(st.integers(0, 10**6), min_size=1))
def test_indices_come_back_as_they_were_written(tmp_path_factory, indices):
    path = tmp_path_factory.getbasetemp() / "ind.pkl"
    write_indices(path, np.array(sorted(indices)))
    assert list(read_indices(path)) == sorted(indices)
    with path.open("rb") as file:
        as_cryodrgn_does = pickle.load(file)
    assert as_cryodrgn_does.dtype == np.int64
    assert list(as_cryodrgn_does) == sorted(indices)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ([3, -1], "has the index -1"),
        ([3, 3], "has 2 indices, of which 1 are different"),
        ([True, False, True], "of which 2 are different"),
    ],
)
def test_what_are_no_indices_is_refused(tmp_path, thing, message):
    with pytest.raises(InputError, match=message):
        read_indices(pickled(tmp_path / "ind.pkl", np.array(thing)))


def test_volume_numbers_have_a_minimum_width():
    assert volume_number("vol_018.mrc") == 18
    assert volume_number("vol_1000.mrc.gz") == 1000
    assert volume_number("vol_mean.mrc") is None
    assert volume_number("xvol_001.mrc") is None


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2, 3], [0, 3, 1, 3]),
        ([1, 2, 3, 4], [0, 3, 1, 3]),
        ([0, 3], [0, 1, -1, 1]),
        ([4, 1], [1, 0, -1, 0]),
    ],
)
def test_labels_find_their_volumes_whether_those_count_from_0_or_1(tmp_path, numbers, expected):
    rows = match_labels(np.array([0, 3, 1, 3]), numbers, folder=tmp_path, path="labels.pkl")
    assert list(rows) == expected


@pytest.mark.parametrize(
    ("version", "expected"), [("3.4.4", [-1, 0]), ("3.5.0", [0, -1]), ("4.3.1", [0, -1])]
)
def test_the_version_decides_when_the_numbers_do_not(tmp_path, version, expected):
    folder = tmp_path / "analyze.20" / "kmeans3"
    folder.mkdir(parents=True)
    labels = np.array([0, 1])
    with pytest.raises(
        InputError, match="cannot tell whether its first label is vol_000 or vol_001"
    ):
        match_labels(labels, [1], folder=folder, path="labels.pkl")
    (tmp_path / "config.yaml").write_text(f"version: {version}\n")
    assert list(match_labels(labels, [1], folder=folder, path="labels.pkl")) == expected


def test_the_name_of_the_folder_counts_clusters_that_have_no_particles(tmp_path):
    folder = tmp_path / "kmeans4"
    folder.mkdir()
    rows = match_labels(np.array([0, 1]), [4, 2], folder=folder, path="labels.pkl")
    assert list(rows) == [-1, 1]


@pytest.mark.parametrize("numbers", [[0, 4], [7]])
def test_labels_of_other_volumes_are_refused(tmp_path, numbers):
    with pytest.raises(InputError, match=r"labels\.pkl: has 4 labels.*do not belong together"):
        match_labels(np.array([0, 3]), numbers, folder=tmp_path, path="labels.pkl")


def test_labels_are_found_beside_the_maps(tmp_path):
    assert find_labels(tmp_path) is None
    assert find_labels(pickled(tmp_path / "labels.pkl", [0]).parent) == tmp_path / "labels.pkl"


def test_epochs_need_latents_and_weights(tmp_path):
    for name in ("z.1.pkl", "z.10.pkl", "z.9.pkl", "weights.10.pkl", "weights.9.pkl", "z.pkl"):
        (tmp_path / name).touch()
    assert epochs(tmp_path) == [9, 10]
    with pytest.raises(InputError, match="cannot be listed"):
        epochs(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset_args: {ind: null}", None),
        ("dataset_args: {}", None),
        ("version: 4.3.1", None),
        ("dataset_args: {ind: /data/ind.pkl}", Path("/data/ind.pkl")),
        ("dataset_args: {ind: 1000}", 1000),
    ],
)
def test_the_training_subset_is_a_path_a_number_or_none(tmp_path, text, expected):
    (tmp_path / "config.yaml").write_text(text)
    assert training_subset(read_config(tmp_path), path=tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        ("\x00", "cannot be read as YAML"),
        ("- list", "expected a mapping with dataset_args"),
        ("dataset_args: {ind: [1, 2]}", "expected a path, null or a number"),
        ("dataset_args: {ind: true}", "expected a path, null or a number"),
    ],
)
def test_a_faulty_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        training_subset(read_config(tmp_path), path=tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.yaml: no such file; expected the folder of"):
        read_config(tmp_path)


@pytest.mark.shared_data
def test_a_real_run(shared_data):
    run = shared_data / "cryodrgn_run"
    assert epochs(run) == [3]
    assert read_z(run / "z.3.pkl").shape == (6000, 4)
    config = read_config(run)
    assert config["lattice_args"]["D"] == 65
    assert training_subset(config, path=run) is None
