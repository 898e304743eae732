"""Export and select: the right maps under names that are their own, of the store as it was."""

import json

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.runtime import ResultsFolder
from emhet_dask.workflows import export as workflow
from emhet_dask.workflows.select import source_of


@pytest.fixture
def volumes():
    return np.random.default_rng(0).standard_normal((5, 16, 16, 16)).astype(np.float32)


@pytest.fixture
def store(tmp_path, volumes, client):
    """Names a/b, a_b, b and two more; the last volume is unusable."""
    volumes[4] = 0
    for name, volume in zip(("a/b", "a_b", "c/b", "d", "e"), volumes, strict=True):
        path = tmp_path / "maps" / f"{name}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map(path, volume, voxel_size_angstrom=2.0)
    return emhet_dask.ingest(
        [str(tmp_path / "maps" / "**" / "*.mrc")],
        output=str(tmp_path / "e.zarr"),
        on_error="skip",
        cluster=client,
        quiet=True,
    ).path


@pytest.fixture
def export(client, tmp_path):
    def run(source, **options):
        output = str(tmp_path / "out")
        return emhet_dask.export(
            str(source), **{"output": output, "cluster": client, "quiet": True, **options}
        )

    return run


def results_of(store, folder, **inputs):
    """Return a folder as a landscape leaves it: two states of the four usable volumes."""
    ensemble = open_ensemble(store)
    given = {"ensemble": store, "fingerprint": "of the selection", **inputs}
    with ResultsFolder.open(folder, command="landscape", inputs=given, parameters={}):
        pass
    usable = np.flatnonzero(ensemble.dataset["usable"].values)
    (folder / "clusters").mkdir()
    pd.DataFrame(
        {"volume": usable, "name": ensemble.names[usable], "cluster": [0, 0, 1, 1], "outlier": 0}
    ).to_csv(folder / "clusters" / "cluster_labels.csv", index=False)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_usable_volume_under_its_own_name(export, store, tmp_path):
    ensemble = open_ensemble(store)
    usable = ensemble.dataset["usable"].values
    assert export(store).n_volumes == 4
    assert files(tmp_path / "out") == ["a/b.mrc", "a_b.mrc", "c/b.mrc", "d.mrc"]
    for volume in np.flatnonzero(usable):
        written = read_volume(read_header(tmp_path / "out" / f"{ensemble.names[volume]}.mrc"))
        np.testing.assert_array_equal(written, ensemble.volumes[volume].compute())


def test_unusable_volumes_that_are_named_are_refused(export, store):
    (unusable,) = np.flatnonzero(~open_ensemble(store).dataset["usable"].values)
    with pytest.raises(InputError, match=rf"--volumes: volume {unusable} .*e\.mrc.* not usable"):
        export(store, volumes=[int(unusable)])


def test_volumes_named_twice_are_written_once(export, store, tmp_path):
    assert export(store, volumes=(0, 1, 0)).n_volumes == 2
    assert len(files(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b", "a/b.mrc"),
        ("/etc/passwd", "etc/passwd.mrc"),
        ("../../x", "__/__/x.mrc"),
        ("a\\..\\x", "a/__/x.mrc"),
        ("./a//b", "a/b.mrc"),
        ("/", "volume.mrc"),
    ],
)
def test_names_stay_inside_the_folder(name, path):
    assert workflow._file_of(name) == path


def test_names_that_would_share_a_file_are_refused(export, tmp_path, volumes, client):
    (tmp_path / "two").mkdir()
    for number in range(2):
        write_map(tmp_path / "two" / f"{number}.mrc", volumes[number], voxel_size_angstrom=2.0)
    (tmp_path / "n.csv").write_text("original_filename,custom_name\n0.mrc,a/b\n1.mrc,a//b\n")
    store = emhet_dask.ingest(
        [str(tmp_path / "two")],
        output=str(tmp_path / "two.zarr"),
        names=str(tmp_path / "n.csv"),
        cluster=client,
        quiet=True,
    ).path
    with pytest.raises(InputError, match=r"'a/b' and 'a//b' would be written to one file"):
        export(store)


def test_a_map_appears_only_when_whole(export, store, tmp_path, monkeypatch):
    def half(path, *_, **__):
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(workflow, "write_map", half)
    with pytest.raises(RuntimeError, match="disk full"):
        export(store)
    assert [name for name in files(tmp_path / "out") if name.endswith(".mrc")] == []
    monkeypatch.undo()
    export(store)
    assert len(files(tmp_path / "out")) == 4


def test_states_have_folders_and_choices_have_to_meet(export, store, tmp_path):
    results = results_of(store, tmp_path / "results")
    assert export(results, clusters=(1,)).n_volumes == 2
    assert all(name.startswith("cluster_001/") for name in files(tmp_path / "out"))
    labels = pd.read_csv(results / "clusters" / "cluster_labels.csv")
    first = int(labels["volume"][0])
    with pytest.raises(InputError, match="--volumes: none of them is in the chosen states"):
        export(results, clusters=(1,), volumes=(first,), overwrite=True)
    assert export(results, volumes=(first, first), overwrite=True).n_volumes == 1


def test_results_of_a_store_that_changed_are_refused(export, store, tmp_path, volumes, client):
    now = open_ensemble(store).fingerprint
    same = results_of(store, tmp_path / "same", source=now)
    part = results_of(store, tmp_path / "part", source=open_ensemble(store).select([0]).fingerprint)
    other = results_of(store, tmp_path / "other", source="before")
    assert source_of(same).fingerprint == source_of(part).fingerprint == now
    message = rf"the store {store} changed since these results were made; run emhet landscape again"
    for call in (
        lambda: export(other),
        lambda: emhet_dask.select(str(other), clusters="0", output=str(tmp_path / "p.pkl")),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_names_that_look_like_missing_values_are_texts(store, tmp_path):
    results = results_of(store, tmp_path / "results")
    table = results / "clusters" / "cluster_labels.csv"
    labels = pd.read_csv(table)
    labels["name"] = ["NA", "001", "x", "y"]
    labels.to_csv(table, index=False)
    emhet_dask.select(str(results), clusters="0", output=str(tmp_path / "v.txt"))
    assert (tmp_path / "v.txt").read_text() == "NA\n001\n"
    assert json.loads((results / "run.json").read_text())["inputs"]["ensemble"] == store
