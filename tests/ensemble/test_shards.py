"""Shards written and read directly, against Zarr itself."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from emhet_dask.ensemble.shards import DamagedShardError, LocalShards, cut_columns, gather_rows

ONCE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


CHECKED = (Crc32cCodec(),)


def create(store, shape, shards, chunks, dtype="float32", compressors=CHECKED):
    return zarr.create_array(
        store,
        shape=shape,
        shards=shards,
        chunks=chunks,
        dtype=dtype,
        compressors=compressors,
        overwrite=True,
        config={"write_empty_chunks": True},
    )


def values_of(shape, dtype):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@st.composite
def stacks(draw):
    """Shape, shards and chunks of an array that is cut along its first axis."""
    per_chunk = draw(st.integers(1, 3))
    per_shard = per_chunk * draw(st.integers(1, 4))
    side = draw(st.integers(1, 4))
    shape = (draw(st.integers(1, 30)), side, side, side)
    return shape, (per_shard, *shape[1:]), (per_chunk, *shape[1:])


@st.composite
def tables(draw):
    """Shape, shards and chunks of a matrix whose shards are bands of rows, cut along columns."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    return shape, (rows, -(-shape[1] // columns) * columns), (rows, columns)


def bounds_within(data, shape):
    found = []
    for size in shape:
        start = data.draw(st.integers(0, size - 1))
        found.append((start, data.draw(st.integers(start + 1, size))))
    return found


@ONCE
@given(kind=stacks(), dtype=st.sampled_from(["float32", "float16"]))
def test_volumes_are_written_as_zarr_writes_them(tmp_path, kind, dtype):
    shape, shards, chunks = kind
    values = values_of(shape, dtype)
    theirs = create(tmp_path / "zarr", shape, shards, chunks, dtype)
    theirs[...] = values
    ours = create(tmp_path / "ours", shape, shards, chunks, dtype)
    local = LocalShards.of(ours)
    for number, start in enumerate(range(0, shape[0], shards[0])):
        rows = iter(values[start : start + shards[0]])
        local.write((number, 0, 0, 0), gather_rows(rows, chunks, local.dtype))
        name = f"c/{number}/0/0/0"
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "zarr" / name).read_bytes()


@ONCE
@given(kind=tables())
def test_bands_are_written_as_zarr_writes_them(tmp_path, kind):
    shape, shards, chunks = kind
    values = values_of(shape, "float32")
    theirs = create(tmp_path / "zarr", shape, shards, chunks)
    theirs[...] = values
    ours = create(tmp_path / "ours", shape, shards, chunks)
    local = LocalShards.of(ours)
    for number, start in enumerate(range(0, shape[0], shards[0])):
        band = values[start : start + shards[0]]
        local.write((number, 0), cut_columns(band, chunks, local.dtype))
        name = f"c/{number}/0"
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "zarr" / name).read_bytes()


@ONCE
@given(kind=st.one_of(stacks(), tables()), data=st.data())
def test_any_part_is_read_as_zarr_reads_it(tmp_path, kind, data):
    shape, shards, chunks = kind
    array = create(tmp_path / "zarr", shape, shards, chunks)
    array[...] = values_of(shape, "float32")
    bounds = bounds_within(data, shape[: data.draw(st.integers(1, len(shape)))])
    found = LocalShards.of(array).read(bounds)
    np.testing.assert_array_equal(found, array[tuple(slice(*each) for each in bounds)])


def test_no_rows_are_an_empty_array(tmp_path):
    array = create(tmp_path / "zarr", (6, 2, 2, 2), (2, 2, 2, 2), (1, 2, 2, 2))
    assert LocalShards.of(array).read([(3, 3)]).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("kind", ["compressed", "in memory", "without shards", "without checksums"])
def test_other_arrays_are_left_to_zarr(tmp_path, kind):
    shape, shards, chunks = (4, 2), (2, 2), (1, 2)
    arrays = {
        "compressed": lambda: create(
            tmp_path / "a", shape, shards, chunks, compressors=(ZstdCodec(), Crc32cCodec())
        ),
        "in memory": lambda: create(MemoryStore(), shape, shards, chunks),
        "without shards": lambda: create(tmp_path / "a", shape, None, chunks),
        "without checksums": lambda: create(tmp_path / "a", shape, shards, chunks, compressors=()),
    }
    assert LocalShards.of(arrays[kind]()) is None


@pytest.fixture
def stored(tmp_path):
    array = create(tmp_path / "a", (4, 3, 3, 3), (2, 3, 3, 3), (1, 3, 3, 3))
    array[...] = values_of(array.shape, "float32")
    return LocalShards.of(array), tmp_path / "a" / "c/1/0/0/0"


@pytest.mark.parametrize("place", ["first chunk", "last chunk", "index"])
def test_a_flipped_bit_is_found(stored, place):
    local, path = stored
    content = bytearray(path.read_bytes())
    content[{"first chunk": 5, "last chunk": 27 * 4 + 9, "index": -10}[place]] ^= 1
    path.write_bytes(content)
    local.read([(0, 2)])  # the other shard
    with pytest.raises(DamagedShardError, match=r"c/1/0/0/0: "):
        local.read([(2, 4)])


@pytest.mark.parametrize("length", [0, 10, 100, -1])
def test_a_short_shard_is_found(stored, length):
    local, path = stored
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedShardError, match=r"c/1/0/0/0: "):
        local.read([(3, 4)])


def test_a_missing_shard_is_no_zeros(stored):
    local, path = stored
    path.unlink()
    with pytest.raises(DamagedShardError, match=r"c/1/0/0/0: No such file"):
        local.read([(0, 4)])


def test_an_absent_chunk_is_no_zeros(tmp_path):
    array = create(tmp_path / "a", (4, 3), (4, 3), (1, 3))
    LocalShards.of(array).write((0, 0), iter(np.ones((2, 1, 3), dtype=np.float32)))
    with pytest.raises(DamagedShardError, match="chunk 2/0 is missing"):
        LocalShards.of(array).read([(0, 4)])


def test_a_write_that_fails_leaves_what_was_there(stored):
    local, path = stored
    before = path.read_bytes()

    def rows():
        yield np.zeros((3, 3, 3), dtype=np.float32)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        local.write((1, 0, 0, 0), gather_rows(rows(), local.chunks, local.dtype))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["0"]
