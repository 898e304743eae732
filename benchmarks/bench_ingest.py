"""Ingest against copying the same files, and the number of tasks per gigabyte."""

from __future__ import annotations

import shutil
import time

from benchmarks.measuring import emhet, run_measured
from emhet_dask.ensemble import open_ensemble
from emhet_dask.ensemble.integrity import list_shards
from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.simulate import simulate_assembly


def test_ingest_against_copying(benchmark, report, scratch, full):
    n, box = (2000, 64) if full else (24, 32)
    maps = scratch / "maps"
    simulate_assembly(output=str(maps), n=n, box=box, quiet=True)
    nbytes = sum(path.stat().st_size for path in maps.glob("vol_*.mrc"))
    shutil.copytree(maps, scratch / "warm")  # both find the files in the page cache
    shutil.rmtree(scratch / "warm")
    began = time.perf_counter()
    shutil.copytree(maps, scratch / "copy")
    copying = time.perf_counter() - began
    store = scratch / "ensemble.zarr"
    glob = [str(maps / "vol_*.mrc")]

    def ours():
        began = time.perf_counter()
        ingest(glob, output=str(store), quiet=True, overwrite=True)
        return time.perf_counter() - began

    seconds = benchmark.pedantic(ours, rounds=3 if full else 1)
    seconds = benchmark.stats.stats.min if benchmark.stats else seconds
    assert open_ensemble(str(store)).n_volumes == n
    whole = run_measured(emhet("ingest", maps, "-o", scratch / "whole.zarr", "--quiet"))
    report(
        gb=nbytes / 1e9,
        copy_mb_s=nbytes / copying / 1e6,
        ingest_mb_s=nbytes / seconds / 1e6,
        share_of_copying=copying / seconds,
        command_s=whole.seconds,
        peak_gib=whole.peak_gib,
        tasks_per_gb=len(list(list_shards(str(store)))) / (nbytes / 1e9),
    )
