"""All pairs of voxels: rate against matrix products, seconds, memory; tables of counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.measuring import CHECKOUT, run_measured
from emhet_dask.analysis.hypergeometric import critical_counts

# In a process of its own, whose memory is that of this work alone.
WORK = r"""
import json, sys, time
import dask
import numpy as np
from threadpoolctl import threadpool_limits
from emhet_dask.analysis.binarised import count_occupied, kept_voxels, occupancy, pack
from emhet_dask.analysis.contingency import count_together
from emhet_dask.analysis.cooccupancy import associations
from benchmarks.measuring import sgemm_rate

path, seconds = sys.argv[1], float(sys.argv[2])
with threadpool_limits(1), dask.config.set(scheduler="threads", num_workers=2):
    before = sgemm_rate(seconds)
    began = time.perf_counter()
    occupied = occupancy(np.load(path, mmap_mode="r"), 0.0)
    kept = kept_voxels(count_occupied(occupied), len(occupied))
    packed = pack(occupied, voxels=kept)
    ready = time.perf_counter()
    found = associations(packed)
    ended = time.perf_counter()
    after = sgemm_rate(seconds)
    side = min(2048, packed.n_voxels // 2)
    bands = slice(0, side), slice(side, 2 * side)
    alone = sgemm_rate(seconds / 3, threads=1)
    counting = time.perf_counter()
    count_together(packed, *bands, n_bytes=packed.bits.shape[1])
    counted = time.perf_counter() - counting
m, n = packed.n_voxels, packed.n_volumes
rate = (before + after) / 2
print(json.dumps({
    "voxels": m, "volumes": n, "edges": int(found.degree.sum()) // 2,
    "packing_s": ready - began, "pairs_s": ended - ready,
    "sgemm_gflops": rate / 1e9,
    "counting_over_sgemm": 2 * side * side * n / counted / alone,
    "all_over_sgemm": m * (m - 1) * n / (ended - ready) / rate,
}))
"""

MAKE = r"""
import sys
import numpy as np
path, n, m = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
present = np.where(rng.random((n, 12)) < rng.uniform(0.1, 0.9, 12), 1, -1).astype(np.float32)
maps = rng.standard_normal((n, m), dtype=np.float32)
maps += present[:, rng.integers(0, 12, m)] * rng.uniform(0, 2, m).astype(np.float32)
np.save(path, maps)
"""


def test_all_pairs_of_voxels(benchmark, report, scratch, full):
    n_volumes, n_voxels = (500, 10_000) if full else (100, 300)
    path, told = scratch / "maps.npy", scratch / "told.json"
    python = [sys.executable, "-c"]
    subprocess.run([*python, MAKE, path, str(n_volumes), str(n_voxels)], check=True, cwd=CHECKOUT)
    figures = {}

    def ours():
        with told.open("w") as stream:
            cost = run_measured(
                [*python, WORK, path, "3" if full else "0.1"], stdout=stream, cwd=CHECKOUT
            )
        figures.update({"peak_gib": cost.peak_gib, **json.loads(told.read_text())})

    benchmark.pedantic(ours, rounds=1)
    assert figures["voxels"] == n_voxels
    assert figures["edges"] > n_voxels
    report(**figures)


def test_critical_counts_of_a_thousand_margins(benchmark, report, full):
    count = 1000 if full else 50
    margins = np.arange(5, 5 + count)
    began = time.perf_counter()
    table = benchmark.pedantic(
        lambda: critical_counts(margins, margins, count + 10, alpha=1e-9), rounds=1
    )
    assert table.shape == (count, count)
    report(seconds=time.perf_counter() - began, entries=table.size)
