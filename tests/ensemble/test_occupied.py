"""Stored bits: equal to comparing the matrix, at every level, however it is cut."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.binarised import kept_voxels, occupancy, pack
from emhet_dask.ensemble import occupied
from emhet_dask.ensemble.occupied import finish_occupied, open_occupied, write_occupied
from emhet_dask.errors import InputError


def store_matrix(path, x, *, scale=None, chunks=(7, 5)):
    """A matrix as it is stored, without an ensemble around it."""
    group = zarr.create_group(str(path))
    shards = (chunks[0], -(-x.shape[1] // chunks[1]) * chunks[1])
    group.create_array("matrix", shape=x.shape, chunks=chunks, shards=shards, dtype=x.dtype)[:] = x
    index = 3 * np.arange(x.shape[1])
    group.create_array("voxel_index", shape=index.shape, dtype=index.dtype)[:] = index
    if scale is not None:
        group.create_array("matrix_scale", shape=scale.shape, dtype=scale.dtype)[:] = scale
    return str(path)


def compare(path, matrix, thresholds, *, key="a", choose=kept_voxels):
    """Do all that is left to do; return how many tasks that was."""
    tasks = write_occupied(str(path), matrix, thresholds, key=key)
    dask.compute(*tasks, scheduler="synchronous")
    finish_occupied(str(path), choose=choose)
    return len(tasks)


def files(path):
    return {each.relative_to(path): each.read_bytes() for each in path.rglob("*") if each.is_file()}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    n_volumes=st.integers(12, 60),
    n_columns=st.integers(3, 40),
    chunks=st.tuples(st.integers(1, 70), st.integers(1, 50)),
    half=st.booleans(),
    seed=st.integers(0, 99),
    n_bytes=st.integers(1, 3),
    n_voxels=st.integers(1, 9),
)
def test_bits_are_those_of_the_matrix(
    tmp_path_factory, n_volumes, n_columns, chunks, half, seed, n_bytes, n_voxels
):
    folder = tmp_path_factory.mktemp("bits")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_volumes, n_columns)).astype(np.float16 if half else np.float32)
    x[::2, 0], x[1::2, 0] = 9, -9  # one voxel is kept in any case
    scale = (2.0 ** -(np.arange(n_volumes) % 3)).astype(np.float32) if half else None
    matrix = store_matrix(folder / "m", x, scale=scale, chunks=chunks)
    true = x.astype(np.float32) * (1 if scale is None else scale[:, None])
    thresholds = rng.uniform(-0.5, 0.5, (3, n_volumes))
    thresholds[1] = true[:, -1]  # equal is not above
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occupied, "_BYTES", n_bytes)
        patch.setattr(occupied, "_VOXELS", n_voxels)
        compare(folder / "o", matrix, thresholds)
    for level, values in enumerate(thresholds):
        above = np.asarray(occupancy(true, values))
        kept = kept_voxels(above.sum(axis=0), n_volumes)
        found = pickle.loads(pickle.dumps(open_occupied(str(folder / "o"), level)))
        expected = pack(above, voxels=kept)
        assert (found.n_voxels, found.n_volumes) == (expected.n_voxels, n_volumes)
        assert found.n_bytes == expected.n_bytes
        np.testing.assert_array_equal(found.matrix_column, kept)
        np.testing.assert_array_equal(found.voxel_index, 3 * kept)
        np.testing.assert_array_equal(found.margins, expected.margins)
        voxels, octets = slice(len(kept) // 3, len(kept)), slice(0, found.n_bytes)
        bits = found(voxels, octets)
        np.testing.assert_array_equal(bits, expected.bits[voxels])
        np.testing.assert_array_equal(
            np.unpackbits(bits, axis=1, count=n_volumes).T, above[:, kept[voxels]]
        )


def test_a_threshold_between_two_float32_is_not_rounded(tmp_path):
    x = np.full((20, 3), 0.1, dtype=np.float32)  # 0.1 as float32 is above 0.1
    x[:10] = -1
    compare(tmp_path / "o", store_matrix(tmp_path / "m", x), np.full((1, 20), 0.1))
    np.testing.assert_array_equal(open_occupied(str(tmp_path / "o")).margins, [10, 10, 10])
    up = np.nextafter(np.float64(np.float32(0.1)), 0)
    compare(tmp_path / "p", str(tmp_path / "m"), np.full((1, 20), up))
    np.testing.assert_array_equal(open_occupied(str(tmp_path / "p")).margins, [10, 10, 10])


def test_finished_columns_are_kept_and_the_rest_is_done(tmp_path):
    rng = np.random.default_rng(0)
    matrix = store_matrix(tmp_path / "m", rng.standard_normal((20, 23)).astype(np.float32))
    thresholds = np.zeros((2, 20))
    assert compare(tmp_path / "whole", matrix, thresholds) == 5
    path = str(tmp_path / "o")
    tasks = write_occupied(path, matrix, thresholds, key="a")
    dask.compute(*tasks[::2], scheduler="synchronous")
    with pytest.raises(ValueError, match="2 of 5 chunks"):
        finish_occupied(path, choose=kept_voxels)
    with pytest.raises(InputError, match="run it again"):
        open_occupied(path)
    assert compare(tmp_path / "o", matrix, thresholds) == 2
    assert files(tmp_path / "o") == files(tmp_path / "whole")
    assert compare(tmp_path / "o", matrix, thresholds) == 0
    assert compare(tmp_path / "o", matrix, thresholds, key="b") == 5


def test_thresholds_that_make_no_sense(tmp_path):
    matrix = store_matrix(tmp_path / "m", np.zeros((20, 3), dtype=np.float32))
    path = str(tmp_path / "o")
    with pytest.raises(InputError, match="each of the 20 volumes"):
        write_occupied(path, matrix, np.zeros((1, 19)), key="a")
    with pytest.raises(InputError, match="finite"):
        write_occupied(path, matrix, np.full((1, 20), np.nan), key="a")
    with pytest.raises(InputError, match="lower threshold"):
        compare(path, matrix, np.ones((1, 20)))


def test_damage_is_told(tmp_path):
    rng = np.random.default_rng(0)
    matrix = store_matrix(tmp_path / "m", rng.standard_normal((20, 23)).astype(np.float32))
    compare(tmp_path / "o", matrix, np.zeros((1, 20)))
    (shard,) = (tmp_path / "o" / "level_0" / "bits" / "c").rglob("0/0")
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"o: damaged.*remove that folder"):
        open_occupied(str(tmp_path / "o"))(slice(0, 5), slice(0, 3))
