"""What a user may name as input, and in which order, under which names and weights it comes."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_volume, write_map, write_stack
from emhet_dask.formats.sources import (
    assign_particles,
    find_volumes,
    natural_key,
    trailing_number,
)
from emhet_dask.formats.star import write_star
from emhet_dask.formats.volumes import _shortest_suffixes


def put(*paths: Path, side: int = 4) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map(path, np.ones((side, side, side)), voxel_size_angstrom=2.0)


def labelled(folder: Path, labels: list[int]) -> Path:
    (folder / "labels.pkl").write_bytes(pickle.dumps(np.array(labels)))
    return folder


def names(sources, **options) -> list[str]:
    return [volume.name for volume in find_volumes(sources, **options)]


def test_a_folder_comes_in_natural_order_and_holds_maps_of_every_ending(tmp_path):
    put(
        *(tmp_path / f"vol_{number}.mrc" for number in (1000, 2, 10)),
        tmp_path / "a.map",
        tmp_path / "B.CCP4",
    )
    (tmp_path / "z.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.map").read_bytes()))
    (tmp_path / "notes.txt").write_text("no map")
    assert names([tmp_path]) == ["B", "a", "vol_2", "vol_10", "vol_1000", "z"]


def test_one_source_needs_no_list_and_volumes_travel_to_workers(tmp_path):
    put(tmp_path / "a.mrc")
    found = find_volumes(tmp_path)
    assert pickle.loads(pickle.dumps(found)) == found == find_volumes(str(tmp_path))


def test_paths_are_absolute_for_workers_elsewhere(tmp_path, monkeypatch):
    put(tmp_path / "maps" / "a.mrc")
    (tmp_path / "maps" / "b.mrc").write_bytes(b"short")
    monkeypatch.chdir(tmp_path)
    (found,), (problem,) = find_volumes(["maps"], on_error="skip")
    assert found.header.path == str(tmp_path / "maps" / "a.mrc")
    assert problem.startswith("maps/b.mrc: ")


def test_a_folder_is_not_searched_below(tmp_path):
    put(tmp_path / "deep" / "a.mrc")
    with pytest.raises(InputError, match=r"^no map in .*: expected files ending in \.mrc, \.map"):
        find_volumes([tmp_path])
    (tmp_path / "config.yaml").write_text("version: 4.3.1")
    with pytest.raises(InputError, match="it is a cryoDRGN run, whose maps are in folders such as"):
        find_volumes([tmp_path])


def test_globs_find_maps_and_folders_and_leave_other_files_aside(tmp_path):
    put(tmp_path / "run1/vol_9.mrc", tmp_path / "run1/vol_10.mrc", tmp_path / "run2/vol_9.mrc")
    (tmp_path / "run1/labels.txt").write_text("")
    expected = ["run1/vol_9", "vol_10", "run2/vol_9"]
    assert names([tmp_path / "run*/*"]) == expected
    assert names([tmp_path / "run*"]) == expected
    assert names([tmp_path / "**/*.mrc"]) == expected
    with pytest.raises(InputError, match="no match; expected files ending in"):
        find_volumes([tmp_path / "run3/*"])
    with pytest.raises(InputError, match="the 1 files that it matches are no maps"):
        find_volumes([tmp_path / "run1/*.txt"])


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    put(tmp_path / "map[1].mrc")
    assert names([tmp_path / "map[1].mrc"]) == ["map[1]"]


def test_the_order_of_a_shell_becomes_natural_and_an_order_by_hand_is_kept(tmp_path):
    paths = [tmp_path / f"vol_{number}.mrc" for number in (10, 100, 9)]
    put(*paths)
    assert names(paths) == ["vol_9", "vol_10", "vol_100"]
    assert names([paths[1], paths[0], paths[2]]) == ["vol_100", "vol_10", "vol_9"]


def test_a_file_named_twice_counts_once_at_its_first_place(tmp_path):
    put(tmp_path / "a.mrc", tmp_path / "b.mrc")
    assert names([tmp_path / "b.mrc", tmp_path, tmp_path / "*.mrc"]) == ["b", "a"]


def test_a_list_keeps_its_order_and_is_relative_to_itself(tmp_path):
    put(tmp_path / "maps/b.mrc", tmp_path / "maps/a.mrc", tmp_path / "else/c.mrc")
    listed = tmp_path / "maps" / "list.txt"
    listed.write_text(f"# comment\n\nb.mrc\n  ./a.mrc\n{tmp_path}/else/c.mrc\n")
    assert names([listed]) == ["b", "a", "c"]


def test_a_list_does_not_lead_out_of_its_folder(tmp_path):
    put(tmp_path / "secret/s.mrc", tmp_path / "maps/a.mrc")
    (tmp_path / "maps/link.mrc").symlink_to(tmp_path / "secret/s.mrc")
    (tmp_path / "maps/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "maps/inside.mrc").symlink_to(tmp_path / "maps/a.mrc")
    listed = tmp_path / "maps/list.lst"
    for entry in ("../secret/s.mrc", "link.mrc", "folder/s.mrc", "x/../../secret/s.mrc"):
        listed.write_text(f"a.mrc\n{entry}\n")
        with pytest.raises(
            InputError, match=r"list\.lst: line 2: .* leads out of the list's folder"
        ):
            find_volumes([listed])
    listed.write_text("inside.mrc\n")
    assert names([listed]) == ["inside"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no map; expected one path a line"),
        (b"absent.mrc\n", r"line 1: absent\.mrc: no such file"),
        (b"list.txt\n", r"line 1: list\.txt: not a map; expected files ending in"),
        (b"a\0b.mrc\n", "line 1: .*: not a path"),
        (b"a" * 5000 + b".mrc\n", "line 1: .*: not a path"),
        (b"\xff\xfe", "cannot be read as a list of paths"),
    ],
)
def test_a_faulty_list_is_refused(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_volumes([tmp_path / "list.txt"])


def test_a_stack_becomes_its_members(tmp_path):
    volumes = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    write_stack(tmp_path / "maps.mrc", volumes, voxel_size_angstrom=2.0)
    found = find_volumes([tmp_path / "maps.mrc"])
    assert [volume.name for volume in found] == ["maps_00000", "maps_00001", "maps_00002"]
    np.testing.assert_array_equal(read_volume(found[2].header, found[2].index), volumes[2])
    write_map(tmp_path / "plain.mrc", volumes.reshape(12, 4, 4), voxel_size_angstrom=2.0)
    found = find_volumes([tmp_path / "plain.mrc"])
    assert len(found) == 3
    np.testing.assert_array_equal(read_volume(found[1].header, found[1].index), volumes[1])


def test_images_and_bricks_are_refused(tmp_path):
    write_map(tmp_path / "brick.mrc", np.zeros((4, 5, 6)), voxel_size_angstrom=2.0)
    with pytest.raises(InputError, match=r"6 × 5 × 4 voxels; a density map has to be a cube$"):
        find_volumes([tmp_path / "brick.mrc"])
    with mrcfile.new(tmp_path / "images.mrcs") as file:
        file.set_data(np.zeros((8, 4, 4), np.float32))
        file.set_image_stack()
    with pytest.raises(InputError, match="it looks like a stack of images"):
        find_volumes([tmp_path / "images.mrcs"])


def test_names_are_the_shortest_unique_suffixes(tmp_path):
    put(*(tmp_path / path for path in ("x/1/a.mrc", "y/1/a.mrc", "y/2/a.mrc", "y/2/b.mrc")))
    assert names([tmp_path / "*/*/*.mrc"]) == ["x/1/a", "y/1/a", "2/a", "b"]


def test_equal_stems_in_one_folder_keep_their_extension(tmp_path):
    put(tmp_path / "a.mrc", tmp_path / "a.map", tmp_path / "b.mrc", tmp_path / "deep/a.mrc")
    assert names([tmp_path, tmp_path / "deep"]) == [
        f"{tmp_path.name}/a.map", f"{tmp_path.name}/a.mrc", "b", "deep/a",
    ]  # fmt: skip


components = st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(
    lambda parts: ("/", *parts)
)


@given(st.lists(components, min_size=1, max_size=30, unique=True))
def test_suffixes_are_unique_and_none_could_be_shorter(paths):
    suffixes = _shortest_suffixes(paths)
    wholes = ["/".join(path) for path in paths]
    for own, suffix in enumerate(suffixes):
        others = [index for index in range(len(paths)) if index != own]
        assert wholes[own].endswith(suffix)
        # No other path ends in it; one component less, and some other path does.
        assert not any(("/" + wholes[index]).endswith("/" + suffix) for index in others)
        shorter = suffix.split("/")[1:]
        if len(suffix.split("/")) > 1 and suffix != wholes[own]:
            assert any(("/" + wholes[index]).endswith("/" + "/".join(shorter)) for index in others)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_the_natural_key_sorts_numbers_of_any_width(numbers):
    texts = [f"vol_{number:03d}_x" for number in numbers]
    assert sorted(texts, key=natural_key) == [f"vol_{number:03d}_x" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=8), max_size=8))
def test_the_natural_key_compares_any_texts(texts):
    assert sorted(sorted(texts, key=natural_key)) == sorted(texts)


def test_trailing_numbers():
    assert trailing_number("job085/run_it025_class001") == 1
    assert trailing_number("maps_00012") == 12
    assert trailing_number("vol_mean") is None


def test_a_cryodrgn_folder_has_weights_and_no_mean(tmp_path):
    folder = tmp_path / "analyze.20/kmeans3"
    put(*(folder / f"vol_{number:03d}.mrc" for number in (1, 2, 3)), folder / "vol_mean.mrc")
    assert [volume.weight for volume in find_volumes([folder])] == [None] * 3
    labelled(folder, [0, 2, 2, 0, 0])
    found = find_volumes([folder])
    assert [volume.name for volume in found] == ["vol_001", "vol_002", "vol_003"]
    assert [volume.weight for volume in found] == [3.0, 0.0, 2.0]
    assert list(assign_particles(found)) == [0, 2, 2, 0, 0]
    (folder / "vol_001.mrc").unlink()
    found = find_volumes([folder])
    assert [volume.weight for volume in found] == [0.0, 2.0]
    assert list(assign_particles(found)) == [-1, 1, 1, -1, -1]


def test_labels_that_cannot_be_matched_stop_the_folder_but_not_a_glob(tmp_path):
    put(tmp_path / "vol_018.mrc", tmp_path / "vol_020.mrc")
    labelled(tmp_path, [0, 99])
    with pytest.raises(
        InputError, match=r"give the maps as a glob \(.*/vol_\*\.mrc\) with --weights"
    ):
        find_volumes([tmp_path])
    found = find_volumes([tmp_path / "vol_*.mrc"])
    assert [volume.weight for volume in found] == [None, None]
    assert assign_particles(found) is None


def test_labels_given_by_path_go_with_one_cryodrgn_folder(tmp_path):
    put(tmp_path / "a/vol_0.mrc", tmp_path / "a/vol_1.mrc", tmp_path / "b/map.mrc")
    labels = labelled(tmp_path, [1, 0, 1]) / "labels.pkl"
    found = find_volumes([tmp_path / "a"])
    assert assign_particles(found) is None
    assert list(assign_particles(found, labels_path=labels)) == [1, 0, 1]
    with pytest.raises(InputError, match="the 3 volumes here are from 2 folders, 2 of them"):
        assign_particles(find_volumes([tmp_path / "*"]), labels_path=labels)


def test_a_relion_job_gives_the_classes_of_its_last_iteration(tmp_path):
    for prefix in ("run_it025", "run_ct12_it030"):
        put(*(tmp_path / f"{prefix}_class00{number}.mrc" for number in (1, 2)))
    put(tmp_path / "run_it025_half1_class001.mrc", tmp_path / "mask.mrc")
    assert names([tmp_path]) == ["run_ct12_it030_class001", "run_ct12_it030_class002"]
    classes = pd.DataFrame(
        {"rlnReferenceImage": [f"x/run_ct12_it030_class00{number}.mrc" for number in (1, 2)],
         "rlnClassDistribution": [0.25, 0.75]}
    )  # fmt: skip
    write_star(tmp_path / "run_ct12_it030_model.star", {"model_classes": classes})
    assert [volume.weight for volume in find_volumes([tmp_path])] == [0.25, 0.75]


def faulty(folder: Path) -> None:
    put(folder / "good.mrc", folder / "cut.mrc", folder / "complex.mrc")
    (folder / "cut.mrc").write_bytes((folder / "good.mrc").read_bytes()[:-4])
    content = bytearray((folder / "good.mrc").read_bytes())
    content[12:16] = struct.pack("<i", 4)
    (folder / "complex.mrc").write_bytes(content)


def test_all_faulty_files_are_in_one_message(tmp_path):
    faulty(tmp_path)
    with pytest.raises(InputError, match=r"^3 inputs cannot be used: ") as caught:
        find_volumes([tmp_path, tmp_path / "absent.mrc"])
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cut.mrc: cut short", "complex.mrc: holds complex", "absent.mrc: no such file"):
        assert part in message


def test_faulty_files_can_be_skipped_and_are_reported(tmp_path):
    faulty(tmp_path)
    volumes, problems = find_volumes([tmp_path], on_error="skip")
    assert [volume.name for volume in volumes] == ["good"]
    assert len(problems) == 2
    (tmp_path / "good.mrc").unlink()
    with pytest.raises(InputError, match="2 inputs cannot be used"):
        find_volumes([tmp_path], on_error="skip")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "absent: no such file or folder"),
        ("particles.star", r"particles\.star: not a map; expected files ending in"),
        ("", "no such file or folder"),
        ("a\0b", "no such file or folder"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    Path("particles.star").touch()
    with pytest.raises(InputError, match=message):
        find_volumes([source])


def test_no_source_at_all_is_refused():
    with pytest.raises(InputError, match="no map given; expected folders, globs, lists or files"):
        find_volumes([])


@pytest.mark.shared_data
def test_decoded_ribosomes_and_relion_classes(shared_data):
    decoded = find_volumes([shared_data / "ribosome_ensemble"])
    assert [trailing_number(volume.name) for volume in decoded] == [
        18, 113, 115, 116, 194, 287, 288, 291, 293, 306,
        383, 385, 386, 388, 390, 442, 455, 457, 458, 498,
    ]  # fmt: skip
    jobs = shared_data / "relion_project/Class3D"
    classes = find_volumes([jobs / "job085", jobs / "job086"])
    assert [volume.name for volume in classes] == [
        "job085/run_it025_class001", "job085/run_it025_class002", "job085/run_it025_class003",
        "run_it025_class004", "job086/run_it025_class001", "job086/run_it025_class002",
        "job086/run_it025_class003",
    ]  # fmt: skip
    assert sum(volume.weight for volume in classes) == pytest.approx(8000, abs=0.1)
    with pytest.raises(InputError, match=r"64 × 64 × 4000 voxels; .* stack of images"):
        find_volumes([shared_data / "relion_project/Extract/particles.mrcs"])
