"""Plans of memory are kept by workers with less of it than the ensemble, as the kernel measures."""

import json
import re

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import emhet_dask
from emhet_dask.ensemble.layout import plan_layout
from emhet_dask.ensemble.store import RECORD_COLUMNS, create_store, finish_store, write_shard
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.runtime import connect, memory, state_plan
from emhet_dask.runtime.local import worker_settings
from emhet_dask.workflows import ingest as ingest_module
from emhet_dask.workflows.stages.costs import mask_work
from tests.memory_of_workers import (
    MIB,
    assert_kept,
    forget_peak,
    measurable,
    peak,
    peaks_of_stages,
    undisturbed,
)

LIMIT = 700 * 10**6
COUNT, BOX = 3600, 48


def make_store(path, *, n=COUNT, box=BOX):
    """Write an ensemble of two states and noise without files of maps in between."""
    layout = plan_layout(n, box, "float32")
    create_store(
        path,
        layout,
        known={"name": np.asarray([f"v{number:05d}" for number in range(n)])},
        attributes={
            "voxel_size_angstrom": 3.0,
            "origin_angstrom": [0.0, 0.0, 0.0],
            "box": box,
            "ingest_key": "made by a test",
        },
    )
    z, y, x = np.indices((box,) * 3, dtype=np.float32) - box / 2
    body = (np.sqrt(z**2 + y**2 + x**2) < 0.3 * box).astype(np.float32)
    lobe = (np.sqrt((z - box / 4) ** 2 + y**2 + x**2) < 0.1 * box).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, (7, box, box, box)).astype(np.float32)

    def volumes(bounds):
        for number in range(*bounds):
            yield body + lobe * (number % 2) + noise[number % 7] + 0.7 * noise[number // 7 % 7]

    known = {"usable": 1, "scale": 1, "maximum": 1.5, "percentile_9999": 1.2}
    for bounds in layout.shards():
        record = np.zeros((bounds[1] - bounds[0], len(RECORD_COLUMNS)))
        for name, value in known.items():
            record[:, RECORD_COLUMNS.index(name)] = value
        record[:, RECORD_COLUMNS.index("source_crc32c")] = np.arange(*bounds)
        write_shard(path, bounds, volumes(bounds), record)
    finish_store(path)


@pytest.fixture(scope="module")
def client():
    measurable()
    with connect("local:2", memory_limit=LIMIT) as client:
        yield client


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("large") / "ens.zarr")
    make_store(path)
    assert COUNT * BOX**3 * 4 > 2 * LIMIT
    return path


def keep_to(limit, monkeypatch):
    """Let commands know the limit, as --memory-limit does, for workers that they are given."""
    share = memory.task_memory_bytes(str(limit))
    monkeypatch.setattr(memory, "DEFAULT_MEMORY_BYTES", share, raising=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options", "planned"),
    [
        ("landscape", {"n_clusters": 2}, {"mask", "matrix", "pca", "clusters"}),
        ("similarity", {"n_clusters": 2, "mask": "MASK"}, {"matrix", "pairs", "tree", "clusters"}),
        ("blocks", {}, {"mask", "matrix", "thresholds", "occupied", "voxel_pairs", "blocks"}),
    ],
)
def test_workers_stay_under_the_plan_and_never_spill(
    client, ensemble, monkeypatch, tmp_path, command, options, planned
):
    keep_to(LIMIT, monkeypatch)
    peaks = peaks_of_stages(client, monkeypatch)
    if options.get("mask") == "MASK":
        z, y, x = np.indices((BOX,) * 3) - BOX / 2
        ball = (np.sqrt(z**2 + y**2 + x**2) < 0.3 * BOX).astype(np.float32)
        write_map(tmp_path / "mask.mrc", ball, voxel_size_angstrom=3.0)
        options = {**options, "mask": str(tmp_path / "mask.mrc")}
    out = tmp_path / "out"
    run = getattr(emhet_dask, command)
    with undisturbed(client):
        run(ensemble, output=str(out), cluster=client, quiet=True, **options)
    assert_kept(out, peaks, planned=planned, limit=LIMIT)


@pytest.mark.slow
def test_plans_are_of_all_threads_of_a_worker(ensemble, monkeypatch, tmp_path):
    limit = 2 * LIMIT
    keep_to(limit, monkeypatch)
    settings = {"threads_per_worker": 2, "memory_limit": limit, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set(worker_settings()),
        LocalCluster(1, **settings) as cluster,
        Client(cluster) as client,
    ):
        peaks = peaks_of_stages(client, monkeypatch)
        out = tmp_path / "out"
        with undisturbed(client):
            emhet_dask.landscape(
                ensemble, output=str(out), n_clusters=2, cluster=client, quiet=True
            )
        assert_kept(out, peaks, planned={"mask", "matrix", "pca"}, limit=limit)
    (mask,) = json.loads((out / "run.json").read_text())["stages"]["mask"]["plans"]
    work = mask_work(emhet_dask.open_ensemble(ensemble))
    both = work.on(2).peak_bytes_per_worker
    assert work.on(1).peak_bytes_per_worker < both == mask["peak_bytes_per_worker"]


@pytest.mark.slow
def test_ingest_stays_under_its_plan(client, tmp_path, monkeypatch):
    box, count = 96, 250
    (tmp_path / "maps").mkdir()
    one = tmp_path / "maps" / "vol_000.mrc"
    noise = np.random.default_rng(0).normal(size=(box,) * 3).astype(np.float32)
    write_map(one, noise, voxel_size_angstrom=2.0)
    for number in range(1, count):
        (tmp_path / "maps" / f"vol_{number:03d}.mrc").hardlink_to(one)
    plans = []
    monkeypatch.setattr(
        ingest_module, "state_plan", lambda *given: plans.append(state_plan(*given))
    )
    client.run(forget_peak)
    emhet_dask.ingest(
        str(tmp_path / "maps"), output=str(tmp_path / "e.zarr"), box=64, cluster=client, quiet=True
    )
    (plan,) = plans
    assert plan.read_bytes == count * 4 * box**3 > LIMIT
    measured = max(client.run(peak).values())
    print("ingest", measured // MIB, plan.peak_bytes_per_worker // MIB)
    assert measured < plan.peak_bytes_per_worker <= LIMIT


def test_what_cannot_fit_is_refused_before_it_begins(tmp_path):
    path = str(tmp_path / "ens.zarr")
    make_store(path, n=20, box=16)
    with pytest.raises(InputError) as refused:
        emhet_dask.landscape(
            path, output=str(tmp_path / "out"), cluster="local:1", memory_limit="200MB", quiet=True
        )
    said = str(refused.value)
    assert re.match(r"mask needs \S+ MiB per worker, but a worker has 190.73 MiB: use --mask", said)
    assert "--memory-limit" in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()
