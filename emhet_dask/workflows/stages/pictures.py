"""The stage ``report``: figures, the page, the ChimeraX script and the notebook."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.ensemble.matrix import into_box, open_matrix
from emhet_dask.errors import need
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.report.chimerax import StateMap, write_chimerax
from emhet_dask.report.counts import state_counts
from emhet_dask.report.evidence import separation_evidence
from emhet_dask.report.notebook import landscape_cells, write_notebook
from emhet_dask.report.scatter import pc_pairs, pc_scatter, state_scatter
from emhet_dask.report.sheets import component_sheet, state_sheet
from emhet_dask.report.slices import mask_slices
from emhet_dask.report.spectrum import scree
from emhet_dask.report.style import save_all
from emhet_dask.report.tree import dendrogram
from emhet_dask.workflows.stages.clusters import Clusters
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.page import write_page
from emhet_dask.workflows.stages.states import States

__all__ = ["Findings", "report_stage"]

_MOST_IN_CHIMERAX = 30
# These look the same at every cut. What lies in the folder is of this mask and these components: a
# stage that is made again takes away all that was made from its earlier version.
_OF_NO_CUT = ("mask", "scree")


class _Means(Sequence[np.ndarray]):
    """Mean maps of the states, read from their files when asked for."""

    def __init__(self, folder: Path, table: Any) -> None:
        self._paths = [folder / name for name in table["mean_map"]]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, state: Any) -> Any:
        if isinstance(state, slice):
            return [self[number] for number in range(*state.indices(len(self)))]
        return read_volume(read_header(self._paths[state]))


@dataclass(frozen=True)
class Findings:
    """What the other stages found.

    Attributes
    ----------
    mask, pca : xarray.Dataset
        Groups of the results.
    states : States
    clusters : Clusters
    """

    mask: xr.Dataset
    pca: xr.Dataset
    states: States
    clusters: Clusters


def report_stage(job: Job, found: Findings, *, plot_dim: int, umap: bool, seed: int) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With all other stages finished.
    found : Findings
    plot_dim : int
        Components drawn.
    umap : bool
        Draw a UMAP of the latents, or else of the components.
    seed : int
    """
    clusters = found.clusters

    def build(workspace: Path) -> None:
        means = _Means(job.results.path(), clusters.table)
        figures = workspace / "figures"
        figures.mkdir(exist_ok=True)
        draw = _drawings(job, found, means, plot_dim)
        if umap:
            draw["umap"] = lambda: _umap(job, found, seed)
        with job.progress.task("figures", total=len(draw), unit="figures") as task:
            missing = {}
            for name, figure in draw.items():
                drawn = job.results.path("figures", f"{name}.png")
                if name in _OF_NO_CUT and drawn.is_file():
                    shutil.copyfile(drawn, figures / drawn.name)
                    task.update(1)
                else:
                    missing[drawn.name] = figure
            save_all(missing, figures, done=partial(task.update, 1))
        write_chimerax(
            workspace / "open.cxc",
            states=[
                StateMap(
                    number, clusters.table["mean_map"][number], volume_threshold(means[number])
                )
                for number in range(min(len(means), _MOST_IN_CHIMERAX))
            ],
            mask="mask.mrc",
            series=[f"pcs/{path.name}" for path in sorted(job.results.path("pcs").iterdir())],
            series_level=volume_threshold(means[0]),
            title=Path(job.ensemble.path or "array").name,
            noun=_noun(clusters),
        )
        source = job.ensemble.path or "an array in memory"
        write_notebook(
            workspace / "explore.ipynb",
            landscape_cells(folder=job.results.place, ensemble=source),
        )
        write_page(
            workspace / "report.html", job=job, mask=found.mask, pca=found.pca, clusters=clusters
        )

    job.results.stage(
        "report",
        parameters={"umap": umap, "plot_dim": plot_dim},
        after=("mask", "pca", "trajectories", "tree", "clusters"),
        build=build,
        replaceable=True,
    )


def _drawings(
    job: Job, found: Findings, means: _Means, plot_dim: int
) -> dict[str, Callable[[], Figure]]:
    """Return what draws each figure, in the order of the report."""
    pca, states, clusters = found.pca, found.states, found.clusters
    voxel_size = job.ensemble.voxel_size_angstrom
    labels = clusters.dataset["cluster"].values
    outlier = clusters.dataset["outlier"].values
    scores = pca["scores"].values
    ratios = pca["explained_variance_ratio"].values
    evidence = clusters.evidence
    inside = found.mask["mask"].values
    names = job.ensemble.names.tolist()
    noun = _noun(clusters)
    shared: dict[str, Any] = {
        "states": labels,
        "ratios": ratios,
        "outliers": outlier,
        "noun": noun,
    }
    drawings: dict[str, Callable[[], Figure]] = {
        "states": lambda: state_sheet(
            means,
            states=clusters.table,
            voxel_size_angstrom=voxel_size,
            mask=inside,
            noun=noun,
        ),
        "evidence": lambda: separation_evidence(
            states.dataset,
            n_clusters=evidence["n_clusters"],
            separate_states=evidence["separate_states"],
            reason=evidence["reason"],
            automatic_n_clusters=evidence["automatic_n_clusters"],
        ),
        "counts": lambda: state_counts(clusters.table, noun=noun),
        "components": lambda: component_sheet(
            _component_maps(job, pca, plot_dim),
            mean_map=_overall_mean(clusters, means),
            voxel_size_angstrom=voxel_size,
            ratios=ratios,
            mask=inside,
        ),
        "pc1_pc2": lambda: pc_scatter(scores, names=names, **shared),
        "pc_pairs": lambda: pc_pairs(scores, n_components=plot_dim, **shared),
        "dendrogram": lambda: dendrogram(
            states.tree.merges,
            states=_of_leaves(states, labels),
            cut_height=states.tree.cut_height(evidence["n_clusters"]),
            sizes=np.bincount(states.tree.leaf) if not states.tree.exact else None,
            names=names if states.tree.exact else None,
            noun=noun,
            height_label=f"distance between merged clusters ({states.tree.linkage})",
        ),
        "scree": lambda: scree(
            ratios, n_signal=evidence["n_signal"], eigenvalues=pca["eigenvalues"].values
        ),
        "mask": lambda: mask_slices(
            inside, mean_map=_overall_mean(clusters, means), voxel_size_angstrom=voxel_size
        ),
    }
    latent = job.ensemble.dataset.get("latent")
    if latent is not None and latent.shape[1] > 1:
        drawings["latents"] = lambda: state_scatter(
            latent.values[:, :2],
            states=labels,
            x_label="latent dimension 1",
            y_label="latent dimension 2",
            title=f"Latents, coloured by {noun}",
            outliers=outlier,
            noun=noun,
        )
    return drawings


def _noun(clusters: Clusters) -> str:
    """Return what groups are called: pieces of a continuum are no states."""
    return "state" if clusters.evidence["separate_states"] else "cluster"


def _component_maps(job: Job, pca: xr.Dataset, count: int) -> list[np.ndarray]:
    """Return the first components as maps, 0 outside the mask."""
    voxels = open_matrix(str(job.group("matrix")))["voxel_index"].values
    components = pca["components"].values[:count]
    return [into_box(component, voxels, job.ensemble.box) for component in components]


def _of_leaves(states: States, labels: np.ndarray) -> np.ndarray:
    """Return the state of each leaf of the tree."""
    found = np.zeros(states.tree.n_leaves, dtype=labels.dtype)
    found[states.tree.leaf] = labels
    return found


def _overall_mean(clusters: Clusters, means: _Means) -> np.ndarray:
    volumes = clusters.table["volumes"].to_numpy()
    total = np.zeros(means[0].shape)
    for state, count in enumerate(volumes):
        total += count * means[state]
    return np.asarray(total / volumes.sum(), dtype=np.float32)


def _umap(job: Job, found: Findings, seed: int) -> Figure:
    module = need("umap", extra="umap", purpose="--umap")
    latent = job.ensemble.dataset.get("latent")
    points = found.pca["scores"].values if latent is None else latent.values
    neighbours = min(15, len(points) - 1)
    what = "components" if latent is None else "latents"
    embedded = module.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(
        points
    )
    return state_scatter(
        embedded,
        states=found.clusters.dataset["cluster"].values,
        x_label="UMAP 1",
        y_label="UMAP 2",
        title=f"UMAP of the {what}, coloured by {_noun(found.clusters)}",
        outliers=found.clusters.dataset["outlier"].values,
        noun=_noun(found.clusters),
        ticks=False,
    )
