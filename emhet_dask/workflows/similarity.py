"""``emhet similarity``: every pair of maps, from six classes to 100,000 volumes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.ensemble.groups import load_group
from emhet_dask.ensemble.pair_matrix import open_pairs
from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.similarity import Similarity
from emhet_dask.report.style import counted
from emhet_dask.report.verdict import headline
from emhet_dask.runtime import fingerprint_file, task_memory_bytes
from emhet_dask.urls import UrlPlace
from emhet_dask.workflows.align import align_ensemble
from emhet_dask.workflows.stages.foreign import read_map_on_box
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.mask import MaskOptions, mask_stage
from emhet_dask.workflows.stages.opening import opened
from emhet_dask.workflows.stages.pair_clusters import PairClusters, pair_clusters_stage
from emhet_dask.workflows.stages.pair_pictures import Compared, pair_report_stage
from emhet_dask.workflows.stages.pair_tree import PairTreeOptions, pair_tree_stage
from emhet_dask.workflows.stages.pairs import Pairs, pairs_stage
from emhet_dask.workflows.stages.rows import RowOptions, rows_stage
from emhet_dask.workflows.stages.selection import choose_volumes
from emhet_dask.workflows.stages.source import MapFolder, find_source

__all__ = ["Similar", "similarity"]


@dataclass(frozen=True)
class Similar:
    """Results of a comparison of all pairs, as its folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    clusters : pandas.DataFrame
        One row per cluster: ``cluster``, ``maps``, ….
    labels : ndarray of int, shape (volume,)
        Cluster of each map, from 0; -1 for a constant one.
    evidence : dict
        ``n_clusters``, ``separate_states``, ``reason``, ``cophenetic_correlation``, ….
    warnings : list of str
        Maps that are constant inside the mask, and those whose alignment is doubtful.
    """

    folder: Path | UrlPlace
    clusters: pd.DataFrame
    labels: np.ndarray
    evidence: dict[str, Any]
    warnings: list[str]

    @property
    def pairs(self) -> xr.Dataset:
        """Return the pairs: nearest maps, histogram and, where it is kept, the lazy matrix."""
        return open_pairs(str(self.folder / "similarity.zarr"))

    @property
    def tree(self) -> xr.Dataset:
        """Return the tree and the evidence over numbers of clusters."""
        return load_group(self.folder / "results.zarr" / "tree")

    def describe(self) -> str:
        """Return it in words."""
        found = headline(
            n_volumes=len(self.labels),
            **{
                name: self.evidence[name]
                for name in ("n_clusters", "separate_states", "automatic_n_clusters")
            },
        )
        lines = [f"{found}. {self.evidence['reason']}", *self.warnings]
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Similarity)
def similarity(options: Similarity) -> Similar:
    """Compare every pair of maps, draw the tree, cut it into clusters.

    The stages (maps into a store, alignment where asked for, mask, rows, pairs, tree, clusters,
    report) are kept in the output folder; the same call again continues where it was killed.

    Returns
    -------
    Similar

    Raises
    ------
    InputError
        When the maps, the mask, the names or an option cannot be used, or the output holds results
        of other settings.
    """
    _refuse_early(options)
    masking = MaskOptions(options.mask, options.threshold, options.dilate, options.cosine_edge)
    masking.refuse_early()
    found = find_source(options.ensemble, names=options.names, box=options.box, apix=options.apix)
    _refuse_count(options, found)
    used = RowOptions(options.metric, options.resolution, options.fsc_threshold)
    memory = task_memory_bytes(options.memory_limit)
    with opened(
        options,
        options.output,
        command="similarity",
        inputs=_inputs(found, options),
        recorded=_RECORDED,
    ) as (results, client, progress):
        source = (
            found.ingest(results, client, quiet=options.quiet)
            if isinstance(found, MapFolder)
            else found
        )
        ensemble, _ = choose_volumes(source)
        made_by = ("ensemble",) if isinstance(found, MapFolder) else ()
        job = Job(ensemble, results, client, progress, made_by)
        flagged: list[str] = []
        if options.align_to is not None:
            job, flagged = _aligned(job, options)
        reference = None
        if options.reference is not None:
            reference = read_map_on_box(options.reference, job.ensemble, option="--reference")
        mask = mask_stage(job, masking)
        rows = rows_stage(job, mask["mask"].values, used)
        pairs = pairs_stage(
            job,
            rows,
            full_matrix=options.full_matrix,
            n_neighbours=options.neighbours,
            memory_bytes=memory,
        )
        _refuse_constant(job, pairs)
        building = PairTreeOptions(options.linkage, options.seed)  # type: ignore[arg-type]
        tree = pair_tree_stage(job, rows, pairs, building, memory_bytes=memory)
        clusters = pair_clusters_stage(
            job, tree, n_clusters=options.n_clusters, distance=options.distance
        )
        named = _named(options.ensemble)
        pair_report_stage(
            job, Compared(mask, rows, pairs, tree, clusters, reference, flagged, named)
        )
        _say(job, clusters)
    return Similar(
        results.place,
        clusters.table,
        clusters.labels,
        clusters.evidence,
        _warnings(job, pairs, flagged),
    )


_RECORDED = (
    "metric",
    "mask",
    "threshold",
    "dilate",
    "cosine_edge",
    "resolution",
    "fsc_threshold",
    "linkage",
    "n_clusters",
    "distance",
    "names",
    "reference",
    "align_to",
    "hand",
    "box",
    "apix",
    "neighbours",
    "full_matrix",
    "seed",
)


def _refuse_early(options: Similarity) -> None:
    """Refuse what contradicts itself, before any file is looked at."""
    if options.linkage == "ward" and options.metric.startswith("fsc"):
        raise InputError(
            f"--linkage ward: needs a distance as in space, which {options.metric} is not; use "
            "average, complete or single, or --metric correlation"
        )
    if options.distance is not None and options.n_clusters != "auto":
        raise InputError("--distance: --n-clusters says where to cut already; give one of them")
    if options.resolution is not None and not options.metric.startswith("fsc"):
        raise InputError(
            f"--resolution: {options.metric} compares densities; expected --metric fsc-mean or "
            "fsc-resolution with it"
        )
    if options.hand and options.align_to is None:
        raise InputError("--hand: is of --align-to, which is not given")


def _refuse_count(options: Similarity, found: Ensemble | MapFolder) -> None:
    count = found.n_volumes if isinstance(found, Ensemble) else len(found.sources)
    if count < 2:
        raise InputError(f"{options.ensemble}: one map, expected at least 2 to compare")
    _refuse_frame(options, count)
    if options.n_clusters != "auto" and options.n_clusters > count:
        raise InputError(
            f"--n-clusters: got {options.n_clusters}, expected at most {count} for {count} maps"
        )


def _refuse_frame(options: Similarity, count: int) -> None:
    to = options.align_to
    if to is None or to in {"first", "best"} or Path(to).is_file():
        return
    if not to.isdecimal():
        raise InputError(
            f"--align-to {to}: no such file; expected first, best, the number of a volume, or an "
            "MRC file"
        )
    if int(to) >= count:
        raise InputError(f"--align-to {to}: no such volume; there are 0 to {count - 1}")


def _inputs(found: Ensemble | MapFolder, options: Similarity) -> dict[str, Any]:
    """Return what all stages depend on; another frame is refused before any map is fitted."""
    known = (
        found.inputs
        if isinstance(found, MapFolder)
        else {"ensemble": found.path, "fingerprint": found.fingerprint}
    )
    to = options.align_to
    frame = fingerprint_file(to) if to is not None and Path(to).is_file() else to
    return {**known, "align_to": frame, "hand": options.hand}


def _named(source: Any) -> str:
    """Return what was compared, for a title."""
    if isinstance(source, Ensemble):
        return Path(source.path).name if source.path else "array in memory"
    if isinstance(source, str | os.PathLike):
        return Path(source).name
    return f"{len(source)} sources"


def _aligned(job: Job, options: Similarity) -> tuple[Job, list[str]]:
    """Run the stage ``aligned``, or find it done; return the names of doubtful fits too."""
    to = str(options.align_to)

    def build(workspace: Path) -> dict[str, Any]:
        made = align_ensemble(
            job.ensemble,
            output=str(workspace / "aligned.zarr"),
            to=to,
            hand=options.hand,
            client=job.client,
            progress=job.progress,
        )
        made.transforms.to_csv(workspace / "transforms.csv", index=False, float_format="%.6g")
        job.progress.say(made.describe().splitlines()[-1])
        return {"flagged": made.flagged}

    record = job.results.stage(
        "aligned",
        parameters={},  # the frame is part of the inputs
        after=job.made_by,
        build=build,
        resumable=True,
    )
    aligned = open_ensemble(str(job.results.path("aligned.zarr")))
    flagged = [str(name) for name in record.summary["flagged"]]
    return replace(job, ensemble=aligned, made_by=("aligned",)), flagged


def _refuse_constant(job: Job, pairs: Pairs) -> None:
    defined = int(np.sum(~pairs.undefined))
    if defined < 2:
        names = ", ".join(job.ensemble.names[pairs.undefined].tolist()[:5])
        raise InputError(
            f"--mask: all but {defined} of {job.ensemble.n_volumes} maps are constant inside it "
            f"({names}); expected a mask in which at least two vary"
        )


def _warnings(job: Job, pairs: Pairs, flagged: list[str]) -> list[str]:
    found = []
    constant = job.ensemble.names[pairs.undefined].tolist()
    if constant:
        found.append(
            f"warning: {counted(len(constant), 'map')} constant inside the mask, so that nothing "
            f"is like {'it' if len(constant) == 1 else 'them'}: {', '.join(constant[:5])}"
        )
    if flagged:
        found.append(
            f"warning: {counted(len(flagged), 'map')} may be aligned wrongly, see transforms.csv: "
            f"{', '.join(flagged[:5])}"
        )
    return found


def _say(job: Job, clusters: PairClusters) -> None:
    agreement = clusters.evidence.get("agreement_with_exact")
    if agreement is not None:
        job.progress.say(
            f"tree on micro-clusters; agrees with the exact one of "
            f"{clusters.evidence['compared_maps']:,} maps by {agreement:.3f} (adjusted Rand index)"
        )
