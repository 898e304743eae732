"""``emhet landscape``: from an ensemble to its conformational states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError, need
from emhet_dask.options import command
from emhet_dask.options.landscape import Landscape
from emhet_dask.report.verdict import headline
from emhet_dask.runtime import task_memory_bytes
from emhet_dask.urls import Place, UrlPlace, place_of
from emhet_dask.workflows.stages.clusters import clusters_stage
from emhet_dask.workflows.stages.components import (
    ComponentOptions,
    components_stage,
    trajectories_stage,
)
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.mask import MaskOptions, mask_stage
from emhet_dask.workflows.stages.matrix import matrix_stage
from emhet_dask.workflows.stages.opening import opened
from emhet_dask.workflows.stages.pictures import Findings, report_stage
from emhet_dask.workflows.stages.selection import choose_volumes, inputs_of, open_source
from emhet_dask.workflows.stages.states import TreeOptions, states_stage

__all__ = ["Landscaped", "landscape"]


@dataclass(frozen=True)
class Landscaped:
    """Results of a landscape, as its folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    states : pandas.DataFrame
        One row per state: ``cluster``, ``volumes``, ``particles``, ``medoid_volume``, ….
    evidence : dict
        ``n_clusters``, ``separate_states``, ``reason``, ….
    """

    folder: Path | UrlPlace
    states: pd.DataFrame
    evidence: dict[str, Any]

    @property
    def labels(self) -> np.ndarray:
        """Return the state of each volume."""
        return self.group("clusters")["cluster"].values

    @property
    def scores(self) -> xr.DataArray:
        """Return the coordinates of each volume on the principal components."""
        return self.group("pca")["scores"]

    @property
    def n_clusters(self) -> int:
        """Return the number of clusters."""
        return len(self.states)

    @property
    def separate_states(self) -> bool:
        """Tell whether the clusters are separate states."""
        return bool(self.evidence["separate_states"])

    def group(self, name: str) -> xr.Dataset:
        """Return a group of ``results.zarr``: mask, matrix, pca, tree or clusters."""
        return load_group(self.folder / "results.zarr" / name)

    def describe(self) -> str:
        """Return it in words."""
        particles = self.states["particles"].sum() if "particles" in self.states else None
        found = headline(
            n_volumes=int(self.states["volumes"].sum()),
            n_particles=particles,
            **{
                name: self.evidence[name]
                for name in ("n_clusters", "separate_states", "automatic_n_clusters")
            },
        )
        return f"{found}. {self.evidence['reason']}\nReport: {self.folder / 'report.html'}"


@command(Landscape)
def landscape(options: Landscape) -> Landscaped:
    """Find the conformational states of an ensemble.

    The stages mask, matrix, pca, tree, clusters and report are kept in the output folder; the same
    call again continues where it was killed, and another number of clusters or linkage re-cuts
    without redoing the rest.

    Returns
    -------
    Landscaped

    Raises
    ------
    InputError
        When the ensemble, the mask or an option cannot be used, or the output holds results of
        other settings.
    """
    source = open_source(options.ensemble)
    ensemble, earlier = choose_volumes(source, options.keep)
    masking = _mask_options(options, earlier)
    used = ComponentOptions(**options.parameters(*ComponentOptions.__dataclass_fields__))
    building = TreeOptions(options.linkage, options.feature, options.seed)
    _refuse_early(options, ensemble.n_volumes, earlier)
    masking.refuse_early()
    building.refuse_early(ensemble.n_volumes)
    with opened(
        options,
        options.output,
        command="landscape",
        inputs=inputs_of(source, ensemble),
        recorded=_RECORDED,
    ) as (results, client, progress):
        job = Job(ensemble, results, client, progress)
        mask = mask_stage(job, masking)
        matrix_stage(job, mask["mask"].values)
        pca = components_stage(job, used, memory_bytes=task_memory_bytes(options.memory_limit))
        trajectories_stage(job, pca, plot_dim=options.plot_dim)
        states = states_stage(job, pca, building, used)
        clusters = clusters_stage(
            job,
            pca,
            states,
            n_clusters=options.n_clusters,
            exclude_outliers=options.exclude_outliers,
        )
        report_stage(
            job,
            Findings(mask, pca, states, clusters),
            plot_dim=options.plot_dim,
            umap=options.umap,
            seed=options.seed,
        )
    return Landscaped(results.place, clusters.table, clusters.evidence)


_RECORDED = (
    "mask",
    "threshold",
    "dilate",
    "cosine_edge",
    "normalize",
    "clip_negative",
    "weights",
    "n_components",
    "plot_dim",
    "n_clusters",
    "linkage",
    "feature",
    "keep",
    "exclude_outliers",
    "umap",
    "seed",
)


def _refuse_early(options: Landscape, count: int, earlier: Place | None) -> None:
    """Refuse at once what would otherwise fail after hours."""
    if options.n_components is not None and options.n_components > count - 1:
        raise InputError(
            f"--n-components: got {options.n_components}, expected at most {count - 1} for "
            f"{count} volumes"
        )
    if options.n_clusters != "auto" and options.n_clusters > count:
        raise InputError(
            f"--n-clusters: got {options.n_clusters}, expected at most {count} for {count} volumes"
        )
    if earlier is not None and earlier.resolve() == place_of(options.output).resolve():
        raise InputError(
            f"--keep: {earlier} is the output itself, which would replace what is read from it; "
            "choose another -o"
        )
    if options.umap:
        need("umap", extra="umap", purpose="--umap")


def _mask_options(options: Landscape, earlier: Place | None) -> MaskOptions:
    reused = earlier if options.mask == "auto" else None
    return MaskOptions(options.mask, options.threshold, options.dilate, options.cosine_edge, reused)
