"""Blocks of other ensembles: in memory, of other amplitudes, in part, of one state."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.analysis.simulation import assembly_model, simulate
from emhet_dask.ensemble.groups import load_group
from emhet_dask.formats.blocks_pickle import read_blocks_pickle
from tests.workflows.blocks.assembly import APIX, BOX, RESOLUTION, SUBUNITS, N, names_of, read


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


def test_unusable_volumes_keep_their_neighbours_numbers(maps, blocks, undrawn, tmp_path):
    ensemble = emhet_dask.open_ensemble(str(maps[0] / "e.zarr"))
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
