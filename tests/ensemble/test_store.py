"""The store: what is written comes back, on any layout; half-made stores are told apart."""

import zlib

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.ensemble import from_array, open_ensemble
from emhet_dask.ensemble.integrity import check_arrays, check_shard, list_shards
from emhet_dask.ensemble.layout import Layout, plan_layout
from emhet_dask.ensemble.matrix import open_matrix, write_matrix
from emhet_dask.ensemble.reading import stream
from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    create_store,
    digest_arrays,
    finish_store,
    read_records,
    write_shard,
)
from emhet_dask.errors import InputError


def make_store(
    path, volumes, *, per_chunk=1, per_shard=2, dtype="float32", finish=True, weights=None
):
    layout = Layout(len(volumes), volumes.shape[1], dtype, per_chunk, per_shard)
    scale = np.full(len(volumes), 2.0**-6)
    create_store(
        str(path),
        layout,
        known={
            "name": np.asarray([f"vol_{number:03d}" for number in range(len(volumes))]),
            "weight": np.arange(1.0, len(volumes) + 1) if weights is None else weights,
        },
        attributes={
            "voxel_size_angstrom": 3.0,
            "origin_angstrom": [0.0, 0.0, 0.0],
            "ingest_key": "key",
        },
    )
    for start, stop in layout.shards():
        record = np.zeros((stop - start, len(RECORD_COLUMNS)))
        record[:, RECORD_COLUMNS.index("usable")] = 1
        record[:, RECORD_COLUMNS.index("scale")] = scale[start:stop]
        record[:, RECORD_COLUMNS.index("source_crc32c")] = [
            zlib.crc32(volume.tobytes()) for volume in volumes[start:stop]
        ]
        stored = volumes[start:stop]
        if dtype == "float16":
            stored = stored / scale[start:stop, None, None, None]
        write_shard(str(path), (start, stop), stored.astype(dtype), record)
    if finish:
        finish_store(str(path))
    return str(path)


@pytest.fixture
def volumes():
    return np.random.default_rng(0).standard_normal((7, 8, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("per_chunk", "per_shard"), [(1, 1), (1, 3), (2, 4), (1, 7)])
def test_volumes_come_back_on_any_layout(tmp_path, volumes, per_chunk, per_shard):
    path = make_store(tmp_path / "e.zarr", volumes, per_chunk=per_chunk, per_shard=per_shard)
    ensemble = open_ensemble(path)
    np.testing.assert_array_equal(ensemble.volumes.compute(), volumes)
    np.testing.assert_array_equal(ensemble.weights, np.arange(1.0, 8.0))
    assert ensemble.names[3] == "vol_003"
    assert ensemble.voxel_size_angstrom == 3.0
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["volumes"][...], volumes)


def test_half_precision_keeps_its_scale(tmp_path, volumes):
    ensemble = open_ensemble(make_store(tmp_path / "e.zarr", volumes, dtype="float16"))
    np.testing.assert_allclose(ensemble.volumes.compute(), volumes, rtol=2**-11, atol=1e-8)
    assert ensemble.volumes.dtype == np.float32


def test_selection_keeps_volumes_and_renumbers_particles(tmp_path, volumes):
    path = make_store(tmp_path / "e.zarr", volumes)
    ensemble = open_ensemble(path)
    ensemble.dataset["particle_volume"] = (("particle",), np.asarray([0, 5, 5, 2]))
    chosen = ensemble.select([2, 5])
    np.testing.assert_array_equal(chosen.volumes.compute(), volumes[[2, 5]])
    assert chosen.dataset["particle_volume"].values.tolist() == [-1, 1, 1, 0]
    assert chosen.fingerprint != ensemble.select([2, 6]).fingerprint
    np.testing.assert_array_equal(list(stream(chosen.select([1]), np.asarray([0]))), volumes[[5]])


def test_unfinished_store_is_refused_and_says_what_to_do(tmp_path, volumes):
    path = make_store(tmp_path / "e.zarr", volumes, finish=False)
    with pytest.raises(InputError, match="not finished; run the same emhet ingest again"):
        open_ensemble(path)
    assert not np.isnan(read_records(path)).any()


def test_other_groups_and_missing_stores_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such store; make one with emhet ingest"):
        open_ensemble(str(tmp_path / "none.zarr"))
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(InputError, match="not an ensemble store"):
        open_ensemble(str(tmp_path / "other.zarr"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="not an ensemble store"):
        open_ensemble(str(tmp_path / "folder"))


def test_a_newer_schema_is_refused(tmp_path, volumes):
    path = make_store(tmp_path / "e.zarr", volumes)
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 99
    with pytest.raises(InputError, match="schema version 99"):
        open_ensemble(path)


def test_missing_and_damaged_shards_are_found(tmp_path, volumes):
    path = make_store(tmp_path / "e.zarr", volumes)
    shards = list(list_shards(path))
    assert [check_shard(shard, deep=True) for shard in shards] == [None] * 4
    damaged = tmp_path / "e.zarr" / shards[1].key
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    (tmp_path / "e.zarr" / shards[2].key).unlink()
    assert check_shard(shards[1], deep=False) is None
    assert "volumes 2 to 3) is damaged" in check_shard(shards[1], deep=True)
    assert "volumes 4 to 5) is missing" in check_shard(shards[2], deep=False)


def test_the_fingerprint_tells_content_not_place_or_layout(tmp_path, volumes):
    def fingerprint(name, *arguments, **options):
        return open_ensemble(make_store(tmp_path / name, *arguments, **options)).fingerprint

    same = fingerprint("a.zarr", volumes)
    assert fingerprint("b.zarr", volumes, per_shard=7) == same
    other = volumes.copy()
    other[3, 0, 0, 0] += 1
    different = {
        fingerprint("c.zarr", other),
        fingerprint("d.zarr", volumes, weights=np.ones(7)),
        fingerprint("e.zarr", volumes, dtype="float16"),
        fingerprint("f.zarr", volumes[:6]),
    }
    assert len(different | {same}) == 5


def test_digests_tell_names_shapes_and_texts_apart():
    found = [
        digest_arrays({"a": np.asarray(["x", "yz"])}),
        digest_arrays({"a": np.asarray(["xy", "z"])}),
        digest_arrays({"b": np.asarray(["x", "yz"])}),
        digest_arrays({"a": np.zeros((2, 3))}),
        digest_arrays({"a": np.zeros((3, 2))}),
        digest_arrays({"a": np.zeros((3, 2), np.float32)}),
    ]
    assert len(set(found)) == len(found)
    texts = np.asarray(["x", "yz"], dtype=np.dtypes.StringDType())
    assert digest_arrays({"a": texts}) == found[0]


@pytest.mark.parametrize("array", ["weight", "usable", "name", "source_crc32c"])
@pytest.mark.parametrize("how", ["flip", "remove"])
def test_damaged_small_arrays_are_found(tmp_path, volumes, array, how):
    path = make_store(tmp_path / "e.zarr", volumes)
    assert check_arrays(path) == []
    (chunk,) = [
        found for found in (tmp_path / "e.zarr" / array / "c").rglob("*") if found.is_file()
    ]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.unlink()
    if how == "flip":
        chunk.write_bytes(content)
        assert f"array {array} is damaged" in check_arrays(path)[0]
    else:
        assert "other than when they were ingested" in check_arrays(path)[0]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(2, 9),
    chunks=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    half=st.booleans(),
)
def test_matrix_holds_the_masked_voxels(tmp_path_factory, count, chunks, seed, half):
    rng = np.random.default_rng(seed)
    volumes = rng.standard_normal((count, 6, 6, 6)).astype(np.float32)
    folder = tmp_path_factory.mktemp("matrix")
    path = make_store(
        folder / "e.zarr", volumes, per_shard=chunks, dtype="float16" if half else "float32"
    )
    mask = rng.random((6, 6, 6)).astype(np.float32)
    mask[mask < 0.5] = 0
    ensemble = open_ensemble(path)
    tasks, layout = write_matrix(str(folder / "m.zarr"), ensemble, mask=mask, key="a")
    assert len(tasks) == len(layout.bands)
    for task in tasks:
        task.compute(scheduler="synchronous")
    matrix = open_matrix(str(folder / "m.zarr"))
    stored = ensemble.volumes.compute(scheduler="synchronous")
    expected = stored.reshape(count, -1)[:, mask.reshape(-1) > 0]
    np.testing.assert_array_equal(matrix["matrix"].compute(scheduler="synchronous"), expected)
    np.testing.assert_array_equal(matrix["voxel_weight"], mask[mask > 0])
    again, _ = write_matrix(str(folder / "m.zarr"), ensemble, mask=mask, key="a")
    assert again == []
    other, _ = write_matrix(str(folder / "m.zarr"), ensemble, mask=mask, key="b")
    assert len(other) == len(layout.bands)


def test_arrays_make_ensembles_too(volumes):
    ensemble = from_array(volumes, voxel_size_angstrom=2.0, weights=np.ones(7))
    np.testing.assert_array_equal(ensemble.volumes.compute(), volumes)
    assert ensemble.path is None
    with pytest.raises(InputError, match="expected \\(volume, box, box, box\\)"):
        from_array(volumes[0], voxel_size_angstrom=2.0)
    with pytest.raises(InputError, match="weights: got 3 for 7 volumes"):
        from_array(volumes, voxel_size_angstrom=2.0, weights=[1, 2, 3])


def test_arrays_with_other_scale_or_weights_are_other_ensembles(volumes):
    def fingerprint(**options):
        given = {"voxel_size_angstrom": 2.0, **options}
        return from_array(volumes, **given).fingerprint

    assert fingerprint() == fingerprint()
    different = {
        fingerprint(),
        fingerprint(voxel_size_angstrom=3.0),
        fingerprint(origin_angstrom=np.asarray([1, 0, 0], np.float32)),
        fingerprint(names=list("abcdefg")),
        fingerprint(weights=np.arange(7.0)),
    }
    assert len(different) == 5


def test_what_a_worker_left_that_died_while_it_wrote_is_removed(tmp_path):
    path = str(tmp_path / "e.zarr")
    volumes = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
    layout = plan_layout(3, 8, "float32")
    create_store(path, layout, known={"name": np.array(["a", "b", "c"])}, attributes={})
    for start, stop in layout.shards():
        record = np.ones((stop - start, len(RECORD_COLUMNS)))
        write_shard(path, (start, stop), volumes[start:stop], record)
    left = tmp_path / "e.zarr" / "volumes" / "c" / "0" / "0" / "0" / "0.dead.partial"
    left.write_bytes(b"half")
    finish_store(path)
    assert not left.exists()
