"""The stages ``blocks`` and ``screening``: blocks, their occupancy, relations and states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.analysis.agreement import adjusted_rand_index
from emhet_dask.analysis.block_search import BlocksFound, Densities, search_blocks
from emhet_dask.analysis.blocks import pieces_of
from emhet_dask.analysis.relations import block_relations, state_table, two_modes
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.ensemble.matrix import into_box, open_matrix
from emhet_dask.formats.blocks_pickle import write_blocks_pickle
from emhet_dask.formats.mrc import write_map
from emhet_dask.workflows.stages.costs import blocks_work
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.voxel_pairs import VoxelPairs

__all__ = ["BlockOptions", "BlockTables", "blocks_stage", "load_blocks", "screening_stage"]

_TABLES = {
    "blocks": "blocks.csv",
    "occupancy": "block_occupancy.csv",
    "density": "block_density.csv",
    "presence": "block_presence.csv",
    "relations": "block_relations.csv",
    "states": "block_states.csv",
}
_MAY_BE_MISSING = ("cut", "phi", "odds_ratio", "odds_low", "odds_high")


@dataclass(frozen=True)
class BlockOptions:
    """What the stage depends on beside the associations.

    Attributes
    ----------
    min_voxels : int or "auto"
    expand_fraction : float
    tolerance : float
    positive_p, negative_p : float
        Of the relations between blocks, over all pairs of them.
    seed : int
    """

    min_voxels: int | str
    expand_fraction: float
    tolerance: float
    positive_p: float
    negative_p: float
    seed: int


@dataclass(frozen=True)
class BlockTables:
    """Blocks, as the results folder holds them.

    Attributes
    ----------
    labels : ndarray of int (z, y, x)
        0: none; blocks from 1, the largest first.
    mean_map : ndarray of float32 (z, y, x)
        0 outside the mask.
    blocks, occupancy, density, presence, relations, states : pandas.DataFrame
        As in the tables of the folder.
    evidence : dict
        As in ``evidence.json``.
    """

    labels: np.ndarray
    mean_map: np.ndarray
    blocks: pd.DataFrame
    occupancy: pd.DataFrame
    density: pd.DataFrame
    presence: pd.DataFrame
    relations: pd.DataFrame
    states: pd.DataFrame
    evidence: dict[str, Any]


def blocks_stage(
    job: Job, pairs: VoxelPairs, thresholds: xr.Dataset, options: BlockOptions
) -> BlockTables:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With the stage ``voxel_pairs`` finished.
    pairs : VoxelPairs
    thresholds : xarray.Dataset
        The group ``thresholds``.
    options : BlockOptions

    Returns
    -------
    BlockTables
    """

    def build(workspace: Path) -> dict[str, Any]:
        edges = pairs.edges()
        found = _search(job, pairs, edges, thresholds, options)
        labels = _write_maps(job, workspace, pairs, found)
        tables = _tables(job, labels, found, options)
        for name, file in _TABLES.items():
            tables[name].to_csv(workspace / file, index=False, float_format="%.6g")
        evidence = _evidence(job, pairs, edges, found, thresholds)
        (workspace / "evidence.json").write_text(json.dumps(evidence, indent=2) + "\n")
        found.stability.to_csv(workspace / "resolutions.csv", index=False, float_format="%.6g")
        return {"blocks": found.n_blocks, "voxels": evidence["voxels_in_blocks"]}

    job.results.stage(
        "blocks",
        parameters=vars(options),
        after=("voxel_pairs",),
        build=build,
        replaceable=True,
    )
    return load_blocks(job.results.path())


def load_blocks(folder: Path) -> BlockTables:
    """Read the finished stage.

    Parameters
    ----------
    folder : Path
        Results folder.
    """
    group = load_group(folder / "results.zarr" / "blocks")
    # A map may be called NA; a number that is not there is empty.
    how: dict[str, Any] = {
        "dtype": {"name": str, "piece_voxels": str},
        "keep_default_na": False,
        "na_values": dict.fromkeys(_MAY_BE_MISSING, ""),
    }
    tables = {key: pd.read_csv(folder / file, **how) for key, file in _TABLES.items()}
    return BlockTables(
        labels=group["block"].values,
        mean_map=group["mean_map"].values,
        evidence=json.loads((folder / "evidence.json").read_text()),
        **tables,
    )


def screening_stage(
    job: Job,
    levels: list[VoxelPairs],
    thresholds: xr.Dataset,
    options: BlockOptions,
    *,
    factors: tuple[float, ...],
) -> pd.DataFrame:
    """Find the blocks at other thresholds and levels of significance, or find it done.

    Parameters
    ----------
    job : Job
        With the stage ``blocks`` finished.
    levels : list of VoxelPairs
        At each threshold; the first is the one that was asked for.
    thresholds : xarray.Dataset
    options : BlockOptions
    factors : tuple of float
        Of the threshold, for each level.

    Returns
    -------
    pandas.DataFrame
        As ``screening.csv``: a row per threshold and level of significance, how many ``blocks`` of
        how many ``voxels``, and the ``agreement`` with what was asked for, the adjusted Rand index
        over voxels that are in blocks in both (NaN where none is).
    """

    def build(workspace: Path) -> None:
        chosen = load_group(job.group("blocks"))["block"].values.reshape(-1)
        cases = [
            (pairs, factor, setting)
            for pairs, factor in zip(levels, factors, strict=True)
            for setting in range(len(pairs.options.settings))
        ]
        rows = []
        with job.progress.task("screening", total=len(cases), unit="settings") as task:
            for number, (pairs, factor, setting) in enumerate(cases):
                if number == 0:
                    index = np.flatnonzero(chosen)
                    labels = chosen[index]
                else:
                    edges = pairs.edges(setting)
                    found = _search(job, pairs, edges, thresholds, options, factor=factor)
                    index = pairs.bits.voxel_index[found.labels >= 0]
                    labels = found.labels[found.labels >= 0]
                positive, negative = pairs.options.settings[setting]
                both = chosen[index] > 0
                rows.append(
                    {
                        "threshold": factor * thresholds.attrs["level"],
                        "positive_p": positive,
                        "negative_p": negative,
                        "blocks": len(np.unique(labels)),
                        "voxels": len(labels),
                        "agreement": adjusted_rand_index(chosen[index][both], labels[both])
                        if both.any()
                        else np.nan,
                        "chosen": number == 0,
                    }
                )
                task.update(1)
        pd.DataFrame(rows).to_csv(workspace / "screening.csv", index=False, float_format="%.6g")

    job.results.stage(
        "screening",
        parameters={"factors": factors},
        after=("blocks",),
        build=build,
        replaceable=True,
    )
    return pd.read_csv(job.results.path("screening.csv"))


def _search(
    job: Job,
    pairs: VoxelPairs,
    edges: xr.Dataset,
    thresholds: xr.Dataset,
    options: BlockOptions,
    *,
    factor: float = 1.0,
) -> BlocksFound:
    densities = Densities(
        matrix=open_matrix(str(job.group("matrix")))["matrix"].data,
        columns=pairs.bits.matrix_column,
        coordinates=pairs.coordinates,
        thresholds=factor * thresholds["threshold"].values,
        factors=thresholds["factor"].values,
    )
    job.results.state(blocks_work(densities.matrix))
    with job.progress.computing(job.client, label="blocks") as compute:
        return search_blocks(
            edges,
            densities,
            occupied=pairs.bits,
            tests=pairs.tests(edges),
            near=pairs.near,
            min_voxels=None if options.min_voxels == "auto" else int(options.min_voxels),
            expand_fraction=options.expand_fraction,
            tolerance=options.tolerance,
            seed=options.seed,
            compute=compute,
        )


def _write_maps(job: Job, workspace: Path, pairs: VoxelPairs, found: BlocksFound) -> np.ndarray:
    """Write maps, pickle and group; return the block of each voxel (z, y, x)."""
    ensemble, box = job.ensemble, job.ensemble.box
    flat = np.zeros(box**3, dtype=np.int16)
    flat[pairs.bits.voxel_index] = found.labels + 1
    labels = flat.reshape((box,) * 3)
    matrix = open_matrix(str(job.group("matrix")))
    mean = matrix["matrix"].data.mean(axis=0, dtype=np.float64)
    (values,) = job.progress.compute(job.client, [mean], label="mean map")
    mean_map = into_box(np.asarray(values), matrix["voxel_index"].values, box)
    space: dict[str, Any] = {
        "voxel_size_angstrom": ensemble.voxel_size_angstrom,
        "origin_angstrom": ensemble.origin_angstrom,
    }
    write_map(workspace / "mean.mrc", mean_map, **space)
    write_map(workspace / "blocks.mrc", labels, **space)
    for block in range(1, found.n_blocks + 1):
        # Of bytes: thirty blocks of a large box would be gigabytes of float32.
        write_map(workspace / f"block_{block:03d}.mrc", labels == block, **space)
    write_blocks_pickle(workspace / "blocks.pkl", labels)
    core = np.zeros(box**3, dtype=bool)
    core[pairs.bits.voxel_index] = found.core
    dims = ("z", "y", "x")
    save_group(
        workspace / "results.zarr" / "blocks",
        xr.Dataset(
            {
                "block": (dims, labels),
                "block_core": (dims, core.reshape((box,) * 3)),
                "mean_map": (dims, mean_map),
                "block_occupancy": (("volume", "label"), found.occupancy),
                "block_density": (("volume", "label"), found.density),
                "block_present": (("volume", "label"), found.present),
            }
        ),
    )
    return labels


def _tables(
    job: Job, labels: np.ndarray, found: BlocksFound, options: BlockOptions
) -> dict[str, pd.DataFrame]:
    weights = job.ensemble.weights
    names = [f"block_{number:03d}" for number in range(1, found.n_blocks + 1)]
    states, state_of = state_table(found.present, names, particles=weights)
    head = {
        "volume": job.ensemble.dataset["volume_index"].values,
        "name": job.ensemble.names,
    }

    def per_volume(values: np.ndarray, **extra: np.ndarray) -> pd.DataFrame:
        columns = {name: values[:, k] for k, name in enumerate(names)}
        return pd.DataFrame({**head, **columns, **extra})

    blocks = pieces_of(labels)
    volume = job.ensemble.voxel_size_angstrom**3
    blocks.insert(2, "volume_A3", (blocks["voxels"] * volume).round(1))
    blocks["core_voxels"] = np.bincount(found.labels[found.core], minlength=found.n_blocks)
    blocks["volumes"] = found.present.sum(axis=0)
    blocks["fraction"] = found.present.mean(axis=0)
    if weights is not None:
        blocks["particles"] = weights @ found.present
    blocks["two_modes"] = ~np.isnan(two_modes(found.occupancy))
    blocks["cut"], blocks["phi"], blocks["contrast"] = found.cuts, found.phi, found.contrast
    numbers = list(range(1, found.n_blocks + 1))
    alpha = {"alpha": min(options.positive_p, options.negative_p)}
    return {
        "blocks": blocks,
        "occupancy": per_volume(found.occupancy),
        "density": per_volume(found.density),
        "presence": per_volume(found.present.astype(int), state=state_of),
        "relations": block_relations(found.present, numbers, tolerance=options.tolerance, **alpha),
        "states": states,
    }


def _evidence(
    job: Job,
    pairs: VoxelPairs,
    edges: xr.Dataset,
    found: BlocksFound,
    thresholds: xr.Dataset,
) -> dict[str, Any]:
    degree = edges["degree"].values
    voxel_size = job.ensemble.voxel_size_angstrom
    return {
        "n_blocks": found.n_blocks,
        "voxels_compared": pairs.bits.n_voxels,
        "voxels_in_blocks": int(np.count_nonzero(found.labels >= 0)),
        "pairs_tested": int(edges.attrs["n_pairs"]),
        "pairs_together": int(degree[0].sum() // 2),
        "pairs_apart": int(degree[1].sum() // 2),
        "correction": pairs.options.correction,
        "level_of_one_test": [float(alpha) for alpha in edges["alpha"].values],
        "threshold": thresholds.attrs["level"],
        "background_length_angstrom": pairs.options.length_voxels * voxel_size,
        "background_reached": bool(thresholds.attrs["background_reached"]),
        "min_voxels": found.min_voxels,
        "resolution": found.resolution,
        "groups_too_small": found.dropped["small"],
        "groups_too_thin": found.dropped["thin"],
        "groups_flickering": found.dropped["flickering"],
    }
