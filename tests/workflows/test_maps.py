"""Maps of states: NumPy's average and deviation, the same bits anywhere, in bounded memory."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from distributed import Client

from emhet_dask.analysis.moments import Moments
from emhet_dask.ensemble import from_array
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.runtime import Progress
from emhet_dask.workflows.stages import maps
from emhet_dask.workflows.stages.job import Job
from tests.runtime.loopback import loopback_cluster

BOX = 6


@pytest.fixture
def make_job(tmp_path):
    def make(client, volumes, *, weights=None, stored=True):
        ensemble = from_array(volumes, voxel_size_angstrom=3.0, weights=weights)
        if stored:
            group = zarr.open_group(tmp_path / "e.zarr", mode="w", zarr_format=3)
            group.create_array(
                "volumes",
                data=volumes,
                chunks=(3, BOX, BOX, BOX),
                shards=(12, BOX, BOX, BOX),
            )
            ensemble = replace(ensemble, path=str(tmp_path / "e.zarr"))
        results = SimpleNamespace(state=lambda work: None)  # no folder, and so no plan to record
        return Job(ensemble, results=results, client=client, progress=Progress(quiet=True))

    return make


def read(folder, state, what):
    return read_volume(read_header(folder / f"cluster_{state:03d}_{what}.mrc"))


def random_volumes(count):
    rng = np.random.default_rng(count)
    return (10 + rng.standard_normal((count, BOX, BOX, BOX))).astype(np.float32)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("run", [1, 3, 64])
def test_any_number_of_runs_gives_numpys_average_and_deviation(
    tmp_path, client, make_job, monkeypatch, run, stored
):
    monkeypatch.setattr(maps, "_RUNS", 1000)
    monkeypatch.setattr(maps, "_SHORTEST_RUN", run)
    monkeypatch.setattr(maps, "_RUN_IN_MEMORY", run)
    volumes, rng = random_volumes(40), np.random.default_rng(1)
    weights = rng.integers(1, 90, 40).astype(float)
    labels = rng.choice(2, 40, p=[0.2, 0.8])
    include = rng.random(40) < 0.9
    job = make_job(client, volumes, weights=weights, stored=stored)
    maps.write_state_maps(job, tmp_path, labels, include=include)
    for state in (0, 1):
        members = (labels == state) & include
        x, share = volumes[members].astype(np.float64), weights[members]
        mean = np.average(x, axis=0, weights=share)
        deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=share))
        np.testing.assert_allclose(read(tmp_path, state, "mean"), mean, rtol=1e-6)
        np.testing.assert_allclose(read(tmp_path, state, "std"), deviation, rtol=1e-6)


def test_states_without_included_or_weighted_members_still_have_a_mean(tmp_path, client, make_job):
    volumes = random_volumes(4)
    job = make_job(client, volumes, weights=[1.0, 3.0, 0.0, 0.0])
    include = np.asarray([False, False, True, True])
    maps.write_state_maps(job, tmp_path, np.asarray([0, 0, 1, 1]), include=include)
    expected = np.average(volumes[:2], axis=0, weights=[1, 3])
    np.testing.assert_allclose(read(tmp_path, 0, "mean"), expected, rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path, 1, "mean"), volumes[2:].mean(axis=0), rtol=1e-6)


def test_maps_are_the_same_bits_on_other_workers(tmp_path, client, make_job, monkeypatch):
    monkeypatch.setattr(maps, "_SHORTEST_RUN", 5)
    volumes, labels = random_volumes(120), np.arange(120) % 7 // 6
    with loopback_cluster(3) as cluster, Client(cluster) as other:
        for name, workers in (("one", client), ("three", other)):
            folder = tmp_path / name
            folder.mkdir()
            job = make_job(workers, volumes)
            maps.write_state_maps(job, folder, labels, include=np.ones(120, dtype=bool))
    for path in sorted((tmp_path / "one").iterdir()):
        data, again = (read_volume(read_header(at / path.name)) for at in (
            path.parent, tmp_path / "three"))  # fmt: skip
        np.testing.assert_array_equal(data, again)


def test_few_sums_are_held_however_many_runs_there_are(tmp_path, client, make_job, monkeypatch):
    monkeypatch.setattr(maps, "_RUNS", 1000)
    monkeypatch.setattr(maps, "_SHORTEST_RUN", 1)
    begin, live, held = Moments.__init__, set(), []

    def counted(moments, *arguments):
        begin(moments, *arguments)
        live.add(id(moments))
        weakref.finalize(moments, live.discard, id(moments))
        held.append(len(live))

    monkeypatch.setattr(Moments, "__init__", counted)
    job = make_job(client, random_volumes(300))
    labels = np.zeros(300, dtype=int)
    maps.write_state_maps(job, tmp_path, labels, include=np.ones(300, dtype=bool))
    assert len(held) > 300
    threads = sum(client.nthreads().values())
    assert max(held) < 30 + 10 * threads
