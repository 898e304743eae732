"""``emhet map``: every particle of a cryoDRGN run on the landscape of some of its volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError, need
from emhet_dask.formats.cryodrgn_run import CryodrgnRun
from emhet_dask.options import command
from emhet_dask.options.map import Map
from emhet_dask.runtime import fingerprint_values
from emhet_dask.urls import UrlPlace, place_of
from emhet_dask.workflows.stages.decoding_costs import Network
from emhet_dask.workflows.stages.energy import EnergyOptions, Points, energy_stage
from emhet_dask.workflows.stages.energy_path import Render, path_stage
from emhet_dask.workflows.stages.energy_pictures import energy_pictures_stage, energy_sections
from emhet_dask.workflows.stages.map_job import MapJob
from emhet_dask.workflows.stages.map_landscape import Sketch
from emhet_dask.workflows.stages.map_read_outs import check_stage, fits_fourier, read_outs_stage
from emhet_dask.workflows.stages.map_report import MapFindings, report_stage
from emhet_dask.workflows.stages.map_scores import Mapped, scores_stage
from emhet_dask.workflows.stages.map_states import (
    ParticleStates,
    assignment_stage,
    open_particles,
    particles_stage,
)

if TYPE_CHECKING:
    from emhet_dask.decoders import DecoderModel
from emhet_dask.workflows.stages.opening import opened

__all__ = ["MappedParticles", "map"]

_PROGRAM = "cryodrgn"
_RECORDED = (
    "epoch",
    "sample",
    "full_decode",
    "flip",
    "ind",
    "particles",
    "seed",
    "axes",
    "density",
    "bins",
    "min_depth",
    "n_bootstrap",
    "path",
    "path_maps",
)


@dataclass(frozen=True)
class MappedParticles:
    """Particles on a landscape, as the folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    facts : dict
        As in ``map.json``.
    sentence : str
        What the landscape of the particles shows.
    """

    folder: Path | UrlPlace
    facts: dict[str, Any]
    sentence: str

    @property
    def scores(self) -> np.ndarray:
        """Return the scores (particle, component)."""
        return np.asarray(self.group("scores")["particle_scores"].values)

    @property
    def states(self) -> np.ndarray:
        """Return the state (particle,) of each particle, from 0."""
        return np.asarray(self.group("particles")["particle_state"].values)

    def group(self, name: str) -> xr.Dataset:
        """Return a group of ``results.zarr``: scores, particles, read_outs or energy."""
        return load_group(self.folder / "results.zarr" / name)

    def describe(self) -> str:
        """Return it in words."""
        lines = [f"{self.facts['headline']}. {self.sentence}"]
        regression = self.facts["error"]["regression"]
        if regression is not None:
            first = ", ".join(f"PC{number} {error:.2%}" for number, error in
                              enumerate(regression[:3], start=1))  # fmt: skip
            lines.append(f"predicted with an error of {first} of the standard deviation")
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Map)
def map(options: Map) -> MappedParticles:  # noqa: A001 - the word of the command
    """Place every particle of a cryoDRGN run on the landscape of some of its volumes.

    Volumes are decoded on the workers, projected on the components of the landscape, and not kept.
    With `sample`, so many are decoded, and the scores of the rest are predicted from their latents.
    The same call again goes on where it was killed.

    Returns
    -------
    MappedParticles

    Raises
    ------
    InputError
        When the folders are not what they should be or do not belong together, cryoDRGN is not
        installed, or the output holds results of other settings.
    """
    sketch = Sketch.open(options.landscape)
    run = CryodrgnRun.open(options.workdir, options.epoch)  # type: ignore[arg-type]
    sketch.refuse_other_run(run)
    energy_options = EnergyOptions.of(options, seed=options.seed)
    energy_options.refuse_early(sketch.scores.shape[1])
    index = run.particle_index(options.ind)
    known = sketch.ensemble.dataset.attrs.get("particle_file")
    named = options.particles if options.particles is not None else known
    file = open_particles(named, index, said=options.particles is not None)
    if place_of(options.output).absolute() == sketch.folder:
        raise InputError(f"-o: {options.output} is the landscape itself; choose another -o")
    model = _decoder(run, sketch, options)
    with opened(
        options,
        options.output,
        command="map",
        inputs={
            "workdir": str(run.workdir),
            "weights": run.weights_sha256,
            "latents": fingerprint_values(run.latents),
            "landscape": str(sketch.folder),
            "components": sketch.keys["pca"],
        },
        recorded=_RECORDED,
    ) as (results, client, progress):
        fourier = fits_fourier(sketch) and not options.full_decode
        job = MapJob(
            sketch,
            run.latents,
            model,
            fourier,
            results,
            client,
            progress,
            network=Network.of(run.model_config, run.weights_path.stat().st_size),
        )
        placing = read_outs_stage(job)
        check = check_stage(job, placing, seed=options.seed, flip=sketch.flip(asked=options.flip))
        mapped = scores_stage(job, placing, sample=options.sample, seed=options.seed)
        states = assignment_stage(
            job,
            mapped,
            index=index,
            particle_file=None if file is None else str(file.path.absolute()),
        )
        particles_stage(job, mapped, states, file)
        return _finish(job, mapped, states, check, energy_options)


def _finish(
    job: MapJob,
    mapped: Mapped,
    states: ParticleStates,
    check: dict[str, Any],
    options: EnergyOptions,
) -> MappedParticles:
    """Draw the landscape of the particles, and write the report."""
    sketch = job.sketch
    points = Points(
        scores=mapped.scores,
        ratios=sketch.ratios,
        states=states.state,
        sketch=sketch.table(),
        noun="particle",
        title=job.results.place.absolute().name,
    )
    energy = energy_stage(job.results, points, options, after=("assignment",))
    render = Render(
        latents=job.latents,
        volumes=lambda latents: job.model.load().volumes(latents),
        voxel_size_angstrom=sketch.ensemble.voxel_size_angstrom,
        origin_angstrom=sketch.ensemble.origin_angstrom,
    )
    path = path_stage(job.results, job.progress, energy, render=render)
    energy_pictures_stage(job.results, energy, path)
    after = ("particles", "energy pictures") if path is None else (
        "particles", "path", "energy pictures")  # fmt: skip
    found = MapFindings(
        mapped, states, check, energy_sections(job.results.path(), energy, path), energy.sentence()
    )
    facts = report_stage(job, found, after=after)
    return MappedParticles(job.results.place, facts, energy.sentence())


def _decoder(run: CryodrgnRun, sketch: Sketch, options: Map) -> DecoderModel:
    """Return what workers load."""
    need("torch", extra=_PROGRAM, purpose="emhet map")
    need(_PROGRAM, extra=_PROGRAM, purpose="emhet map")
    from emhet_dask.decoders import CryodrgnModel  # noqa: PLC0415 - on demand, like torch

    return CryodrgnModel(
        config=run.model_config,
        weights=str(run.weights_path),
        weights_sha256=run.weights_sha256,
        box=sketch.ensemble.box,
        flip=sketch.flip(asked=options.flip),
        device=options.device,
    )
