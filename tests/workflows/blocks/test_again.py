"""Blocks once more: done before, with other settings, after a kill, of other maps."""

import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import zarr

import emhet_dask
from emhet_dask.cli import main
from emhet_dask.workflows.stages import blocks as stage
from emhet_dask.workflows.stages import voxel_pairs
from tests.workflows.blocks.assembly import APIX, BOX, SCREEN, names_of, refused, volumes_of


def stamps(folder, pattern="*"):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern) if path.is_file()}


def arrays_of(group):
    return {name: array[:] for name, array in zarr.open_group(str(group), mode="r").arrays()}


def test_the_same_command_again_does_nothing(made, blocks, copied, client, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr(stage, "search_blocks", never)
    before = {path: at for path, at in stamps(copied).items() if path.name != "run.json"}
    again = blocks(str(made[0] / "e.zarr"), output=str(copied), **SCREEN, quiet=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().err.count("done before") == 8
    np.testing.assert_array_equal(again.labels, made[2].labels)
    for name in ("blocks", "occupancy", "density", "presence", "relations", "states"):
        pd.testing.assert_frame_equal(getattr(again.tables, name), getattr(made[2].tables, name))
    pd.testing.assert_frame_equal(again.screening, made[2].screening)


def test_the_command_line(made, copied, capsys):
    store = str(made[0] / "e.zarr")
    main(["blocks", store, "-o", str(copied), "--screen-thresholds", "1.25",
          "--screen-p", "1e-4", "--quiet"])  # fmt: skip
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.strip() == made[2].describe().replace(str(made[0] / "out"), str(copied))


def test_another_least_size_redoes_the_blocks_alone(made, blocks, undrawn, copied):
    results = copied / "results.zarr"
    parts = ("matrix", "thresholds", "occupied", "voxel_pairs")
    before = {name: stamps(results / name) for name in parts}
    assert all(before.values())
    largest = int(made[2].tables.blocks["core_voxels"].max())
    found = blocks(str(made[0] / "e.zarr"), output=str(copied), min_voxels=largest, **SCREEN)
    assert {name: stamps(results / name) for name in parts} == before
    assert 1 <= found.n_blocks < 3
    assert found.tables.evidence["groups_too_small"] == 3 - found.n_blocks
    assert found.tables.evidence["min_voxels"] == largest
    left = sorted(path.name for path in copied.glob("block_0*.mrc"))
    assert left == [f"{name}.mrc" for name in names_of(found)]


def test_nothing_is_left_of_blocks_that_are_none_any_more(made, blocks, copied):
    found = blocks(str(made[0] / "e.zarr"), output=str(copied), min_voxels=BOX**3)
    assert found.n_blocks == 0
    assert not found.labels.any()
    for name in (
        "block_001.mrc", "blocks.png", "blocks_3d.png", "clustermap.png", "relations.png",
        "figures/odds.png", "figures/histograms.png", "figures/screening.png", "screening.csv",
    ):  # fmt: skip
        assert not (copied / name).exists(), name
    assert "No block in 80 volumes" in (copied / "report.html").read_text()
    assert "block_001" not in (copied / "open.cxc").read_text()


def test_results_of_other_maps_are_not_mixed(made, blocks, undrawn, copied):
    ensemble = emhet_dask.from_array(volumes_of(made[0])[:60], voxel_size_angstrom=APIX)
    refused(blocks, ensemble, output=str(copied), match="--overwrite")
    refused(blocks, str(made[0] / "e.zarr"), output=str(copied), mask="none", match="--overwrite")


KILLED = """
import os, signal
import dask
import emhet_dask
from emhet_dask.workflows.stages import voxel_pairs

written = voxel_pairs.write_edges

def doomed(*arguments, **options):
    tasks = written(*arguments, **options)
    dask.compute(*tasks[: len(tasks) // 2], scheduler="synchronous")
    print(len(tasks), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

voxel_pairs.write_edges = doomed
emhet_dask.blocks({store!r}, output={output!r}, quiet=True)
"""


@pytest.mark.slow
def test_killed_among_the_pairs_and_continued(made, blocks, undrawn, tmp_path, monkeypatch):
    store, out = str(made[0] / "e.zarr"), tmp_path / "out"
    code = KILLED.format(store=store, output=str(out))
    killed = subprocess.run(
        [sys.executable, "-c", code], check=False, stdout=subprocess.PIPE, text=True
    )
    assert killed.returncode == -signal.SIGKILL
    all_tasks = int(killed.stdout)
    assert all_tasks > 4
    left = []
    written = voxel_pairs.write_edges

    def counted(*arguments, **options):
        tasks = written(*arguments, **options)
        left.append(len(tasks))
        return tasks

    monkeypatch.setattr(voxel_pairs, "write_edges", counted)
    found = blocks(store, output=str(out))
    assert left == [all_tasks - all_tasks // 2]
    whole = blocks(store, output=str(tmp_path / "whole"))
    assert left[1:] == [all_tasks]
    np.testing.assert_array_equal(found.labels, whole.labels)
    for group in ("thresholds", "occupied/level_0", "voxel_pairs/level_0", "blocks"):
        mine, theirs = (
            arrays_of(folder / "results.zarr" / group) for folder in (out, tmp_path / "whole")
        )
        assert mine
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)
