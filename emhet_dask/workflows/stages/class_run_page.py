"""The stage ``report`` of ``emhet class3d run``: figures and page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.relion_write import iteration_stem
from emhet_dask.report.class_run_evidence import class_number_figure
from emhet_dask.report.class_sheet import class_sheet
from emhet_dask.report.convergence import convergence_figure, spectrum_figure
from emhet_dask.report.html import Picture, Section, write_report
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_run_iterations import State
from emhet_dask.workflows.stages.class_run_start import StartFacts
from emhet_dask.workflows.stages.class_summary_tables import SummaryTables
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["run_report_stage"]

_FIGURES = {
    "maps": (
        "Class maps",
        "Three orthogonal slices of every class, on one grey scale. Beyond the shells in which "
        "classes differ, all have the detail of the consensus.",
    ),
    "n_classes": (
        "How many classes",
        "Left: each half of the particles was judged by classes of the other half. A state that "
        "is cut in two lowers the likelihood of images that were not seen. Right: how much more "
        "the other half varies along each direction of difference than noise does; grey ones are "
        "not looked at.",
    ),
    "convergence": ("Convergence", "What was noted at each iteration."),
    "ssnr": ("Signal", "How much signal each class map has at each resolution."),
}


def run_report_stage(
    tables: SummaryTables,
    start: StartFacts,
    state: State,
    *,
    asked: int | str,
    stages: Sequence[str],
    results: ResultsFolder,
    progress: Progress,
) -> str:
    """Run the stage, or find it done.

    Parameters
    ----------
    tables : SummaryTables
    start : StartFacts
    state : State
        Of the last iteration.
    asked : int or ``"auto"``
    stages : sequence of str
        Of the iterations.
    results, progress
        Where results go.

    Returns
    -------
    str
        The headline.
    """
    used = state.posteriors.shape[1]
    last = tables.classes[tables.classes["iteration"] == state.number]
    headline = _headline(state, asked, used)

    def build(workspace: Path) -> None:
        (workspace / "figures").mkdir()
        job = tables.facts[0]["job"]
        draw: dict[str, Callable[[], Figure]] = {
            "maps": partial(_sheet, results.path(), state.number, last, job, used),
            "convergence": partial(convergence_figure, tables.classes, tables.convergence, job=job),
        }
        if len(start.evidence):
            draw["n_classes"] = partial(
                class_number_figure, start.evidence, start.components, used=used
            )
        shells = tables.ssnr[tables.ssnr["iteration"] == state.number]
        shells = shells[shells["class"] <= used]
        if len(shells):
            draw["ssnr"] = partial(spectrum_figure, shells, job=job, iteration=state.number)
        files = {f"figures/{name}.png": function for name, function in draw.items()}
        with progress.task("figures", total=len(files), unit="figures") as task:
            save_all(files, workspace, done=partial(task.update, 1))
        about = provenance(results.path())
        del about["Input"]  # a fingerprint of every stack
        write_report(
            workspace / "report.html",
            title="3D classification",
            headline=headline,
            warnings=_remarks(state, start, asked, used),
            sections=[
                Section("Classes", table=_class_table(last, used)),
                *(
                    Section(title, pictures=[Picture(workspace / f"figures/{name}.png", caption)])
                    for name, (title, caption) in _FIGURES.items()
                    if name in draw
                ),
            ],
            provenance=about,
        )

    results.stage(
        "report",
        parameters={"asked": asked},
        after=("tables", "start", *stages[-1:]),
        build=build,
        replaceable=True,
    )
    return headline


def _headline(state: State, asked: int | str, used: int) -> str:
    shares = sorted(state.posteriors.mean(axis=0).tolist(), reverse=True)
    words = " · ".join(f"{share:.1%}" for share in shares)
    found = f"{counted(used, 'class').replace('classs', 'classes')}: {words}"
    if isinstance(asked, int) and used < asked:
        return f"{found}; the other {asked - used} of {asked} stay empty"
    return found


def _remarks(state: State, start: StartFacts, asked: int | str, used: int) -> list[Remark]:
    remarks = []
    if isinstance(asked, int) and used < asked and start.n_supported is not None:
        remarks.append(
            Remark(
                f"The images speak for {used} classes, not {asked}: with more, images that were "
                "not seen are less likely. The others are empty, and have the consensus as map.",
                serious=False,
            )
        )
    if isinstance(asked, int) and start.n_supported is not None and start.n_supported > asked:
        remarks.append(
            Remark(f"The images speak for more than {asked} classes; try --k auto.", serious=False)
        )
    if used == 1:
        remarks.append(Remark("The images do not speak for any difference.", serious=False))
    if not state.settled:
        remarks.append(
            Remark(
                f"{state.changed:.1%} of the particles still changed class in the last iteration.",
                serious=True,
            )
        )
    return remarks


def _sheet(folder: Path, number: int, classes: pd.DataFrame, job: str, used: int) -> Figure:
    maps = {}
    for k in range(1, used + 1):
        header = read_header(folder / f"{iteration_stem(number)}_class{k:03d}.mrc")
        maps[k] = read_volume(header)
    return class_sheet(
        maps,
        classes=classes,
        voxel_size_angstrom=header.voxel_size_angstrom or 1.0,
        job=job,
    )


def _class_table(classes: pd.DataFrame, used: int) -> pd.DataFrame:
    rows = classes[classes["class"] <= used].sort_values("distribution", ascending=False)
    return pd.DataFrame(
        {
            "Class": rows["class"].astype(int),
            "Share": [f"{share:.1%}" for share in rows["distribution"]],
            "Particles": rows["assigned"].astype("Int64"),
            "Resolution, Å": rows["resolution_A"].round(1),
        }
    )
