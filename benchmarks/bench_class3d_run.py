"""``emhet class3d run``: agreement with the truth, seconds, memory, and what two workers gain.

``--size full`` takes the hard case (6,000 images of 64 pixels at a signal-to-noise ratio of 0.03,
in states of 60, 25, 10 and 5%), RELION's 25 iterations on the particles of ``../shared``, 25,000
and 100,000 images of 64 pixels and 100,000 of 128 for the memory, and 20,000 for two workers.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from benchmarks.measuring import CHECKOUT, emhet, run_measured
from emhet_dask.formats.star import read_particles
from emhet_dask.formats.star import write_particles as write_table
from tests.fake_particles import fake_particles, write_particles

SMALL = {"count": 600, "box": 32, "snr": 0.3, "shares": (0.6, 0.4)}
FULL = {
    "count": 6000,
    "box": 64,
    "snr": 0.03,
    "shares": (0.6, 0.25, 0.1, 0.05),
    "without": ((), (0, 1), (2, 3), (0, 2, 4)),
}
SEEDS = 5
PROJECT = CHECKOUT.parent / "shared/data/relion_project"
# As of RELION's own job on these particles.
RELION = (
    "--K 4 --tau2_fudge 4 --particle_diameter 170 --zero_mask --flatten_solvent --ctf --skip_align "
    "--norm --scale --pool 30 --pad 2 --dont_combine_weights_via_disc --random_seed 1 --sym C1 "
    "--j 2"
)
# Images that differ, of those that are named again and again.
DIFFERENT = 500


def test_states_of_known_particles(benchmark, report, scratch, full):
    fake = fake_particles(seed=11, **(FULL if full else SMALL))
    star = write_particles(scratch / "particles", fake)
    agreements, seconds = [], []

    def ours():
        for seed in range(SEEDS if full else 1):
            began = time.perf_counter()
            job = scratch / f"job{seed}"
            run = emhet_dask.class3d_run(star, output=job, seed=seed, quiet=True)
            seconds.append(time.perf_counter() - began)
            agreements.append(adjusted_rand_score(fake.states, run.labels))

    benchmark.pedantic(ours, rounds=1)
    assert min(agreements) > 0.9
    report(
        worst_agreement=float(min(agreements)),
        seconds=float(min(seconds)),
        slowest_seconds=float(max(seconds)),
    )


def test_seconds_against_relion(benchmark, report, scratch, full):
    relion = shutil.which("relion_refine")
    if relion is None:
        pytest.skip("relion_refine is not installed")
    if full:
        if not PROJECT.is_dir():
            pytest.skip(f"{PROJECT} is not there")
        folder, star = PROJECT, Path("Extract/particles.star")
    else:
        folder = scratch / "timed"
        star = Path(write_particles(folder, fake_particles(seed=12, **SMALL))).relative_to(folder)
    job = scratch / "timed_job"
    ours = benchmark.pedantic(
        lambda: run_measured(emhet("class3d", "run", star, "-o", job, "--quiet"), cwd=folder),
        rounds=1,
    )
    (scratch / "relion").mkdir()
    reference = ("--ref", job / "consensus.mrc", "--ini_high", 30)
    iterations = ("--iter", 25 if full else 1, "--o", scratch / "relion/run")
    with (scratch / "relion.log").open("w") as log:
        theirs = run_measured(
            [relion, "--i", star, *iterations, *reference, *RELION.split()],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    assert list((scratch / "relion").glob("run_it*_data.star"))
    stages = json.loads((job / "run.json").read_text())["stages"]
    report(
        seconds=ours.seconds,
        relion_seconds=theirs.seconds,
        part=ours.seconds / theirs.seconds,
        peak_gib=ours.peak_gib,
        **{f"{name.replace(' ', '_')}_seconds": each["seconds"] for name, each in stages.items()},
    )


def test_memory_does_not_grow_with_the_particles(benchmark, report, scratch, full):
    sizes = ((25_000, 64), (100_000, 64), (100_000, 128)) if full else ((500, 32), (2000, 32))
    peaks = {}

    def ours():
        for count, box in sizes:
            star = repeated(scratch / f"box{box}", count, box=box)
            job = scratch / f"of{count}x{box}"
            command = emhet("class3d", "run", star, "-o", job, "--iterations", 2, "--quiet")
            # Sums of one map take 13 MB at 64 pixels, and eight times that at 128.
            limit = ("--memory-limit", "3GB" if box <= 64 else "5GB")
            cost = run_measured([*command, "--cluster", "local:2", *limit])
            peaks[count, box] = cost.peak_gib
            shutil.rmtree(job)

    benchmark.pedantic(ours, rounds=1)
    (few, side), (many, _) = sizes[:2]
    # Transforms of the images that came on top, which workers would hold if any part of them did.
    added = (many - few) * side**2 * 4 / 2**30
    assert peaks[many, side] - peaks[few, side] < max(0.7 * added, 0.2)
    report(**{f"peak_gib_{count}x{box}": peak for (count, box), peak in peaks.items()})


def test_two_workers_share_the_iterations(benchmark, report, scratch, full):
    count, box = (20_000, 64) if full else (500, 32)
    star = repeated(scratch / "shared", count, box=box)
    seconds = {}

    def ours():
        for workers in (1, 2):
            job = scratch / f"with{workers}"
            command = emhet("class3d", "run", star, "-o", job, "--iterations", 3, "--quiet")
            run_measured([*command, "--cluster", f"local:{workers}"])
            stages = json.loads((job / "run.json").read_text())["stages"]
            seconds[workers] = {name: each["seconds"] for name, each in stages.items()}
            shutil.rmtree(job)

    benchmark.pedantic(ours, rounds=1)
    assert set(seconds[1]) == set(seconds[2])
    parts = {"consensus": ["consensus"], "start": ["start"]}
    parts["iterations"] = [name for name in seconds[1] if name.startswith("iteration")]
    found = {}
    for part, names in parts.items():
        one, two = (sum(seconds[workers][name] for name in names) for workers in (1, 2))
        found |= {f"{part}_seconds_1": one, f"{part}_seconds_2": two}
        found[f"{part}_efficiency"] = one / (2 * two)
    report(**found)


def repeated(folder: Path, count: int, *, box: int) -> Path:
    """Write particles whose images are a few, named again and again: many on a small disk."""
    particles = fake_particles(DIFFERENT, box=box, snr=0.1, seed=13)
    table = read_particles(write_particles(folder, particles))
    rows = pd.concat([table.particles] * -(-count // DIFFERENT), ignore_index=True)[:count]
    path = folder / f"of{count}.star"
    write_table(path, replace(table, particles=rows))
    return path
