"""The stage ``report`` of ``emhet reconstruct``: figures and page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.report.fsc_curves import fsc_figure, fsc_sheet
from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.palette import state_colour
from emhet_dask.report.sheets import slice_sheet
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.workflows.stages.provenance import provenance
from emhet_dask.workflows.stages.reconstruct_fsc import HalfMapTables
from emhet_dask.workflows.stages.reconstruct_maps import Reconstruction

__all__ = ["reconstruct_report_stage"]

_MOST_MAPS = 30
_CAPTIONS = {
    "fsc.png": (
        "Two halves of the particles of each state, reconstructed apart from each other, agree to "
        "the resolution at which the curve falls below 0.143."
    ),
    "fsc_states.png": (
        "What the mask adds shows in the curve with random phases: where the masked one is no "
        "higher, there is no signal. Curves that rise again at the end, or never fall, tell of "
        "particles in both halves, or of noise that was fitted."
    ),
    "maps.png": "Three orthogonal slices of each post-processed map, on one grey scale.",
}


def reconstruct_report_stage(
    run: Reconstruction, tables: HalfMapTables, *, after: list[str]
) -> None:
    """Run the stage, or find it done.

    Parameters
    ----------
    run : Reconstruction
    tables : HalfMapTables
    after : list of str
        Stages that it shows.
    """

    def build(workspace: Path) -> None:
        draw: dict[str, Callable[[], Figure]] = {
            "fsc.png": partial(fsc_figure, tables.fsc, tables.states),
            "fsc_states.png": partial(fsc_sheet, tables.fsc, tables.states),
            "maps.png": partial(_sheet, run, tables.states),
        }
        with run.progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, workspace, done=partial(task.update, 1))
        _write_page(workspace, run, tables, list(draw))

    run.results.stage("report", parameters={}, after=after, build=build, replaceable=True)


def _sheet(run: Reconstruction, states: pd.DataFrame) -> Figure:
    shown = states.head(_MOST_MAPS)
    maps = [
        read_volume(read_header(run.results.path(f"{name}_post.mrc"))) for name in shown["name"]
    ]
    highest = np.maximum.reduce(maps)
    limit = 0.5 * float(np.percentile(highest, 99.9))
    return slice_sheet(
        maps,
        titles=[f"state {row.state} · {row.resolution_A:.1f} Å" for row in shown.itertuples()],
        colours=[state_colour(int(number)) for number in shown["state"]],
        voxel_size_angstrom=run.sampling.voxel_size_angstrom,
        mask=(highest > limit).astype(np.float32) if limit > 0 else None,
        title="Post-processed maps",
    )


def _write_page(
    folder: Path, run: Reconstruction, tables: HalfMapTables, pictures: list[str]
) -> None:
    states, particles = tables.states, run.particles
    finest, coarsest = states["resolution_A"].min(), states["resolution_A"].max()
    span = f"{finest:.1f} Å" if len(states) == 1 else f"{finest:.1f} to {coarsest:.1f} Å"
    headline = (
        f"{counted(len(states), 'state')} of {counted(states['particles'].sum(), 'particle')}: "
        f"half maps agree to {span}"
    )
    table = pd.DataFrame(
        {
            "State": states["state"],
            "Particles": states["particles"],
            "Resolution, Å": states["resolution_A"].round(2),
            "Masked alone, Å": states["resolution_masked_A"].round(2),
            "Without mask, Å": states["resolution_unmasked_A"].round(2),
            "B-factor, Å²": states["b_factor_A2"],
            "Map": states["name"] + "_post.mrc",
        }
    )
    shown = {name: Picture(folder / name, _CAPTIONS[name]) for name in pictures}
    write_report(
        folder / "report.html",
        title=Path(particles.table.path).name,
        headline=headline,
        summary=[
            ("Images", f"{particles.images.box}² of {particles.images.pixel_size_angstrom:.4g} Å"),
            ("Maps", f"{run.sampling.maps.box}³ of {run.sampling.voxel_size_angstrom:.4g} Å"),
            ("Symmetry", run.options.symmetry),
            ("Mask", run.options.mask),
        ],
        warnings=[Remark(f"{note}.", serious=False) for note in particles.notes],
        sections=[
            Section("States", _about(run), [shown["fsc.png"]], table),
            Section("Maps", "", [shown["maps.png"]]),
            Section("What the mask adds", "", [shown["fsc_states.png"]]),
        ],
        provenance=provenance(run.results.path()),
    )


def _about(run: Reconstruction) -> str:
    nyquist = 2 * run.sampling.voxel_size_angstrom
    return (
        "Resolution is that of the FSC of the half maps inside the mask, corrected for the mask, "
        f"at 0.143; Nyquist is {nyquist:.3g} Å. The half maps are state_000_half1.mrc and "
        "state_000_half2.mrc, and so on, state_000.mrc is the map of both, unfiltered, and "
        "state_000_post.mrc the one to look at: weighted by the FSC and cut at its resolution."
    )
