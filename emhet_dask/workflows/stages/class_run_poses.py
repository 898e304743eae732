"""The stage ``poses`` of ``emhet class3d run``, and what later searches have in common with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.local_search import Poses, SearchRange, angles_between, search_poses
from emhet_dask.analysis.projection import cropped, plan_slices
from emhet_dask.formats.star import ParticleTable
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import (
    Particles,
    halves_of,
    rows_of_halves,
)
from emhet_dask.workflows.stages.class_run_images import (
    Common,
    consensus_of_half,
    find_consensus,
    load_consensus,
    save_consensus,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Search",
    "at_poses",
    "load_poses",
    "moved_by",
    "posed",
    "poses_of",
    "poses_stage",
    "save_poses",
]

POSES = "poses"
_ROUNDS = 3
# Mean change of poses, over the range that is searched, that is none any more.
_AT_REST = 0.05
# Shells by which rounds go beyond one another.
_MORE_SHELLS = 2


@dataclass(frozen=True, eq=False)
class Search:
    """How poses are searched.

    Attributes
    ----------
    given : Poses or None
        Of the STAR file; without them searches are around the present ones.
    reach : SearchRange
    """

    given: Poses | None
    reach: SearchRange

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
        """Search from the present poses.

        Images are compared with the consensus of the other half of them: one in which they have a
        part would keep them where they are.

        Parameters
        ----------
        common : Common
        classes : tuple of array (voxel, class) and array (particle, class)
            Differences from the consensus up to the radius, and probabilities.
        number : int
            Of the iteration; all are searched in the same way.
        radius : int
        operators : ndarray (operator, 3, 3)
            Of the point group.
        compute : callable
        """
        box = common.particles.images.box
        grid, full = plan_slices(box, radius=radius), plan_slices(box)
        difference, posteriors = classes
        present = poses_of(common.particles)
        given = present if self.given is None else self.given
        angles, shifts = present.angles.copy(), present.shifts.copy()
        halves = zip(halves_of(common.blocks), rows_of_halves(common.blocks), strict=True)
        for parity, (half, rows) in enumerate(halves):
            other = consensus_of_half(
                common.particles, 1 - parity, operators=operators, compute=compute
            )
            found = search_poses(
                half,
                (cropped(other, full, grid)[:, None] + difference, posteriors[rows]),
                cropped(common.transform, full, grid),
                given=Poses(given.angles[rows], given.shifts[rows]),
                present=Poses(present.angles[rows], present.shifts[rows]),
                reach=self.reach,
                grid=grid,
                compute=compute,
            )
            angles[rows], shifts[rows] = found.angles, found.shifts
        return Poses(angles, shifts)

    def at_rest(self, number: int, moved: tuple[float, float]) -> bool:
        """Return whether poses changed by less than the finest step, in degrees and pixels."""
        return moved[0] <= _AT_REST * self.reach.degrees


def poses_of(particles: Particles) -> Poses:
    """Return the poses that particles are taken at."""
    return Poses(particles.images.angles, particles.images.shifts)


def at_poses(particles: Particles, poses: Poses) -> Particles:
    """Return particles at other poses."""
    images = replace(particles.images, angles=poses.angles, shifts=poses.shifts)
    return replace(particles, images=images)


def poses_stage(
    particles: Particles,
    search: Search,
    *,
    radius: int,
    most_radius: int,
    imaging: dict[str, Any],
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> Particles:
    """Run the stage, or find it done: poses that fit the consensus of all particles.

    Parameters
    ----------
    particles : Particles
    search : Search
    radius, most_radius : int
        Shells that are compared first, and at most.
    imaging : dict
        ``operators``, ``correct_scale``, and ``parameters`` for the record.
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    Particles
        At the poses that were found.
    """

    def build(workspace: Path) -> None:
        costs = Imaging.on(client, particles.images)
        reach = min(radius + _MORE_SHELLS * (_ROUNDS - 1), most_radius)
        results.state(costs.consensus(stage=POSES))
        results.state(costs.search(stage=POSES, radius=reach, classes=1))
        owned = particles
        everything = np.ones((len(particles.images), 1), dtype=np.float32)
        with progress.computing(client, label=POSES) as compute:
            for number in range(_ROUNDS):
                found = find_consensus(
                    owned,
                    operators=imaging["operators"],
                    correct_scale=imaging["correct_scale"],
                    compute=compute,
                )
                folder = workspace / f"round_{number}"
                save_consensus(folder, found)
                common = load_consensus(folder, owned)
                shells = min(radius + _MORE_SHELLS * number, most_radius)
                grid = plan_slices(particles.images.box, radius=shells)
                none = np.zeros((grid.n_voxels, 1), dtype=np.complex64)
                poses = search.run(
                    common,
                    (none, everything),
                    number=0,
                    radius=shells,
                    operators=imaging["operators"],
                    compute=compute,
                )
                owned = at_poses(owned, poses)
                _remove(folder)
        save_poses(workspace / POSES, poses)

    results.stage(
        POSES,
        parameters={
            **imaging["parameters"],
            "local_search": search.reach.degrees,
            "offset_range": search.reach.pixels,
            "radius": radius,
            "most_radius": most_radius,
        },
        after=("images",),
        build=build,
    )
    return at_poses(particles, load_poses(results.path(POSES)))


def save_poses(folder: Path, poses: Poses) -> None:
    """Write what `load_poses` reads."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "angles.npy", poses.angles)
    np.save(folder / "shifts.npy", poses.shifts)


def load_poses(folder: Path) -> Poses:
    """Read poses."""
    return Poses(np.load(folder / "angles.npy"), np.load(folder / "shifts.npy"))


def posed(table: ParticleTable, poses: Poses, *, pixel_size_angstrom: float) -> ParticleTable:
    """Return the particles with other poses, in the columns of their version of RELION."""
    rows = table.particles
    columns = {
        name: np.round(poses.angles[:, axis], 6)
        for axis, name in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"))
    }
    in_pixels = table.optics is None
    for axis, letter in enumerate("XY"):
        name = f"rlnOrigin{letter}" if in_pixels else f"rlnOrigin{letter}Angst"
        unit = 1.0 if in_pixels else pixel_size_angstrom
        columns[name] = np.round(poses.shifts[:, axis] * unit, 6)
    others = [f"rlnOrigin{letter}{'Angst' if in_pixels else ''}" for letter in "XY"]
    kept: pd.DataFrame = rows.drop(columns=others, errors="ignore")
    return replace(table, particles=kept.assign(**columns))


def moved_by(before: Poses, after: Poses) -> tuple[float, float]:
    """Return by how much poses changed: mean degrees, and root mean square of pixels."""
    away = np.square(after.shifts - before.shifts).sum(axis=1).mean()
    return float(angles_between(before.angles, after.angles).mean()), float(np.sqrt(away))


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
