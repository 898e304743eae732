"""Plans of memory of what reads particle images are kept, as the kernel measures."""

import pytest

import emhet_dask
from emhet_dask.runtime import connect
from tests.fake_particles import fake_particles, write_particles
from tests.memory_of_workers import assert_kept, measurable, peaks_of_stages, undisturbed

LIMIT = 10**9


@pytest.fixture(scope="module")
def client():
    measurable()
    with connect("local:1", memory_limit=LIMIT) as client:
        yield client


@pytest.fixture
def peaks(client, monkeypatch):
    return peaks_of_stages(client, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_reconstruct(client, peaks, tmp_path, symmetry):
    particles = write_particles(tmp_path / "p", fake_particles(600, box=96))
    with undisturbed(client):
        emhet_dask.reconstruct(
            particles, output=str(tmp_path / "out"), symmetry=symmetry, mask="none",
            gridding_iterations=1, cluster=client, quiet=True,
        )  # fmt: skip
    assert_kept(tmp_path / "out", peaks, planned={"state_000"}, limit=LIMIT)


@pytest.mark.slow
def test_class3d_run(client, peaks, tmp_path):
    particles = write_particles(tmp_path / "p", fake_particles(600, box=64))
    with undisturbed(client):
        emhet_dask.class3d_run(
            particles, output=str(tmp_path / "out"), k=2, iterations=1, components=2, restarts=1,
            ini_high=12.0, cluster=client, quiet=True,
        )  # fmt: skip
    planned = {"images", "consensus", "start", "iteration 1"}
    assert_kept(tmp_path / "out", peaks, planned=planned, limit=LIMIT)
