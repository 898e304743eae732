"""Blocks: how well planted ones are found, what noise gives, and what the command costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks.measuring import emhet, run_measured
from emhet_dask.analysis.simulation import assembly_model, simulate
from emhet_dask.ensemble import from_array
from emhet_dask.workflows.blocks import blocks

ACCURACY = {
    "separate, SNR 8": {"touching": False, "snr": 8.0},
    "touching, SNR 8": {"touching": True, "snr": 8.0},
    "separate, SNR 0.3": {"touching": False, "snr": 0.3},
}
# Ensembles of one state: SNR and standard deviation of the amplitudes.
NULL = ((8.0, 0.05), (8.0, 0.15), (1.0, 0.05), (100.0, 0.05))


def ensemble_of(model, n, *, snr, seed, jitter=0.05):
    """Simulate maps; return them as an ensemble, and which subunits each has."""
    made = simulate(model, n, snr=snr, seed=seed, amplitude_jitter=jitter)
    voxel_size = made.attrs["voxel_size_angstrom"]
    return (
        from_array(made["volumes"].values, voxel_size_angstrom=voxel_size),
        made["presence"].values,
    )


def judged(model, presence, found):
    """Compare the blocks with the planted subunits, those that come together being one."""
    varying = presence.any(axis=0) & ~presence.all(axis=0)
    _, part = np.unique(presence, axis=1, return_inverse=True)
    truth = np.where(varying, 1 + part, 0)
    truth = np.append(0, truth)[model.labels]
    planted, taken = truth > 0, found.labels > 0
    both = planted & taken
    majority = {
        block: np.bincount(truth[found.labels == block]).argmax()
        for block in found.tables.blocks["block"]
    }
    relations = {
        (row.relation, majority[row.block_a], majority[row.block_b])
        for row in found.tables.relations.itertuples()
    }
    counts = presence.astype(int).T @ presence.astype(int)
    named = {part + 1 for part in part[varying]}
    wrong = 0
    for one in named:
        for other in named - {one}:
            a, b = (int(np.flatnonzero(varying & (part + 1 == each))[0]) for each in (one, other))
            needs = counts[a, b] == counts[a, a] and counts[a, a] < counts[b, b]
            wrong += needs != (("requires", one, other) in relations)
            excludes = counts[a, b] == 0
            said = {("excludes", one, other), ("excludes", other, one)} & relations
            wrong += excludes != bool(said)
    return {
        "ari": adjusted_rand_score(truth[both], found.labels[both]),
        "assigned": both.sum() / planted.sum(),
        "outside": (taken & ~planted).sum() / taken.sum(),
        "blocks": found.n_blocks - len(named),
        "wrong_relations": wrong,
    }


@pytest.mark.parametrize("case", ACCURACY)
def test_planted_blocks_are_found(benchmark, report, scratch, full, case):
    options = ACCURACY[case]
    seeds = range(201, 206) if full else range(201, 202)
    sizes = {} if full else {"box": 32, "voxel_size_angstrom": 6.0, "resolution_angstrom": 16.0}
    results = []

    def ours():
        for seed in seeds:
            model = assembly_model(seed=seed, touching=options["touching"], **sizes)
            n = 500 if full else 120
            ensemble, presence = ensemble_of(model, n, snr=options["snr"], seed=seed)
            folder = scratch / f"{case}_{seed}".replace(" ", "_").replace(",", "")
            found = blocks(ensemble, output=str(folder), quiet=True)
            results.append(judged(model, presence, found))

    benchmark.pedantic(ours, rounds=1)
    assert len(results) == len(seeds)
    report(
        worst_ari=min(each["ari"] for each in results),
        least_assigned=float(min(each["assigned"] for each in results)),
        most_outside=float(max(each["outside"] for each in results)),
        blocks_too_many=str([each["blocks"] for each in results]),
        wrong_relations=sum(each["wrong_relations"] for each in results),
    )


def test_one_state_has_no_blocks(benchmark, report, scratch, full):
    count = 100 if full else 2
    found = []

    def ours():
        for seed in range(count):
            snr, jitter = NULL[seed % len(NULL)]
            model = assembly_model(
                box=32, voxel_size_angstrom=4.5, resolution_angstrom=14.0, n_subunits=1, seed=seed
            )
            n = 300 if full else 60
            ensemble, _ = ensemble_of(model, n, snr=snr, seed=1000 + seed, jitter=jitter)
            result = blocks(ensemble, output=str(scratch / f"null_{seed}"), quiet=True)
            found.append(result.n_blocks)

    benchmark.pedantic(ours, rounds=1)
    assert len(found) == count
    report(ensembles=count, with_blocks=sum(number > 0 for number in found))


def made_store(folder, n, *, box, apix, dtype="float32"):
    """Simulate and ingest an assembly with commands; return the store."""
    store = folder / "e.zarr"
    maps = folder / "maps"
    simulate_it = emhet("simulate", "assembly", "-o", maps, "-n", n, "--box", box, "--apix", apix)
    subprocess.run([*simulate_it, "--seed", "7", "-q"], check=True, stdout=subprocess.DEVNULL)
    ingest_it = emhet("ingest", maps, "-o", store, "--dtype", dtype, "-q")
    subprocess.run(ingest_it, check=True, stdout=subprocess.DEVNULL)
    for path in maps.glob("*.mrc"):
        path.unlink()
    return store


def facts_of(folder):
    """Return what a finished folder says about itself."""
    evidence = json.loads((folder / "evidence.json").read_text())
    stages = json.loads((folder / "run.json").read_text())["stages"]
    return {
        "voxels": evidence["voxels_compared"],
        "blocks": evidence["n_blocks"],
        "stages": str({name: round(stage["seconds"], 1) for name, stage in stages.items()}),
    }


def test_the_command_on_five_hundred_maps(benchmark, report, tmp_path, full):
    store = made_store(tmp_path, 500 if full else 60, box=64 if full else 32, apix=3 if full else 6)
    figures = {}

    def ours():
        # A density that leaves some 10,000 of the 27,000 voxels.
        arguments = emhet("blocks", store, "-o", tmp_path / "out", "--threshold", "0.6", "-q")
        cost = run_measured(arguments, stdout=subprocess.DEVNULL)
        figures.update(seconds=cost.seconds, peak_gib=cost.peak_gib)

    benchmark.pedantic(ours, rounds=1)
    figures.update(facts_of(tmp_path / "out"))
    assert figures["blocks"] >= 1
    report(**figures)


@pytest.mark.parametrize("n", [1000, 100_000])
def test_the_command_continues_after_a_kill(benchmark, report, tmp_path, full, n):
    if not full and n > 1000:
        pytest.skip("at small size it is the same as 1,000 maps")
    box, apix = (128, 1.5) if n == 1000 else (32, 6)
    small = {"n": 60, "box": 32, "apix": 6}
    size = {"n": n, "box": box, "apix": apix} if full else small
    store = made_store(tmp_path, dtype="float16", **size)
    out = tmp_path / "out"
    arguments = emhet("blocks", store, "-o", out, "--memory-limit", "3GB", "-q")
    figures = {}

    def ours():
        began = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        while process.poll() is None and tiles_of(out) < (60 if full else 1):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        figures["seconds_until_the_kill"] = time.perf_counter() - began
        figures["tiles_before_the_kill"] = tiles_of(out)
        cost = run_measured(arguments, stdout=subprocess.DEVNULL)
        figures.update(seconds_after=cost.seconds, peak_gib=cost.peak_gib)

    benchmark.pedantic(ours, rounds=1)
    figures.update(facts_of(out))
    assert figures["tiles_before_the_kill"] >= 1
    report(**figures)


def tiles_of(folder) -> int:
    """Return how many tiles of pairs an unfinished run has written."""
    count = 0
    with contextlib.suppress(OSError):  # folders are moved and removed meanwhile
        for _ in folder.glob(".*/voxel_pairs-*/results.zarr/voxel_pairs/level_0/tile_degree/c/*"):
            count += 1
    return count
