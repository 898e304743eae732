"""``emhet reconstruct``: half maps of each state, from particle images."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from emhet_dask.options import command
from emhet_dask.options.reconstruct import Reconstruct
from emhet_dask.urls import Place
from emhet_dask.workflows.stages.opening import opened
from emhet_dask.workflows.stages.reconstruct_fsc import HalfMapTables, fsc_stage, read_mask
from emhet_dask.workflows.stages.reconstruct_maps import Reconstruction, map_stages
from emhet_dask.workflows.stages.reconstruct_page import reconstruct_report_stage
from emhet_dask.workflows.stages.reconstruct_states import open_states

__all__ = ["Reconstructed", "reconstruct"]


@dataclass(frozen=True)
class Reconstructed:
    """Half maps of states, as their folder holds them.

    Attributes
    ----------
    folder : Path or UrlPlace
    tables : HalfMapTables
        ``fsc`` and ``states``.
    notes : tuple of str
    """

    folder: Place
    tables: HalfMapTables
    notes: tuple[str, ...]

    @property
    def states(self) -> pd.DataFrame:
        """Return ``states.csv``: a row per state, with its resolution."""
        return self.tables.states

    @property
    def fsc(self) -> pd.DataFrame:
        """Return ``fsc.csv``: a row per state and Fourier shell."""
        return self.tables.fsc

    def describe(self) -> str:
        """Return it in words."""
        lines = [
            f"state {row.state}: {row.particles:,} particles, {row.resolution_A:.1f} Å "
            f"(without mask {row.resolution_unmasked_A:.1f} Å)"
            for row in self.states.itertuples()
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, f"Report: {self.folder / 'report.html'}"])


@command(Reconstruct)
def reconstruct(options: Reconstruct) -> Reconstructed:
    """Reconstruct each state from its particle images, as two halves that confirm it or do not.

    Images are weighted by their CTF and added up in Fourier space at their poses, half by half;
    maps are solved from the sums as ``relion_reconstruct --ctf`` does, whose maps they equal.
    Halves are those of ``rlnRandomSubset``, or random. ``state_000_half1.mrc``,
    ``state_000_half2.mrc`` and ``state_000.mrc`` (of all its particles) are unfiltered;
    ``state_000_post.mrc`` is weighted by the FSC, cut at its resolution and sharpened where asked
    for. ``fsc.csv`` has the FSC of each state, without mask, masked, with random phases and
    corrected (Chen et al. 2013), ``states.csv`` the resolutions at 0.143, and
    ``state_000_particles.star`` the particles with their optics.

    Maps of a state that are finished stay where a run is continued; another mask or B-factor does
    without them being made again.

    Returns
    -------
    Reconstructed

    Raises
    ------
    InputError
        When the particles have no poses, CTFs, optics or pixel size, a stack is missing, shorter
        than the STAR file says or of another size, the labels are not of these particles, a state
        has too few, or the output holds results of other settings.
    """
    particles = open_states(options)
    sampling, operators = Reconstruction.plan(options, particles)
    mask = read_mask(
        options.mask, box=sampling.maps.box, voxel_size_angstrom=sampling.voxel_size_angstrom
    )
    with opened(
        options,
        options.output,
        command="reconstruct",
        inputs=particles.inputs(),
        recorded=(
            "labels",
            "clusters",
            "states",
            "mask",
            "symmetry",
            "box",
            "max_resolution",
            "b_factor",
            "gridding_iterations",
            "no_ctf",
            "ctf_intact_first_peak",
            "seed",
        ),
    ) as (results, client, progress):
        run = Reconstruction(options, particles, sampling, operators, results, client, progress)
        stages = map_stages(run)
        tables = fsc_stage(run, mask, after=stages)
        reconstruct_report_stage(run, tables, after=[*stages, "fsc"])
    return Reconstructed(results.place, tables, particles.notes)
