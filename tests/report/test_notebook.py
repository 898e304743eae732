from __future__ import annotations

import json
import shlex
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from emhet_dask.analysis.relations import block_relations, state_table
from emhet_dask.cli.main import _build
from emhet_dask.formats.mrc_write import write_map
from emhet_dask.options.subset import Select
from emhet_dask.report.notebook import block_cells, landscape_cells, write_notebook


@pytest.fixture
def results(tmp_path: Path, small) -> Path:
    """The folder of a landscape, as far as the notebook reads it."""

    def save(group: str, dataset: xr.Dataset) -> None:
        path = tmp_path / "results.zarr" / group
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False)

    inside = np.flatnonzero(small.mask)
    components = np.random.default_rng(0).normal(size=(6, len(inside)))
    save("mask", xr.Dataset({"mask": (("z", "y", "x"), small.mask)}))
    save("matrix", xr.Dataset({"voxel_index": (("voxel",), inside)}))
    pca = {
        "scores": (("volume", "component"), small.scores),
        "components": (("component", "voxel"), components),
        "explained_variance_ratio": (("component",), small.ratios),
    }
    save("pca", xr.Dataset(pca))
    tree = {
        "linkage": (("merge", "column"), small.linkage),
        "leaf": (("volume",), np.arange(40)),
    }
    save("tree", small.evidence.assign(tree))
    clusters = {
        "cluster": (("volume",), small.labels),
        "outlier": (("volume",), small.outliers),
    }
    save("clusters", xr.Dataset(clusters))
    folder = tmp_path / "clusters"
    folder.mkdir()
    labels = {"volume": np.arange(40), "name": small.names, "cluster": small.labels}
    pd.DataFrame({**labels, "outlier": small.outliers}).to_csv(
        folder / "cluster_labels.csv", index=False
    )
    small.states.to_csv(folder / "states.csv", index=False)
    evidence = {
        "n_clusters": 4,
        "automatic_n_clusters": 4,
        "separate_states": True,
        "reason": "Because.",
        "n_signal": 3,
    }
    (folder / "evidence.json").write_text(json.dumps(evidence))
    for file, mean in zip(small.states["mean_map"], small.means, strict=True):
        write_map(tmp_path / file, mean, voxel_size_angstrom=3.0)
    write_map(tmp_path / "mask.mrc", small.mask, voxel_size_angstrom=3.0)
    return tmp_path


def test_notebook_is_valid_and_always_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        cells = landscape_cells(folder="/data/it's here", ensemble="s3://bucket/e.zarr")
        write_notebook(tmp_path / name, cells)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    notebook = nbformat.read(tmp_path / "a", as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert repr("/data/it's here") in code
    assert "'s3://bucket/e.zarr'" in code


def test_every_cell_runs_on_finished_results(results: Path) -> None:
    drawn = []
    names: dict[str, object] = {}
    for kind, source in landscape_cells(folder=results, ensemble="e.zarr"):
        if kind == "markdown":
            continue
        lines = [line for line in source.splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), "<cell>", "exec"), names)  # the notebook's own code
        drawn += [line for line in lines if line.startswith("report.")]
    assert len(drawn) == 9
    assert str(names["OUT"]) == str(results)


@pytest.fixture
def blocks_folder(tmp_path: Path, small) -> Path:
    """The folder of blocks, as far as the notebook reads it."""
    labels = np.zeros(small.mask.shape, np.int16)
    labels[4:8, 4:8, 4:12], labels[8:12, 8:12, 4:12] = 1, 2
    folder = tmp_path / "it's blocks"
    folder.mkdir()
    write_map(folder / "blocks.mrc", labels.astype(np.float32), voxel_size_angstrom=3.0)
    write_map(folder / "mean.mrc", small.means[0], voxel_size_angstrom=3.0)
    present = np.random.default_rng(0).random((40, 2)) < 0.5
    relations = block_relations(present, [1, 2])
    states, _ = state_table(present, ["block_001", "block_002"])
    blocks = {"block": [1, 2], "voxels": 128, "fraction": present.mean(axis=0), "cut": 0.5}
    tables = {"blocks": pd.DataFrame(blocks), "block_relations": relations, "block_states": states}
    for name, scale in (("occupancy", 0.9), ("density", 0.1), ("presence", 1)):
        columns = dict(zip(("block_001", "block_002"), scale * present.T, strict=True))
        tables[f"block_{name}"] = pd.DataFrame(
            {"volume": np.arange(40), "name": small.names, **columns}
        )
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_every_cell_runs_on_finished_blocks(blocks_folder: Path, capsys) -> None:
    drawn = []
    names: dict[str, object] = {}
    for kind, source in block_cells(folder=blocks_folder, ensemble="e.zarr"):
        if kind == "markdown":
            continue
        lines = [line for line in source.splitlines() if not line.startswith("%")]
        exec(compile("\n".join(lines), "<cell>", "exec"), names)  # the notebook's own code
        drawn += [line for line in lines if line.startswith("report.")]
    assert len(drawn) == 6
    assert str(names["OUT"]) == str(blocks_folder)
    printed = capsys.readouterr().out
    commands = [line for line in printed.splitlines() if line.startswith("emhet select")]
    assert len(commands) == 4
    for line in commands:  # the command line takes each as it is printed
        _, word, *arguments = shlex.split(line)
        parsed = _build().commands[word].make_context(word, arguments).params
        assert parsed["results"] == str(blocks_folder)
        assert Select(**parsed).output.endswith(".csv")


@pytest.mark.slow
def test_figures_are_shown_by_a_kernel(results: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    write_notebook(results / "explore.ipynb", landscape_cells(folder=results, ensemble="e.zarr"))
    notebook = nbformat.read(results / "explore.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 10
