"""PCA at scale: the exact eigenvalues, dask's ``svd_compressed``, scikit-learn, and memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from benchmarks.measuring import CHECKOUT, run_measured

# Signal above a floor of noise, in half precision, stored as the matrix of a landscape is.
MAKE = r"""
import sys
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from emhet_dask.ensemble.matrix import plan_matrix
path, n, m = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
layout = plan_matrix(n, m, "float16")
matrix = zarr.create_group(path).create_array(
    "matrix", shape=(n, m), chunks=(layout.rows, layout.columns),
    shards=(layout.rows, -(-m // layout.columns) * layout.columns), dtype="float16",
    compressors=(Crc32cCodec(),))
rng = np.random.default_rng(0)
lengths = np.geomspace(1.0, 0.05, 12) * np.sqrt(m)
directions = np.linalg.qr(rng.standard_normal((m, 12)))[0].T.astype(np.float32)
mean = 5 + rng.standard_normal(m, dtype=np.float32)
for start, stop in layout.bands:
    rows = (rng.standard_normal((stop - start, 12)) * lengths).astype(np.float32) @ directions
    rows += rng.standard_normal(rows.shape, dtype=np.float32)
    matrix[start:stop] = (mean + rows).astype(np.float16)
"""

# Each in a process of its own, whose memory is its own; two tasks at once, one BLAS thread each,
# with which dask's svd_compressed is fastest too.
WORK = r"""
import json, sys, time
import dask
import dask.array as da
import numpy as np
import zarr
from scipy import linalg
from sklearn.decomposition import IncrementalPCA
from threadpoolctl import threadpool_limits
from emhet_dask.analysis.pca import pca

method, path, rows, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
stored = zarr.open(path, mode="r")["matrix"]
n = stored.shape[0]
bands = da.from_array(stored, chunks=stored.shards, inline_array=True)
K = 20

def ours():
    found = pca(
        bands, n_components=K, method="randomized", memory_limit_bytes=int(limit * 2**30))
    return found["explained_variance"].values, {"passes": found.attrs["passes"],
                                                "method": found.attrs["method"]}

def compressed(x):
    x = x.astype(np.float32)
    u, s, v = dask.compute(
        *da.linalg.svd_compressed(x - x.mean(axis=0), K, n_power_iter=2, seed=0))
    return s**2 / (n - 1), {}

def sklearn():
    model = IncrementalPCA(K)
    spent = []
    for start in range(0, min(rows, n), stored.shards[0]):
        band = stored[start : start + stored.shards[0]].astype(np.float32)
        before = time.perf_counter()
        if len(band) >= K:
            model.partial_fit(band)
        spent.append((time.perf_counter() - before) / len(band))
    # The first band merges with nothing before it: the others stand for the rest.
    later = spent[1:] or spent
    return model.explained_variance_, {"scaled_s": float(np.mean(later)) * n, "rows": min(rows, n)}

def exact():
    mean = sum(stored[s : s + 1024].sum(axis=0, dtype=np.float64) for s in range(0, n, 1024)) / n
    scatter = np.zeros((stored.shape[1],) * 2)
    for start in range(0, n, 2048):
        centred = stored[start : start + 2048] - mean
        scatter += centred.T @ centred
    top = [len(scatter) - K, len(scatter) - 1]
    return linalg.eigh(scatter / (n - 1), eigvals_only=True, subset_by_index=top)[::-1], {}

run = {"ours": ours, "bands": lambda: compressed(bands),
       "from_zarr": lambda: compressed(da.from_zarr(stored)), "sklearn": sklearn,
       "exact": exact}[method]
with threadpool_limits(2 if method in ("exact", "sklearn") else 1), \
        dask.config.set(scheduler="threads", num_workers=2):
    began = time.perf_counter()
    values, more = run()
    seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "values": np.asarray(values).tolist(), **more}))
"""

# Whole boxes: rows made where they are needed, so that no disk is measured.
BOXES = r"""
import json, sys, time
import dask
import dask.array as da
import numpy as np
from threadpoolctl import threadpool_limits
from emhet_dask.analysis.pca import pca
n, box = int(sys.argv[1]), int(sys.argv[2])
along = np.random.default_rng(0).standard_normal((n, 12), dtype=np.float32)
along *= np.geomspace(0.5, 0.05, 12).astype(np.float32)
def strip(block_info=None):
    (_, number), shape = block_info[None]["chunk-location"], block_info[None]["chunk-shape"]
    rng = np.random.default_rng([1, number])
    signal = along @ rng.standard_normal((12, shape[1]), dtype=np.float32)
    signal += rng.standard_normal(shape, dtype=np.float32)
    return signal.astype(np.float16)
columns = min(2048, box**3)
x = da.map_blocks(strip, chunks=((n,), (columns,) * (box**3 // columns)), dtype=np.float16)
with threadpool_limits(1), dask.config.set(scheduler="threads", num_workers=2):
    began = time.perf_counter()
    found = pca(x, n_components=20)
    seconds = time.perf_counter() - began
expected = np.linalg.eigvalsh(np.cov(along.T) * box**3)[::-1] + box**3 / (n - 1)
values = found["explained_variance"].values
print(json.dumps({"seconds": seconds, "method": found.attrs["method"],
                  "error": float(np.abs(values[:6] / expected[:6] - 1).max())}))
"""


def make(path, n, m):
    subprocess.run([sys.executable, "-c", MAKE, path, str(n), str(m)], check=True, cwd=CHECKOUT)
    return path


def work(script, told, *arguments):
    """Run a script in a process of its own; return what it printed, and its peak memory."""
    with told.open("w") as stream:
        cost = run_measured([sys.executable, "-c", script, *arguments], stdout=stream, cwd=CHECKOUT)
    return {**json.loads(told.read_text()), "peak_gib": cost.peak_gib}


def worst(found, exact):
    return float(np.abs(np.asarray(found["values"]) / exact - 1).max())


def test_twenty_thousand_rows_against_the_exact_and_peers(benchmark, report, scratch, full):
    n, m = (20_000, 8_000) if full else (400, 300)
    path, told = make(scratch / "matrix.zarr", n, m), scratch / "told.json"
    runs = {name: [] for name in ("ours", "from_zarr", "bands")}

    def in_turn():
        for _ in range(3 if full else 1):
            for name, found in runs.items():
                found.append(work(WORK, told, name, path, n, 4))

    benchmark.pedantic(in_turn, rounds=1)
    exact = np.asarray(work(WORK, told, "exact", path, n, 4)["values"])
    sklearn = work(WORK, told, "sklearn", path, 4096 if full else n, 4)
    seconds = {
        name: float(np.median([one["seconds"] for one in found])) for name, found in runs.items()
    }
    error = worst(runs["ours"][0], exact)
    assert error < 1e-3
    report(
        ours_s=seconds["ours"],
        svd_compressed_from_zarr_s=seconds["from_zarr"],
        svd_compressed_bands_s=seconds["bands"],
        ratio_from_zarr=seconds["ours"] / seconds["from_zarr"],
        ratio_bands=seconds["ours"] / seconds["bands"],
        worst_error=error,
        svd_compressed_worst_error=worst(runs["bands"][0], exact),
        sklearn_s=sklearn["scaled_s"],
        sklearn_rows_measured=sklearn["rows"],
        sklearn_over_ours=sklearn["scaled_s"] / seconds["ours"],
        method=runs["ours"][0]["method"],
        peak_gib=max(one["peak_gib"] for one in runs["ours"]),
    )


def test_a_hundred_thousand_rows_in_two_gib(benchmark, report, scratch, full):
    n, m = (100_000, 8_000) if full else (600, 200)
    path, told = make(scratch / "large.zarr", n, m), scratch / "told.json"
    figures = benchmark.pedantic(lambda: work(WORK, told, "ours", path, n, 2), rounds=1)
    assert len(figures.pop("values")) == 20
    assert figures["peak_gib"] < 2
    report(**figures)


def test_whole_boxes(benchmark, report, scratch, full):
    n, box = (1000, 128) if full else (60, 16)
    figures = benchmark.pedantic(lambda: work(BOXES, scratch / "told.json", n, box), rounds=1)
    assert figures["error"] < 0.05
    report(**figures)
