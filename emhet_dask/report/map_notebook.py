"""Cells of ``explore.ipynb`` in a folder of ``emhet map``."""

from __future__ import annotations

import json
from os import PathLike

from emhet_dask.urls import place_of

__all__ = ["map_cells"]

_IMPORTS = """\
%matplotlib inline
import json
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask import report

OUT = Path({folder})
if not OUT.is_dir():
    OUT = Path.cwd()  # the folder was moved: use the one that this notebook lies in
SKETCH = {sketch}  # the landscape that particles were placed on"""

_LOAD = """\
def load(folder, group):
    return xr.open_zarr(f"{folder}/results.zarr/{group}", consolidated=False)


scores = load(OUT, "scores")["particle_scores"].values
particles = load(OUT, "particles")
state = particles["particle_state"].values
confidence = particles["particle_confidence"].values
volumes = load(SKETCH, "pca")["scores"].values
ratios = load(SKETCH, "pca")["explained_variance_ratio"].values
volume_state = load(SKETCH, "clusters")["cluster"].values
facts = json.loads((OUT / "map.json").read_text())
print(facts["headline"])
pd.read_csv(OUT / "states" / "states.csv")"""

_DENSITY = """\
# Any two components, from 0.
report.particle_density(
    scores, sketch=volumes, states=volume_state, ratios=ratios, components=(0, 1)
)"""

_CONFIDENCE = """\
report.state_confidence(state, confidence)"""

_OWN = """\
# For instance: sure particles of one state, as rows of the particle file before any subset.
one = 0
chosen = np.flatnonzero((state == one) & (confidence >= 0.8))
rows = np.sort(particles["particle_index"].values[chosen])
print(f"{len(rows):,} particles of state {one}")
# from emhet_dask.formats.cryodrgn import write_indices; write_indices("chosen.pkl", rows)"""


def map_cells(*, folder: str | PathLike[str], sketch: str | PathLike[str]) -> list[tuple[str, str]]:
    """Return the cells of a notebook about particles on a landscape.

    Parameters
    ----------
    folder : path or URL
        Of the results.
    sketch : path or URL
        Of the landscape.

    Returns
    -------
    list of (str, str)
        For `emhet_dask.report.notebook.write_notebook`.
    """
    imports = _IMPORTS.format(
        folder=json.dumps(str(place_of(folder).absolute())),
        sketch=json.dumps(str(place_of(sketch).absolute())),
    )
    return [
        ("markdown", "# All particles on the landscape\n\nDraws what the report draws; change it."),
        ("code", imports),
        ("code", _LOAD),
        ("markdown", "## Where particles are"),
        ("code", _DENSITY),
        ("markdown", "## How sure states are"),
        ("code", _CONFIDENCE),
        ("markdown", "## Your own"),
        ("code", _OWN),
    ]
