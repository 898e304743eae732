"""The stage ``clusters``: a cut of the tree, with the maps, tables and particles of each state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.workflows.particles import ParticleFile, particle_rows, write_particle_list
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.maps import write_state_maps
from emhet_dask.workflows.stages.states import States

__all__ = ["Clusters", "clusters_stage"]


_VERDICT = ("separate_states", "reason", "n_signal", "evidence_from")


@dataclass(frozen=True)
class Clusters:
    """The cut.

    Attributes
    ----------
    dataset : xarray.Dataset
        The group ``clusters``: ``cluster`` and ``outlier`` (volume), ``medoid`` (state).
    table : pandas.DataFrame
        One row per state, as in ``clusters/states.csv``.
    evidence : dict
        As in ``clusters/evidence.json``.
    """

    dataset: xr.Dataset
    table: pd.DataFrame
    evidence: dict[str, Any]


def clusters_stage(
    job: Job, pca: xr.Dataset, states: States, *, n_clusters: int | str, exclude_outliers: bool
) -> Clusters:
    """Run the stage, or find it done; an earlier cut stays under its own name.

    The tree follows from the components and from the options that are recorded here, so that a cut
    of another tree does not take the earlier cuts with it.

    Parameters
    ----------
    job : Job
    pca : xarray.Dataset
    states : States
    n_clusters : int or "auto"
    exclude_outliers : bool
        Leave outliers out of the maps.

    Returns
    -------
    Clusters

    Raises
    ------
    InputError
        When more clusters are asked for than there are volumes.
    """
    chosen = states.verdict["n_clusters"] if n_clusters == "auto" else int(n_clusters)
    if chosen > states.tree.n_leaves:
        raise InputError(
            f"--n-clusters: got {chosen}, expected at most {states.tree.n_leaves} for "
            f"{job.ensemble.n_volumes} volumes"
        )
    parameters = {
        **vars(states.options),
        "n_clusters": chosen,
        "automatic": n_clusters == "auto",
        "exclude_outliers": exclude_outliers,
    }

    def build(workspace: Path) -> None:
        folder = workspace / "clusters"
        folder.mkdir(exist_ok=True)
        labels = np.asarray(states.tree.cut(chosen))
        outlier = states.dataset["outlier"].values.astype(bool)
        medoid = _medoids(pca["scores"].values[:, : max(1, states.verdict["n_signal"])], labels)
        include = ~outlier if exclude_outliers else np.ones(len(labels), dtype=bool)
        write_state_maps(job, folder, labels, include=include)
        _write_labels(job, folder, labels, outlier)
        _table(job, labels, outlier, medoid).to_csv(folder / "states.csv", index=False)
        evidence = {
            "n_clusters": chosen,
            "chosen": "automatically" if n_clusters == "auto" else "by --n-clusters",
            "automatic_n_clusters": states.verdict["n_clusters"],
            **{
                name: states.verdict[name]
                for name in ("separate_states", "reason", "n_signal", "evidence_from")
            },
            "linkage": states.tree.linkage,
            "exact_tree": states.tree.exact,
            "agreement_with_exact": states.verdict.get("agreement_with_exact"),
        }
        (folder / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n")
        _write_particles(job, folder, labels)
        save_group(
            workspace / "results.zarr" / "clusters",
            xr.Dataset(
                {
                    "cluster": (("volume",), labels.astype(np.int64)),
                    "outlier": (("volume",), outlier),
                    "medoid": (("state",), job.ensemble.dataset["volume_index"].values[medoid]),
                }
            ),
        )

    job.results.stage(
        "clusters",
        parameters=parameters,
        after=("pca",),
        build=build,
        replaceable=True,
        keep_as="clusters_{linkage}_{n_clusters}",
    )
    folder = job.results.path("clusters")
    return Clusters(
        load_group(job.group("clusters")),
        pd.read_csv(folder / "states.csv", dtype={"medoid_name": str}),
        json.loads((folder / "evidence.json").read_text()),
    )


def _medoids(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, for each state, the member closest to the mean of its members."""
    found = []
    for state in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == state)
        away = np.linalg.norm(scores[members] - scores[members].mean(axis=0), axis=1)
        found.append(members[np.argmin(away)])
    return np.asarray(found)


def _write_labels(job: Job, folder: Path, labels: np.ndarray, outlier: np.ndarray) -> None:
    pd.DataFrame(
        {
            "volume": job.ensemble.dataset["volume_index"].values,
            "name": job.ensemble.names,
            "cluster": labels,
            "outlier": outlier,
        }
    ).to_csv(folder / "cluster_labels.csv", index=False)


def _table(job: Job, labels: np.ndarray, outlier: np.ndarray, medoid: np.ndarray) -> pd.DataFrame:
    count = np.bincount(labels)
    weights = job.ensemble.weights
    table = pd.DataFrame({"cluster": np.arange(len(count)), "volumes": count})
    share = count.astype(float)
    if weights is not None:
        share = np.bincount(labels, weights)
        table["particles"] = share
    table["fraction"] = share / share.sum() if share.sum() else np.nan
    table["outliers"] = np.bincount(labels, outlier).astype(int)
    table["medoid_volume"] = job.ensemble.dataset["volume_index"].values[medoid]
    table["medoid_name"] = job.ensemble.names[medoid]
    table["mean_map"] = [f"clusters/cluster_{state:03d}_mean.mrc" for state in table["cluster"]]
    table["std_map"] = [f"clusters/cluster_{state:03d}_std.mrc" for state in table["cluster"]]
    return table


def _write_particles(job: Job, folder: Path, labels: np.ndarray) -> None:
    """Write the particles of each state as cryoDRGN indices and, where possible, as their file."""
    ensemble = job.ensemble
    if not ensemble.has_particles:
        return
    source = _particle_file(job)
    for state in range(int(labels.max()) + 1):
        rows = particle_rows(ensemble, np.flatnonzero(labels == state))
        stem = folder / f"cluster_{state:03d}_particles"
        write_particle_list(stem.with_suffix(".pkl"), rows, None)
        if source is not None:
            write_particle_list(stem.with_suffix(source.suffix), rows, source)


def _particle_file(job: Job) -> ParticleFile | None:
    """Return the particle file that the ensemble was made with, unless it is gone."""
    path = job.ensemble.dataset.attrs.get("particle_file")
    if path is None:
        return None
    if not Path(path).is_file():
        job.progress.say(f"{path} is gone: particles of each state are written as .pkl only")
        return None
    try:
        source = ParticleFile.open(path)
        source.check(job.ensemble)
    except InputError as error:
        job.progress.say(f"particles of each state are written as .pkl only: {error}")
        return None
    return source
