"""Planted blocks are found, and all files and tables tell the same of them."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from emhet_dask.ensemble.groups import load_group
from emhet_dask.formats.blocks_pickle import read_blocks_pickle
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.workflows.stages import blocks as stage
from tests.workflows.blocks.assembly import APIX, SUBUNITS, N, names_of, read, volumes_of


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


def test_a_map_may_be_called_na(copied):
    for file in ("block_occupancy.csv", "block_density.csv", "block_presence.csv"):
        table = pd.read_csv(copied / file)
        table.loc[0, "name"] = "NA"
        table.to_csv(copied / file, index=False)
    tables = stage.load_blocks(copied)
    for each in (tables.occupancy, tables.density, tables.presence):
        assert each["name"].iloc[0] == "NA"
    assert tables.relations["odds_ratio"].dtype.kind == "f"
