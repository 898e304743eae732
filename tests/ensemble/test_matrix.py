"""The matrix: any selection, any cut, by bands or by columns, and each volume read once."""

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.ensemble import from_array, matrix, open_ensemble, reading
from emhet_dask.ensemble.layout import Layout
from emhet_dask.ensemble.matrix import into_box, open_matrix, write_matrix
from emhet_dask.ensemble.store import RECORD_COLUMNS, create_store, finish_store, write_shard

BOX = 6


@pytest.fixture(autouse=True)
def small_cuts(monkeypatch):
    monkeypatch.setattr(matrix, "_ROWS", 5)
    monkeypatch.setattr(matrix, "_COLUMNS", 16)
    monkeypatch.setattr(matrix, "_VOLUMES_PER_TASK", 2)
    monkeypatch.setattr(matrix, "_BYTES_PER_TASK", 0)


def make_store(path, volumes, *, dtype):
    layout = Layout(len(volumes), BOX, dtype, 1, 3)
    attributes = {
        "voxel_size_angstrom": 3.0, "origin_angstrom": [0.0, 0.0, 0.0], "ingest_key": "key",
    }  # fmt: skip
    names = np.asarray([f"vol_{number}" for number in range(len(volumes))])
    create_store(path, layout, known={"name": names}, attributes=attributes)
    scale = 2.0 ** -(np.arange(len(volumes)) % 5)
    for start, stop in layout.shards():
        record = np.ones((stop - start, len(RECORD_COLUMNS)))
        record[:, RECORD_COLUMNS.index("scale")] = scale[start:stop]
        stored = volumes[start:stop]
        if dtype == "float16":
            stored = (stored / scale[start:stop, None, None, None]).astype(dtype)
        write_shard(path, (start, stop), stored, record)
    finish_store(path)
    return open_ensemble(path)


def written(path, ensemble, mask):
    tasks, _ = write_matrix(path, ensemble, mask=mask, key="a")
    dask.compute(*tasks, scheduler="synchronous")
    return path


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    chosen=st.lists(st.integers(0, 16), unique=True, min_size=1).map(sorted),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0, 2**16),
)
def test_a_selection_is_what_its_volumes_are(tmp_path_factory, chosen, dtype, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("matrix")
    volumes = rng.standard_normal((17, BOX, BOX, BOX)).astype(np.float32)
    ensemble = make_store(str(folder / "e.zarr"), volumes, dtype=dtype).select(chosen)
    mask = (rng.random((BOX, BOX, BOX)) < 0.4).astype(np.float32)
    path = written(str(folder / "m.zarr"), ensemble, mask)
    stored = ensemble.volumes.compute(scheduler="synchronous")
    expected = stored.reshape(len(chosen), -1)[:, mask.reshape(-1) > 0]
    for columns in (False, True):
        found = open_matrix(path, columns=columns)["matrix"]
        np.testing.assert_array_equal(found.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize(("task_bytes", "parts"), [(0, 6), (4 * 4 * BOX**3, 4), (1 << 20, 2)])
def test_small_volumes_share_a_task(tmp_path, monkeypatch, task_bytes, parts):
    monkeypatch.setattr(matrix, "_BYTES_PER_TASK", task_bytes)
    volumes = np.random.default_rng(0).random((10, BOX, BOX, BOX)).astype(np.float32)
    ensemble = make_store(str(tmp_path / "e.zarr"), volumes, dtype="float32")
    path = str(tmp_path / "m.zarr")
    tasks, layout = write_matrix(path, ensemble, mask=np.ones((BOX,) * 3), key="a")
    assert layout.bands == [(0, 5), (5, 10)]
    graph = dask.base.collections_to_expr(tasks).optimize().__dask_graph__()
    assert sum(str(key).startswith("_take") for key in graph) == parts
    dask.compute(*tasks, scheduler="synchronous")
    found = open_matrix(path)["matrix"].compute(scheduler="synchronous")
    np.testing.assert_array_equal(found, volumes.reshape(10, -1))


def test_blocks_are_bands_or_narrow_columns(tmp_path):
    volumes = np.random.default_rng(0).random((12, BOX, BOX, BOX)).astype(np.float32)
    ensemble = from_array(volumes, voxel_size_angstrom=1.0)
    mask = np.zeros((BOX, BOX, BOX), dtype=np.float32)
    mask.reshape(-1)[:40] = 1
    path = written(str(tmp_path / "m.zarr"), ensemble, mask)
    assert open_matrix(path)["matrix"].data.chunks == ((5, 5, 2), (40,))
    assert open_matrix(path, columns=True)["matrix"].data.chunks == ((5, 5, 2), (16, 16, 8))
    for columns in (False, True):
        found = open_matrix(path, columns=columns)["matrix"].values
        np.testing.assert_array_equal(found, volumes.reshape(12, -1)[:, :40])


def test_each_volume_is_read_once(tmp_path, monkeypatch):
    volumes = np.random.default_rng(0).random((17, BOX, BOX, BOX)).astype(np.float32)
    ensemble = make_store(str(tmp_path / "e.zarr"), volumes, dtype="float32")
    opened, read = reading.CheckedArray.__getitem__, []

    def recorded(array, key):
        read.extend(range(key.start, key.stop))
        return opened(array, key)

    monkeypatch.setattr(reading.CheckedArray, "__getitem__", recorded)
    chosen = [0, 1, 4, 5, 6, 7, 8, 9, 13, 15, 16]
    written(str(tmp_path / "m.zarr"), ensemble.select(chosen), np.ones((BOX,) * 3, np.float32))
    assert sorted(read) == chosen


def test_masked_voxels_return_to_their_place():
    box = into_box(np.array([1.0, 2.0]), np.array([5, 26]), 3)
    assert box.shape == (3, 3, 3)
    assert (box[0, 1, 2], box[2, 2, 2], box.sum()) == (1, 2, 3)
