"""Maps of an assembly, and their blocks."""

import shutil

import pytest

import emhet_dask
from tests.workflows.blocks.assembly import APIX, BOX, RESOLUTION, SCREEN, SUBUNITS, N


@pytest.fixture(scope="module")
def maps(tmp_path_factory, client):
    """Maps of an assembly in a folder with their store, and the truth."""
    folder = tmp_path_factory.mktemp("blocks")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=RESOLUTION,
        subunits=SUBUNITS, seed=3, cluster=client, quiet=True,
    )  # fmt: skip
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        cluster=client,
        quiet=True,
    )
    return folder, simulated.truth


@pytest.fixture(scope="module")
def made(maps, client):
    """The same, and the blocks with all that is said of them."""
    folder, truth = maps
    found = emhet_dask.blocks(
        str(folder / "e.zarr"), output=str(folder / "out"), cluster=client, quiet=True, **SCREEN
    )
    return folder, truth, found


@pytest.fixture
def blocks(client):
    def run(*arguments, **options):
        return emhet_dask.blocks(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the report, which takes longer than all else."""
    monkeypatch.setattr("emhet_dask.workflows.blocks.block_report_stage", lambda *_: None)


@pytest.fixture
def copied(made, tmp_path):
    """The results in a folder of the test's own."""
    return shutil.copytree(made[0] / "out", tmp_path / "out")
