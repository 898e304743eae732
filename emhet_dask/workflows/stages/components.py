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
from emhet_dask.analysis.pca import DEFAULT_COMPONENTS, PCAPlan, pca, plan_pca
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.ensemble.matrix import into_box, open_matrix
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.stages.costs import amplitudes_work, pca_work
from emhet_dask.workflows.stages.job import Job

__all__ = [
    "ComponentOptions",
    "components_stage",
    "prepared_matrix",
    "prepared_rows",
    "trajectories_stage",
]

_POINTS = 10


@dataclass(frozen=True)
class ComponentOptions:
    """What the stage depends on beside the matrix.

    Attributes
    ----------
    normalize, clip_negative, weights : bool
    n_components : int or None
    seed : int
    """

    normalize: bool
    clip_negative: bool
    weights: bool
    n_components: int | None
    seed: int


def components_stage(job: Job, options: ComponentOptions, *, memory_bytes: int) -> xr.Dataset:
    """Run the stage, or find it done.

    The method follows from the shape of the matrix and `memory_bytes`, never from the number of
    workers, and is part of what the stage is known by.

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
    plan, columns = _method(job, options, memory_bytes)

    def build(workspace: Path) -> None:
        found = _decompose(job, options, (plan, columns), memory_bytes)
        save_group(workspace / "results.zarr" / "pca", found)
        _write_tables(job, found, workspace)

    parameters = {**vars(options), "method": plan["method"]}
    job.results.stage("pca", parameters=parameters, after=("matrix",), build=build)
    return load_group(job.group("pca"))


def trajectories_stage(job: Job, pca: xr.Dataset, *, plot_dim: int) -> None:
    """Write maps from one end of each component to the other, or find them written.

    Parameters
    ----------
    job : Job
    pca : xarray.Dataset
        The group ``pca``.
    plot_dim : int
        Components, at most as many as there are.
    """
    job.results.stage(
        "trajectories",
        parameters={"plot_dim": plot_dim},
        after=("pca",),
        build=lambda workspace: _write_trajectories(job, pca, workspace, dims=plot_dim),
        replaceable=True,
    )


def prepared_matrix(
    job: Job, *, factor: np.ndarray | None, clip_negative: bool, columns: bool = False
) -> da.Array:
    """Return the matrix as PCA and clustering see it, lazily.

    Parameters
    ----------
    job : Job
    factor : ndarray, shape (volume,), or None
        Amplitudes that the rows are divided by.
    clip_negative : bool
    columns : bool
        Cut into the chunks that are stored, for a method that goes through it by columns; otherwise
        into bands of whole rows.

    Returns
    -------
    dask.array.Array, shape (volume, voxel)
        float32.
    """
    path = str(job.group("matrix"))
    return prepared_rows(path, factor=factor, clip_negative=clip_negative, columns=columns)


def prepared_rows(
    path: str, *, factor: np.ndarray | None, clip_negative: bool, columns: bool = False
) -> da.Array:
    """Return a stored matrix as PCA and clustering see it, lazily.

    Parameters
    ----------
    path : str
        Group ``matrix`` of some results.
    factor, clip_negative, columns
        As of `prepared_matrix`.

    Returns
    -------
    dask.array.Array, shape (volume, voxel)
        float32.
    """
    stored = open_matrix(path, columns=columns)
    rows = stored["matrix"].data
    if clip_negative:
        rows = da.maximum(rows, 0)
    if factor is not None:
        divided = divisors(factor).astype(np.float32)
        rows = rows / da.from_array(divided, chunks=rows.chunks[0])[:, None]
    soft = np.asarray(stored["voxel_weight"].values, dtype=np.float32)
    return rows if np.all(soft == 1) else rows * soft


def _method(job: Job, options: ComponentOptions, memory_bytes: int) -> tuple[PCAPlan, bool]:
    """Choose the method by the shape of the matrix, and whether it is read by columns.

    Bands of whole rows are read fastest; where the Gram matrix fits only by columns, by columns.
    """
    chosen = []
    for columns in (False, True):
        matrix = prepared_matrix(job, factor=None, clip_negative=False, columns=columns)
        plan = plan_pca(
            matrix.shape,
            chunks=matrix.chunks,
            dtype=matrix.dtype,
            n_components=options.n_components or min(DEFAULT_COMPONENTS, *matrix.shape),
            memory_limit_bytes=memory_bytes,
        )
        chosen.append((plan, columns))
        if plan["method"] == "gram":
            return chosen[-1]
    return chosen[0]


def _decompose(
    job: Job, options: ComponentOptions, how: tuple[PCAPlan, bool], memory_bytes: int
) -> xr.Dataset:
    plan, columns = how
    weights = job.ensemble.weights if options.weights else None
    clip = options.clip_negative
    factor = None
    if options.normalize:
        rows = prepared_matrix(job, factor=None, clip_negative=clip)
        job.results.state(amplitudes_work(rows, stage="amplitudes"))
        with job.progress.computing(job.client, label="amplitudes") as compute:
            factor = normalisation_factors(rows, weights=weights, compute=compute).values
    matrix = prepared_matrix(job, factor=factor, clip_negative=clip, columns=columns)
    job.results.state(pca_work(plan, matrix))
    with job.progress.computing(job.client, label="PCA") as compute:
        found = pca(
            matrix,
            n_components=options.n_components,
            weights=weights,
            method=plan["method"],  # type: ignore[arg-type]
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
            write_map(
                folder / f"vol_{point:03d}.mrc",
                into_box(mean + position * direction, voxels, box),
                voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
                origin_angstrom=job.ensemble.origin_angstrom,
            )
