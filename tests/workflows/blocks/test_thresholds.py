"""Thresholds that are given: one for all volumes, or one for each of them."""

import numpy as np
import pandas as pd

from emhet_dask.ensemble.groups import load_group
from tests.workflows.blocks.assembly import N, names_of, refused, volumes_of


def test_one_threshold_for_all_as_a_number_and_as_siren_writes_it(maps, blocks, undrawn, tmp_path):
    store = str(maps[0] / "e.zarr")
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


def test_a_threshold_of_0_is_a_threshold(maps, blocks, undrawn, tmp_path):
    found = blocks(str(maps[0] / "e.zarr"), output=str(tmp_path / "out"), threshold=0)
    assert found.tables.evidence["threshold"] == 0
    decided = load_group(tmp_path / "out/results.zarr/thresholds")
    np.testing.assert_array_equal(decided["threshold"], 0)
    for number, name in enumerate(names_of(found), start=1):
        occupied = volumes_of(maps[0])[:, found.labels == number] > 0
        np.testing.assert_allclose(found.tables.occupancy[name], occupied.mean(axis=1), rtol=2e-6)


def test_a_threshold_of_its_own_for_each_volume(maps, blocks, undrawn, tmp_path):
    folder = maps[0]
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


def test_tables_of_thresholds_that_do_not_fit(maps, blocks, tmp_path):
    store, out = str(maps[0] / "e.zarr"), str(tmp_path / "out")
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
