"""All pairs of voxels: rate against matrix products, seconds, memory; tables of counts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest

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

# From the stored matrix to the edges, out of core; continued where it was killed.
STORED = r"""
import json, sys, time
import dask
import numpy as np
from threadpoolctl import threadpool_limits
from emhet_dask.analysis.binarised import kept_voxels
from emhet_dask.analysis.cooccupancy import edge_kernel, task_bytes, tile_side
from emhet_dask.ensemble.edges import finish_edges, open_edges, write_edges
from emhet_dask.ensemble.occupied import finish_occupied, open_occupied, write_occupied
from benchmarks.measuring import sgemm_rate

folder, n, distance, seconds, side = sys.argv[1], *map(float, sys.argv[2:6])
thresholds = np.zeros((1, int(n)))
with threadpool_limits(1), dask.config.set(scheduler="threads", num_workers=2):
    before = sgemm_rate(seconds)
    began = time.perf_counter()
    dask.compute(*write_occupied(folder + "/bits", folder + "/matrix", thresholds, key="a"))
    finish_occupied(folder + "/bits", choose=kept_voxels)
    bits = open_occupied(folder + "/bits")
    m, n = bits.n_voxels, bits.n_volumes
    ready = time.perf_counter()
    box = int(np.ceil(m ** (1 / 3)))
    places = np.argwhere(np.ones((box,) * 3))[:m]
    kernel = edge_kernel(bits, [(0.01, 0.05)], coordinates=places, least_distance=distance)
    side = int(side) or tile_side(m, n, 512 << 20)
    tasks = write_edges(folder + "/edges", bits, kernel=kernel, side=side, key="a")
    dask.compute(*tasks)
    computed = time.perf_counter()
    finish_edges(folder + "/edges", kernel=kernel)
    ended = time.perf_counter()
    after = sgemm_rate(seconds)
bands = -(-m // side)
share = len(tasks) / (bands * (bands + 1) / 2)
print(json.dumps({
    "voxels": m, "volumes": n, "edges": int(open_edges(folder + "/edges").degree.sum()) // 2,
    "tiles_left": len(tasks), "share_left": share,
    "bits_s": ready - began, "tiles_s": computed - ready, "merging_s": ended - computed,
    "task_mib": task_bytes(n, side=side) / 2**20,
    "sgemm_gflops": (before + after) / 2e9,
    "tiles_over_sgemm": share * m * (m - 1) * n / (computed - ready) / ((before + after) / 2),
}))
"""

MAKE_MATRIX = r"""
import sys
import numpy as np
from emhet_dask.ensemble.matrix import open_bands, plan_matrix, write_band
from emhet_dask.ensemble.store import open_group, put_array
path, n, m = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
part, amount = rng.integers(0, 12, m), rng.uniform(0, 2, m).astype(np.float32)
chance = rng.uniform(0.1, 0.9, 12)
layout = plan_matrix(n, m, "float32")
target, _ = open_bands(path, "matrix", layout, "a")
group = open_group(path, mode="r+")
put_array(group, "voxel_index", np.arange(m), ("voxel",))
for start, stop in layout.bands:
    present = np.where(rng.random((stop - start, 12)) < chance, 1, -1).astype(np.float32)
    maps = rng.standard_normal((stop - start, m), dtype=np.float32)
    maps += present[:, part] * amount
    write_band(target, start, maps)
group.attrs["key"] = "a"
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


@pytest.fixture(params=["many-voxels", "many-volumes"])
def shape(request, full) -> tuple[int, int]:
    """Return numbers of volumes and of voxels."""
    if request.param == "many-voxels":
        return (1000, 80_000) if full else (60, 300)
    return (100_000, 8000) if full else (3000, 250)


def test_stored_pairs_continue_after_a_kill(benchmark, report, tmp_path, full, shape):
    n_volumes, n_voxels = shape
    told, python = tmp_path / "told.json", [sys.executable, "-c"]
    arguments = [tmp_path / "matrix", str(n_volumes), str(n_voxels)]
    subprocess.run([*python, MAKE_MATRIX, *arguments], check=True, cwd=CHECKOUT)
    options = [str(n_volumes), "2", "3" if full else "0.1", "0" if full else "32"]
    figures = {}

    def ours():
        command = [*python, STORED, tmp_path, *options]
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=CHECKOUT)
        written = tmp_path / "edges" / "tile_degree" / "c"
        while killed.poll() is None and count_chunks(written) < 5:
            time.sleep(0.001)
        figures["parts_mib"] = size_of(tmp_path / "edges") / 2**20
        figures["tiles_before_the_kill"] = count_chunks(written)
        killed.kill()
        killed.wait()
        with told.open("w") as stream:
            cost = run_measured(command, stdout=stream, cwd=CHECKOUT)
        figures.update({"peak_gib": cost.peak_gib, **json.loads(told.read_text())})

    benchmark.pedantic(ours, rounds=1)
    assert figures["voxels"] == n_voxels
    assert figures["edges"] > n_voxels
    assert figures["tiles_before_the_kill"] >= 5
    assert figures["share_left"] < 1
    report(**figures)


def count_chunks(folder) -> int:
    """Return how many chunks along the first axis are written whole."""
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return 0


def size_of(folder) -> int:
    """Return the bytes of all files, some of which may vanish meanwhile."""
    total = 0
    for each in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += each.stat().st_size
    return total


def test_critical_counts_of_a_thousand_margins(benchmark, report, full):
    count = 1000 if full else 50
    margins = np.arange(5, 5 + count)
    began = time.perf_counter()
    table = benchmark.pedantic(
        lambda: critical_counts(margins, margins, count + 10, alpha=1e-9), rounds=1
    )
    assert table.shape == (count, count)
    report(seconds=time.perf_counter() - began, entries=table.size)
