"""Memory stays flat while the ensemble grows."""

from __future__ import annotations

import shutil

from benchmarks.measuring import emhet, run_measured
from emhet_dask.workflows.simulate import simulate_assembly


def test_memory_from_a_thousand_to_ten_thousand_maps(benchmark, report, scratch, full):
    sizes, box = ((1000, 10_000), 64) if full else ((20, 40), 32)
    peaks, seconds = {}, {}

    def ours():
        for n in sizes:
            maps, store, results = (scratch / f"{what}{n}" for what in ("m", "e", "r"))
            simulate_assembly(output=str(maps), n=n, box=box, quiet=True)
            ingest = run_measured(emhet("ingest", maps, "-o", store, "--quiet"))
            landscape = run_measured(emhet("landscape", store, "-o", results, "--quiet"))
            peaks[n] = max(ingest.peak_gib, landscape.peak_gib)
            seconds[n] = ingest.seconds + landscape.seconds
            for folder in (maps, store, results):
                shutil.rmtree(folder)

    benchmark.pedantic(ours, rounds=1)
    few, many = sizes
    assert peaks[many] > 0
    report(
        few=few,
        many=many,
        peak_gib_few=peaks[few],
        peak_gib_many=peaks[many],
        seconds_few=seconds[few],
        seconds_many=seconds[many],
    )
