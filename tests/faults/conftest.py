"""A small ensemble and all that is made of it without a fault, to compare with."""

import numpy as np
import pytest

import emhet_dask
from tests.fake_run import write_run
from tests.faults.pieces import make_small

N_MAPS = 96
N_PARTICLES = 160
SETTINGS = {
    "landscape": {"n_clusters": 3},
    "similarity": {"n_clusters": 3},
    "blocks": {"mask": "none"},
}


@pytest.fixture
def small(monkeypatch):
    make_small(monkeypatch.setattr)


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Maps, and a run of cryoDRGN's."""
    folder = tmp_path_factory.mktemp("sources")
    emhet_dask.simulate_assembly(output=str(folder / "maps"), n=N_MAPS, box=16, quiet=True)
    latents = np.random.default_rng(0).standard_normal((N_PARTICLES, 2)).astype(np.float32)
    write_run(folder / "run", latents)
    return folder


@pytest.fixture(scope="session")
def undisturbed(sources, tmp_path_factory):
    """A folder with ``ingest``, ``landscape``, … in it, as threads of one process make them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch, emhet_dask.connect("local") as client:
        make_small(patch.setattr)
        options = {"cluster": client, "quiet": True}
        store = str(folder / "ingest")
        emhet_dask.ingest([str(sources / "maps")], output=store, **options)
        for name, settings in SETTINGS.items():
            getattr(emhet_dask, name)(store, output=str(folder / name), **settings, **options)
        run, decoded = str(sources / "run"), str(folder / "decode")
        emhet_dask.decode(run, 3, output=decoded, n=40, **options)
        sketch = str(folder / "sketch")
        emhet_dask.landscape(decoded, output=sketch, n_components=3, plot_dim=1, **options)
        emhet_dask.map(run, 3, landscape=sketch, output=str(folder / "map"), **options)
    return folder


@pytest.fixture
def command(sources, undisturbed):
    """Return the words of a command that makes what `undisturbed` has, at a place of its own."""
    store = undisturbed / "ingest"
    words = {
        "ingest": ["ingest", sources / "maps"],
        "landscape": ["landscape", store, "--n-clusters", "3"],
        "similarity": ["similarity", store, "--n-clusters", "3"],
        "blocks": ["blocks", store, "--mask", "none"],
        "decode": ["decode", sources / "run", "3", "-n", "40"],
        "map": ["map", sources / "run", "3", "--landscape", undisturbed / "sketch"],
    }
    return lambda name, output, *more: [*words[name], "-o", output, *more]
