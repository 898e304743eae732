"""Scheduling from 1,000 to 100,000 volumes, and how much faster two workers are than one.

``--size full`` takes about a quarter of an hour for the first, with 10 GB of disk, and five minutes
for the second, ``-k two_workers``, which wants two cores that nobody else uses.
"""

from __future__ import annotations

import heapq
import importlib.util
import shutil

import numpy as np
import pytest

from benchmarks.measuring import sgemm_rate
from benchmarks.scaling_client import COMMAND
from benchmarks.scaling_model import by_label, by_stage, predicted
from benchmarks.scaling_setup import (
    BOX,
    cluster,
    idle_cores,
    make_files,
    make_store,
    run_watched,
)
from emhet_dask.ensemble.layout import plan_layout
from emhet_dask.ensemble.matrix import plan_matrix
from emhet_dask.ensemble.pairs import plan_pairs
from emhet_dask.workflows.stages.pairs import MOST_WITH_MATRIX
from tests.fake_particles import fake_particles, write_particles

WORKERS = (1, 10, 100)
OF_WORKERS = " | ".join(f"{count} worker{'s' * (count > 1)}, s" for count in WORKERS)
COMMANDS = ("landscape", "similarity", "blocks")
# What a client may have beside what it has for few volumes: names, paths, scores, the tree.
CLIENT_BYTES_PER_VOLUME = 16_000
CLIENT_BYTES = 64 << 20
# An exact tree has a client hold distances of all pairs, in float64 and some of them thrice.
PAIR_BYTES = 12


def everything(workers, folder, n, *, commands, before="-"):
    """Run ingest and commands on `n` volumes; return what each took."""
    files = make_files(folder / "maps", n)
    made = folder / "made.zarr"
    given = ["ingest", files, "-o", made, "--dtype", "float16"]
    told = {"ingest": workers.run(folder, *given)}
    for path in (files, made):
        shutil.rmtree(path)
    store = make_store(folder / "e.zarr", n)
    for command in commands:
        results = folder / command
        told[command] = workers.run(folder, command, store, "-o", results, before=before)
        shutil.rmtree(results)
    shutil.rmtree(folder)
    return told


def tasks_of(told, stage):
    """Return the tasks of a stage."""
    return sum(each["tasks"] for each in told["passes"] if each["stage"] == stage)


def matrix_tasks(n, n_voxels):
    """Return the tasks that make the matrix: parts of 16 MiB, their bands, and the voxels."""
    bands = plan_matrix(n, n_voxels, "float16").bands
    run = (16 << 20) // (2 * BOX**3)
    return 1 + sum(1 + -(-(stop - start) // run) for start, stop in bands)


def test_tasks_and_memory_from_few_volumes_to_many(benchmark, report, scratch, capsys, full):
    sizes = (1_000, 10_000, 100_000) if full else (96, 960)
    commands, before = (COMMANDS, "-") if full else (("landscape",), "tree")
    told = {}

    def ours():
        with cluster(scratch, 1) as workers:
            for n in sizes:
                folder = scratch / f"n{n}"
                told[n] = everything(workers, folder, n, commands=commands, before=before)

    benchmark.pedantic(ours, rounds=1)
    for n in sizes:
        layout = plan_layout(n, BOX, "float16")
        assert tasks_of(told[n]["ingest"], COMMAND) == layout.n_shards
        # The mask of these maps has the same voxels whatever their number, up to a few.
        assert tasks_of(told[n]["landscape"], "matrix") == matrix_tasks(n, 2_400)
        for command in commands:
            few = told[sizes[0]][command]["client_peak"]
            more = told[n][command]["client_peak"] - few
            pairs = min(n, MOST_WITH_MATRIX) ** 2 if command == "similarity" else 0
            assert more < CLIENT_BYTES + CLIENT_BYTES_PER_VOLUME * n + PAIR_BYTES * pairs
        if "similarity" in commands:
            blocks = len(plan_pairs(n, 2_400, 512 << 20).blocks)
            pairs = by_label(told[n]["similarity"])["pairs"]
            assert pairs.tasks == blocks + 1  # and the kernel
    if full:
        with capsys.disabled():
            print("\n" + stages_table(told) + "\n\n" + commands_table(told))
    last = told[sizes[-1]]
    report(
        volumes=sizes[-1],
        tasks=sum(each["tasks"] for one in last.values() for each in one["passes"]),
        client_peak_mib=max(one["client_peak"] for one in last.values()) / 2**20,
    )


def stages_table(told):
    """Describe the stages of every command, a row each, for the sizes one after another."""
    lines = [
        "| volumes | command | stage | passes | tasks | making tasks, s | scheduler, s | "
        "ms a task | all tasks, s | longest chain, s | client, s | "
        f"{OF_WORKERS} |",
        "|---" * (11 + len(WORKERS)) + "|",
    ]
    for n, commands in told.items():
        for command, one in commands.items():
            for stage in by_stage(one):
                numbers = [
                    f"{stage.passes} | {stage.tasks} | {stage.graph:.2f} | {stage.scheduler:.2f}",
                    f"{1e3 * stage.scheduler / max(1, stage.tasks):.1f}",
                    f"{stage.work:.1f} | {stage.chain:.1f} | {stage.client:.1f}",
                    *(f"{stage.seconds(count):.1f}" for count in WORKERS),
                ]
                lines.append(f"| {n:,} | {command} | {stage.name} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def commands_table(told):
    """Describe commands as a whole."""
    lines = [
        f"| volumes | command | tasks | client, s | client, MiB | scheduler, MiB | {OF_WORKERS} |",
        "|---" * (6 + len(WORKERS)) + "|",
    ]
    for n, commands in told.items():
        for command, one in commands.items():
            stages = by_stage(one)
            memory = [f"{one[f'{who}_peak'] / 2**20:.0f}" for who in ("client", "scheduler")]
            lines.append(
                f"| {n:,} | {command} | {sum(stage.tasks for stage in stages)} | "
                f"{sum(stage.client for stage in stages):.1f} | {' | '.join(memory)} | "
                + " | ".join(f"{predicted(stages, count):.1f}" for count in WORKERS)
                + " |"
            )
    return "\n".join(lines)


# --- two workers against one ----------------------------------------------------------------------

# Those that are bound by computing, and what each command is given beside its input.
BOUND = {
    "ingest": (COMMAND,),
    "landscape": ("mask", "matrix", "pca"),
    "similarity": ("pairs",),
    "blocks": ("voxel_pairs",),
    "decode": (COMMAND,),
    "class3d": ("start", "iteration"),
}


def inputs(scratch):
    """Make what the commands take; return their arguments."""
    store = make_store(scratch / "e.zarr", 6_000)
    files = make_files(scratch / "maps", 12_000)
    fake = fake_particles(seed=11, count=4_000, box=48, snr=0.1, shares=(0.6, 0.25, 0.15))
    particles = write_particles(scratch / "particles", fake)
    given = {
        "ingest": ["ingest", files, "--dtype", "float16"],
        "landscape": ["landscape", store, "--mask", "none"],
        "similarity": ["similarity", store, "--mask", "none"],
        "blocks": ["blocks", store, "--dilate", 36, "--threshold", 0.3],
        "class3d": ["class3d", "run", particles, "--k", 3],
    }
    if importlib.util.find_spec("cryodrgn"):
        from benchmarks.bench_decode import N_LATENT, write_run  # noqa: PLC0415 - skips elsewhere

        write_run(scratch / "run", box=64, width=128)
        latents = np.random.default_rng(1).standard_normal((160, N_LATENT)).astype(np.float32)
        np.savetxt(scratch / "z.txt", latents)
        decode = ["decode", scratch / "run", 1, "--z", scratch / "z.txt", "--apix", 3]
        given["decode"] = decode
    return given


def seconds_of(told, stages):
    """Return the seconds of stages by the clock, what the client does between passes included."""
    return sum(
        stage.wall + told["outside_wall"].get(stage.name, 0.0) * (stage.name != COMMAND)
        for stage in chosen(told, stages)
    )


def chosen(told, stages):
    """Return stages by their names, or how these begin."""
    return [stage for stage in by_stage(told) if stage.name.startswith(stages)]


def test_two_workers_against_one(benchmark, report, scratch, capsys, full):
    if not full:
        pytest.skip("takes minutes, and two cores that nobody else uses; with --size full")
    idle = idle_cores()
    rates = [sgemm_rate(2.0, threads=count) for count in (1, 2)]
    told = {}

    def ours():
        for command, given in inputs(scratch).items():
            for count in (1, 2):
                more = ["-o", scratch / f"{command}{count}", "--cluster", f"local:{count}"]
                ran = run_watched(scratch, *given, *more, before="report")
                told[command, count] = ran

    benchmark.pedantic(ours, rounds=1)
    lines = [
        "| command, stages | 1 worker, s | 2 workers, s | efficiency | model, 1 worker, s | "
        "model, 2 workers, s |",
        "|---|---|---|---|---|---|",
    ]
    efficiencies = {}
    for command in dict.fromkeys(command for command, _ in told):
        one, two = (told[command, count] for count in (1, 2))
        assert sum(each["tasks"] for each in one["passes"]) == sum(
            each["tasks"] for each in two["passes"]
        )
        first, second = seconds_of(one, BOUND[command]), seconds_of(two, BOUND[command])
        efficiencies[command] = first / (2 * second)
        model = chosen(one, BOUND[command])
        loading = sum(stage.client for stage in model if stage.name == COMMAND)
        said = [f"{predicted(model, count) - loading:.1f}" for count in (1, 2)]
        lines.append(
            f"| {command}: {', '.join(BOUND[command])} | {first:.1f} | {second:.1f} | "
            f"{efficiencies[command]:.2f} | {' | '.join(said)} |"
        )
    lines += [
        "",
        f"{idle:.1f} cores idle before; two threads of matrix products, as a share of twice one: "
        f"{rates[1] / rates[0] / 2:.2f}",
    ]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    report(**efficiencies)


# --- the model ------------------------------------------------------------------------------------


def test_the_model_bounds_a_list_schedule():
    """No greedy schedule of any graph takes longer, nor can two workers halve what one takes."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        seconds = rng.exponential(size=60)
        before = [rng.choice(k, min(k, int(rng.integers(0, 3))), replace=False) for k in range(60)]
        chains = np.zeros(60)
        for task in range(60):
            chains[task] = seconds[task] + max((chains[k] for k in before[task]), default=0.0)
        told = {
            "passes": [
                {
                    "stage": "a",
                    "label": "a",
                    "tasks": 60,
                    "wall": 1.0,
                    "client": 1.0,
                    "scheduler": 0.0,
                    "workers": seconds.sum(),
                    "work": seconds.sum(),
                    "chain": chains.max(),
                }
            ],
            "scheduler_idle": 0.0,
            "scheduler_apart": True,
            "outside_client": {},
            "graph": {},
        }
        (stage,) = by_stage(told)
        for workers in (1, 2, 7):
            took = greedy(seconds, before, workers)
            said = stage.seconds(workers) - stage.client
            assert took <= said * (1 + 1e-9)
            assert said <= 2 * took


def greedy(seconds, before, workers):
    """Return how long a schedule takes in which no worker waits while a task could run."""
    left = [len(each) for each in before]
    after = [[k for k in range(len(seconds)) if task in before[k]] for task in range(len(seconds))]
    ready = [task for task, count in enumerate(left) if count == 0]
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            task = ready.pop(0)
            heapq.heappush(running, (now + seconds[task], task))
        now, task = heapq.heappop(running)
        for other in after[task]:
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    return now
