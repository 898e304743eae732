"""All pairs of stored rows: share of the rate of matrix products, seconds, memory and tasks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.measuring import CHECKOUT, run_measured

# In a process of its own, whose memory is that of this work alone.
WORK = r"""
import json, sys, time
import dask
import numpy as np
import zarr
from threadpoolctl import threadpool_limits
from emhet_dask.analysis.similarity import pair_kernel
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.ensemble.pair_matrix import open_pairs
from emhet_dask.ensemble.pairs import finish_pairs, plan_pairs, write_pairs
from emhet_dask.ensemble.rows import StoredRows
from benchmarks.measuring import sgemm_rate

matrix, out, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with threadpool_limits(1), dask.config.set(scheduler="threads", num_workers=2):
    before = sgemm_rate(seconds)
    began = time.perf_counter()
    rows = StoredRows(matrix)
    n, m = rows.shape
    kernel = pair_kernel(open_matrix(matrix)["matrix"])
    prepared = time.perf_counter()
    tasks = write_pairs(out, rows, kernel=kernel, layout=plan_pairs(n, m, 1 << 30), key="a")
    dask.compute(*tasks)
    compared = time.perf_counter()
    finish_pairs(out, kernel=kernel)
    ended = time.perf_counter()
    after = sgemm_rate(seconds)
operations = n * (n - 1) * m
rate = (before + after) / 2
print(json.dumps({
    "pairs": int(open_pairs(out)["histogram"].sum()), "tasks": len(tasks),
    "seconds": ended - began, "statistics_s": prepared - began, "merging_s": ended - compared,
    "sgemm_gflops_before": before / 1e9, "sgemm_gflops_after": after / 1e9,
    "share_of_sgemm_blocks": operations / (compared - prepared) / rate,
    "share_of_sgemm_in_all": operations / (ended - began) / rate,
}))
"""

MAKE = r"""
import sys
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from emhet_dask.ensemble.matrix import plan_matrix
path, n, m = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
layout = plan_matrix(n, m, "float16")
group = zarr.create_group(path)
matrix = group.create_array(
    "matrix", shape=(n, m), chunks=(layout.rows, layout.columns),
    shards=(layout.rows, -(-m // layout.columns) * layout.columns), dtype="float16",
    compressors=(Crc32cCodec(),), dimension_names=("volume", "voxel"))
rng = np.random.default_rng(0)
kinds = rng.standard_normal((30, m), dtype=np.float32)
for start, stop in layout.bands:
    rows = rng.standard_normal((stop - start, 30), dtype=np.float32) @ kinds
    rows += 3 * rng.standard_normal(rows.shape, dtype=np.float32)
    matrix[start:stop] = (5 + rows).astype(np.float16)
def put(name, values, dim):
    group.create_array(
        name, shape=values.shape, dtype=values.dtype, dimension_names=(dim,))[:] = values
put("matrix_scale", np.full(n, 0.125, np.float32), "volume")
put("voxel_index", np.arange(m), "voxel")
put("voxel_weight", np.ones(m, np.float32), "voxel")
"""


def measured(scratch, n, n_voxels, *, seconds):
    """Compare all pairs of n simulated rows in half precision; return figures."""
    matrix, told = scratch / f"matrix{n}", scratch / f"told{n}.json"
    python = [sys.executable, "-c"]
    subprocess.run([*python, MAKE, matrix, str(n), str(n_voxels)], check=True, cwd=CHECKOUT)
    with told.open("w") as stream:
        cost = run_measured(
            [*python, WORK, matrix, scratch / f"pairs{n}", seconds], stdout=stream, cwd=CHECKOUT
        )
    return {"peak_gib": cost.peak_gib, **json.loads(told.read_text())}


@pytest.mark.parametrize("sizes", [((8_000, 8_000), (300, 200)), ((20_000, 8_000), (500, 100))])
def test_all_pairs_against_the_rate_of_matrix_products(benchmark, report, scratch, full, sizes):
    n, n_voxels = sizes[0] if full else sizes[1]
    figures = {}

    def ours():
        figures.update(measured(scratch, n, n_voxels, seconds=3 if full else 0.1))

    benchmark.pedantic(ours, rounds=1)
    assert figures["pairs"] == n * (n - 1) // 2
    report(**figures)
