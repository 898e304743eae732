"""Five classifications of a million particles: labels in memory, and files read and compared."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from benchmarks.measuring import CHECKOUT, emhet, run_measured
from emhet_dask.formats.star import write_star

N_CLASSES = (8, 6, 10, 8, 8)

# Run in a process of its own, so that its peak of memory is that of the comparison.
IN_MEMORY = """
import sys, time
import numpy as np
from emhet_dask.analysis.agreement import agreement_of
from emhet_dask.analysis.consensus import consensus
from emhet_dask.analysis.crosstabs import best_correspondence, pair_tables

stored = np.load(sys.argv[1])
labels, pmax = stored["labels"], list(stored["pmax"])
began = time.perf_counter()
tables = pair_tables(labels)
counted = time.perf_counter()
agreements = [agreement_of(table.counts) for table in tables]
agreed = time.perf_counter()
pairs = [best_correspondence(table.counts) for table in tables]
found = consensus(labels, pmax=pmax)
done = time.perf_counter()
np.savez(
    sys.argv[2], consensus=found.labels, counts=tables[0].counts,
    information=agreements[0].adjusted_mutual_information, tuples=len(found.tuple_size),
    seconds=[counted - began, agreed - counted, done - agreed, done - began],
)
"""

PARSING = """
import sys
from emhet_dask.formats.star import read_particles
tables = [read_particles(path) for path in sys.argv[1:]]
"""


def planted(n):
    """Eight states seen by five jobs with merges, splits and noise."""
    rng = np.random.default_rng(0)
    truth = rng.choice(8, n, p=np.linspace(2, 1, 8) / 12)
    halved = np.where((truth == 0) & (rng.random(n) < 0.5), 8, truth)
    halved = np.where((truth == 3) & (rng.random(n) < 0.3), 9, halved)
    merged = np.where(truth >= 6, truth - 6, truth)
    jobs = []
    for seen, n_classes, noise in zip(
        [truth, merged, halved, truth, truth], N_CLASSES, (0.1, 0.1, 0.1, 0.15, 0.2), strict=True
    ):
        wrong = rng.random(n) < noise
        noisy = np.where(wrong, rng.integers(0, n_classes, n), seen)
        jobs.append(rng.permutation(n_classes)[noisy] + 1)
    pmax = rng.beta(8, 2, (5, n)).astype(np.float32)
    return truth, np.stack(jobs), pmax


def test_labels_in_memory(benchmark, report, scratch, full):
    truth, labels, pmax = planted(1_000_000 if full else 20_000)
    given, made = scratch / "labels.npz", scratch / "found.npz"
    np.savez(given, labels=labels, pmax=pmax)
    costs = []

    def ours():
        line = [sys.executable, "-c", IN_MEMORY, given, made]
        costs.append(run_measured(line, cwd=CHECKOUT))

    benchmark.pedantic(ours, rounds=1)
    found = np.load(made)
    began = time.perf_counter()
    oracle = pd.crosstab(labels[0], labels[1])
    pandas_seconds = time.perf_counter() - began
    began = time.perf_counter()
    information = adjusted_mutual_info_score(labels[0], labels[1])
    sklearn_seconds = time.perf_counter() - began
    np.testing.assert_array_equal(found["counts"], oracle.to_numpy())
    assert found["information"] == pytest.approx(information, abs=1e-9)
    ari = adjusted_rand_score(truth, found["consensus"])
    assert ari > max(adjusted_rand_score(truth, each) for each in labels)
    seconds = found["seconds"]
    if full:
        assert seconds[-1] < 60
        assert costs[0].peak_gib < 4
    report(
        seconds=float(seconds[-1]),
        counts_seconds=float(seconds[0]),
        agreement_and_null_seconds=float(seconds[1]),
        consensus_seconds=float(seconds[2]),
        peak_gib=costs[0].peak_gib,
        tuples=int(found["tuples"]),
        consensus_ari=float(ari),
        pandas_crosstab_of_one_pair_seconds=pandas_seconds,
        sklearn_ami_of_one_pair_seconds=sklearn_seconds,
    )


def test_star_files(benchmark, report, scratch, full):
    n = 1_000_000 if full else 3_000
    _, labels, pmax = planted(n)
    names = np.char.add(np.char.zfill(np.arange(1, n + 1).astype(str), 7), "@particles.mrcs")
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnVoltage": [300.0]})
    paths = []
    for job, (label, probability) in enumerate(zip(labels, pmax, strict=True)):
        table = pd.DataFrame(
            {
                "rlnImageName": names,
                "rlnOpticsGroup": 1,
                "rlnClassNumber": label,
                "rlnMaxValueProbDistribution": probability,
            }
        )
        paths.append(scratch / f"job{85 + job:03d}.star")
        write_star(paths[-1], {"optics": optics, "particles": table}, version=30001)
    costs = []

    def ours():
        line = emhet("class3d", "compare", *paths, "-o", scratch / "out", "--no-star", "-q")
        costs.append(run_measured(line, stdout=subprocess.DEVNULL, cwd=CHECKOUT))

    benchmark.pedantic(ours, rounds=1)
    found = pd.read_csv(scratch / "out" / "consensus.csv")
    assert len(found) == n
    parsing = run_measured([sys.executable, "-c", PARSING, *paths], cwd=CHECKOUT)
    stages = json.loads((scratch / "out" / "run.json").read_text())["stages"]
    report(
        seconds=costs[0].seconds,
        of_which_stages_seconds=sum(stage["seconds"] for stage in stages.values()),
        peak_gib=costs[0].peak_gib,
        parsing_alone_seconds=parsing.seconds,
        parsing_alone_peak_gib=parsing.peak_gib,
        star_mib=sum(path.stat().st_size for path in paths) / 2**20,
        cpus=psutil.cpu_count() or 1,
    )
