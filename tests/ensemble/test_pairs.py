"""The store of pairs: equal to the whole matrix, however it is cut, and killed or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from emhet_dask.analysis.shells import shell_matrix
from emhet_dask.analysis.similarity import pair_kernel, shell_kernel, shell_similarity_matrix
from emhet_dask.ensemble import pairs
from emhet_dask.ensemble.pair_matrix import condensed, open_pairs, read_rows
from emhet_dask.ensemble.pairs import PairsLayout, finish_pairs, plan_pairs, write_pairs
from emhet_dask.ensemble.rows import StoredRows, open_rows, write_rows
from emhet_dask.errors import InputError


def store_rows(path, x, *, scale=None, chunks=(7, 5)):
    """A matrix as it is stored, without an ensemble around it."""
    group = zarr.create_group(str(path))
    shards = (chunks[0], -(-x.shape[1] // chunks[1]) * chunks[1])
    group.create_array("matrix", shape=x.shape, chunks=chunks, shards=shards, dtype=x.dtype)[:] = x
    if scale is not None:
        group.create_array("matrix_scale", shape=scale.shape, dtype=scale.dtype)[:] = scale
    return StoredRows(str(path))


def compare(path, rows, kernel, *, side, keep="all", n_neighbours=4, key="a"):
    """Do all that is left to do; return how many blocks that was."""
    n_rows, n_columns = rows.shape
    tasks = write_pairs(
        str(path),
        rows,
        kernel=kernel,
        layout=PairsLayout(n_rows, n_columns, side, 0),
        key=key,
        keep=keep,
        n_neighbours=n_neighbours,
    )
    dask.compute(*tasks, scheduler="synchronous")
    finish_pairs(str(path), kernel=kernel)
    return len(tasks)


def files(path):
    return {each.relative_to(path): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def nearest(matrix, n_best, *, largest):
    """Indices and values by sorting everything; a row is not its own neighbour."""
    order = (-matrix if largest else matrix).astype(float)
    np.fill_diagonal(order, np.inf)
    index = np.argsort(order, axis=1, kind="stable")[:, :n_best]
    return index, np.take_along_axis(matrix, index, axis=1)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    n=st.integers(2, 40),
    bands=st.integers(1, 5),
    metric=st.sampled_from(["correlation", "l2"]),
    half=st.booleans(),
    keep=st.sampled_from(["all", "neighbours"]),
)
def test_any_cut_gives_the_whole_matrix(tmp_path_factory, n, bands, metric, half, keep):
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(n)
    x = (2 + rng.standard_normal((n, 23))).astype(np.float16 if half else np.float32)
    scale = (2.0 ** -(np.arange(n) % 3)).astype(np.float32) if half else None
    rows = store_rows(folder / "m", x, scale=scale)
    true = x.astype(float) * (1 if scale is None else scale[:, None])
    kernel = pair_kernel(true, metric=metric)
    compare(folder / "p", rows, kernel, side=-(-n // bands), keep=keep)
    found = open_pairs(str(folder / "p"))
    expected = np.corrcoef(true) if metric == "correlation" else squareform(pdist(true))
    index, value = nearest(expected, min(4, n - 1), largest=metric == "correlation")
    np.testing.assert_array_equal(found["neighbour"], index)
    np.testing.assert_allclose(found["neighbour_similarity"], value, atol=2e-4)
    upper = expected[np.triu_indices(n, 1)]
    edges = found["histogram_edges"].values
    assert int(found["histogram"].sum()) == len(upper)
    for quantile in (0.1, 0.5, 0.9):
        edge = int(np.searchsorted(edges, np.quantile(upper, quantile)))
        below = int(found["histogram"].values[:edge].sum())
        assert (upper < edges[edge] - 1e-3).sum() <= below <= (upper < edges[edge] + 1e-3).sum()
    if keep == "all":
        whole = found["similarity"].values
        np.testing.assert_allclose(whole, expected, atol=2e-4)
        np.testing.assert_array_equal(whole, whole.T)
        np.testing.assert_array_equal(read_rows(str(folder / "p"), n // 3, n), whole[n // 3 :])
        np.testing.assert_array_equal(
            condensed(str(folder / "p")), squareform(whole - np.diag(np.diag(whole)))
        )


def test_every_finite_half_is_read_as_it_is(tmp_path):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = every[np.isfinite(every)].reshape(-1, 64)
    rows = store_rows(tmp_path / "m", x, chunks=(300, 50))
    found = np.full((700, 60), np.nan, dtype=np.float32)
    for run, values in rows(slice(100, 800), slice(4, 64)):
        found[run.start - 100 : run.stop - 100] = values
    expected = x[100:800, 4:].astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_ties_go_to_the_lower_number_in_any_cut(tmp_path):
    # Distances of small whole numbers are exact, and many are equal.
    x = np.random.default_rng(0).integers(0, 3, (60, 4)).astype(np.float32)
    x = np.concatenate([x, -x])  # the mean row is exactly 0
    rows = store_rows(tmp_path / "m", x)
    expected, _ = nearest(squareform(pdist(x)), 6, largest=False)
    for side in (34, 50, 120):
        kernel = pair_kernel(x, metric="l2")
        compare(tmp_path / f"p{side}", rows, kernel, side=side, keep="neighbours", n_neighbours=6)
        found = open_pairs(str(tmp_path / f"p{side}"))["neighbour"]
        np.testing.assert_array_equal(found, expected)


def test_a_constant_map_has_no_neighbours_and_is_none(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    x[[3, 17]] = 4.0
    rows, kernel = store_rows(tmp_path / "m", x), pair_kernel(x)
    compare(tmp_path / "p", rows, kernel, side=6)
    found = open_pairs(str(tmp_path / "p"))
    np.testing.assert_array_equal(np.flatnonzero(found["undefined"]), [3, 17])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found["similarity"], np.corrcoef(x), atol=1e-5)
    assert (found["neighbour"].values[[3, 17]] == -1).all()
    assert np.isnan(found["neighbour_similarity"].values[[3, 17]]).all()
    others = np.delete(found["neighbour"].values, [3, 17], axis=0)
    assert not np.isin(others, [-1, 3, 17]).any()
    assert int(found["histogram"].sum()) == 18 * 17 // 2


@pytest.mark.parametrize("metric", ["fsc-mean", "fsc-resolution"])
def test_fourier_shells_go_the_same_way(tmp_path, metric):
    maps = np.random.default_rng(0).standard_normal((9, 8, 8, 8)).astype(np.float32)
    maps += 2 * maps[0]
    lazy, shells = shell_matrix(da.from_array(maps, chunks=(4, 8, 8, 8)), voxel_size_angstrom=2.0)
    path = str(tmp_path / "r")
    tasks = write_rows(path, lazy.data, key="a")
    dask.compute(*tasks, scheduler="synchronous")
    assert write_rows(path, lazy.data, key="a") == []
    assert len(write_rows(path, lazy.data, key="b")) == len(tasks)
    dask.compute(*write_rows(path, lazy.data, key="b"), scheduler="synchronous")
    kernel = shell_kernel(open_rows(path)["rows"], shells, metric=metric)
    compare(tmp_path / "p", StoredRows(path), kernel, side=4)
    found = open_pairs(str(tmp_path / "p"))
    assert found.attrs["metric"] == metric
    expected = shell_similarity_matrix(maps, metric=metric, voxel_size_angstrom=2.0).values
    np.testing.assert_allclose(found["similarity"], expected, rtol=1e-4, atol=1e-5)


def test_finished_blocks_are_kept_and_the_rest_is_done(tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    rows, kernel = store_rows(tmp_path / "m", x), pair_kernel(x)
    assert compare(tmp_path / "whole", rows, kernel, side=6) == 10
    path, layout = str(tmp_path / "p"), PairsLayout(20, 30, 6, 0)
    tasks = write_pairs(
        path, rows, kernel=kernel, layout=layout, key="a", keep="all", n_neighbours=4
    )
    dask.compute(*tasks[::2], scheduler="synchronous")
    with pytest.raises(ValueError, match="5 of 10 blocks"):
        finish_pairs(path, kernel=kernel)
    with pytest.raises(InputError, match="run the same command again"):
        open_pairs(path)
    assert compare(tmp_path / "p", rows, kernel, side=6) == 5
    assert files(tmp_path / "p") == files(tmp_path / "whole")
    assert compare(tmp_path / "p", rows, kernel, side=6) == 0
    assert compare(tmp_path / "p", rows, kernel, side=6, key="b") == 10
    assert compare(tmp_path / "p", rows, kernel, side=5, key="b") == 10
    assert compare(tmp_path / "p", rows, kernel, side=5, key="b", keep="neighbours") == 10
    with pytest.raises(InputError, match="neighbours alone"):
        read_rows(path, 0, 1)


@pytest.mark.slow
def test_killed_before_any_change_it_goes_on_to_the_same_files(tmp_path):
    script = Path(__file__).with_name("killed_pairs.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 4


@pytest.mark.parametrize("arrays", [1, 3])
def test_blocks_fit_the_memory_given(arrays):
    for n_rows in (6, 1000, 8000, 20_000, 100_000):
        for n_columns in (10, 8000, 300_000):
            for memory in (60 << 20, 200 << 20, 4 << 30):
                layout = plan_pairs(n_rows, n_columns, memory, arrays=arrays)
                assert layout.side <= n_rows
                assert layout.task_bytes <= memory
                assert layout.bands[-1].stop == n_rows


def test_large_ensembles_are_cut_into_large_blocks():
    layout = plan_pairs(100_000, 8000, 1 << 30)
    assert layout.side == 4096
    assert len(layout.blocks) == 325
    assert layout.task_bytes < 200 << 20


def test_a_task_takes_the_memory_that_the_plan_says(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(pairs, "_OVERHEAD_BYTES", 24 << 20)  # rows of this test are short
    n, n_columns = 3000, 2048
    layout = plan_pairs(n, n_columns, 1 << 30)
    x = np.random.default_rng(0).standard_normal((n, n_columns), dtype=np.float32)
    rows = store_rows(tmp_path / "m", x.astype(np.float16), chunks=(256, 2048))
    kernel = pair_kernel(x)
    (first, second, *_) = write_pairs(
        str(tmp_path / "p"), rows, kernel=kernel, layout=layout, key="a"
    )
    first.compute(scheduler="synchronous")
    tracemalloc.start()
    second.compute(scheduler="synchronous")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.3 * layout.task_bytes < peak < layout.task_bytes
