"""The stage ``report`` of ``emhet similarity``: figures, ChimeraX script and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.analysis.tiles import mean_distances, mean_products, mean_values
from emhet_dask.ensemble.reading import stream
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.report.chimerax import StateMap, write_chimerax
from emhet_dask.report.density import density_matrix, tile_sizes
from emhet_dask.report.evidence import separation_evidence
from emhet_dask.report.heatmap import MOST_MAPS, similarity_heatmap
from emhet_dask.report.members import member_sheet
from emhet_dask.report.merges import lay_out
from emhet_dask.report.pairs import nearest_maps, pair_histogram
from emhet_dask.report.palette import state_colour
from emhet_dask.report.quantities import Quantity, quantity
from emhet_dask.report.style import save_all
from emhet_dask.report.surface import surface_sheet, surface_views
from emhet_dask.report.tree import dendrogram
from emhet_dask.runtime import fingerprint_file
from emhet_dask.workflows.stages.costs import group_sums_work
from emhet_dask.workflows.stages.foreign import ForeignMap
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.pair_clusters import PairClusters
from emhet_dask.workflows.stages.pair_page import write_pair_page
from emhet_dask.workflows.stages.pair_reference import compare_with
from emhet_dask.workflows.stages.pair_tree import PairTree
from emhet_dask.workflows.stages.pairs import Pairs
from emhet_dask.workflows.stages.rows import Rows

__all__ = ["Compared", "pair_report_stage"]

# Clusters that get a picture of their own, and members of one that are drawn.
_MOST_CLUSTERS = 20
_MOST_MEMBERS = 24
_MEMBER_BYTES = 256 << 20
_LEVEL_NAME = "half of the 99.99th percentile"


@dataclass(frozen=True)
class Compared:
    """What the report is of.

    Attributes
    ----------
    mask : xarray.Dataset
    rows : Rows
    pairs : Pairs
    tree : PairTree
    clusters : PairClusters
    reference : ForeignMap or None
        A map to compare the others with.
    flagged : list of str
        Maps whose alignment is doubtful.
    source : str
        Where the maps came from, for the title.
    """

    mask: xr.Dataset
    rows: Rows
    pairs: Pairs
    tree: PairTree
    clusters: PairClusters
    reference: ForeignMap | None
    flagged: list[str]
    source: str

    @property
    def quantity(self) -> Quantity:
        """Return how values are called."""
        options = self.rows.options
        finest = self.rows.shells.finest_angstrom if options.in_shells else None
        return quantity(options.metric, threshold=options.fsc_threshold, resolution_angstrom=finest)


def pair_report_stage(job: Job, found: Compared) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With all other stages finished.
    found : Compared
    """

    def build(workspace: Path) -> None:
        (workspace / "figures").mkdir(exist_ok=True)
        table = None
        if found.reference is not None:
            table = compare_with(job, found.rows, found.reference)
            table.to_csv(workspace / "reference.csv", index=False, float_format="%.6g")
        draw = dict(_drawings(job, found, table))
        with job.progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        count = min(len(found.clusters.table), _MOST_CLUSTERS)
        write_chimerax(
            workspace / "open.cxc",
            states=[
                StateMap(number, _mean_name(number), _level(_mean(job, number)))
                for number in range(count)
            ],
            mask="mask.mrc",
            title=found.source,
            noun="cluster",
        )
        write_pair_page(
            workspace,
            job=job,
            mask=found.mask,
            rows=found.rows,
            pairs=found.pairs,
            clusters=found.clusters,
            reference=None if found.reference is None else Path(found.reference.path).name,
            flagged=found.flagged,
            title=found.source,
        )

    reference = None if found.reference is None else fingerprint_file(found.reference.path)
    job.results.stage(
        "report",
        parameters={"reference": reference, "source": found.source},
        after=("mask", "pairs", "tree", "clusters"),
        build=build,
        replaceable=True,
    )


def _drawings(
    job: Job, found: Compared, table: pd.DataFrame | None
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield the file of each figure and what draws it."""
    names = job.ensemble.names.tolist()
    labels, tree = found.clusters.labels, found.tree
    voxel_size = job.ensemble.voxel_size_angstrom
    leaves = np.zeros(tree.tree.n_leaves, dtype=np.intp)
    leaves[tree.tree.leaf] = labels[tree.members]
    height_label = found.quantity.height_label(tree.tree.linkage)
    cut = tree.tree.cut_height(found.clusters.evidence["n_clusters"])
    in_angstrom = found.rows.options.metric == "fsc-resolution"
    floor = found.rows.shells.finest_angstrom if in_angstrom else 0.0
    if found.pairs.has_matrix and len(names) <= MOST_MAPS and tree.tree.exact:
        yield (
            "similarity_matrix_heatmap.png",
            lambda: similarity_heatmap(
                found.pairs.matrix(),
                quantity=found.quantity,
                linkage=tree.tree.merges,
                states=labels,
                names=names,
                cut_height=cut,
                leaf_height=floor,
                height_label=height_label,
            ),
        )
    else:
        yield "similarity_matrix_heatmap.png", lambda: _density(job, found)
    if tree.tree.n_leaves > 1:
        yield (
            "dendrogram.png",
            lambda: dendrogram(
                tree.tree.merges,
                states=leaves,
                cut_height=cut,
                sizes=None if tree.tree.exact else np.bincount(tree.tree.leaf),
                names=[names[k] for k in tree.members] if tree.tree.exact else None,
                height_label=height_label,
                leaf_height=floor,
                noun="cluster",
            ),
        )
    yield (
        "figures/histogram.png",
        lambda: pair_histogram(
            found.pairs.dataset["histogram"].values,
            edges=found.pairs.dataset["histogram_edges"].values,
            quantity=found.quantity,
        ),
    )
    yield (
        "figures/evidence.png",
        lambda: separation_evidence(
            tree.dataset,
            n_clusters=found.clusters.evidence["n_clusters"],
            separate_states=tree.verdict["separate_states"],
            reason=tree.verdict["reason"],
            automatic_n_clusters=tree.verdict["n_clusters"],
        ),
    )
    if found.reference is not None and table is not None:
        name = Path(found.reference.path).name
        yield (
            "figures/reference.png",
            lambda: nearest_maps(
                table["value"].to_numpy(),
                names=table["name"].tolist(),
                quantity=found.quantity,
                reference=name,
                states=labels[table.index],
            ),
        )
    yield from _of_clusters(job, found, voxel_size)


def _of_clusters(
    job: Job, found: Compared, voxel_size: float
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    count = min(len(found.clusters.table), _MOST_CLUSTERS)
    titles = [
        f"Cluster {number}: {row.maps:,} map{'s' * (row.maps != 1)}"
        for number, row in enumerate(found.clusters.table.head(count).itertuples())
    ]

    def surfaces() -> Figure:
        means = [_mean(job, number) for number in range(count)]
        return surface_sheet(
            means,
            levels=[_level(mean) for mean in means],
            titles=titles,
            voxel_size_angstrom=voxel_size,
            colours=[state_colour(number) for number in range(count)],
            title=_of_how_many(count, len(found.clusters.table)),
            level_name=_LEVEL_NAME,
        )

    def views(number: int) -> Figure:
        mean = _mean(job, number)
        return surface_views(
            mean,
            level=_level(mean),
            voxel_size_angstrom=voxel_size,
            colour=state_colour(number),
            title=f"Mean of {titles[number][0].lower()}{titles[number][1:]}",
            level_name=_LEVEL_NAME,
        )

    def members(number: int) -> Figure:
        inside = np.flatnonzero(found.clusters.labels == number)
        most = int(np.clip(_MEMBER_BYTES // (4 * job.ensemble.box**3), 3, _MOST_MEMBERS))
        read = dask.delayed(list, pure=False)(stream(job.ensemble, inside[:most]))
        shown = job.client.compute(read).result()
        return member_sheet(
            shown,
            names=job.ensemble.names[inside].tolist(),
            cluster=number,
            voxel_size_angstrom=voxel_size,
            mask=found.mask["mask"].values,
            most=most,
        )

    yield "figures/surfaces.png", surfaces
    for number in range(count):
        yield f"cluster_{number:03d}_3d.png", partial(views, number)
        yield f"figures/cluster_{number:03d}_members.png", partial(members, number)


def _density(job: Job, found: Compared) -> Figure:
    """Draw the matrix in tiles, without looking at any pair again where that is possible."""
    labels, tree = found.clusters.labels, found.tree
    order = tree.members[_in_order(tree, labels)]
    sizes = tile_sizes(labels[order])
    tile = np.full(len(labels), -1, dtype=np.intp)
    tile[order] = np.repeat(np.arange(len(sizes)), sizes)
    metric = found.rows.options.metric
    job.results.state(group_sums_work(found.rows.lazy, stage="tiles", groups=len(sizes)))
    with job.progress.computing(job.client, label="tiles") as compute:
        if metric == "l2":
            means = mean_distances(found.rows.prepared, tile, compute=compute)
        elif found.rows.options.is_inner_product:
            means = mean_products(found.rows.prepared, tile, compute=compute)
            means /= found.rows.shells.n_shells if metric == "fsc-mean" else 1
        else:
            means = mean_values(found.pairs.matrix(), tile)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return density_matrix(means, sizes=sizes, states=labels[order][first], quantity=found.quantity)


def _in_order(tree: PairTree, labels: np.ndarray) -> np.ndarray:
    """Return the maps of the tree from left to right; maps of one leaf side by side."""
    leaves = np.zeros(tree.tree.n_leaves, dtype=np.intp)
    leaves[tree.tree.leaf] = labels[tree.members]
    laid = lay_out(tree.tree.merges, leaves, most_leaves=max(tree.tree.n_leaves, 2))
    rank = np.empty(tree.tree.n_leaves, dtype=np.intp)
    rank[laid.leaves] = np.arange(tree.tree.n_leaves)
    return np.argsort(rank[tree.tree.leaf], kind="stable")


def _of_how_many(shown: int, count: int) -> str:
    return "Mean map of each cluster" + (
        "" if shown == count else f": the {shown} largest of {count}"
    )


def _mean_name(number: int) -> str:
    return f"cluster_{number:03d}_mean.mrc"


def _mean(job: Job, number: int) -> np.ndarray:
    return read_volume(read_header(job.results.path(_mean_name(number))))


def _level(mean: np.ndarray) -> float:
    return volume_threshold(mean)
