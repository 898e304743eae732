"""The stage ``pca``: amplitudes, principal components, and maps along them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.analysis.normalisation import divisors, normalisation_factors
from emhet_dask.analysis.pca import pca
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.stages.job import Job

__all__ = ["ComponentOptions", "components_stage", "prepared_matrix"]

_POINTS = 10


@dataclass(frozen=True)
class ComponentOptions:
    """What the stage depends on beside the matrix.

    Attributes
    ----------
    normalize, clip_negative, weights : bool
    n_components : int or None
    plot_dim : int
    seed : int
    """

    normalize: bool
    clip_negative: bool
    weights: bool
    n_components: int | None
    plot_dim: int
    seed: int


def components_stage(job: Job, options: ComponentOptions, *, memory_bytes: int) -> xr.Dataset:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With the stages ``mask`` and ``matrix`` finished.
    options : ComponentOptions
    memory_bytes : int
        Of one worker.

    Returns
    -------
    xarray.Dataset
        The group ``pca``: ``scores``, ``components``, ``explained_variance``, …, ``factor``.
    """

    def build(workspace: Path) -> None:
        found = _decompose(job, options, memory_bytes)
        save_group(workspace / "results.zarr" / "pca", found)
        _write_tables(job, found, workspace)
        _write_trajectories(job, found, workspace, dims=options.plot_dim)

    job.results.stage("pca", parameters=vars(options), after=("matrix",), build=build)
    return load_group(job.group("pca"))


def prepared_matrix(job: Job, *, factor: np.ndarray | None, clip_negative: bool) -> da.Array:
    """Return the matrix as PCA and clustering see it, lazily.

    Parameters
    ----------
    job : Job
    factor : ndarray, shape (volume,), or None
        Amplitudes that the rows are divided by.
    clip_negative : bool

    Returns
    -------
    dask.array.Array, shape (volume, voxel)
        float32.
    """
    stored = open_matrix(str(job.group("matrix")))
    rows = stored["matrix"].data
    if clip_negative:
        rows = da.maximum(rows, 0)
    if factor is not None:
        divided = divisors(factor).astype(np.float32)
        rows = rows / da.from_array(divided, chunks=rows.chunks[0])[:, None]
    soft = np.asarray(stored["voxel_weight"].values, dtype=np.float32)
    return rows if np.all(soft == 1) else rows * soft


def _decompose(job: Job, options: ComponentOptions, memory_bytes: int) -> xr.Dataset:
    weights = job.ensemble.weights if options.weights else None
    matrix = prepared_matrix(job, factor=None, clip_negative=options.clip_negative)
    factor = None
    if options.normalize:
        with job.progress.computing(job.client, label="amplitudes") as compute:
            factor = normalisation_factors(matrix, weights=weights, compute=compute).values
        matrix = prepared_matrix(job, factor=factor, clip_negative=options.clip_negative)
    with job.progress.computing(job.client, label="PCA") as compute:
        found = pca(
            matrix,
            n_components=options.n_components,
            weights=weights,
            seed=options.seed,
            memory_limit_bytes=memory_bytes,
            compute=compute,
            persist=job.persist,
        )
    index = job.ensemble.dataset["volume_index"].values
    extra: dict[str, Any] = {"volume_index": (("volume",), index)}
    if factor is not None:
        extra["factor"] = (("volume",), np.asarray(factor))
    return found.assign(extra)


def _write_tables(job: Job, found: xr.Dataset, workspace: Path) -> None:
    scores = found["scores"].values
    names = [f"pc{number}" for number in range(1, scores.shape[1] + 1)]
    table = pd.DataFrame(scores, columns=names)
    table.insert(0, "name", job.ensemble.names)
    table.insert(0, "volume", found["volume_index"].values)
    table.to_csv(workspace / "volume_pcs.csv", index=False, float_format="%.6g")
    pd.DataFrame(
        {
            "component": np.arange(1, scores.shape[1] + 1),
            "explained_variance": found["explained_variance"].values,
            "explained_variance_ratio": found["explained_variance_ratio"].values,
        }
    ).to_csv(workspace / "explained_variance.csv", index=False, float_format="%.6g")


def _write_trajectories(job: Job, found: xr.Dataset, workspace: Path, *, dims: int) -> None:
    """Write maps from one end of each component to the other; zero outside the mask."""
    voxels = open_matrix(str(job.group("matrix")))["voxel_index"].values
    box = job.ensemble.box
    mean = found["mean"].values
    for component in range(min(dims, found.sizes["component"])):
        folder = workspace / "pcs" / f"pc{component + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        along = found["scores"].values[:, component]
        direction = found["components"].values[component]
        for point, position in enumerate(np.linspace(along.min(), along.max(), _POINTS)):
            volume = np.zeros(box**3, dtype=np.float32)
            volume[voxels] = mean + position * direction
            write_map(
                folder / f"vol_{point:03d}.mrc",
                volume.reshape((box,) * 3),
                voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
                origin_angstrom=job.ensemble.origin_angstrom,
            )
