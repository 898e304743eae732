"""The half maps of ``emhet reconstruct``: one stage for the maps of each state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client

from emhet_dask.analysis.ctf import CtfParameters
from emhet_dask.analysis.projection import pose_matrices
from emhet_dask.analysis.reconstruction import (
    Sampling,
    Sums,
    add_up,
    complete,
    plan_sampling,
    reconstruct_map,
)
from emhet_dask.analysis.symmetry import symmetry_operators
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.particle_images import ParticleImages, read_images
from emhet_dask.formats.star import write_particles
from emhet_dask.options.reconstruct import Reconstruct
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.image_costs import adding_work, solving_work
from emhet_dask.workflows.stages.reconstruct_states import StateParticles, state_name

__all__ = ["Reconstruction", "map_stages"]

# Particles that a task adds up, one chunk after another, into sums of its own; more where there
# are so many that sums would outnumber the tasks that workers can have at once.
_BAND = 512
_MOST_BANDS = 64
HALVES = (1, 2)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One run at work.

    Attributes
    ----------
    options : Reconstruct
    particles : StateParticles
    sampling : Sampling
    operators : ndarray (operator, 3, 3)
        Of the point group.
    results : ResultsFolder
    client : distributed.Client
    progress : Progress
    """

    options: Reconstruct
    particles: StateParticles
    sampling: Sampling
    operators: np.ndarray
    results: ResultsFolder
    client: Client
    progress: Progress

    @staticmethod
    def plan(options: Reconstruct, particles: StateParticles) -> tuple[Sampling, np.ndarray]:
        """Return how images are sampled, and the operators of the point group.

        Raises
        ------
        InputError
            When the box, the resolution or the point group cannot be.
        """
        sampling = plan_sampling(
            particles.images.box,
            pixel_size_angstrom=particles.images.pixel_size_angstrom,
            map_box=options.box,
            resolution_angstrom=options.max_resolution,
        )
        return sampling, symmetry_operators(options.symmetry)


def map_stages(run: Reconstruction) -> list[str]:
    """Write the half maps, the map and the particles of each state, or find that done.

    Parameters
    ----------
    run : Reconstruction

    Returns
    -------
    list of str
        Names of the stages.
    """
    for number in run.particles.rows:
        _map_stage(run, number)
    return [state_name(number) for number in run.particles.rows]


def _map_stage(run: Reconstruction, number: int) -> None:
    options, name = run.options, state_name(number)

    def build(workspace: Path) -> dict[str, Any]:
        rows = run.particles.rows[number]
        write_particles(workspace / f"{name}_particles.star", run.particles.table, rows=rows)
        _state_plans(run, number)
        lazy = _maps(run, number)
        found = run.progress.compute(run.client, lazy, label=name)
        for density, ending in zip(found, ("_half1", "_half2", ""), strict=True):
            write_map(
                workspace / f"{name}{ending}.mrc",
                density,
                voxel_size_angstrom=run.sampling.voxel_size_angstrom,
            )
        halves = run.particles.half[rows]
        return {"particles": len(rows), "half1": int(np.count_nonzero(halves == 1))}

    run.results.stage(
        name,
        parameters={
            **run.particles.key(number),
            "symmetry": options.symmetry,
            "box": run.sampling.maps.box,
            "radius": run.sampling.images.radius,
            "gridding_iterations": options.gridding_iterations,
            "no_ctf": options.no_ctf,
            "ctf_intact_first_peak": options.ctf_intact_first_peak,
        },
        build=build,
    )


def _state_plans(run: Reconstruction, number: int) -> None:
    name = state_name(number)
    halves = [len(run.particles.of_half(number, half)) for half in HALVES]
    adding = adding_work(
        run.sampling,
        stage=name,
        particles=sum(halves),
        bands=len(_bands(max(halves))),
        symmetric=len(run.operators) > 1,
    )
    iterations = run.options.gridding_iterations
    for work in (adding, solving_work(run.sampling, stage=name, iterations=iterations)):
        run.results.state(work)


def _maps(run: Reconstruction, number: int) -> list[Any]:
    """Return the maps of both halves and of all particles, lazily."""
    # Sent to the workers once, and not with every task.
    sampling = dask.delayed(run.sampling, pure=False, traverse=False)
    iterations = run.options.gridding_iterations
    sums = []
    for half in HALVES:
        images = run.particles.of_half(number, half)
        parts = [
            _band_sums(images[band], sampling, intact_first_peak=run.options.ctf_intact_first_peak)
            for band in _bands(len(images))
        ]
        sums.append(_complete(_tree(parts), sampling, run.operators))
    return [_solve(each, sampling, iterations) for each in (*sums, _add(*sums))]


def _bands(count: int) -> list[slice]:
    """Cut the particles by their number alone."""
    length = max(_BAND, -(-count // _MOST_BANDS))
    return [slice(start, start + length) for start in range(0, count, length)]


def _tree(parts: Sequence[Any]) -> Any:
    """Add up in one order, whichever parts come first."""
    while len(parts) > 1:
        pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
        parts = [_add(*pair) if len(pair) > 1 else pair[0] for pair in pairs]
    return parts[0]


@dask.delayed(pure=False)
def _band_sums(images: ParticleImages, sampling: Sampling, *, intact_first_peak: bool) -> Sums:
    total: Sums | None = None
    for start in range(0, len(images), sampling.chunk):
        some = images[start : start + sampling.chunk]
        found = add_up(
            read_images(some),
            turns=pose_matrices(some.angles),
            shifts=some.shifts,
            ctf=None if some.ctf is None else CtfParameters(**some.ctf),
            sampling=sampling,
            intact_first_peak=intact_first_peak,
        )
        total = found if total is None else total + found
    assert total is not None
    return total


@dask.delayed(pure=False)
def _add(first: Sums, second: Sums) -> Sums:
    return first + second


@dask.delayed(pure=False)
def _complete(sums: Sums, sampling: Sampling, operators: np.ndarray) -> Sums:
    return complete(sums, sampling, operators=operators)


@dask.delayed(pure=False)
def _solve(sums: Sums, sampling: Sampling, iterations: int) -> np.ndarray:
    return reconstruct_map(sums, sampling, iterations=iterations)
