"""``explore.ipynb``: a notebook that draws what the report draws, to be changed by the user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

__all__ = ["landscape_cells", "write_notebook"]

Cell = tuple[str, str]

_IMPORTS = """\
%matplotlib inline
import json
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


def landscape_cells(*, folder: str | Path, ensemble: str) -> list[Cell]:
    """Return the cells of the notebook of a landscape.

    Parameters
    ----------
    folder : str or Path
        With the results.
    ensemble : str
        The store that they were made from.

    Returns
    -------
    list of (kind, source)
        Kind is ``"markdown"`` or ``"code"``.
    """
    where = str(Path(folder).absolute())
    return [
        (
            "markdown",
            "# Explore the states\n\nThis notebook loads the results and draws the figures of the "
            "report. Change what you like: nothing here is computed again or overwritten. "
            "Volumes and states are numbered from 0, principal components from 1.",
        ),
        ("code", _IMPORTS.format(folder=repr(where), ensemble=repr(str(ensemble)))),
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
        As from `landscape_cells`.
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
