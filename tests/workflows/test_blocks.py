"""Blocks: planted ones from a store to the files, all of which tell the same; kills; bad input."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.analysis.simulation import assembly_model, simulate
from emhet_dask.cli import main
from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError
from emhet_dask.formats.blocks_pickle import read_blocks_pickle
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.workflows.stages import blocks as stage
from emhet_dask.workflows.stages import voxel_pairs

N, BOX, APIX, RESOLUTION, SUBUNITS = 80, 20, 9.6, 24.0, 4
SCREEN = {"screen_thresholds": (1.25,), "screen_p": (1e-4,)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """Maps of an assembly, their store, and its blocks with all that is said of them."""
    folder = tmp_path_factory.mktemp("blocks")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=RESOLUTION,
        subunits=SUBUNITS, seed=3, cluster=client, quiet=True,
    )  # fmt: skip
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        cluster=client,
        quiet=True,
    )
    found = emhet_dask.blocks(
        str(folder / "e.zarr"), output=str(folder / "out"), cluster=client, quiet=True, **SCREEN
    )
    return folder, simulated.truth, found


@pytest.fixture
def blocks(client):
    def run(*arguments, **options):
        return emhet_dask.blocks(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the report, which takes longer than all else."""
    monkeypatch.setattr("emhet_dask.workflows.blocks.block_report_stage", lambda *_: None)


@pytest.fixture
def copied(made, tmp_path):
    """The results in a folder of the test's own."""
    return shutil.copytree(made[0] / "out", tmp_path / "out")


def read(path):
    return read_volume(read_header(path))


def volumes_of(folder):
    return np.stack([read(path) for path in sorted((folder / "maps").glob("vol_*.mrc"))])


def stamps(folder, pattern="*"):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern) if path.is_file()}


def arrays_of(group):
    return {name: array[:] for name, array in zarr.open_group(str(group), mode="r").arrays()}


def names_of(found):
    return [f"block_{number:03d}" for number in range(1, found.n_blocks + 1)]


# What is found -----------------------------------------------------------------------------------


def test_planted_blocks_and_relations(made):
    folder, truth, found = made
    assert found.n_blocks == SUBUNITS - 1  # all but the core
    planted = read(folder / "maps/truth_blocks.mrc").astype(int)
    inside = (planted > 1) & (found.labels > 0)
    assert adjusted_rand_score(planted[inside], found.labels[inside]) >= 0.99
    assert inside.sum() >= 0.8 * np.count_nonzero(planted > 1)
    assert np.count_nonzero((found.labels > 0) & (planted < 2)) < 0.05 * inside.sum()
    own = [np.bincount(planted[found.labels == k]).argmax() for k in (1, 2, 3)]
    for name, subunit in zip(names_of(found), own, strict=True):
        here = truth[f"subunit_{subunit:03d}"].to_numpy()
        np.testing.assert_array_equal(found.tables.presence[name], here)
    table = found.tables.relations
    (row,) = table[table["relation"] != "independent"].itertuples()
    # 'subunit 4 only with subunit 3'
    assert (row.relation, own[row.block_a - 1], own[row.block_b - 1]) == ("requires", 4, 3)


def test_files_that_scripts_rely_on(made):
    out = made[0] / "out"
    for name in (
        "blocks.mrc", "block_001.mrc", "block_002.mrc", "block_003.mrc", "mean.mrc", "mask.mrc",
        "blocks.pkl", "blocks.csv", "block_occupancy.csv", "block_density.csv",
        "block_presence.csv", "block_relations.csv", "block_states.csv", "resolutions.csv",
        "thresholds.csv", "screening.csv", "evidence.json", "run.json", "report.html", "open.cxc",
        "explore.ipynb", "blocks.png", "blocks_3d.png", "clustermap.png", "relations.png",
        "figures/histograms.png", "figures/odds.png", "figures/screening.png",
    ):  # fmt: skip
        assert (out / name).is_file(), name
    assert not (out / "block_004.mrc").exists()
    assert not list(out.glob(".*"))
    run = json.loads((out / "run.json").read_text())
    assert list(run["stages"]) == [
        "mask", "matrix", "thresholds", "occupied", "voxel_pairs", "blocks", "screening", "report",
    ]  # fmt: skip


def test_maps_and_pickle_tell_the_same_as_the_labels(made):
    folder, _, found = made
    out = folder / "out"
    header = read_header(out / "blocks.mrc")
    assert header.dtype.kind == "i"
    assert header.voxel_size_angstrom == pytest.approx(APIX, rel=1e-6)
    labels = read_volume(header)
    np.testing.assert_array_equal(labels, found.labels)
    pickled = read_blocks_pickle(out / "blocks.pkl")
    assert sorted(pickled) == [1, 2, 3]
    for number in (1, 2, 3):
        inside = labels == number
        np.testing.assert_array_equal(read(out / f"block_{number:03d}.mrc"), inside)
        np.testing.assert_array_equal(np.sort(pickled[number]), np.flatnonzero(inside))
    mask = read(out / "mask.mrc") > 0
    assert not (labels[~mask]).any()
    mean = volumes_of(folder).mean(axis=0, dtype=float)
    np.testing.assert_allclose(read(out / "mean.mrc")[mask], mean[mask], rtol=1e-3, atol=1e-4)


def test_tables_are_what_the_maps_say(made):
    folder, _, found = made
    out, names = folder / "out", names_of(found)
    rows = volumes_of(folder)
    decided = load_group(out / "results.zarr/thresholds")
    tables = {
        name: pd.read_csv(out / f"block_{name}.csv")
        for name in ("occupancy", "density", "presence")
    }
    blocks = pd.read_csv(out / "blocks.csv")
    for table in tables.values():
        assert table.columns[: 2 + len(names)].tolist() == ["volume", "name", *names]
        assert table["volume"].tolist() == list(range(N))
        assert table["name"][7] == "vol_00007"
    threshold, factor = decided["threshold"].values, decided["factor"].values
    level = np.median(threshold / factor)
    for row in blocks.itertuples():
        inside = found.labels == row.block
        name = f"block_{row.block:03d}"
        values = rows[:, inside].astype(float)
        occupied = (values > threshold[:, None]).mean(axis=1)
        density = values.mean(axis=1) / factor
        np.testing.assert_allclose(tables["occupancy"][name], occupied, rtol=2e-6)
        np.testing.assert_allclose(tables["density"][name], density, rtol=1e-4, atol=1e-5)
        here = occupied > row.cut
        np.testing.assert_array_equal(tables["presence"][name], here)
        assert row.voxels == inside.sum()
        assert row.volume_A3 == pytest.approx(inside.sum() * APIX**3, rel=1e-4)
        assert (row.volumes, row.fraction) == (here.sum(), pytest.approx(here.mean(), rel=1e-5))
        contrast = (density[here].mean() - density[~here].mean()) / level
        assert row.contrast == pytest.approx(contrast, rel=1e-3)
        assert 0 < row.phi <= 1
        assert row.core_voxels <= row.voxels
    assert blocks["voxels"].is_monotonic_decreasing
    written = pd.read_csv(out / "thresholds.csv")
    np.testing.assert_allclose(written["threshold"], threshold, rtol=1e-5)


def test_relations_and_states_count_the_presence(made):
    folder, _, found = made
    names = names_of(found)
    presence = pd.read_csv(folder / "out/block_presence.csv")
    relations = pd.read_csv(folder / "out/block_relations.csv")
    assert len(relations) == 3
    for row in relations.itertuples():
        a, b = (presence[f"block_{k:03d}"].astype(bool) for k in (row.block_a, row.block_b))
        counts = [(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()]
        assert [row.both, row.a_only, row.b_only, row.neither] == counts
    states = pd.read_csv(folder / "out/block_states.csv")
    assert states["volumes"].is_monotonic_decreasing
    assert states["volumes"].sum() == N
    for row in states.itertuples():
        same = (presence[names] == states.loc[row.state, names]).all(axis=1)
        assert same.sum() == row.volumes
        assert (presence.loc[same, "state"] == row.state).all()


def test_evidence_and_what_is_said(made):
    folder, _, found = made
    evidence = json.loads((folder / "out/evidence.json").read_text())
    assert evidence == found.tables.evidence
    assert evidence["n_blocks"] == 3
    assert evidence["voxels_in_blocks"] == np.count_nonzero(found.labels)
    n = evidence["voxels_compared"]
    kept = load_group(folder / "out/results.zarr/occupied/level_0")["voxel_index"].size
    assert n == kept
    assert 0 < evidence["pairs_tested"] < n * (n - 1) // 2
    assert evidence["level_of_one_test"][0] == pytest.approx(0.01 / evidence["pairs_tested"])
    assert "3 blocks" in found.describe()
    assert "1 requires" in found.describe()
    page = (folder / "out/report.html").read_text()
    assert "3 blocks in 80 volumes" in page


def test_the_occupied_voxels_are_those_of_a_plain_count(made):
    folder, _, found = made
    threshold = load_group(folder / "out/results.zarr/thresholds")["threshold"].values
    mask = read(folder / "out/mask.mrc") > 0
    count = (volumes_of(folder) > threshold[:, None, None, None]).sum(axis=0)
    expected = np.count_nonzero(mask & (count > 0.01 * N) & (count < N))
    assert found.tables.evidence["voxels_compared"] == expected


# Settings ----------------------------------------------------------------------------------------


def test_screening_is_what_other_runs_find(made, blocks, undrawn, tmp_path):
    folder, _, found = made
    table = pd.read_csv(folder / "out/screening.csv")
    level = found.tables.evidence["threshold"]
    assert table.columns.tolist() == [
        "threshold", "positive_p", "negative_p", "blocks", "voxels", "agreement", "chosen",
    ]  # fmt: skip
    settings = [(factor, p) for factor in (1, 1.25) for p in (0.01, 1e-4)]
    np.testing.assert_allclose(
        table[["threshold", "positive_p"]], [(factor * level, p) for factor, p in settings],
        rtol=1e-5,
    )  # fmt: skip
    assert table["chosen"].tolist() == [True] + 3 * [False]
    assert table.loc[0, ["blocks", "voxels", "agreement"]].tolist() == [
        3, np.count_nonzero(found.labels), 1.0,
    ]  # fmt: skip
    other = blocks(
        str(folder / "e.zarr"), output=str(tmp_path / "out"), threshold=repr(1.25 * level),
        positive_p=1e-4,
    )  # fmt: skip
    row = table.iloc[3]
    assert (row["blocks"], row["voxels"]) == (other.n_blocks, np.count_nonzero(other.labels))
    both = (found.labels > 0) & (other.labels > 0)
    assert row["agreement"] == pytest.approx(
        adjusted_rand_score(found.labels[both], other.labels[both]), rel=1e-5
    )


def test_the_same_command_again_does_nothing(made, blocks, copied, client, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr(stage, "search_blocks", never)
    before = {path: at for path, at in stamps(copied).items() if path.name != "run.json"}
    again = blocks(str(made[0] / "e.zarr"), output=str(copied), **SCREEN, quiet=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().err.count("done before") == 8
    np.testing.assert_array_equal(again.labels, made[2].labels)
    for name in ("blocks", "occupancy", "density", "presence", "relations", "states"):
        pd.testing.assert_frame_equal(getattr(again.tables, name), getattr(made[2].tables, name))
    pd.testing.assert_frame_equal(again.screening, made[2].screening)


def test_another_least_size_redoes_the_blocks_alone(made, blocks, undrawn, copied):
    results = copied / "results.zarr"
    parts = ("matrix", "thresholds", "occupied", "voxel_pairs")
    before = {name: stamps(results / name) for name in parts}
    assert all(before.values())
    largest = int(made[2].tables.blocks["core_voxels"].max())
    found = blocks(str(made[0] / "e.zarr"), output=str(copied), min_voxels=largest, **SCREEN)
    assert {name: stamps(results / name) for name in parts} == before
    assert 1 <= found.n_blocks < 3
    assert found.tables.evidence["groups_too_small"] == 3 - found.n_blocks
    assert found.tables.evidence["min_voxels"] == largest
    left = sorted(path.name for path in copied.glob("block_0*.mrc"))
    assert left == [f"{name}.mrc" for name in names_of(found)]


def test_nothing_is_left_of_blocks_that_are_none_any_more(made, blocks, copied):
    found = blocks(str(made[0] / "e.zarr"), output=str(copied), min_voxels=BOX**3)
    assert found.n_blocks == 0
    assert not found.labels.any()
    for name in (
        "block_001.mrc", "blocks.png", "blocks_3d.png", "clustermap.png", "relations.png",
        "figures/odds.png", "figures/histograms.png", "figures/screening.png", "screening.csv",
    ):  # fmt: skip
        assert not (copied / name).exists(), name
    assert "No block in 80 volumes" in (copied / "report.html").read_text()
    assert "block_001" not in (copied / "open.cxc").read_text()


def test_one_threshold_for_all_as_a_number_and_as_siren_writes_it(made, blocks, undrawn, tmp_path):
    store = str(made[0] / "e.zarr")
    number = blocks(store, output=str(tmp_path / "a"), threshold=0.25, normalize=False)
    pd.DataFrame({"vol_id": range(N)[::-1], "denormalized_predictions": 0.25}).to_csv(
        tmp_path / "predictions.csv"
    )
    decided = load_group(tmp_path / "a/results.zarr/thresholds")
    np.testing.assert_array_equal(decided["threshold"], 0.25)
    np.testing.assert_array_equal(decided["factor"], 1)
    assert number.n_blocks == 3
    found = blocks(
        store, output=str(tmp_path / "b"), threshold=str(tmp_path / "predictions.csv"),
        normalize=False,
    )  # fmt: skip
    np.testing.assert_array_equal(found.labels, number.labels)
    pd.testing.assert_frame_equal(found.tables.occupancy, number.tables.occupancy)


def test_a_threshold_of_0_is_a_threshold(made, blocks, undrawn, tmp_path):
    found = blocks(str(made[0] / "e.zarr"), output=str(tmp_path / "out"), threshold=0)
    assert found.tables.evidence["threshold"] == 0
    decided = load_group(tmp_path / "out/results.zarr/thresholds")
    np.testing.assert_array_equal(decided["threshold"], 0)
    for number, name in enumerate(names_of(found), start=1):
        occupied = volumes_of(made[0])[:, found.labels == number] > 0
        np.testing.assert_allclose(found.tables.occupancy[name], occupied.mean(axis=1), rtol=2e-6)


def test_a_threshold_of_its_own_for_each_volume(made, blocks, undrawn, tmp_path):
    folder = made[0]
    own = np.random.default_rng(0).uniform(0.24, 0.27, N)
    pd.DataFrame({"volume": range(N), "threshold": own}).to_csv(tmp_path / "t.csv", index=False)
    found = blocks(
        str(folder / "e.zarr"), output=str(tmp_path / "out"), threshold=str(tmp_path / "t.csv")
    )
    decided = load_group(tmp_path / "out/results.zarr/thresholds")
    np.testing.assert_allclose(decided["threshold"], own, rtol=1e-15)  # not scaled
    assert np.ptp(decided["factor"].values) > 0
    assert found.n_blocks == 3
    for number, name in enumerate(names_of(found), start=1):
        occupied = volumes_of(folder)[:, found.labels == number] > own[:, None]
        np.testing.assert_allclose(found.tables.occupancy[name], occupied.mean(axis=1), rtol=2e-6)
    # Another table of that name is another threshold.
    pd.DataFrame({"volume": range(N), "threshold": 0.3}).to_csv(tmp_path / "t.csv", index=False)
    again = blocks(
        str(folder / "e.zarr"), output=str(tmp_path / "out"), threshold=str(tmp_path / "t.csv")
    )
    assert again.tables.evidence["threshold"] != found.tables.evidence["threshold"]


def test_volumes_of_other_amplitudes(blocks, undrawn, tmp_path):
    model, simulated = assembly()
    scale = np.random.default_rng(0).uniform(0.85, 1.2, N)
    scaled = simulated["volumes"].values * scale[:, None, None, None].astype(np.float32)
    with_scale = emhet_dask.from_array(scaled, voxel_size_angstrom=APIX)
    options = {"mask": "none", "background_length": 20}
    found = blocks(with_scale, output=str(tmp_path / "a"), **options)
    factor = load_group(tmp_path / "a/results.zarr/thresholds")["factor"].values
    assert np.corrcoef(factor, scale)[0, 1] > 0.8
    assert found.n_blocks == 3
    own = [np.bincount(model.labels[found.labels == k]).argmax() - 1 for k in (1, 2, 3)]
    np.testing.assert_array_equal(
        found.tables.presence[names_of(found)], simulated["presence"].values[:, own]
    )
    as_they_are = blocks(
        with_scale, output=str(tmp_path / "b"), normalize=False, threshold=0.3, **options
    )
    np.testing.assert_array_equal(
        load_group(tmp_path / "b/results.zarr/thresholds")["threshold"], 0.3
    )
    assert (as_they_are.labels != found.labels).any()


@pytest.mark.slow
def test_corrections(made, blocks, undrawn, tmp_path):
    store = str(made[0] / "e.zarr")
    found = {
        name: blocks(store, output=str(tmp_path / name), correction=name)
        for name in ("benjamini-hochberg", "none")
    }
    evidence = {"bonferroni": made[2].tables.evidence} | {
        name: each.tables.evidence for name, each in found.items()
    }
    for key in ("pairs_together", "pairs_apart"):
        counts = [evidence[name][key] for name in ("bonferroni", "benjamini-hochberg", "none")]
        assert counts == sorted(counts), key
        assert counts[0] < counts[-1]
    assert evidence["none"]["level_of_one_test"] == [0.01, 0.05]
    # The largest level at which as many pairs pass as keep the share of false ones.
    level = evidence["benjamini-hochberg"]["level_of_one_test"][0]
    passed = evidence["benjamini-hochberg"]["pairs_together"]
    tested = evidence["benjamini-hochberg"]["pairs_tested"]
    assert level <= 0.01 * passed / tested * 1.01
    assert level > 0.8 * 0.01 * passed / tested
    inside = (found["benjamini-hochberg"].labels > 0) & (made[2].labels > 0)
    assert adjusted_rand_score(
        made[2].labels[inside], found["benjamini-hochberg"].labels[inside]
    ) == pytest.approx(1, abs=0.01)


# In memory ---------------------------------------------------------------------------------------


def assembly(*, one_state=False):
    model = assembly_model(
        box=BOX, voxel_size_angstrom=APIX, resolution_angstrom=RESOLUTION, n_subunits=SUBUNITS,
        seed=3,
    )  # fmt: skip
    if one_state:
        model = replace(model, presence=np.ones((1, SUBUNITS), dtype=bool), probability=np.ones(1))
    return model, simulate(model, N, seed=11)


def test_an_ensemble_in_memory_with_weights(blocks, undrawn, tmp_path):
    _, simulated = assembly()
    weights = np.arange(1.0, N + 1)
    ensemble = emhet_dask.from_array(
        simulated["volumes"].values,
        voxel_size_angstrom=APIX,
        names=[f"state {k}" for k in range(N)],
        weights=weights,
    )
    found = blocks(ensemble, output=str(tmp_path / "out"))
    assert found.n_blocks == 3
    assert found.tables.occupancy["name"][5] == "state 5"
    for name, row in zip(names_of(found), found.tables.blocks.itertuples(), strict=True):
        here = found.tables.presence[name].to_numpy(dtype=bool)
        assert row.particles == pytest.approx(weights[here].sum(), rel=1e-5)
    assert found.tables.states["particles"].sum() == pytest.approx(weights.sum(), rel=1e-4)


def test_unusable_volumes_keep_their_neighbours_numbers(made, blocks, undrawn, tmp_path):
    ensemble = emhet_dask.open_ensemble(str(made[0] / "e.zarr"))
    usable = np.ones(N, dtype=bool)
    usable[[3, 50]] = False
    dataset = ensemble.dataset.assign(usable=("volume", usable))
    part = type(ensemble)(dataset, "other", ensemble.path)
    found = blocks(part, output=str(tmp_path / "out"))
    assert found.tables.occupancy["volume"].tolist() == np.flatnonzero(usable).tolist()
    assert found.tables.occupancy["name"][3] == "vol_00004"
    assert found.n_blocks == 3


def test_maps_of_one_state_have_no_block(blocks, tmp_path):
    _, simulated = assembly(one_state=True)
    ensemble = emhet_dask.from_array(simulated["volumes"].values, voxel_size_angstrom=APIX)
    out = tmp_path / "out"
    found = blocks(ensemble, output=str(out))
    assert found.n_blocks == 0
    assert found.describe().startswith("0 blocks of 0 voxels, of ")
    assert not read(out / "blocks.mrc").any()
    assert read_blocks_pickle(out / "blocks.pkl") == {}
    assert not list(out.glob("block_0*.mrc"))
    assert "No block in 80 volumes" in (out / "report.html").read_text()
    table = pd.read_csv(out / "block_occupancy.csv")
    assert table.columns.tolist() == ["volume", "name"]
    assert len(table) == N
    assert len(pd.read_csv(out / "block_relations.csv")) == 0
    again = blocks(ensemble, output=str(out))
    assert again.n_blocks == 0


# Kills -------------------------------------------------------------------------------------------

KILLED = """
import os, signal
import dask
import emhet_dask
from emhet_dask.workflows.stages import voxel_pairs

written = voxel_pairs.write_edges

def doomed(*arguments, **options):
    tasks = written(*arguments, **options)
    dask.compute(*tasks[: len(tasks) // 2], scheduler="synchronous")
    print(len(tasks), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

voxel_pairs.write_edges = doomed
emhet_dask.blocks({store!r}, output={output!r}, quiet=True)
"""


@pytest.mark.slow
def test_killed_among_the_pairs_and_continued(made, blocks, undrawn, tmp_path, monkeypatch):
    store, out = str(made[0] / "e.zarr"), tmp_path / "out"
    code = KILLED.format(store=store, output=str(out))
    killed = subprocess.run(
        [sys.executable, "-c", code], check=False, stdout=subprocess.PIPE, text=True
    )
    assert killed.returncode == -signal.SIGKILL
    all_tasks = int(killed.stdout)
    assert all_tasks > 4
    left = []
    written = voxel_pairs.write_edges

    def counted(*arguments, **options):
        tasks = written(*arguments, **options)
        left.append(len(tasks))
        return tasks

    monkeypatch.setattr(voxel_pairs, "write_edges", counted)
    found = blocks(store, output=str(out))
    assert left == [all_tasks - all_tasks // 2]
    whole = blocks(store, output=str(tmp_path / "whole"))
    assert left[1:] == [all_tasks]
    np.testing.assert_array_equal(found.labels, whole.labels)
    for group in ("thresholds", "occupied/level_0", "voxel_pairs/level_0", "blocks"):
        mine, theirs = (
            arrays_of(folder / "results.zarr" / group) for folder in (out, tmp_path / "whole")
        )
        assert mine
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)


# Bad input ---------------------------------------------------------------------------------------


def refused(blocks, *arguments, match, **options):
    with pytest.raises(InputError, match=match) as error:
        blocks(*arguments, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": "100"}, "--threshold 100: .*leaves no voxel.*a lower threshold is needed"),
        ({"threshold": "-100"}, "--threshold -100: .* in all 80 volumes; a higher threshold"),
        (
            {"screen_thresholds": 100},
            "--threshold auto or a factor in --screen-thresholds: the thr",
        ),
        ({"threshold": "nowhere.csv"}, "--threshold nowhere.csv: no such file; expected auto, a"),
        ({"threshold": "nan"}, "--threshold: got nan, expected a finite number"),
        ({"mask": "nowhere.mrc"}, "nowhere.mrc"),
        ({"positive_p": 0.7}, "--positive-p: got 0.7, expected a number"),
        ({"min_voxels": 0}, "--min-voxels: got 0, expected a whole number of at least 1, or auto"),
        ({"screen_p": "1"}, "--screen-p: got '1', expected levels separated by commas"),
        ({"background_length": 500.0}, "none of the .* pairs of .* voxels is farther apart"),
        ({"correction": "holm"}, "--correction: got 'holm', expected one of bonferroni"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(made, blocks, tmp_path, options, match):
    refused(blocks, str(made[0] / "e.zarr"), output=str(tmp_path / "out"), match=match, **options)


def test_tables_of_thresholds_that_do_not_fit(made, blocks, tmp_path):
    store, out = str(made[0] / "e.zarr"), str(tmp_path / "out")
    table = tmp_path / "predictions.csv"
    frame = pd.DataFrame({"vol_id": range(N), "denormalized_predictions": 0.25})
    frame.drop(index=7).to_csv(table)
    refused(blocks, store, output=out, threshold=str(table),
            match=r"predictions\.csv: vol_00007 is missing")  # fmt: skip
    frame.rename(columns={"denormalized_predictions": "p"}).to_csv(table)
    refused(blocks, store, output=out, threshold=str(table),
            match=r"predictions\.csv: expected the columns name,threshold")  # fmt: skip
    frame.astype(str).replace("0.25", "high").to_csv(table)
    refused(blocks, store, output=out, threshold=str(table), match="of vol_00000 is 'high'")


def test_a_mask_of_another_box(made, blocks, tmp_path):
    write_map(tmp_path / "mask.mrc", np.ones((16,) * 3, np.float32), voxel_size_angstrom=APIX)
    refused(blocks, str(made[0] / "e.zarr"), output=str(tmp_path / "out"),
            mask=str(tmp_path / "mask.mrc"), match=r"mask\.mrc: .*16")  # fmt: skip


def test_a_map_is_no_mask(made, blocks, tmp_path):
    density = np.random.default_rng(0).standard_normal((BOX,) * 3).astype(np.float32)
    write_map(tmp_path / "map.mrc", density, voxel_size_angstrom=APIX)
    refused(blocks, str(made[0] / "e.zarr"), output=str(tmp_path / "out"),
            mask=str(tmp_path / "map.mrc"), match="expected a mask from 0 to 1")  # fmt: skip


@pytest.mark.parametrize(
    ("n", "match"),
    [
        (5, "5 volumes are too few to tell what comes and goes together; some 40 or more"),
        (16, r"16 volumes are too few for any of \d+ pairs .* significant.*; \d+ or more are need"),
    ],
)
def test_too_few_volumes_and_how_many_would_do(made, blocks, tmp_path, n, match):
    ensemble = emhet_dask.from_array(volumes_of(made[0])[:n], voxel_size_angstrom=APIX)
    refused(blocks, ensemble, output=str(tmp_path / "out"), match=match)


def test_results_of_other_maps_are_not_mixed(made, blocks, undrawn, copied):
    ensemble = emhet_dask.from_array(volumes_of(made[0])[:60], voxel_size_angstrom=APIX)
    refused(blocks, ensemble, output=str(copied), match="--overwrite")
    refused(blocks, str(made[0] / "e.zarr"), output=str(copied), mask="none", match="--overwrite")


def test_the_command_line(made, copied, capsys):
    store = str(made[0] / "e.zarr")
    main(["blocks", store, "-o", str(copied), "--screen-thresholds", "1.25",
          "--screen-p", "1e-4", "--quiet"])  # fmt: skip
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.strip() == made[2].describe().replace(str(made[0] / "out"), str(copied))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "nowhere.csv"],
         "--threshold nowhere.csv: no such file; expected auto, a number or a CSV file"),
        (["--min-voxels", "few"],
         "--min-voxels: got 'few', expected a whole number of at least 1, or auto"),
    ],
)  # fmt: skip
def test_a_wrong_option_ends_with_one_line_and_status_2(made, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        main(["blocks", str(made[0] / "e.zarr"), "-o", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"emhet: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_map_may_be_called_na(copied):
    for file in ("block_occupancy.csv", "block_density.csv", "block_presence.csv"):
        table = pd.read_csv(copied / file)
        table.loc[0, "name"] = "NA"
        table.to_csv(copied / file, index=False)
    tables = stage.load_blocks(copied)
    for each in (tables.occupancy, tables.density, tables.presence):
        assert each["name"].iloc[0] == "NA"
    assert tables.relations["odds_ratio"].dtype.kind == "f"
