"""A landscape once more: done before, cut otherwise, after a kill, or with what cannot work."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.errors import InputError
from tests.workflows.landscape.conftest import N


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_call_again_finds_nothing_to_do(made, landscape, capsys):
    folder = made[0]
    before = snapshot(folder / "out")
    landscape(str(folder / "e.zarr"), output=str(folder / "out"), quiet=False)
    said = capsys.readouterr().err
    for stage in ("mask", "matrix", "pca", "trajectories", "tree", "clusters", "report"):
        assert f"{stage}: done before" in said
    assert snapshot(folder / "out") == before


def test_another_cut_keeps_mask_and_pca_and_the_earlier_cut(made, landscape, tmp_path):
    import shutil

    folder, _, found, _ = made
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    upstream = {p: t for p, t in snapshot(out).items() if p.startswith(("mask", "pcs"))}
    again = landscape(str(folder / "e.zarr"), output=str(out), n_clusters=3)
    assert again.n_clusters == 3
    assert again.evidence["chosen"] == "by --n-clusters"
    assert upstream.items() <= snapshot(out).items()
    kept = out / f"clusters_ward_{found.n_clusters}"
    assert len(pd.read_csv(kept / "states.csv")) == found.n_clusters
    assert not (out / "clusters" / "cluster_003_mean.mrc").exists()
    average = landscape(str(folder / "e.zarr"), output=str(out), n_clusters=3, linkage="average")
    assert average.evidence["linkage"] == "average"


def test_another_linkage_keeps_the_earlier_cuts(made, landscape, tmp_path):
    import shutil

    folder, _, found, _ = made
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    landscape(str(folder / "e.zarr"), output=str(out), linkage="average", n_clusters=3)
    landscape(str(folder / "e.zarr"), output=str(out), linkage="average", n_clusters=2)
    back = landscape(str(folder / "e.zarr"), output=str(out))
    np.testing.assert_array_equal(back.labels, found.labels)
    kept = {path.name for path in out.glob("clusters_*")}
    assert {"clusters_average_3", "clusters_average_2"} <= kept


def test_more_or_fewer_components_drawn_change_nothing_else(made, landscape, tmp_path):
    import shutil

    folder = made[0]
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    before = {p: t for p, t in snapshot(out).items() if p.startswith(("clusters/", "volume_pcs"))}
    landscape(str(folder / "e.zarr"), output=str(out), plot_dim=2)
    assert sorted(path.name for path in (out / "pcs").iterdir()) == ["pc1", "pc2"]
    assert before.items() <= snapshot(out).items()


def test_other_upstream_settings_are_refused_and_nothing_is_lost(made, landscape):
    folder = made[0]
    before = snapshot(folder / "out")
    with pytest.raises(InputError, match="--overwrite") as refused:
        landscape(str(folder / "e.zarr"), output=str(folder / "out"), normalize=False)
    assert "normalize" in str(refused.value)
    assert snapshot(folder / "out") == before


def test_what_cannot_work_is_refused_before_anything_is_computed(
    made, landscape, tmp_path, monkeypatch
):
    folder = made[0]
    monkeypatch.setitem(sys.modules, "umap", None)
    before = snapshot(folder / "out")
    for options, message in (
        ({"umap": True}, r"--umap needs the package 'umap'.*emhet-dask\[umap\]"),
        ({"n_clusters": N + 1}, "--n-clusters"),
        ({"keep": f"{folder / 'out'}:0,1"}, "is the output itself"),
    ):
        with pytest.raises(InputError, match=message):
            landscape(str(folder / "e.zarr"), output=str(folder / "out"), **options)
        assert snapshot(folder / "out") == before
    with pytest.raises(InputError, match="--umap"):
        landscape(str(folder / "e.zarr"), output=str(tmp_path / "new"), umap=True)
    assert not (tmp_path / "new").exists()


def test_bad_options_leave_earlier_results_untouched(made, landscape):
    folder = made[0]
    before = snapshot(folder / "out")
    for options in ({"n_clusters": N + 1}, {"mask": "absent.mrc"}, {"keep": "0-99"}):
        with pytest.raises(InputError):
            landscape(str(folder / "e.zarr"), output=str(folder / "out"), **options)
    assert snapshot(folder / "out") == before


@pytest.mark.slow
def test_the_same_bits_on_threads_and_on_processes(made, tmp_path):
    folder, _, found, _ = made
    other = emhet_dask.landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "o"), cluster="local:2", quiet=True
    )
    for group in ("mask", "matrix", "pca", "tree", "clusters"):
        for name, expected in found.group(group).items():
            np.testing.assert_array_equal(other.group(group)[name], expected, err_msg=name)


KILLED_LANDSCAPE = """
import os, sys
import emhet_dask
import emhet_dask.workflows.landscape as workflow
from emhet_dask.runtime.results import ResultsFolder

stage, output, store = sys.argv[1:]
run = ResultsFolder.stage

def die(self, name, **options):
    build = options["build"]
    if name == stage:
        def half(workspace):
            build(workspace)
            os._exit(9)
        options["build"] = half
    return run(self, name, **options)

ResultsFolder.stage = die
emhet_dask.landscape(store, output=output, quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["mask", "matrix", "pca", "clusters", "report"])
def test_killed_in_any_stage_the_same_command_gives_the_same(made, landscape, tmp_path, stage):
    folder, _, found, _ = made
    out = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_LANDSCAPE, stage, str(out), str(folder / "e.zarr")],
        check=False,
    )
    assert killed.returncode == 9
    again = landscape(str(folder / "e.zarr"), output=str(out))
    for group in ("mask", "matrix", "pca", "tree", "clusters"):
        for name, expected in found.group(group).items():
            np.testing.assert_array_equal(again.group(group)[name], expected, err_msg=name)
    assert sorted(snapshot(out)) == sorted(snapshot(folder / "out"))
