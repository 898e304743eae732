"""Parts of a landscape: volumes that are kept for another, particles selected, maps exported."""

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from tests.workflows.landscape.conftest import APIX


def test_part_of_the_volumes_with_the_same_mask(made, landscape, tmp_path):
    folder, _, found, _ = made
    part = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "part"), keep=f"{folder / 'out'}:0,1"
    )
    labels = pd.read_csv(tmp_path / "part" / "clusters" / "cluster_labels.csv")
    assert labels["volume"].tolist() == np.flatnonzero(found.labels <= 1).tolist()
    np.testing.assert_array_equal(
        part.group("mask")["mask"].values, found.group("mask")["mask"].values
    )
    (tmp_path / "names.txt").write_text("vol_00003\nvol_00001\nvol_00002\nvol_00009\n")
    few = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "few"), keep=str(tmp_path / "names.txt")
    )
    assert few.group("pca")["volume_index"].values.tolist() == [1, 2, 3, 9]


def test_a_reused_mask_is_the_mask_soft_edge_and_all(made, landscape, tmp_path):
    folder = made[0]
    soft = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "soft"), cosine_edge=12.0, n_clusters=3
    )
    part = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "part"), keep=f"{tmp_path / 'soft'}:0,1"
    )
    mask = soft.group("mask")["mask"].values
    assert ((mask > 0) & (mask < 1)).any()
    np.testing.assert_array_equal(part.group("mask")["mask"].values, mask)
    with pytest.raises(InputError, match=r"--dilate: the mask of .* is reused as it is"):
        landscape(
            str(folder / "e.zarr"),
            output=str(tmp_path / "x"),
            keep=f"{tmp_path / 'soft'}:0,1",
            dilate=3.0,
        )


def test_names_that_look_like_numbers_are_names(landscape, tmp_path):
    rng = np.random.default_rng(0)
    volumes = np.zeros((8, 16, 16, 16), np.float32)
    volumes[:, 5:11, 5:11, 5:11] = 1 + 0.3 * rng.random((8, 6, 6, 6))
    names = [f"{number:03d}" for number in (5, 4, 3, 2, 1, 0, 6, 7)]
    ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=4.0, names=names)
    (tmp_path / "keep.csv").write_text("name\n003\n001\n000\n")
    part = landscape(ensemble, output=str(tmp_path / "p"), keep=str(tmp_path / "keep.csv"))
    assert part.group("pca")["volume_index"].values.tolist() == [2, 4, 5]
    again = landscape(ensemble, output=str(tmp_path / "q"), keep=f"{tmp_path / 'p'}:0")
    labels = pd.read_csv(tmp_path / "q" / "clusters" / "cluster_labels.csv", dtype={"name": str})
    assert set(labels["name"]) <= {"003", "001", "000"}
    assert len(again.labels) >= 2


def test_select_writes_particles_and_volumes(made, tmp_path):
    folder, _, found, labels = made
    volumes = np.flatnonzero(np.isin(found.labels, [0, 2]))
    expected = np.flatnonzero(np.isin(labels, volumes))
    out = str(folder / "out")
    chosen = emhet_dask.select(out, clusters="0,2", output=str(tmp_path / "p.star"))
    assert chosen.n_particles == len(expected)
    assert (tmp_path / "p.star").read_text().count("@stack.mrcs") == len(expected)
    emhet_dask.select(out, clusters=[0, 2], output=str(tmp_path / "p.pkl"))
    written = np.load(tmp_path / "p.pkl", allow_pickle=True)
    np.testing.assert_array_equal(np.asarray(written), expected)
    emhet_dask.select(out, clusters=(0, 2), output=str(tmp_path / "v.csv"))
    assert pd.read_csv(tmp_path / "v.csv")["volume"].tolist() == volumes.tolist()
    emhet_dask.select(out, clusters=0, output=str(tmp_path / "v.txt"))
    assert (tmp_path / "v.txt").read_text().splitlines()[0].startswith("vol_")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": "77", "output": "a.star"}, "has no state 77; it has 0 to"),
        ({"clusters": "0", "output": "a.txtt"}, "ends in '.txtt', expected .star"),
        ({"clusters": "0", "output": "a.cs"}, "expected a name ending in .star"),
        ({"clusters": "zero", "output": "a.star"}, "--clusters: got 'zero'"),
    ],
)
def test_select_refuses(made, tmp_path, options, message):
    given = {**options, "output": str(tmp_path / options["output"])}
    with pytest.raises(InputError, match=message):
        emhet_dask.select(str(made[0] / "out"), **given)


def test_select_never_replaces_a_file_unasked(made, tmp_path):
    (tmp_path / "p.star").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        emhet_dask.select(str(made[0] / "out"), clusters="0", output=str(tmp_path / "p.star"))
    assert (tmp_path / "p.star").read_text() == "mine"


def test_export_gives_the_maps_back_a_folder_per_state(made, tmp_path, client):
    folder, _, found, _ = made
    exported = emhet_dask.export(
        str(folder / "out"), output=str(tmp_path / "m"), clusters="1", cluster=client, quiet=True
    )
    members = np.flatnonzero(found.labels == 1)
    assert exported.n_volumes == len(members)
    path = tmp_path / "m" / "cluster_001" / f"vol_{members[0]:05d}.mrc"
    original = read_volume(read_header(folder / "maps" / path.name))
    np.testing.assert_array_equal(read_volume(read_header(path)), original)
    assert read_header(path).voxel_size_angstrom == pytest.approx(APIX)
    emhet_dask.export(
        str(folder / "e.zarr"), output=str(tmp_path / "n"), volumes="3-5", cluster=client,
        quiet=True,
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == [
        f"vol_0000{n}.mrc" for n in (3, 4, 5)
    ]
    with pytest.raises(InputError, match="--volumes: no volume 60"):
        emhet_dask.export(
            str(folder / "e.zarr"), output=str(tmp_path / "x"), volumes="60", quiet=True
        )
