"""The stage ``global poses`` of ``emhet class3d run``, and searches of all poses in iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.common_map import consensus_and_noise
from emhet_dask.analysis.global_search import Scan, search_everywhere
from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.local_search import Poses, angles_between
from emhet_dask.analysis.projection import SliceGrid, cropped, plan_slices, volume_transform
from emhet_dask.analysis.support import map_of, sphere
from emhet_dask.runtime import Progress, ResultsFolder, fingerprint_file
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import (
    Particles,
    cut_blocks,
    halves_of,
    rows_of_halves,
)
from emhet_dask.workflows.stages.class_run_images import Common, consensus_of_half
from emhet_dask.workflows.stages.class_run_poses import (
    Search,
    at_poses,
    load_poses,
    poses_of,
    save_poses,
)
from emhet_dask.workflows.stages.class_run_start import Reference

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["GlobalSearch", "Handover", "global_stage"]

GLOBAL = "global_poses"
TABLE = "global_search.csv"
_ROUNDS = 6
# Iterations that search all poses, before searches near the present ones take over.
_ITERATIONS = 3
# Shells that are looked at beyond those in which the maps of the halves agree, and how well.
_SHELLS_BEYOND = 2
_AGREES = 0.5
# Poses are found when the median particle turns by less than this part of the spacing.
_AT_REST = 0.1


@dataclass(frozen=True, eq=False)
class GlobalSearch:
    """How poses are looked for.

    Attributes
    ----------
    particles : Particles
        At the given poses, whose shifts the search is around.
    references : list of Reference
        That images are compared with first.
    scan : Scan
    diameter_pixels : float
        Of the particle.
    """

    particles: Particles
    references: list[Reference]
    scan: Scan
    diameter_pixels: float

    def search(
        self,
        maps: Sequence[np.ndarray],
        noise: Sequence[np.ndarray],
        *,
        radius: int,
        compute: Callable[..., tuple[Any, ...]],
        shares: np.ndarray | None = None,
        free_scale: bool = False,
    ) -> tuple[Poses, np.ndarray]:
        """Compare the particles of even rows with maps (voxel, map), and those of odd rows.

        Parameters
        ----------
        maps, noise : two arrays each, (voxel, map) and (group, shell)
            What even rows are compared with, and what odd rows are.
        radius : int
        compute : callable
        shares : array (map,), optional
            Of the particles, in each map.
        free_scale : bool
            Compare regardless of grey scale.

        Returns
        -------
        poses : Poses
        scores : ndarray (particle,)
        """
        given = poses_of(self.particles)
        angles, shifts = given.angles.copy(), given.shifts.copy()
        scores = np.empty(len(angles))
        blocks = cut_blocks(self.particles, radius=radius)
        pairs = zip(halves_of(blocks), rows_of_halves(blocks), maps, noise, strict=True)
        for sources, rows, against, amplitude in pairs:
            found, scores[rows] = search_everywhere(
                sources,
                [block.particles.groups[block.rows] for block in sources],
                amplitude[:, : radius + 1],
                against,
                given=Poses(given.angles[rows], given.shifts[rows]),
                scan=replace(self.scan, free_scale=free_scale),
                grid=plan_slices(self.particles.images.box, radius=radius),
                shares=shares,
                compute=compute,
            )
            angles[rows], shifts[rows] = found.angles, found.shifts
        return Poses(angles, shifts), scores


@dataclass(frozen=True, eq=False)
class Handover:
    """Searches of all poses in the first iterations, of those near the present ones after them.

    Attributes
    ----------
    everywhere : GlobalSearch
    near : Search
    """

    everywhere: GlobalSearch
    near: Search

    def everywhere_at(self, number: int) -> bool:
        """Return whether an iteration, from 1, searches all poses."""
        return number <= _ITERATIONS

    def run(
        self,
        common: Common,
        classes: tuple[np.ndarray, np.ndarray],
        *,
        number: int,
        radius: int,
        operators: np.ndarray,
        compute: Callable[..., tuple[Any, ...]],
    ) -> Poses:
        """Search, as `Search.run`."""
        where: dict[str, Any] = {"radius": radius, "compute": compute}
        if not self.everywhere_at(number):
            return self.near.run(common, classes, number=number, operators=operators, **where)
        box = common.particles.images.box
        grid, full = plan_slices(box, radius=radius), plan_slices(box)
        difference, posteriors = classes
        maps = [
            cropped(
                consensus_of_half(common.particles, other, operators=operators, compute=compute),
                full,
                grid,
            )[:, None]
            + difference
            for other in (1, 0)
        ]
        # An image that is far from its pose says nothing of its class.
        shares = posteriors.mean(axis=0, dtype=np.float64)
        return self.everywhere.search(maps, [common.noise] * 2, shares=shares, **where)[0]

    def at_rest(self, number: int, moved: tuple[float, float]) -> bool:
        """Return whether poses hardly change any more."""
        return not self.everywhere_at(number) and self.near.at_rest(number, moved)


def global_stage(
    search: GlobalSearch,
    *,
    radius: int,
    most_radius: int,
    parameters: dict[str, Any],
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> Particles:
    """Run the stage, or find it done.

    The first round compares all images with the references, whatever their grey scales. In those
    that follow, each half of the particles is compared with the map of the other half, at as many
    shells as these maps agree in, until poses stay.

    Parameters
    ----------
    search : GlobalSearch
    radius, most_radius : int
        Shells that are compared first, and at most.
    parameters : dict
        For the record.
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    Particles
        At the poses that were found.
    """

    def build(workspace: Path) -> None:
        costs, maps = Imaging.on(client, search.particles.images), len(search.references)
        results.state(
            costs.search_everywhere(
                search.scan, stage="global poses", radius=most_radius, maps=maps
            )
        )
        results.state(costs.consensus(stage="global poses: consensus"))
        with progress.computing(client, label="global search") as compute:
            poses, table = _find(search, radius, most_radius, compute)
        save_poses(workspace / GLOBAL, poses)
        table.to_csv(workspace / TABLE, index=False, float_format="%.6g")

    results.stage(
        "global poses",
        parameters={
            **parameters,
            "references": [fingerprint_file(each.path) for each in search.references],
            "spacing": search.scan.spacing_degrees,
            "offset_range": search.scan.reach_pixels,
            "diameter": search.diameter_pixels,
            "radius": radius,
            "most_radius": most_radius,
        },
        after=("images",),
        build=build,
    )
    return at_poses(search.particles, load_poses(results.path(GLOBAL)))


def _find(
    search: GlobalSearch, radius: int, most: int, compute: Callable[..., tuple[Any, ...]]
) -> tuple[Poses, pd.DataFrame]:
    """Return poses, and a row of facts for each round."""
    box, rows = search.particles.images.box, []
    poses, first = poses_of(search.particles), radius
    for number in range(_ROUNDS):
        grid = plan_slices(box, radius=min(radius + 2 * _SHELLS_BEYOND, most))
        halves = _halves(search, poses, grid, compute)
        before = radius
        if number:
            reach = _agreeing_shell(halves[0].map, halves[1].map, grid) + _SHELLS_BEYOND
            radius = min(max(radius, reach), grid.radius)
        at = plan_slices(box, radius=radius)
        if number:
            maps = [cropped(half.map, grid, at)[:, None] for half in halves[::-1]]
        else:
            each = [volume_transform(each.volume, at) for each in search.references]
            maps = [np.stack(each, axis=1)] * 2
        found, scores = search.search(
            maps,
            [half.noise for half in halves],
            radius=radius,
            free_scale=number == 0,
            compute=compute,
        )
        turned = float(np.median(angles_between(poses.angles, found.angles)))
        rows.append((number, radius, turned, float(scores.sum())))
        poses = found
        at_rest = turned < _AT_REST * search.scan.spacing_degrees and radius == before
        if at_rest and radius > first:
            break
    columns = ["round", "shells", "median_turn_degrees", "log_likelihood"]
    return poses, pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True, eq=False)
class _Half:
    """The map (voxel,) of the particles of even or odd rows, and their noise (group, shell)."""

    map: np.ndarray
    noise: np.ndarray


def _halves(
    search: GlobalSearch, poses: Poses, grid: SliceGrid, compute: Callable[..., tuple[Any, ...]]
) -> list[_Half]:
    found = []
    posed = at_poses(search.particles, poses)
    inside = sphere(grid.box, diameter=search.diameter_pixels)
    for blocks in halves_of(cut_blocks(posed, radius=grid.radius)):
        transform, _, noise = consensus_and_noise(
            blocks,
            [block.particles.groups[block.rows] for block in blocks],
            n_groups=posed.n_groups,
            grid=grid,
            operators=search.scan.operators,
            compute=compute,
        )
        # Padding leaves more of the noise than of the particle outside of it.
        found.append(_Half(volume_transform(map_of(transform, grid) * inside, grid), noise))
    return found


def _agreeing_shell(one: np.ndarray, other: np.ndarray, grid: SliceGrid) -> int:
    """Return the last shell before the first in which two maps do not agree."""
    product = shell_mean((one.conj() * other).real, grid)
    power = [shell_mean(np.square(np.abs(each)), grid) for each in (one, other)]
    agreement = product / np.sqrt(np.maximum(power[0] * power[1], 1e-30))
    apart = np.flatnonzero(agreement[1:] < _AGREES)
    return int(apart[0]) if len(apart) else grid.radius
