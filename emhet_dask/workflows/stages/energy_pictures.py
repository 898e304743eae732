"""The stage ``energy pictures``: figures, the page, and the part of the report about it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from emhet_dask.report.energy_figures import (
    EnergyPlane,
    energy_errors,
    energy_landscape,
    energy_profile,
)
from emhet_dask.report.energy_page import MOST_POINTS, PageContents, write_energy_page
from emhet_dask.report.html import Picture, Section
from emhet_dask.report.scatter import component_label
from emhet_dask.report.style import save
from emhet_dask.runtime import ResultsFolder
from emhet_dask.workflows.stages.energy import Energy
from emhet_dask.workflows.stages.energy_path import WrittenPath

__all__ = ["energy_pictures_stage", "energy_sections"]

_MOST_ROWS = 12


def energy_pictures_stage(results: ResultsFolder, energy: Energy, path: WrittenPath | None) -> None:
    """Run the stage, or find it done.

    It writes ``landscape.png``, ``landscape.html``, ``figures/landscape_error.png`` and, where
    there is a path, ``figures/landscape_path.png``.

    Parameters
    ----------
    results : ResultsFolder
        With the stages ``energy`` and, if there is a path, ``path`` finished.
    energy : Energy
    path : WrittenPath or None
    """

    def build(workspace: Path) -> None:
        (workspace / "figures").mkdir()
        _draw(energy, path, workspace)
        _write_page(energy, path, workspace / "landscape.html", results.place.absolute().name)

    results.stage(
        "energy pictures",
        parameters={"title": energy.points.title, "path": path is not None},
        after=("energy",) if path is None else ("energy", "path"),
        build=build,
        replaceable=True,
    )


def energy_sections(folder: Path, energy: Energy, path: WrittenPath | None) -> list[Section]:
    """Return the part of a report about the landscape.

    Parameters
    ----------
    folder : Path
        Of the results.
    energy : Energy
    path : WrittenPath or None

    Returns
    -------
    list of Section
    """
    noun = energy.points.noun
    names = " and ".join(f"PC{axis}" for axis in energy.options.axes)
    about = (
        f"{energy.sentence()}. The density of {noun}s over {names}, as -ln(p / p_max). It is like "
        "a free energy, not one: which particles were selected and how the decoder spreads them "
        "change it. Errors are of the bootstrap; a basin is deeper than three times its own and "
        f"{energy.options.min_depth:g} kT.\n\n"
        "landscape.html is the same to hover over and to draw a region in, for "
        f"`emhet select --region`; `emhet select --basin` writes the {noun}s of a basin."
    )
    pictures = [
        Picture(
            folder / "landscape.png",
            "Contours of the free energy, with basins, saddle points and the lowest path.",
        ),
        Picture(folder / "figures" / "landscape_error.png", "Its bootstrap standard error."),
    ]
    sections = [Section("Landscape", about, pictures, _basins_table(energy))]
    if path is not None:
        maps = (
            f" Maps of {noun}s along it are in {path.folder.relative_to(folder).as_posix()}/; "
            "open.cxc plays them in ChimeraX."
            if (path.folder / "open.cxc").is_file()
            else ""
        )
        picture = Picture(folder / "figures" / "landscape_path.png", "Free energy along the path.")
        text = (
            f"From {path.ends[0]} to {path.ends[1]}, the path whose highest point is lowest.{maps}"
        )
        sections.append(Section("Lowest path", text, [picture]))
    return sections


def _basins_table(energy: Energy) -> pd.DataFrame:
    """Return the basins with the most points, for reading."""
    table = energy.basin_table.head(_MOST_ROWS)
    return pd.DataFrame(
        {
            "Basin": table["basin"],
            f"{energy.points.counted.capitalize()}s": table[f"{energy.points.counted}s"].map(
                "{:,.0f}".format
            ),
            "Share": table["share"].map("{:.1%}".format),
            **{name.upper(): table[name].map("{:.4g}".format) for name in energy.options.names},
            "Minimum (kT)": _with_error(table, "free_energy_kT", "error_kT"),
            "Depth (kT)": _with_error(table, "depth_kT", "depth_error_kT"),
        }
    )


def _with_error(table: pd.DataFrame, value: str, error: str) -> list[str]:
    return [
        "the deepest" if np.isnan(one) else f"{one:.2f} ± {two:.2f}"
        for one, two in zip(table[value], table[error], strict=True)
    ]


def _planes(energy: Energy) -> list[EnergyPlane]:
    """Return the landscape over each pair of its axes, lowest along the third."""
    landscape = energy.landscape
    found = []
    for pair in itertools.combinations(range(len(energy.options.axes)), 2):
        hidden = [k for k in range(len(energy.options.axes)) if k not in pair]
        values, error, weight = landscape.free_energy, landscape.error, landscape.weight
        if hidden:
            lowest = np.where(np.isnan(values), np.inf, values).argmin(hidden[0], keepdims=True)
            values, error = (
                np.take_along_axis(each, lowest, hidden[0]).squeeze(hidden[0])
                for each in (values, error)
            )
            weight = weight.sum(axis=hidden[0])
        x, y = pair
        axes = [energy.options.axes[k] for k in pair]
        found.append(
            EnergyPlane(
                x=f"pc{axes[0]}",
                y=f"pc{axes[1]}",
                x_label=component_label(axes[0] - 1, energy.points.ratios),
                y_label=component_label(axes[1] - 1, energy.points.ratios),
                x_edges=landscape.grid.edges[x],
                y_edges=landscape.grid.edges[y],
                free_energy=values,
                error=error,
                weight=weight,
            )
        )
    return found


def _draw(energy: Energy, path: WrittenPath | None, workspace: Path) -> None:
    planes, basins = _planes(energy), energy.basin_table
    figure = energy_landscape(
        planes,
        basins=basins,
        saddles=energy.saddle_table,
        path=None if path is None else path.profile,
        n_points=len(energy.plane),
        noun=energy.points.noun,
    )
    save(figure, workspace / "landscape.png")
    errors = energy_errors(planes, basins=basins, n_bootstrap=energy.options.n_bootstrap)
    save(errors, workspace / "figures" / "landscape_error.png")
    if path is not None:
        maps = (path.folder / "vol_000.mrc").is_file()
        frames = path.frames["length"].tolist() if maps else []
        profile = energy_profile(path.profile, ends=path.ends, frames=frames)
        save(profile, workspace / "figures" / "landscape_path.png")


def _write_page(energy: Energy, path: WrittenPath | None, file: Path, folder: str) -> None:
    points = energy.points
    n = len(energy.plane)
    rows = np.arange(n)
    if n > MOST_POINTS:
        rng = np.random.default_rng(energy.options.seed)
        rows = np.sort(rng.choice(n, MOST_POINTS, replace=False, shuffle=False))
    shown = pd.DataFrame(energy.plane[rows], columns=energy.options.names)
    shown.insert(0, "point", rows)
    if points.states is not None:
        shown["state"] = np.asarray(points.states)[rows]
    contents = PageContents(
        basins=energy.basin_table,
        saddles=energy.saddle_table,
        points=shown,
        n_points=n,
        noun=points.noun,
        counted=points.counted,
        route=None if path is None else path.profile,
        sketch=points.sketch,
    )
    write_energy_page(
        file,
        _planes(energy)[0],
        contents,
        title=points.title,
        headline=energy.sentence(),
        folder=folder,
    )
