"""Chosen volumes come in the order asked for, and no chunk is read for each of its volumes."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.ensemble import from_array, reading
from emhet_dask.ensemble.reading import StoredVolumes, stream

BOX = 4


def store(folder, *, count=24, per_chunk=4, dtype="float32"):
    volumes = np.random.default_rng(0).standard_normal((count, BOX, BOX, BOX)).astype(dtype)
    group = zarr.open_group(folder / "e.zarr", mode="w", zarr_format=3)
    group.create_array(
        "volumes",
        data=volumes,
        chunks=(per_chunk, BOX, BOX, BOX),
        shards=(2 * per_chunk, BOX, BOX, BOX),
    )
    return str(folder / "e.zarr"), volumes


@pytest.fixture
def slices(monkeypatch):
    """Record the slices that are read."""
    read, seen = zarr.Array.__getitem__, []

    def recorded(array, key):
        seen.append(key)
        return read(array, key)

    monkeypatch.setattr(zarr.Array, "__getitem__", recorded)
    return seen


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("per_chunk", [1, 4])
@pytest.mark.parametrize(
    "positions", [[], [5], [0, 3, 4, 5, 17, 23], [23, 2, 2, 1, 9], list(range(24))]
)
def test_volumes_come_in_the_order_given(tmp_path, dtype, per_chunk, positions):
    path, volumes = store(tmp_path, per_chunk=per_chunk, dtype=dtype)
    index = np.asarray(positions, dtype=np.int64)
    scale = None if dtype == "float32" else 2.0 ** -np.arange(len(index), dtype=np.float32)
    found = list(StoredVolumes(path, index, scale))
    assert len(found) == len(index)
    factors = np.ones(len(index)) if scale is None else scale
    for volume, position, factor in zip(found, index, factors, strict=True):
        assert volume.dtype == np.float32
        np.testing.assert_array_equal(volume, volumes[position].astype(np.float32) * factor)


def test_a_chunk_is_read_once_for_all_that_is_wanted_of_it(tmp_path, slices, monkeypatch):
    monkeypatch.setattr(reading, "_READ_BYTES", 1)
    path, _ = store(tmp_path)
    assert len(list(StoredVolumes(path, np.asarray([0, 2, 3, 8, 11, 20]), None))) == 6
    assert slices == [slice(0, 4), slice(8, 12), slice(20, 21)]


def test_neighbours_are_read_together_up_to_a_size(tmp_path, slices, monkeypatch):
    monkeypatch.setattr(reading, "_READ_BYTES", 3 * 4 * BOX**3)
    path, _ = store(tmp_path, per_chunk=1)
    assert len(list(StoredVolumes(path, np.asarray([0, 1, 2, 3, 4, 6, 8, 9]), None))) == 8
    assert slices == [slice(0, 3), slice(3, 5), slice(6, 7), slice(8, 10)]


@given(
    positions=st.lists(st.integers(0, 60), unique=True).map(sorted),
    per_chunk=st.integers(1, 8),
    at_most=st.integers(1, 9),
)
def test_runs_cover_every_position_once_and_stay_short(positions, per_chunk, at_most):
    index = np.asarray(positions, dtype=np.int64)
    runs = list(reading._runs(index, per_chunk, at_most))
    assert [row for run in runs for row in range(run.start, run.stop)] == list(range(len(index)))
    for run in runs:
        span = index[run.stop - 1] - index[run.start] + 1
        assert span <= at_most + 2 * per_chunk


def test_arrays_in_memory_stream_too():
    volumes = np.random.default_rng(1).standard_normal((5, BOX, BOX, BOX)).astype(np.float32)
    given_to_task = stream(from_array(volumes, voxel_size_angstrom=1.0), np.asarray([4, 0]))
    np.testing.assert_array_equal(given_to_task.compute(scheduler="synchronous"), volumes[[4, 0]])
