"""Ingest against copying the same files, and the number of tasks per gigabyte."""

from __future__ import annotations

import os
import shutil
import time

from benchmarks.measuring import emhet, run_measured
from emhet_dask.ensemble import open_ensemble
from emhet_dask.ensemble.integrity import list_shards
from emhet_dask.workflows.ingest import ingest
from emhet_dask.workflows.simulate import simulate_assembly


def _seconds(work):
    """Return the seconds until work is done, and until what it wrote is on the disk."""
    os.sync()
    began = time.perf_counter()
    work()
    cached = time.perf_counter() - began
    os.sync()
    return cached, time.perf_counter() - began


def test_ingest_against_copying(benchmark, report, scratch, full):
    n, box = (2000, 64) if full else (24, 32)
    maps = scratch / "maps"
    simulate_assembly(output=str(maps), n=n, box=box, quiet=True)
    nbytes = sum(path.stat().st_size for path in maps.glob("vol_*.mrc"))
    shutil.copytree(maps, scratch / "warm")  # both find the files in the page cache
    shutil.rmtree(scratch / "warm")
    cached, on_disk = _seconds(lambda: shutil.copytree(maps, scratch / "copy"))
    store = scratch / "ensemble.zarr"
    glob = [str(maps / "vol_*.mrc")]
    ours = []

    def once():
        ours.append(_seconds(lambda: ingest(glob, output=str(store), quiet=True, overwrite=True)))

    benchmark.pedantic(once, rounds=3 if full else 1)
    ours_cached, ours_on_disk = (min(each) for each in zip(*ours, strict=True))
    assert open_ensemble(str(store)).n_volumes == n
    whole = run_measured(emhet("ingest", maps, "-o", scratch / "whole.zarr", "--quiet"))
    report(
        gb=nbytes / 1e9,
        copy_mb_s=nbytes / on_disk / 1e6,
        ingest_mb_s=nbytes / ours_on_disk / 1e6,
        share_of_copying=on_disk / ours_on_disk,
        share_of_copying_in_page_cache=cached / ours_cached,
        command_s=whole.seconds,
        peak_gib=whole.peak_gib,
        tasks_per_gb=len(list(list_shards(str(store)))) / (nbytes / 1e9),
    )
