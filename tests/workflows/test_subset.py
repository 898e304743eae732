"""Export and select: the right maps under names that are their own, of the store as it was."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import read_indices
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.formats.star import read_particles
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


# Blocks and parts ---------------------------------------------------------------------------------

OCCUPANCY = np.array([[0.9, 0.05], [0.7, 0.95], [0.1, 0.85], [0.88, 0.0]])
STATES = np.array([1, 0, 2, 1])


def presence_of(store, folder, *, command, columns, files):
    """Return a folder as blocks or occupancy leaves it, of the four usable volumes."""
    ensemble = open_ensemble(store)
    given = {"ensemble": store, "source": ensemble.fingerprint}
    with ResultsFolder.open(folder, command=command, inputs=given, parameters={}):
        pass
    usable = np.flatnonzero(ensemble.dataset["usable"].values)
    head = pd.DataFrame({"volume": usable, "name": ["NA", *ensemble.names[usable][1:]]})
    presence, occupancy, states = files
    of_all = {name: OCCUPANCY[:, k] for k, name in enumerate(columns)}
    head.assign(**of_all).to_csv(folder / occupancy, index=False)
    here = {name: (values > 0.5).astype(int) for name, values in of_all.items()}
    extra = {"state": STATES} if command == "blocks" else {}
    head.assign(**here, **extra).to_csv(folder / presence, index=False)
    combined = {columns[0]: [1, 1, 0], columns[1]: [1, 0, 1], "volumes": [1, 2, 1]}
    pd.DataFrame({"state": [0, 1, 2], **combined}).to_csv(folder / states, index=False)
    return str(folder)


@pytest.fixture
def blocks_folder(store, tmp_path):
    files = ("block_presence.csv", "block_occupancy.csv", "block_states.csv")
    columns = ("block_001", "block_002")
    return presence_of(
        store, tmp_path / "blocks", command="blocks", columns=columns, files=files
    )  # fmt: skip


@pytest.fixture
def parts_folder(store, tmp_path):
    files = ("occupancy_presence.csv", "occupancy.csv", "occupancy_states.csv")
    return presence_of(
        store, tmp_path / "parts", command="occupancy", columns=("uL2", "001"), files=files
    )  # fmt: skip


@pytest.fixture
def chosen(tmp_path):
    """Return the rows, among the usable volumes, that a selection leaves."""

    def run(folder, **options):
        emhet_dask.select(folder, output=str(tmp_path / "v.csv"), overwrite=True, **options)
        table = pd.read_csv(tmp_path / "v.csv", keep_default_na=False)
        return table["volume"].tolist(), table

    return run


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"block": 1}, [0, 1, 3]),
        ({"block": "1", "present": True}, [0, 1, 3]),
        ({"block": "block_002"}, [1, 2]),
        ({"block": 2, "absent": True}, [0, 3]),
        ({"block": 1, "min": 0.8}, [0, 3]),
        ({"block": 1, "min": 0.88}, [0, 3]),
        ({"block": 1, "min": 0.05}, [0, 1, 2, 3]),
        ({"state": "1"}, [0, 3]),
        ({"state": "0,2"}, [1, 2]),
    ],
)
def test_volumes_with_and_without_a_block(blocks_folder, store, chosen, options, rows):
    usable = np.flatnonzero(open_ensemble(store).dataset["usable"].values)
    volumes, table = chosen(blocks_folder, **options)
    assert volumes == usable[rows].tolist()
    if "block" in options:
        column = int(str(options["block"])[-1]) - 1
        np.testing.assert_allclose(table["occupancy"], OCCUPANCY[rows, column])
    else:
        assert table["state"].tolist() == STATES[rows].tolist()
    assert ("NA" in set(table["name"])) == (0 in rows)


def test_parts_go_by_their_names_and_have_states_too(parts_folder, store, chosen):
    usable = np.flatnonzero(open_ensemble(store).dataset["usable"].values)
    assert chosen(parts_folder, block="uL2", absent=True)[0] == usable[[2]].tolist()
    assert chosen(parts_folder, block="001")[0] == usable[[1, 2]].tolist()
    assert chosen(parts_folder, state="1,2")[0] == usable[[0, 2, 3]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--clusters, --basin, --region, --block or --state: got none of them, expected one"),
        ({"block": 1, "state": "0"}, "got --block and --state, expected one"),
        ({"block": 1, "present": True, "min": 0.5}, "--present, --min: exclude each other"),
        ({"block": 1, "absent": True, "present": True}, "--present, --absent: exclude each other"),
        ({"state": "0", "absent": True}, "--absent: got --state, expected --block with it"),
        ({"block": 1, "exclude_outliers": True}, "--exclude-outliers: got --block, expected --cl"),
        ({"block": 3}, "--block: .*blocks has no block 3; expected a number from 1 to 2"),
        ({"block": 0}, "--block: .*blocks has no block 0; expected a number from 1 to 2"),
        ({"block": "uL2"}, "--block: .*blocks has no block uL2; expected a number from 1 to 2"),
        ({"block": 1.5}, "--block: got 1.5, expected a number or a name"),
        ({"state": "0,7"}, "--state: .*blocks has no combination 7 of blocks; it has 0 to 2"),
        ({"block": 1, "min": 0.95}, "--min 0.95: no volume is left for --block 1: .* is 0.9$"),
        ({"clusters": "0"}, "--clusters: .*blocks is no landscape .* expected --block or --state"),
    ],
)
def test_what_cannot_be_chosen_from_blocks(blocks_folder, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as refused:
        emhet_dask.select(blocks_folder, output=str(tmp_path / "v.csv"), **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "v.csv").exists()


def test_folders_of_the_wrong_kind(store, parts_folder, tmp_path):
    output = str(tmp_path / "v.csv")
    landscape = str(results_of(store, tmp_path / "results"))
    with pytest.raises(InputError, match=r"--block: .*results is a landscape, .*--clusters"):
        emhet_dask.select(landscape, block=1, output=output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--state: .*empty holds neither block_presence\.csv"):
        emhet_dask.select(str(tmp_path / "empty"), state="0", output=output)
    with pytest.raises(InputError, match="has no part 'uL22'; it has uL2, 001"):
        emhet_dask.select(parts_folder, block="uL22", output=output)


def test_a_block_that_is_nowhere_or_everywhere_leaves_nothing(blocks_folder, tmp_path):
    table = tmp_path / "blocks" / "block_presence.csv"
    presence = pd.read_csv(table, keep_default_na=False)
    presence.assign(block_001=1, block_002=0).to_csv(table, index=False)
    for options, found in (
        ({"block": 1, "absent": True}, "--absent: .* present in 4 of 4"),
        ({"block": 2}, "--present: .* present in 0 of 4"),
    ):
        with pytest.raises(InputError, match=found):
            emhet_dask.select(blocks_folder, output=str(tmp_path / "v.txt"), **options)


def particle_star(path, count):
    """Write a particle file of so many images in one stack."""
    rows = "\n".join(f"{row + 1:06d}@p.mrcs 1" for row in range(count))
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 2.0\n\n"
        f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n{rows}\n"
    )
    return str(path)


def blocks_of_particles(folder, volumes, of_particle, client, **options):
    """Return a results folder of blocks, whose volumes were made of known particles."""
    (folder / "maps").mkdir()
    for number in range(4):
        path = folder / "maps" / f"vol_{number:03d}.mrc"
        write_map(path, volumes[number], voxel_size_angstrom=2.0)
    with (folder / "labels.pkl").open("wb") as file:
        pickle.dump(np.asarray(of_particle), file)
    store = emhet_dask.ingest(
        [str(folder / "maps")],
        output=str(folder / "p.zarr"),
        labels=str(folder / "labels.pkl"),
        cluster=client,
        quiet=True,
        **options,
    ).path
    return presence_of(
        store,
        folder / "blocks",
        command="blocks",
        columns=("block_001", "block_002"),
        files=("block_presence.csv", "block_occupancy.csv", "block_states.csv"),
    )


def test_a_particle_file_of_another_data_set(tmp_path, volumes, client):
    folder = blocks_of_particles(tmp_path, volumes, [0, 1, 2, 3, 0], client)
    with pytest.raises(InputError, match="9 particles, but the ensemble was made of 5"):
        emhet_dask.select(
            folder,
            block=2,
            particles=particle_star(tmp_path / "other.star", 9),
            output=str(tmp_path / "with.star"),
        )


def test_particle_lists_of_a_block(tmp_path, volumes, client):
    """Of STAR files and of indices; particles of volumes that lack it are in the other list."""
    of_particle = np.array([0, 1, 2, 3, 0, 1, 2, 3, 2])
    star = particle_star(tmp_path / "p.star", len(of_particle))
    folder = blocks_of_particles(tmp_path, volumes, of_particle, client, particles=star)
    there = emhet_dask.select(folder, block=2, output=str(tmp_path / "with.star"))
    assert (there.n_volumes, there.n_particles) == (2, 5)
    images = read_particles(tmp_path / "with.star").particles["rlnImageName"]
    rows = np.flatnonzero(np.isin(of_particle, [1, 2]))
    assert images.tolist() == [f"{row + 1:06d}@p.mrcs" for row in rows]
    emhet_dask.select(folder, block=2, absent=True, output=str(tmp_path / "without.pkl"))
    expected = np.flatnonzero(np.isin(of_particle, [0, 3]))
    np.testing.assert_array_equal(read_indices(tmp_path / "without.pkl"), expected)
