"""Occupancy of parts: MAVEn's own recipe as the oracle, the planted relations, bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.cli import main
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map

N, BOX, APIX, PARTS = 120, 24, 8.0, 5
NAMES = [f"sub_chain{letter}" for letter in "abcde"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """Maps of an assembly, their store, a mask and a reference for each part, and the results."""
    folder = tmp_path_factory.mktemp("occupancy")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=24.0, subunits=PARTS,
        seed=3, cluster=client, quiet=True,
    )  # fmt: skip
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        cluster=client,
        quiet=True,
    )
    labels = read(folder / "maps" / "truth_blocks.mrc")
    for name in ("masks", "parts"):
        (folder / name).mkdir()
    for part, name in enumerate(NAMES, start=1):
        reference = (labels == part).astype(np.float32)
        write_map(folder / "parts" / f"{name}.mrc", 0.7 * reference, voxel_size_angstrom=APIX)
        write_map(folder / "masks" / f"Mask_{name}.mrc", reference, voxel_size_angstrom=APIX)
    found = emhet_dask.occupancy(
        str(folder / "e.zarr"), masks=str(folder / "masks"), references=str(folder / "parts"),
        output=str(folder / "out"), format="maven", cluster=client, quiet=True,
    )  # fmt: skip
    return folder, simulated.truth, found


@pytest.fixture
def occupancy(client):
    def run(*arguments, **options):
        return emhet_dask.occupancy(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


def read(path):
    return read_volume(read_header(path))


def by_hand(folder):
    """Sum of mask × map over that of the reference, by plain loops."""
    masks = [read(folder / "masks" / f"Mask_{name}.mrc").astype(float) for name in NAMES]
    references = [read(folder / "parts" / f"{name}.mrc").astype(float).sum() for name in NAMES]
    volumes = [read(path).astype(float) for path in sorted((folder / "maps").glob("vol_*.mrc"))]
    return np.array(
        [
            [(mask * volume).sum() / whole for mask, whole in zip(masks, references, strict=True)]
            for volume in volumes
        ]
    )


def test_occupancies_are_those_of_maven(made):
    folder, _, found = made
    table = pd.read_csv(folder / "out/occupancy.csv")
    assert table.columns.tolist() == ["volume", "name", *NAMES]
    assert table["name"][7] == "vol_00007"
    np.testing.assert_array_equal(table["volume"], np.arange(N))
    expected = by_hand(folder)
    np.testing.assert_allclose(table[NAMES], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.occupancy[NAMES], table[NAMES])
    density = pd.read_csv(folder / "out/mean_density.csv")
    np.testing.assert_allclose(density[NAMES], 0.7 * expected, rtol=1e-6, atol=1e-7)


def test_the_table_opens_as_that_of_maven(made):
    folder = made[0]
    # As scripts that follow MAVEn read it.
    table = pd.read_csv(folder / "out/occupancies.csv", index_col=0, header=[0, 1])
    assert table.columns.names == ["PDB", "Chain"]
    assert table.shape == (N, 26)
    known = table.dropna(axis=1)
    assert known.columns.tolist() == [("sub", letter) for letter in "abcde"]
    assert known.index.tolist() == list(range(N))
    np.testing.assert_allclose(known, by_hand(folder), rtol=1e-6, atol=1e-7)


def test_presence_and_relations_are_the_planted_ones(made):
    folder, truth, found = made
    planted = truth[[f"subunit_{part:03d}" for part in range(1, PARTS + 1)]].to_numpy()
    presence = pd.read_csv(folder / "out/occupancy_presence.csv")
    np.testing.assert_array_equal(presence[NAMES], planted)
    together = {frozenset(pair): (planted[:, list(pair)].all(axis=1)).sum() for pair in
                [(a, b) for a in range(PARTS) for b in range(a)]}  # fmt: skip
    for row in found.relations.itertuples():
        pair = frozenset((NAMES.index(row.block_a), NAMES.index(row.block_b)))
        assert row.both == together[pair]
        if row.relation == "requires":
            assert row.a_only <= 0.05 * (row.a_only + row.both)
        if row.relation == "excludes":
            assert row.both == 0
    assert {"requires", "excludes"} <= set(found.relations["relation"])
    states = pd.read_csv(folder / "out/occupancy_states.csv")
    assert states["volumes"].sum() == N
    assert len(states) == len(np.unique(planted, axis=0)) == truth["state"].nunique()


def test_a_part_that_is_always_there_is_said_to_be(made):
    found = made[2]
    assert found.tables.undecided == ["sub_chaina"]
    assert "no two modes" in found.describe()
    assert "sub_chaina" in found.describe()
    assert (found.tables.presence["sub_chaina"] == 1).all()


def test_report_and_record(made):
    out = made[0] / "out"
    for name in ("clustermap.png", "relations.png", "parts.csv"):
        assert (out / name).is_file(), name
    page = (out / "report.html").read_text()
    assert "5 parts in 120 volumes" in page
    assert "always together" not in page
    run = json.loads((out / "run.json").read_text())
    assert list(run["stages"]) == ["occupancy", "maven", "relations", "report"]
    assert not list(out.glob(".*"))


def test_the_same_command_again_changes_nothing(made, occupancy, tmp_path):
    folder = made[0]
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    options = {"masks": str(folder / "masks"), "references": str(folder / "parts")}
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix == ".csv"}
    occupancy(str(folder / "e.zarr"), output=str(out), format="maven", **options)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Another cut re-relates without measuring again; other masks are not mixed in.
    found = occupancy(str(folder / "e.zarr"), output=str(out), cut=9.0, **options)
    assert (out / "occupancy.csv").stat().st_mtime_ns == before[out / "occupancy.csv"]
    assert (found.tables.parts["volumes"] == 0).all()
    with pytest.raises(InputError, match="add --overwrite"):
        occupancy(str(folder / "e.zarr"), output=str(out), masks=str(folder / "masks"))


def test_without_references_and_of_an_ensemble_in_memory(made, occupancy, tmp_path):
    folder = made[0]
    volumes = np.stack([read(path) for path in sorted((folder / "maps").glob("vol_*.mrc"))[:40]])
    ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=APIX)
    found = occupancy(ensemble, masks=str(folder / "masks"), output=str(tmp_path / "out"))
    sums = [0.7 * (read(folder / "parts" / f"{name}.mrc") > 0).sum() for name in NAMES]
    np.testing.assert_allclose(
        found.occupancy[NAMES], by_hand(folder)[:40] * sums, rtol=1e-5, atol=1e-4
    )


def test_unusable_volumes_keep_their_neighbours_numbers(made, occupancy, tmp_path):
    folder = made[0]
    ensemble = emhet_dask.open_ensemble(str(folder / "e.zarr"))
    usable = np.ones(N, dtype=bool)
    usable[[3, 50]] = False
    dataset = ensemble.dataset.assign(usable=("volume", usable))
    part = type(ensemble)(dataset, "other", ensemble.path)
    found = occupancy(part, masks=str(folder / "masks"), references=str(folder / "parts"),
                      output=str(tmp_path / "out"))  # fmt: skip
    assert found.occupancy["volume"].tolist() == np.flatnonzero(usable).tolist()
    np.testing.assert_allclose(
        found.occupancy[NAMES], by_hand(folder)[usable], rtol=1e-6, atol=1e-7
    )


def test_a_mask_of_another_sampling_is_brought_to_the_box(made, occupancy, tmp_path):
    folder = made[0]
    (tmp_path / "masks").mkdir()
    fine = np.kron(read(folder / "masks" / "Mask_sub_chainb.mrc"), np.ones((2, 2, 2)))
    write_map(tmp_path / "masks/b.mrc", fine.astype(np.float32), voxel_size_angstrom=APIX / 2)
    found = occupancy(
        str(folder / "e.zarr"), masks=str(tmp_path / "masks"), output=str(tmp_path / "o")
    )
    mine = found.occupancy["b"]
    theirs = made[2].occupancy["sub_chainb"]
    assert np.corrcoef(mine, theirs)[0, 1] > 0.99


def masks_like(folder, tmp_path):
    masks = tmp_path / "masks"
    shutil.copytree(folder / "masks", masks)
    return masks


@pytest.mark.parametrize(
    ("name", "shape", "value", "apix", "message"),
    [
        ("Mask_sub_chaina", (16,) * 3, 1, APIX, r"--masks \S+mrc: 16³ .* the same extent"),
        ("Mask_sub_chaina", (24, 24, 20), 1, APIX, r"_chaina\.mrc: 20 × 24 × 24 voxels; a .* cube"),
        ("Mask_sub_chaina", (24,) * 3, 7, APIX, r"values from 7 to 7, expected a mask from 0 to 1"),
        ("Mask_sub_chaina", (24,) * 3, 0, APIX, r"Mask_sub_chaina\.mrc: is empty"),
        ("Mask_name", (24,) * 3, 1, APIX, r"a part cannot be called 'name'"),
        ("Mask_other", (24,) * 3, 1, APIX, r"no map other\.mrc for \S+Mask_other\.mrc"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_used(made, occupancy, tmp_path, name, shape, value, apix, message):
    folder = made[0]
    masks = masks_like(folder, tmp_path)
    data = np.full(shape, value, dtype=np.float32)
    write_map(masks / f"{name}.mrc", data, voxel_size_angstrom=apix)
    with pytest.raises(InputError, match=message) as refused:
        occupancy(
            str(folder / "e.zarr"), masks=str(masks), references=str(folder / "parts"),
            output=str(tmp_path / "out"),
        )  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_folders_and_references_that_cannot_be_used(made, occupancy, tmp_path):
    folder = made[0]
    store, out = str(folder / "e.zarr"), str(tmp_path / "out")
    with pytest.raises(InputError, match="--masks nothere: no such folder"):
        occupancy(store, masks="nothere", output=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--masks no map in"):
        occupancy(store, masks=str(tmp_path / "empty"), output=out)
    with pytest.raises(InputError, match=r"--references nothere: no such folder"):
        occupancy(store, masks=str(folder / "masks"), references="nothere", output=out)
    parts = tmp_path / "parts"
    shutil.copytree(folder / "parts", parts)
    write_map(parts / "sub_chainc.mrc", np.zeros((BOX,) * 3, np.float32), voxel_size_angstrom=APIX)
    with pytest.raises(InputError, match=r"sub_chainc\.mrc: its density sums to 0"):
        occupancy(store, masks=str(folder / "masks"), references=str(parts), output=out)


def test_what_maven_could_not_key(made, occupancy, tmp_path):
    folder = made[0]
    volumes = np.random.default_rng(0).random((3, BOX, BOX, BOX)).astype(np.float32)
    options = {"masks": str(folder / "masks"), "output": str(tmp_path / "o"), "format": "maven"}
    for names, message in (
        (["a1", "b", "c3"], "volume 'b' does not end in a number"),
        (["a1", "b01", "c3"], "volumes 'a1' and 'b01' end in the same number"),
    ):
        ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=APIX, names=names)
        with pytest.raises(InputError, match=message):
            occupancy(ensemble, **options)
    masks = masks_like(folder, tmp_path)
    shutil.copy(masks / "Mask_sub_chaina.mrc", masks / "Mask_whole.mrc")
    shutil.copy(masks / "Mask_sub_chaina.mrc", masks / "Mask_whole_chaina.mrc")
    ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=APIX, names=["1", "2", "3"])
    with pytest.raises(
        InputError, match="'whole' and 'whole_chaina' would both be chain a of whole"
    ):
        occupancy(ensemble, **{**options, "masks": str(masks)})


def test_a_wrong_option_ends_with_one_line_and_status_2(made, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(
            ["occupancy", str(made[0] / "e.zarr"), "--masks", "nothere", "-o", str(tmp_path / "o")]
        )
    assert ended.value.code == 2
    assert capsys.readouterr().err == "emhet: --masks nothere: no such folder\n"
