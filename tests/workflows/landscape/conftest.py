"""Maps of four states with particles, and their landscape."""

import numpy as np
import pytest

import emhet_dask

N, BOX, APIX = 60, 32, 6.0


@pytest.fixture(scope="module")
def maps(tmp_path_factory, client):
    """Maps of four states in a folder with their store, the truth, and each particle's volume."""
    folder = tmp_path_factory.mktemp("landscape")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=24.0, subunits=4,
        seed=3, cluster=client, quiet=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(N), rng.integers(0, N, 4 * N)])
    np.save(folder / "labels.npy", labels)
    rows = "\n".join(f"{row + 1:06d}@stack.mrcs 1" for row in range(len(labels)))
    (folder / "particles.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
        f"{rows}\n\n"
    )
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        labels=str(folder / "labels.npy"),
        particles=str(folder / "particles.star"),
        cluster=client,
        quiet=True,
    )
    return folder, simulated.truth, labels


@pytest.fixture(scope="module")
def made(maps, client):
    """The same, and the landscape."""
    folder, truth, labels = maps
    found = emhet_dask.landscape(
        str(folder / "e.zarr"), output=str(folder / "out"), cluster=client, quiet=True
    )
    return folder, truth, found, labels


@pytest.fixture
def landscape(client):
    def run(*arguments, **options):
        return emhet_dask.landscape(*arguments, **{"cluster": client, "quiet": True, **options})

    return run
