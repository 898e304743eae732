"""The store of co-occupancy: bit for bit what is computed in memory, however cut, killed or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emhet_dask.analysis.binarised import pack
from emhet_dask.analysis.cooccupancy import associations, edge_kernel, level_kernel
from emhet_dask.ensemble.edges import (
    finish_edges,
    finish_levels,
    open_edges,
    write_edges,
    write_levels,
)
from emhet_dask.ensemble.occupied import StoredBits, finish_occupied, write_occupied
from emhet_dask.errors import InputError
from emhet_dask.variables import EDGES, check

P_VALUES = [(0.01, 0.05), (1e-4, 1e-3)]


def simulated(n_volumes=90, n_voxels=60, *, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((n_volumes, 4)) < rng.uniform(0.2, 0.9, 4)
    present[:, 0] = ~present[:, 1]
    occupied = present[:, rng.integers(0, 4, n_voxels)]
    return occupied ^ (rng.random(occupied.shape) < 0.15)


def places(n_voxels, *, seed=0):
    return np.argwhere(np.ones((5, 5, 5)))[np.random.default_rng(seed).permutation(125)[:n_voxels]]


def store_bits(folder, occupied):
    """Stored bits of all voxels; a matrix of 0 and 1 is what they come from."""
    x = occupied.astype(np.float32)
    group = zarr.create_group(str(folder / "m"))
    group.create_array("matrix", shape=x.shape, chunks=(16, 32), dtype="float32")[:] = x
    index = np.arange(x.shape[1])
    group.create_array("voxel_index", shape=index.shape, dtype="int64")[:] = index
    path = str(folder / "o")
    limits = np.full((1, len(x)), 0.5)
    tasks = write_occupied(path, str(folder / "m"), limits, key="a")
    dask.compute(*tasks, scheduler="synchronous")
    finish_occupied(path, choose=lambda margins, _: np.arange(len(margins)))
    return StoredBits(f"{path}/level_0")


def find(path, bits, kernel, *, side, key="a"):
    """Do all that is left to do; return how many tiles that was."""
    tasks = write_edges(str(path), bits, kernel=kernel, side=side, key=key)
    dask.compute(*tasks, scheduler="synchronous")
    finish_edges(str(path), kernel=kernel)
    return len(tasks)


def files(path):
    return {each.relative_to(path): each.read_bytes() for each in path.rglob("*") if each.is_file()}


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    side=st.integers(9, 70),
    n_neighbours=st.integers(1, 12),
    least_distance=st.sampled_from([0.0, 1.0, 3.0**0.5, 2.5]),
    correction=st.sampled_from(["bonferroni", "benjamini-hochberg", "none"]),
    seed=st.integers(0, 9),
)
def test_the_store_has_the_bits_of_memory(
    tmp_path_factory, side, n_neighbours, least_distance, correction, seed
):
    folder = tmp_path_factory.mktemp("edges")
    occupied = simulated(seed=seed)
    bits = store_bits(folder, occupied)
    distance = {"coordinates": places(60), "least_distance": least_distance}
    counts = None
    if correction == "benjamini-hochberg":
        levels = level_kernel(bits, P_VALUES, **distance)
        path = str(folder / "l")
        tasks = write_levels(path, bits, kernel=levels, side=side, key="a")
        dask.compute(*tasks, scheduler="synchronous")
        counts = finish_levels(path)
        assert write_levels(path, bits, kernel=levels, side=side, key="a") == []
        np.testing.assert_array_equal(finish_levels(path), counts)
    options = {"correction": correction, "n_neighbours": n_neighbours, **distance}
    kernel = edge_kernel(bits, P_VALUES, counts=counts, **options)
    find(folder / "e", bits, kernel, side=side)
    for setting, (positive_p, negative_p) in enumerate(P_VALUES):
        found = open_edges(str(folder / "e"), setting)
        expected = associations(
            pack(occupied), positive_p=positive_p, negative_p=negative_p, **options
        )
        assert found.attrs.pop("fewest_volumes") >= expected.attrs.pop("fewest_volumes")
        assert found.equals(expected)
        assert found.attrs == expected.attrs
        assert found.degree.any()


def test_what_is_stored_is_registered(tmp_path):
    bits = store_bits(tmp_path, simulated())
    find(tmp_path / "e", bits, edge_kernel(bits, P_VALUES), side=30)
    group = zarr.open_group(str(tmp_path / "e"), mode="r")
    assert {name for name, _ in group.arrays()} == {"neighbour", "phi", "degree", "margin", "alpha"}
    stored = {n: xr.DataArray(a[...], dims=a.metadata.dimension_names) for n, a in group.arrays()}
    check(stored, EDGES, what="edges")
    assert stored["phi"].dtype == np.float32
    assert stored["neighbour"].dtype == np.int32


def test_finished_tiles_are_kept_and_the_rest_is_done(tmp_path):
    bits = store_bits(tmp_path, simulated())
    kernel = edge_kernel(bits, P_VALUES)
    assert find(tmp_path / "whole", bits, kernel, side=16) == 10
    path = str(tmp_path / "e")
    tasks = write_edges(path, bits, kernel=kernel, side=16, key="a")
    dask.compute(*tasks[::2], scheduler="synchronous")
    with pytest.raises(ValueError, match="5 of 10 blocks"):
        finish_edges(path, kernel=kernel)
    with pytest.raises(InputError, match="run the same command again"):
        open_edges(path)
    assert find(tmp_path / "e", bits, kernel, side=16) == 5
    assert files(tmp_path / "e") == files(tmp_path / "whole")
    assert find(tmp_path / "e", bits, kernel, side=16) == 0
    assert find(tmp_path / "e", bits, kernel, side=16, key="b") == 10
    assert find(tmp_path / "e", bits, edge_kernel(bits, P_VALUES[:1]), side=16, key="b") == 10


def test_the_record_of_a_tile_is_one_file(tmp_path):
    bits = store_bits(tmp_path, simulated())
    path = str(tmp_path / "e")
    (first, *_) = write_edges(path, bits, kernel=edge_kernel(bits, P_VALUES), side=16, key="a")
    first.compute(scheduler="synchronous")
    written = [each for each in (tmp_path / "e/tile_degree/c").rglob("*") if each.is_file()]
    assert len(written) == 1


@pytest.mark.slow
def test_killed_before_any_change_it_goes_on_to_the_same_files(tmp_path):
    script = Path(__file__).with_name("killed_edges.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 4
