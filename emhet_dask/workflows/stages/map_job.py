"""What every stage of ``emhet map`` needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from distributed import Client

from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.decoding_costs import Network, scores_work
from emhet_dask.workflows.stages.map_landscape import Sketch

if TYPE_CHECKING:
    from emhet_dask.decoders import DecoderModel

__all__ = ["MapJob"]


@dataclass(frozen=True)
class MapJob:
    """Particles on their way to a landscape.

    Attributes
    ----------
    sketch : Sketch
        The landscape of some volumes.
    latents : ndarray of float32 (particle, latent_dim)
        Of all particles.
    model : DecoderModel
        Gives the volumes of the landscape at their latents.
    fourier : bool
        Whether volumes are read out in Fourier space.
    results : ResultsFolder
    client : distributed.Client
    progress : Progress
    network : Network
        What of the model plans depend on.
    """

    sketch: Sketch
    latents: np.ndarray
    model: DecoderModel
    fourier: bool
    results: ResultsFolder
    client: Client
    progress: Progress
    network: Network

    @property
    def n_particles(self) -> int:
        """Return the number of particles."""
        return len(self.latents)

    @property
    def n_components(self) -> int:
        """Return the number of components."""
        return int(self.sketch.scores.shape[1])

    def state_decoding(self, stage: str, *, particles: int, tasks: int) -> None:
        """State what it takes to decode so many particles and to project them on the components."""
        work = scores_work(
            stage=stage,
            box=self.sketch.ensemble.box,
            n_components=self.n_components,
            network=self.network,
            particles=particles,
            tasks=tasks,
        )
        self.results.state(work)

    def group(self, name: str) -> Path:
        """Return the path of a finished group of ``results.zarr``."""
        return self.results.path("results.zarr") / name
