"""Simulate: a folder is whole or continues, and nothing of others is replaced."""

import json
import os

import pytest

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.workflows import simulate as workflow


@pytest.fixture
def simulate(client, tmp_path):
    def run(**options):
        return emhet_dask.simulate_transition(
            output=str(tmp_path / "maps"),
            cluster=client,
            **{"n": 3, "box": 16, "apix": 8.0, "resolution": 24.0, "quiet": True, **options},
        )

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_folder_continues(simulate, tmp_path, monkeypatch):
    folder = simulate().folder
    whole = contents(folder)
    assert len(whole) == 5
    (folder / "truth.csv").unlink()
    (folder / "vol_00002.mrc").unlink()
    (folder / "vol_00001.mrc").write_bytes(b"half")
    simulate()
    assert contents(folder) == whole


@pytest.mark.parametrize("name", ["simulation.json", "truth.csv"])
def test_a_table_that_was_not_whole_is_not_there(simulate, tmp_path, monkeypatch, name):
    rename = os.replace

    def killed(before, after):
        if str(after).endswith(name):
            raise KeyboardInterrupt
        rename(before, after)

    with monkeypatch.context() as patched:
        patched.setattr(workflow.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            simulate()
    assert not (tmp_path / "maps" / name).exists()
    assert len(simulate().truth) == 3
    assert not list((tmp_path / "maps").glob("*.partial"))


def test_a_kill_before_the_settings_are_whole_does_not_lock_the_folder(simulate, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "simulation.json.partial").write_text("{")
    assert len(simulate().truth) == 3
    assert sorted(contents(tmp_path / "maps"))[0] == "simulation.json"


@pytest.mark.parametrize("text", ['{"what": "Sim', "[1, 2]", '{"gravity": 9.81}', "\xff"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_settings_that_are_not_ours_are_refused(simulate, tmp_path, text, overwrite):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "simulation.json").write_bytes(text.encode("latin-1"))
    before = contents(tmp_path / "maps")
    with pytest.raises(InputError, match=r"simulation\.json: damaged, or not made by"):
        simulate(overwrite=overwrite)
    assert contents(tmp_path / "maps") == before


def test_other_settings_are_refused_until_overwrite(simulate):
    folder = simulate().folder
    with pytest.raises(InputError, match="--overwrite replaces them"):
        simulate(n=2)
    assert len(simulate(n=2, overwrite=True).truth) == 2
    assert json.loads((folder / "simulation.json").read_text())["n"] == 2
    assert not (folder / "vol_00002.mrc").exists()
