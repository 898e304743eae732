"""``explore.ipynb``: a notebook that draws what the report draws, to be changed by the user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from emhet_dask.urls import place_of

__all__ = ["block_cells", "landscape_cells", "write_notebook"]

Cell = tuple[str, str]

_IMPORTS = """\
%matplotlib inline
import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask import report
from emhet_dask.formats.mrc import read_header, read_volume

OUT = Path({folder})
if not OUT.is_dir():
    OUT = Path.cwd()  # the folder was moved: use the one that this notebook lies in
ENSEMBLE = {ensemble}  # the store that it was made from"""

_LOAD = """\
def load(group):
    return xr.open_zarr(OUT / "results.zarr" / group, consolidated=False)


mask, pca, tree, clusters = (load(group) for group in ("mask", "pca", "tree", "clusters"))
volumes = pd.read_csv(OUT / "clusters" / "cluster_labels.csv", dtype={"name": str})
states = pd.read_csv(OUT / "clusters" / "states.csv", dtype={"medoid_name": str})
evidence = json.loads((OUT / "clusters" / "evidence.json").read_text())
state = clusters["cluster"].values
outlier = clusters["outlier"].values
scores = pca["scores"].values
ratios = pca["explained_variance_ratio"].values
noun = "state" if evidence["separate_states"] else "cluster"
print(evidence["reason"])
states"""

_EVIDENCE = """\
report.separation_evidence(
    tree,
    n_clusters=len(states),
    separate_states=evidence["separate_states"],
    reason=evidence["reason"],
    automatic_n_clusters=evidence["automatic_n_clusters"],
)"""

_MEANS = """\
means = [read_volume(read_header(OUT / file)) for file in states["mean_map"]]
voxel_size = read_header(OUT / "mask.mrc").voxel_size_angstrom or 1.0
mean_map = np.average(means, axis=0, weights=states["fraction"])
report.state_sheet(
    means,
    states=states,
    voxel_size_angstrom=voxel_size,
    mask=mask["mask"].values,
    noun=noun,
)"""

_SCATTER = """\
report.{function}(scores, states=state, ratios=ratios, outliers=outlier, noun=noun)"""

_MASK = """\
report.mask_slices(mask["mask"].values, mean_map=mean_map, voxel_size_angstrom=voxel_size)"""

_COMPONENTS = """\
matrix = load("matrix")
maps = []
for component in pca["components"].values[:5]:
    map_zyx = np.zeros(mask["mask"].shape, np.float32)
    map_zyx.flat[matrix["voxel_index"].values] = component
    maps.append(map_zyx)
report.component_sheet(
    maps,
    mean_map=mean_map,
    voxel_size_angstrom=voxel_size,
    ratios=ratios,
    mask=mask["mask"].values,
)"""

_TREE = """\
leaf = tree["leaf"].values
_, first_of_leaf = np.unique(leaf, return_index=True)
report.dendrogram(
    tree["linkage"].values,
    states=state[first_of_leaf],
    sizes=np.bincount(leaf),
    names=volumes["name"].tolist() if len(first_of_leaf) == len(volumes) else None,
    noun=noun,
)"""

_OWN = """\
# For instance: what tells two states apart, and who is in one of them.
one, other = 0, min(1, len(states) - 1)
members = volumes.loc[volumes["cluster"] == one, "name"]
print(f"{noun} {one}: {', '.join(members[:10])}")
figure = report.slice_sheet(
    [means[one], means[other], means[other] - means[one]],
    titles=[f"{noun} {one}", f"{noun} {other}", "difference"],
    voxel_size_angstrom=voxel_size,
    mask=mask["mask"].values,
)
# report.save(figure, OUT / "figures" / "mine.png")
figure"""


_BLOCKS_LOAD = """\
def table(file):
    return pd.read_csv(OUT / file, dtype={"name": str})


header = read_header(OUT / "blocks.mrc")
labels = read_volume(header).astype(int)  # (z, y, x): the block of each voxel, 0 is none
mean_map = read_volume(read_header(OUT / "mean.mrc"))
voxel_size = header.voxel_size_angstrom or 1.0
blocks = table("blocks.csv")
occupancy = table("block_occupancy.csv")  # fraction of the block's voxels that are occupied
density = table("block_density.csv")  # mean density of the block's voxels
presence = table("block_presence.csv")  # 1 where the block is present
relations = table("block_relations.csv")
states = table("block_states.csv")  # combinations of blocks
columns = [f"block_{block:03d}" for block in blocks["block"]]
blocks"""

_BLOCKS_SLICES = """\
report.block_sheet(labels, mean_map=mean_map, blocks=blocks, voxel_size_angstrom=voxel_size)"""

_BLOCKS_SURFACES = """\
level = 0.3 * np.percentile(mean_map, 99.9)  # blocks that are often absent are faint in the mean
report.block_surfaces(
    labels, mean_map=mean_map, level=level, blocks=blocks, voxel_size_angstrom=voxel_size
)"""

_BLOCKS_PRESENT = """\
report.block_histograms(
    occupancy,
    density=density,
    presence=presence,
    cuts=dict(zip(columns, blocks["cut"])),
)"""

_BLOCKS_HEATMAP = """\
report.occupancy_clustermap(occupancy[columns], presence=presence[columns])"""

_BLOCKS_RELATED = """\
relations[relations["relation"] != "independent"].sort_values("p_adjusted")"""

_BLOCKS_PAIRS = """\
report.block_matrix(relations, n_blocks=len(blocks))"""

_BLOCKS_GRAPH = """\
report.relation_graph(relations, blocks)"""

_BLOCKS_LISTS = """\
# For instance: volumes that have one block, and lists of their particles for the next refinement.
one = 1
if len(blocks):
    chosen = presence[presence[f"block_{one:03d}"] == 1]
    print(f"block {one} is present in {len(chosen)} volumes: {', '.join(chosen['name'][:10])}")
folder = shlex.quote(str(OUT))
ending = "star" if "particles" in blocks else "csv"  # volumes, where particles are not known
print("In a terminal, a list of these, of the others, of those with 80% of it, and of a state:")
print(f"emhet select {folder} --block {one} --present -o present.{ending}")
print(f"emhet select {folder} --block {one} --absent -o absent.{ending}")
print(f"emhet select {folder} --block {one} --min 0.8 -o most.{ending}")
print(f"emhet select {folder} --state 0 -o state_0.{ending}")"""


def block_cells(*, folder: str | PathLike[str], ensemble: str) -> list[Cell]:
    """Return the cells of the notebook of blocks.

    Parameters
    ----------
    folder : path or URL
        With the results.
    ensemble : str
        The store that they were made from.

    Returns
    -------
    list of (kind, source)
        Kind is ``"markdown"`` or ``"code"``.
    """
    return [
        (
            "markdown",
            "# Explore the blocks\n\nThis notebook loads the results and draws the figures of the "
            "report. Change what you like: nothing here is computed again or overwritten. "
            "Volumes and states are numbered from 0, blocks from 1.",
        ),
        ("code", _imports(folder, ensemble)),
        ("markdown", "## Results"),
        ("code", _BLOCKS_LOAD),
        ("markdown", "## Where the blocks are"),
        ("code", _BLOCKS_SLICES),
        ("code", _BLOCKS_SURFACES),
        ("markdown", "## Which volumes have them"),
        ("code", _BLOCKS_PRESENT),
        ("code", _BLOCKS_HEATMAP),
        ("markdown", "## Which blocks need or exclude each other"),
        ("code", _BLOCKS_RELATED),
        ("code", _BLOCKS_GRAPH),
        ("code", _BLOCKS_PAIRS),
        ("markdown", "## States: combinations of blocks"),
        ("code", "states.head(20)"),
        ("markdown", "## Lists of volumes and particles"),
        ("code", _BLOCKS_LISTS),
    ]


def landscape_cells(*, folder: str | PathLike[str], ensemble: str) -> list[Cell]:
    """Return the cells of the notebook of a landscape.

    Parameters
    ----------
    folder : path or URL
        With the results.
    ensemble : str
        The store that they were made from.

    Returns
    -------
    list of (kind, source)
        Kind is ``"markdown"`` or ``"code"``.
    """
    return [
        (
            "markdown",
            "# Explore the states\n\nThis notebook loads the results and draws the figures of the "
            "report. Change what you like: nothing here is computed again or overwritten. "
            "Volumes and states are numbered from 0, principal components from 1.",
        ),
        ("code", _imports(folder, ensemble)),
        (
            "markdown",
            "## Results\n\nAll arrays are labelled; `pca`, for instance, shows what it holds.",
        ),
        ("code", _LOAD),
        ("markdown", "## Are there separate states?"),
        ("code", _EVIDENCE),
        ("markdown", "## States"),
        ("code", "report.state_counts(states, noun=noun)"),
        ("code", _MEANS),
        ("code", _TREE),
        ("markdown", "## Principal components"),
        ("code", 'report.scree(ratios, n_signal=evidence["n_signal"])'),
        ("code", _SCATTER.format(function="pc_scatter")),
        ("code", _SCATTER.format(function="pc_pairs")),
        ("code", _COMPONENTS),
        ("markdown", "## Mask"),
        ("code", _MASK),
        ("markdown", "## Your own"),
        ("code", _OWN),
    ]


def write_notebook(path: str | Path, cells: Sequence[Cell]) -> None:
    """Write a Jupyter notebook (format 4.5).

    Parameters
    ----------
    path : str or Path
        Such as ``OUT/explore.ipynb``.
    cells : sequence of (kind, source)
        As from `landscape_cells` or `block_cells`.
    """
    notebook = {
        "cells": [_cell(k, kind, source) for k, (kind, source) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8", newline="\n")


def _imports(folder: str | PathLike[str], ensemble: str) -> str:
    where = str(place_of(folder).absolute())
    return _IMPORTS.format(folder=repr(where), ensemble=repr(str(ensemble)))


def _cell(number: int, kind: str, source: str) -> dict[str, object]:
    cell: dict[str, object] = {
        "cell_type": kind,
        "id": f"cell-{number:02d}",
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }
    if kind == "code":
        cell.update(execution_count=None, outputs=[])
    return cell
