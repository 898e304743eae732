"""``emhet class3d run``: classify particle images at given poses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.analysis.global_search import Scan
from emhet_dask.analysis.local_search import SearchRange
from emhet_dask.analysis.support import sphere
from emhet_dask.analysis.symmetry import symmetry_operators
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.particle_images import ParticleImages, open_images
from emhet_dask.formats.star import read_particles
from emhet_dask.options import command
from emhet_dask.options.class3d_run import Class3DRun
from emhet_dask.runtime import fingerprint_file
from emhet_dask.urls import Place
from emhet_dask.workflows.stages.class_run_blocks import Particles
from emhet_dask.workflows.stages.class_run_global import GlobalSearch, Handover, global_stage
from emhet_dask.workflows.stages.class_run_images import (
    Filling,
    consensus_stage,
    group_images,
    images_stage,
)
from emhet_dask.workflows.stages.class_run_iterations import (
    IterationOptions,
    State,
    iteration_stages,
)
from emhet_dask.workflows.stages.class_run_page import run_report_stage
from emhet_dask.workflows.stages.class_run_poses import Search, poses_of, poses_stage
from emhet_dask.workflows.stages.class_run_start import Reference, read_references, start_stage
from emhet_dask.workflows.stages.class_run_subtract import subtracted_stage
from emhet_dask.workflows.stages.class_summary_jobs import open_jobs
from emhet_dask.workflows.stages.class_summary_tables import SummaryTables, tables_stage
from emhet_dask.workflows.stages.opening import opened

__all__ = ["ClassificationRun", "class3d_run"]

_START_SHELLS = 6
_DIAMETER_OF_BOX = 0.9
_FEWEST_PARTICLES = 100


@dataclass(frozen=True, eq=False)
class ClassificationRun:
    """What a classification found, as its folder holds it.

    Attributes
    ----------
    folder : Path or UrlPlace
    posteriors : ndarray of float32 (particle, class)
        Of the classes in use.
    n_supported : int or None
        Classes that the images speak for; None where references were given.
    settled : bool
        False where particles still changed class when the iterations were over.
    tables : SummaryTables
    headline : str
    """

    folder: Place
    posteriors: np.ndarray
    n_supported: int | None
    settled: bool
    tables: SummaryTables
    headline: str

    @property
    def labels(self) -> np.ndarray:
        """Return the class (particle,) of each particle, from 1."""
        return self.posteriors.argmax(axis=1) + 1

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.headline}\nSee {self.folder / 'report.html'}"


@command(Class3DRun)
def class3d_run(options: Class3DRun) -> ClassificationRun:
    """Classify particle images at given poses by maximum likelihood.

    The folder is a RELION job: ``run_itNNN_data.star``, ``_model.star``, ``_optimiser.star``,
    ``_class001.mrc``, … of every iteration, with ``run_itNNN_posteriors.zarr``, the probabilities
    of all classes. ``consensus.mrc`` is the map of all particles, ``n_classes.csv`` how likely
    images that were not seen are with 1, 2, … classes; ``classes.csv``, ``convergence.csv`` and
    ``ssnr.csv`` are as of ``class3d summary``. A run that was stopped goes on after its last
    finished iteration, and more iterations can be asked for.

    Returns
    -------
    ClassificationRun

    Raises
    ------
    InputError
        When particles have no poses, CTFs or optics, stacks are missing, shorter or of other sizes,
        references or mask do not fit, or the output holds results of other particles.
    """
    table = read_particles(options.particles)
    images = open_images(table, root=options.root, with_ctf=not options.no_ctf)
    if len(images) < _FEWEST_PARTICLES:
        raise InputError(
            f"{options.particles}: has {len(images)} particles, expected at least "
            f"{_FEWEST_PARTICLES}"
        )
    extent = images.box * images.pixel_size_angstrom
    references = read_references(
        options.ref or (), box=images.box, pixel_size=images.pixel_size_angstrom
    )
    if len(references) > 1 and options.k not in (4, len(references)):
        raise InputError(
            f"--k: {options.k} classes, but {len(references)} maps with --ref; expected one, or as "
            "many as classes"
        )
    diameter = options.particle_diameter or _DIAMETER_OF_BOX * extent
    if diameter > extent:
        raise InputError(
            f"--particle-diameter: {diameter:g} Å, but the images are {extent:g} Å wide"
        )
    _refuse_together(options, len(references))
    mask = _mask(options.mask, images, diameter)
    operators = symmetry_operators(options.symmetry)
    names, groups = group_images(table, images, options.groups)
    first, most = _radii(options, images)
    with opened(
        options,
        options.output,
        command="class3d run",
        inputs={
            "particles": fingerprint_file(options.particles),
            "stacks": {stack.path: fingerprint_file(stack.path) for stack in images.stacks},
        },
        recorded=(
            "particles",
            "k",
            "ref",
            "iterations",
            "tau2_fudge",
            "particle_diameter",
            "zero_mask",
            "noise_mask",
            "mask",
            "subtract",
            "symmetry",
            "no_ctf",
            "ctf_intact_first_peak",
            "firstiter_cc",
            "groups",
            "scale",
            "local_search",
            "global_search",
            "offset_range",
            "ini_high",
            "limit_resolution",
            "components",
            "restarts",
            "seed",
        ),
    ) as (results, client, progress):
        where: dict[str, Any] = {"results": results, "client": client, "progress": progress}
        filling = None
        if options.zero_mask or options.noise_mask:
            filling = Filling(
                diameter / images.pixel_size_angstrom, options.noise_mask, options.seed
            )
        path, key = images_stage(images, filling=filling, **where)
        particles = Particles(
            path=str(path),
            key=key,
            images=images,
            centred=images.shifts,
            groups=groups,
            names=names,
            scale=np.ones(len(names)),
            intact_first_peak=options.ctf_intact_first_peak,
        )
        imaging: dict[str, Any] = {
            "operators": operators,
            "correct_scale": options.scale,
            "parameters": options.parameters(
                "symmetry", "no_ctf", "ctf_intact_first_peak", "groups", "scale"
            ),
        }
        transforms, whole = "images", None
        if options.subtract and options.mask is not None:
            whole = consensus_stage(particles, name="whole", **imaging, **where)
            mask_key = str(fingerprint_file(options.mask))
            particles = subtracted_stage(whole, mask, mask_key=mask_key, **where)
            transforms = "subtracted"
        search, particles, transforms = _search(
            options,
            particles,
            references,
            transforms=transforms,
            shells=(first, most),
            diameter=diameter / images.pixel_size_angstrom,
            imaging=imaging,
            where=where,
        )
        common = consensus_stage(particles, after=transforms, **imaging, **where)
        if whole is not None:
            common = replace(common, whole=whole.transform)
        start = start_stage(
            common,
            k=options.k,
            references=references,
            radius=first,
            mask=None if options.mask is None else mask,
            operators=operators,
            parameters={
                **options.parameters("components", "restarts", "seed", "firstiter_cc"),
                "mask": options.mask and fingerprint_file(options.mask),
            },
            **where,
        )
        used = start.posteriors.shape[1]
        count = used if options.k == "auto" or len(references) > 1 else int(options.k)
        state = State(
            number=0,
            posteriors=start.posteriors,
            noise=np.ones(images.box // 2 + 1),
            radius=first,
            changed=1.0,
            settled=False,
            log_likelihood=np.zeros(len(images)),
        )
        state, stages = iteration_stages(
            common,
            state,
            table,
            IterationOptions(
                k=count,
                iterations=options.iterations,
                tau2_fudge=options.tau2_fudge,
                mask=mask,
                most_radius=most,
                parameters={
                    **options.parameters("tau2_fudge"),
                    "diameter": diameter,
                    "mask": options.mask and fingerprint_file(options.mask),
                    "most_radius": most,
                },
                particle_diameter_angstrom=diameter,
                pixel_size_angstrom=images.pixel_size_angstrom,
                zero_mask=options.zero_mask,
                symmetry=options.symmetry.upper(),
                operators=operators,
                correct_scale=options.scale,
                focused=options.mask is not None,
                seed=options.seed,
                job=_job_name(options.output),
                search=search,
            ),
            **where,
        )
        (job,) = open_jobs([str(results.path())])
        place = results.place.absolute()
        job = replace(job, name=place.name, place=str(place))
        tables = tables_stage([job], collapsed_share=None, **where)
        headline = run_report_stage(
            tables, start, state, asked=options.k, stages=stages, results=results, progress=progress
        )
    return ClassificationRun(
        results.place, state.posteriors, start.n_supported, state.settled, tables, headline
    )


def _search(
    options: Class3DRun,
    particles: Particles,
    references: list[Reference],
    *,
    transforms: str,
    shells: tuple[int, int],
    diameter: float,
    imaging: dict[str, Any],
    where: dict[str, Any],
) -> tuple[Search | Handover | None, Particles, str]:
    """Return how iterations search poses, particles at those found first, and the last stage."""
    first, most = shells
    if options.global_search is not None:
        scan = Scan(options.global_search, options.offset_range, imaging["operators"])
        everywhere = GlobalSearch(particles, references, scan, diameter)
        posed = global_stage(
            everywhere, radius=first, most_radius=most, parameters=imaging["parameters"], **where
        )
        reach = SearchRange(options.local_search or options.global_search, options.offset_range)
        return Handover(everywhere, Search(None, reach)), posed, "global poses"
    if options.local_search is not None:
        reach = SearchRange(options.local_search, options.offset_range)
        search = Search(poses_of(particles), reach)
        posed = poses_stage(
            particles, search, radius=first, most_radius=most, imaging=imaging, **where
        )
        return search, posed, "poses"
    return None, particles, transforms


def _refuse_together(options: Class3DRun, n_references: int) -> None:
    """Refuse options that contradict each other, or have no effect."""
    if options.zero_mask and options.noise_mask:
        raise InputError("--zero-mask and --noise-mask: expected one of them")
    if options.subtract and options.mask is None:
        raise InputError("--subtract: expected --mask, around what is to be left")
    if options.no_ctf and options.ctf_intact_first_peak:
        raise InputError("--no-ctf and --ctf-intact-first-peak: expected one of them")
    if options.subtract and options.local_search is not None:
        raise InputError(
            "--subtract and --local-search: expected one of them; what is subtracted depends on "
            "the poses, so search first, and subtract in a run on what that wrote"
        )
    if options.subtract and options.global_search is not None:
        raise InputError(
            "--subtract and --global-search: expected one of them; search first, and subtract in a "
            "run on what that wrote"
        )
    if options.global_search is not None and not n_references:
        raise InputError("--global-search: expected --ref, one or more maps to begin with")
    if options.firstiter_cc and n_references < 2:
        raise InputError(
            f"--firstiter-cc: expected a map per class with --ref, got {n_references or 'none'}"
        )


def _radii(options: Class3DRun, images: ParticleImages) -> tuple[int, int]:
    """Return the shells that are compared first, and at most."""
    extent = images.box * images.pixel_size_angstrom
    most = images.box // 2
    if options.limit_resolution is not None:
        most = min(most, int(extent / options.limit_resolution))
        if most < 1:
            raise InputError(
                f"--limit-resolution: {options.limit_resolution:g} Å is more than the images are "
                f"wide, {extent:g} Å"
            )
    first = _START_SHELLS if options.ini_high is None else round(extent / options.ini_high)
    if first < 1:
        raise InputError(
            f"--ini-high: {options.ini_high:g} Å is more than the images are wide, {extent:g} Å"
        )
    return min(first, most), most


def _mask(path: str | None, images: ParticleImages, diameter: float) -> np.ndarray:
    ball = sphere(images.box, diameter=diameter / images.pixel_size_angstrom)
    if path is None:
        return ball
    header = read_header(path)
    if header.shape != (images.box,) * 3:
        shape = " × ".join(map(str, header.shape))
        raise InputError(
            f"--mask: {path} has {shape} voxels, expected {images.box} a side, as the images"
        )
    values = read_volume(header)
    if values.min() < -0.01 or values.max() > 1.01 or values.max() <= 0:
        raise InputError(
            f"--mask: {path} has values from {values.min():.3g} to {values.max():.3g}, expected 0 "
            "to 1"
        )
    return np.clip(values, 0.0, 1.0)


def _job_name(output: str) -> str:
    """Return what RELION calls a job: its folder, with the kind of job before it."""
    path = Path(output).absolute()
    return f"{path.parent.name}/{path.name}" if path.parent.name == "Class3D" else path.name
