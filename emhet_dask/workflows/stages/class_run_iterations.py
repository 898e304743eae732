"""The stages ``iteration 1``, ``iteration 2``, … of ``emhet class3d run``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from emhet_dask.analysis.classification import (
    Classes,
    ClassSums,
    add_up,
    classes_of,
    informative_shell,
    judge,
    next_prior,
)
from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.projection import SliceGrid, part_of, plan_slices
from emhet_dask.analysis.support import Support, map_of, sphere, support_of
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.relion_write import (
    ClassSpectra,
    IterationFacts,
    iteration_stem,
    write_iteration,
)
from emhet_dask.formats.star import ParticleTable
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import Placed
from emhet_dask.workflows.stages.class_run_global import Handover
from emhet_dask.workflows.stages.class_run_images import (
    Common,
    find_consensus,
    load_consensus,
    save_consensus,
)
from emhet_dask.workflows.stages.class_run_poses import (
    Search,
    at_poses,
    load_poses,
    moved_by,
    posed,
    poses_of,
    save_poses,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["IterationOptions", "State", "iteration_stages", "load_iteration"]

# Share of the particles that still change class when nothing more is to be gained.
_SETTLED = 0.001
# Shells that are compared beyond the last one in which classes are seen to differ.
_SHELLS_BEYOND = 4
_SIGNIFICANT = 0.999


@dataclass(frozen=True, eq=False)
class State:
    """Where an iteration ended, all that the next one needs.

    Attributes
    ----------
    number : int
        0 before the first iteration.
    posteriors : ndarray of float32 (particle, class)
    noise : ndarray of float64 (shell,)
        Variance of the noise of all shells, 1 where it is as the consensus left it.
    radius : int
        Shells to be compared next.
    changed : float
        Share of the particles that changed class.
    settled : bool
        Nothing more is to be gained.
    log_likelihood : ndarray of float64 (particle,)
    moved : tuple of float or None
        By how many degrees and pixels poses changed, where they are searched.
    """

    number: int
    posteriors: np.ndarray
    noise: np.ndarray
    radius: int
    changed: float
    settled: bool
    log_likelihood: np.ndarray
    moved: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class IterationOptions:
    """What iterations depend on.

    Attributes
    ----------
    k : int
        Classes that are written; those beyond the ones in use are empty.
    iterations : int
    tau2_fudge : float
    mask : ndarray (z, y, x)
        Where classes may differ.
    most_radius : int
    parameters : dict
        For the record.
    particle_diameter_angstrom, pixel_size_angstrom : float
    zero_mask : bool
    symmetry : str
    operators : ndarray (operator, 3, 3)
        Of the point group.
    correct_scale : bool
    focused : bool
        Whether the mask is one that was asked for, not the particle.
    seed : int
    job : str
        Name of the job's folder, for its files.
    search : Search, Handover or None
        Of poses, after every iteration.
    """

    k: int
    iterations: int
    tau2_fudge: float
    mask: np.ndarray
    most_radius: int
    parameters: dict[str, Any]
    particle_diameter_angstrom: float
    pixel_size_angstrom: float
    zero_mask: bool
    symmetry: str
    operators: np.ndarray
    correct_scale: bool
    focused: bool
    seed: int
    job: str
    search: Search | Handover | None


def iteration_stages(
    common: Common,
    start: State,
    table: ParticleTable,
    options: IterationOptions,
    *,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> tuple[State, tuple[str, ...]]:
    """Run iterations, or find them done, until nothing changes any more.

    Parameters
    ----------
    common : Common
    start : State
    table : ParticleTable
    options : IterationOptions
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    State
        Of the last iteration.
    tuple of str
        Names of the stages.
    """
    state, names = start, ["start"]
    while state.number < options.iterations and not state.settled:
        number = state.number + 1
        name = f"iteration {number}"
        build = partial(
            _iterate, common, state, table=table, options=options, results=results, client=client,
            progress=progress,
        )  # fmt: skip
        results.stage(
            name,
            parameters=options.parameters if number == 1 else {},
            after=(names[-1],),
            build=build,
            replaceable=True,
        )
        names.append(name)
        state = load_iteration(results.path(), number)
        if options.search is not None:
            folder = results.path(_next_folder(number))
            common = load_consensus(folder, at_poses(common.particles, load_poses(folder)))
        progress.say(
            f"{name}: {state.changed:.2%} of the particles changed class, log-likelihood "
            f"{state.log_likelihood.sum():.1f}, {state.radius} shells"
        )
    return state, tuple(names[1:])


def load_iteration(folder: Path, number: int) -> State:
    """Read where an iteration of a results folder ended."""
    group = zarr.open_group(str(folder / f"{iteration_stem(number)}_posteriors.zarr"), mode="r")
    names = ("posteriors", "noise", "log_likelihood")
    arrays = {name: np.asarray(group[name]) for name in names}
    facts: dict[str, Any] = dict(group.attrs)
    return State(
        number=number,
        radius=int(facts["next_radius"]),
        changed=float(facts["changed"]),
        settled=bool(facts["settled"]),
        moved=None if facts["moved"] is None else tuple(facts["moved"]),
        **arrays,
    )


def _iterate(
    common: Common,
    state: State,
    workspace: Path,
    *,
    table: ParticleTable,
    options: IterationOptions,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> None:
    images = common.particles.images
    imaging = Imaging.on(client, images)
    for work in imaging.iteration(
        f"iteration {state.number + 1}",
        radius=state.radius,
        classes=state.posteriors.shape[1],
        written=options.k,
        searched=options.search is not None,
    ):
        results.state(work)
    if isinstance(options.search, Handover) and options.search.everywhere_at(state.number + 1):
        results.state(
            imaging.search_everywhere(
                options.search.everywhere.scan,
                stage=f"iteration {state.number + 1}",
                radius=state.radius,
                maps=state.posteriors.shape[1],
            )
        )
    grid = plan_slices(images.box, radius=state.radius)
    noise = state.noise[: grid.radius + 1]
    support = support_of(options.mask, grid)
    number = state.number + 1
    blocks = common.blocks_for(grid.radius)
    with progress.computing(client, label=f"iteration {number}") as anywhere:
        compute = Placed(anywhere, client)
        sums = add_up(
            blocks,
            state.posteriors,
            grid=grid,
            noise=noise,
            operators=options.operators,
            compute=compute,
        )
        prior = _prior(sums, support, options)
        classes = classes_of(sums, options.tau2_fudge * prior, support=support)
        found = judge(blocks, classes, state.posteriors, noise=noise, compute=compute)
        poses = moved = None
        if options.search is not None:
            poses = options.search.run(
                common,
                (classes.difference, found.posteriors),
                number=number,
                radius=grid.radius,
                operators=options.operators,
                compute=compute,
            )
            moved = moved_by(poses_of(common.particles), poses)
            again = find_consensus(
                at_poses(common.particles, poses),
                operators=options.operators,
                correct_scale=options.correct_scale,
                compute=compute,
            )
            save_consensus(workspace / _next_folder(number), again)
            save_poses(workspace / _next_folder(number), poses)
    before, labels = state.posteriors.argmax(axis=1), found.posteriors.argmax(axis=1)
    changed = float((before != labels).mean())
    reach = min(informative_shell(sums, prior) + _SHELLS_BEYOND, options.most_radius)
    radius = max(state.radius, reach)
    at_rest = moved is None or options.search is None or options.search.at_rest(number, moved)
    whole = state.noise.copy()
    whole[: grid.radius + 1] = found.noise
    after = State(
        number=number,
        posteriors=found.posteriors,
        noise=whole,
        radius=radius,
        changed=changed,
        settled=changed <= _SETTLED and radius == state.radius and at_rest,
        log_likelihood=found.log_likelihood,
        moved=moved,
    )
    stem = iteration_stem(number)
    write = partial(_write_map, _transform_file(common), grid, images.pixel_size_angstrom)
    differences = _inside(classes)
    targets = [
        (workspace / f"{stem}_class{k + 1:03d}.mrc", differences.get(k)) for k in range(options.k)
    ]
    for _ in progress.map(client, write, targets, label="maps", unit="maps"):
        pass
    _write_state(workspace, after)
    spectra = _spectra(common, after, _powers(common, grid, differences, options.k))
    shifts = images.shifts if poses is None else poses.shifts
    facts = _facts(common, after, state.radius, options, shifts=shifts)
    if poses is not None:
        table = posed(table, poses, pixel_size_angstrom=images.pixel_size_angstrom)
    write_iteration(workspace, options.job, table, facts, spectra)


def _prior(sums: ClassSums, support: Support, options: IterationOptions) -> np.ndarray:
    """Return the variance (shell,) of differences, over how much of the noise is in their mask.

    What a voxel of the transform has of noise counts for less by as much as the mask that is asked
    for is smaller than the particle.
    """
    if not options.focused:
        return next_prior(sums)
    grid = sums.grid
    diameter = options.particle_diameter_angstrom / options.pixel_size_angstrom
    whole = support_of(sphere(grid.box, diameter=diameter), grid)
    return next_prior(sums, focus=support) * max(1.0, whole.share / support.share)


def _next_folder(number: int) -> str:
    """Return where an iteration leaves the consensus at the poses that it found."""
    return f"{iteration_stem(number)}_consensus"


def _write_state(workspace: Path, state: State) -> None:
    path = workspace / f"{iteration_stem(state.number)}_posteriors.zarr"
    group = zarr.create_group(str(path))
    rows = min(len(state.posteriors), 65536)
    group.create_array(
        "posteriors",
        data=state.posteriors,
        chunks=(rows, state.posteriors.shape[1]),
        dimension_names=("particle", "class"),
    )
    group.create_array(
        "log_likelihood",
        data=state.log_likelihood,
        chunks=(rows,),
        dimension_names=("particle",),
    )
    group.create_array("noise", data=state.noise, dimension_names=("shell",))
    group.attrs.update(
        {
            "next_radius": state.radius,
            "changed": state.changed,
            "settled": state.settled,
            "moved": state.moved,
        }
    )


def _inside(classes: Classes) -> dict[int, np.ndarray]:
    """Return the differences (voxel,) of classes from the consensus, up to the radius."""
    within = classes.grid.voxel_radius <= classes.grid.radius
    return {k: np.where(within, each, 0) for k, each in enumerate(classes.difference.T)}


def _transform_file(common: Common) -> str:
    if common.consensus is None:
        raise ValueError("what images have in common was not stored")
    return common.consensus.path


def _write_map(
    path: str, grid: SliceGrid, voxel_size: float, target: tuple[Path, np.ndarray | None]
) -> None:
    """Write the map of the consensus and what is added to it; an empty class is the consensus."""
    name, difference = target
    full, whole = plan_slices(grid.box), np.load(path)
    if difference is not None:
        part_of(whole, full, grid)[...] += difference.reshape(grid.shape)
    write_map(name, map_of(whole, full), voxel_size_angstrom=voxel_size)


def _powers(
    common: Common, grid: SliceGrid, differences: dict[int, np.ndarray], count: int
) -> np.ndarray:
    """Return the mean power (class, shell) of whole maps."""
    full = plan_slices(grid.box)
    found = np.repeat(common.power[None], count, axis=0)
    mean = part_of(common.transform, full, grid).reshape(-1)
    for k, difference in differences.items():
        power = np.square(np.abs(mean + difference))
        found[k, : grid.radius + 1] = shell_mean(power, grid)
    return found


def _spectra(common: Common, state: State, power: np.ndarray) -> ClassSpectra:
    # RELION divides transforms of images by their number of pixels, and counts real and imaginary
    # parts apart. Padding spreads the weight of a voxel of the map over padding³ of its transform.
    box = common.particles.images.box
    scale = 0.5 / box**4
    shares = _shares(state, len(power))
    weight = plan_slices(box).padding ** 3 * common.mean_weight * shares[:, None]
    sigma2 = state.noise / np.maximum(weight, 1e-30)
    empty = (shares == 0)[:, None]
    return ClassSpectra(
        tau2=np.where(empty, 0.0, power * scale),
        sigma2=np.where(empty, 0.0, sigma2 * scale),
        noise=np.square(common.noise) * state.noise * scale,
    )


def _shares(state: State, count: int) -> np.ndarray:
    found = np.zeros(count)
    found[: state.posteriors.shape[1]] = state.posteriors.mean(axis=0, dtype=np.float64)
    return found


def _facts(
    common: Common, state: State, radius: int, options: IterationOptions, *, shifts: np.ndarray
) -> IterationFacts:
    particles = common.particles
    images = particles.images
    ordered = -np.sort(-state.posteriors.astype(np.float64), axis=1)
    significant = (np.cumsum(ordered, axis=1) < _SIGNIFICANT).sum(axis=1) + 1
    return IterationFacts(
        number=state.number,
        box=images.box,
        pixel_size_angstrom=images.pixel_size_angstrom,
        radius=radius,
        shares=_shares(state, options.k),
        log_likelihood=state.log_likelihood,
        labels=state.posteriors.argmax(axis=1) + 1,
        pmax=state.posteriors.max(axis=1),
        significant=np.minimum(significant, state.posteriors.shape[1]),
        changed=state.changed,
        tau2_fudge=options.tau2_fudge,
        particle_diameter_angstrom=options.particle_diameter_angstrom,
        n_planned=state.number if state.settled else options.iterations,
        seed=options.seed,
        zero_mask=options.zero_mask,
        sigma_offset_angstrom=images.pixel_size_angstrom
        * float(np.sqrt(np.mean(np.square(shifts)))),
        groups=particles.names,
        group=particles.groups + 1,
        scale=particles.scale,
        symmetry=options.symmetry,
        ctf_corrected=images.ctf is not None,
        intact_first_peak=particles.intact_first_peak,
        scale_corrected=options.correct_scale,
        moved=state.moved and (state.moved[0], state.moved[1] * images.pixel_size_angstrom),
    )
