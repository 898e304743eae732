"""The stage ``tables`` of ``emhet class3d summary``: every iteration read once, and judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emhet_dask.analysis.convergence import (
    COLLAPSED_SHARE_OF_EVEN,
    FEWEST_ITERATIONS,
    LEAST_SAMPLING_FACTOR,
    MOST_CHANGING,
    MOST_UNSAMPLED,
    Coverage,
    collapsed_classes,
    settling,
    symmetry_operations,
)
from emhet_dask.formats.relion_model import (
    IterationModel,
    IterationState,
    read_model,
    read_state,
)
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_costs import kept_by_workers, texts_work
from emhet_dask.workflows.stages.class_summary_ends import (
    Ends,
    coverage_of,
    read_ends,
    view_counts,
)
from emhet_dask.workflows.stages.class_summary_jobs import SummaryJob

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["SummaryTables", "load_summary", "tables_stage"]

_DIGITS = "%.9g"
_TABLES = ("classes", "convergence", "ssnr", "views")
_MAY_BE_NAN = {"recent", "earlier", "voxel_size_angstrom"}
# What RELION has where it rounds the angle between equal orientations.
_ROUNDING_DEGREES = 1e-4


@dataclass(frozen=True)
class SummaryTables:
    """What the tables hold.

    Attributes
    ----------
    classes : pandas.DataFrame
        ``job, iteration, class, distribution, particles`` (distribution times the number of
        particles), ``resolution_A, accuracy_rotations_deg, accuracy_translations_A,
        fourier_completeness``, and of the last iteration ``assigned`` (particles whose best class
        it is), ``sampling_factor`` and ``unsampled``.
    convergence : pandas.DataFrame
        ``job, iteration, run`` (prefix of the files), ``changes_classes`` (share of the
        particles), ``changes_orientations_deg, changes_offsets_A, log_likelihood, average_pmax,
        resolution_A, accuracy_rotations_deg, accuracy_translations_A``.
    ssnr : pandas.DataFrame
        ``job, iteration, class, shell, resolution_A, ssnr``.
    views : pandas.DataFrame
        ``job, class, rot_bin, tilt_bin, particles``: viewing directions in the last iteration, in
        bins of equal area; empty bins are left out.
    facts : list of dict
        What the verdict on each job rests on; see `emhet_dask.report.class_verdict`.
    """

    classes: pd.DataFrame
    convergence: pd.DataFrame
    ssnr: pd.DataFrame
    views: pd.DataFrame
    facts: list[dict[str, Any]]

    def of(self, job: str) -> SummaryTables:
        """Return the tables of one job."""
        parts = {name: getattr(self, name) for name in _TABLES}
        return replace(
            self,
            **{name: table[table["job"] == job] for name, table in parts.items()},
            facts=[facts for facts in self.facts if facts["job"] == job],
        )


def tables_stage(
    jobs: Sequence[SummaryJob],
    *,
    collapsed_share: float | None,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> SummaryTables:
    """Run the stage, or find it done.

    Parameters
    ----------
    jobs : sequence of SummaryJob
    collapsed_share : float or None
        Below it a class has collapsed; None for a tenth of an even share.
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    SummaryTables

    Raises
    ------
    InputError
        When a file cannot be read.
    """

    def build(workspace: Path) -> None:
        sizes = [size for job in jobs for _, size, _ in job.fingerprint()]
        # After a run, workers still keep blocks of its images.
        results.state(texts_work(sizes, stage="tables", held_bytes=kept_by_workers(client)))
        iterations = [_Iteration.of(job, number) for job in jobs for number in job.iterations]
        read = list(
            progress.map(client, _Iteration.read, iterations, label="read", unit="iterations")
        )
        ends = list(progress.map(client, read_ends, jobs, label="read particles", unit="jobs"))
        parts = []
        for job, end in zip(jobs, ends, strict=True):
            own = {one.number: one for one in read if one.job == job.name}
            parts.append(_summarise(job, own, end, collapsed_share))
        for name in _TABLES:
            tables = [getattr(part, name) for part in parts]
            # pandas warns of tables without rows, whose columns have no type.
            filled = [table for table in tables if len(table)] or tables[:1]
            table = pd.concat(filled, ignore_index=True)
            table.to_csv(workspace / f"{name}.csv", index=False, float_format=_DIGITS)
        facts = [part.facts[0] for part in parts]
        text = json.dumps(_for_json(facts), indent=1, ensure_ascii=False, allow_nan=False)
        (workspace / "verdicts.json").write_text(text + "\n", encoding="utf-8")

    results.stage(
        "tables",
        parameters={
            "files": {job.name: job.fingerprint() for job in jobs},
            "collapsed_share": collapsed_share,
        },
        build=build,
        replaceable=True,
    )
    return load_summary(results.path())


def load_summary(folder: Path) -> SummaryTables:
    """Read the tables of a results folder.

    Parameters
    ----------
    folder : Path
    """
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", dtype={"job": str, "run": str})
        for name in _TABLES
    }
    facts = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    for of_job in facts:
        for name in ("distribution", "coverage"):  # JSON has no numbers for names
            of_job[name] = {int(number): value for number, value in of_job[name].items()}
        for numbers in (of_job, of_job["classes"], of_job["orientations"], of_job["offsets"]):
            for name in _MAY_BE_NAN & set(numbers or ()):
                numbers[name] = np.nan if numbers[name] is None else numbers[name]
    return SummaryTables(**tables, facts=facts)


def _for_json(value: Any) -> Any:
    """Return a value with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _for_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


# What the workers read ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Iteration:
    """Files of one iteration, and what is in them once they are read."""

    job: str
    number: int
    model_path: Path
    state_path: Path | None
    model: IterationModel | None = None
    state: IterationState | None = None

    @classmethod
    def of(cls, job: SummaryJob, number: int) -> _Iteration:
        model_path = job.folder.star_path("model", iteration=number)
        return cls(job.name, number, model_path, job.star("optimiser", number))

    def read(self) -> _Iteration:
        state = None if self.state_path is None else read_state(self.state_path)
        return replace(self, model=read_model(self.model_path), state=state)


# One job ------------------------------------------------------------------------------------------


def _summarise(
    job: SummaryJob, read: Mapping[int, _Iteration], end: Ends, collapsed_share: float | None
) -> SummaryTables:
    models = {number: one.model for number, one in read.items() if one.model is not None}
    classes = _stacked(job, {number: model.classes for number, model in models.items()})
    count = np.nan if end.n_particles is None else end.n_particles
    classes.insert(4, "particles", classes["distribution"] * count)
    last = models[job.last]
    diameter = _diameter(read, last)
    coverage = coverage_of(last, end, diameter)
    is_last = classes["iteration"] == job.last
    for name, values in _of_last(last, end, coverage).items():
        classes[name] = np.nan
        classes.loc[is_last, name] = classes.loc[is_last, "class"].map(values)
    convergence = _convergence(job, read)
    return SummaryTables(
        classes=classes,
        convergence=convergence,
        ssnr=_stacked(job, {number: model.shells for number, model in models.items()}),
        views=view_counts(job, last, end),
        facts=[
            _facts(
                job,
                read,
                convergence,
                end=end,
                coverage=coverage,
                collapsed_share=collapsed_share,
            )
        ],
    )


def _stacked(job: SummaryJob, tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for number, table in tables.items():
        part = table.copy()
        part.insert(0, "job", job.name)
        part.insert(1, "iteration", number)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _convergence(job: SummaryJob, read: Mapping[int, _Iteration]) -> pd.DataFrame:
    rows = []
    for number, one in read.items():
        model, state = one.model, one.state
        assert model is not None
        scale = model.voxel_size_angstrom if model.in_pixels else 1.0
        rows.append(
            {
                "job": job.name,
                "iteration": number,
                "run": job.folder.prefixes[number],
                "changes_classes": np.nan if state is None else state.changes_classes,
                "changes_orientations_deg": (
                    np.nan if state is None else state.changes_orientations_deg
                ),
                "changes_offsets_A": np.nan if state is None else state.changes_offsets * scale,
                "log_likelihood": model.log_likelihood,
                "average_pmax": model.average_pmax,
                "resolution_A": model.resolution_angstrom,
                "accuracy_rotations_deg": (
                    np.nan if state is None else state.accuracy_rotations_deg
                ),
                "accuracy_translations_A": (
                    np.nan if state is None else state.accuracy_translations * scale
                ),
            }
        )
    return pd.DataFrame(rows)


def _diameter(read: Mapping[int, _Iteration], last: IterationModel) -> float:
    """Return the particle's diameter; without it, what the shells of the maps count in."""
    states = [one.state for one in read.values() if one.state is not None]
    if states and np.isfinite(states[-1].particle_diameter_angstrom):
        return states[-1].particle_diameter_angstrom
    first = last.shells.loc[last.shells["shell"] == 1, "resolution_A"]
    return float(first.iloc[0]) if len(first) else float("nan")


def _of_last(
    last: IterationModel, end: Ends, coverage: Mapping[int, Coverage]
) -> dict[str, dict[int, float]]:
    assigned: dict[int, float] = {}
    if end.labels is not None:
        assigned = {
            int(number): float(np.sum(end.labels == number)) for number in last.classes["class"]
        }
    return {
        "assigned": assigned,
        "sampling_factor": {number: found.sampling_factor for number, found in coverage.items()},
        "unsampled": {number: found.unsampled for number, found in coverage.items()},
    }


def _facts(
    job: SummaryJob,
    read: Mapping[int, _Iteration],
    convergence: pd.DataFrame,
    *,
    end: Ends,
    coverage: Mapping[int, Coverage],
    collapsed_share: float | None,
) -> dict[str, Any]:
    last = read[job.last].model
    assert last is not None
    states = [one.state for one in read.values() if one.state is not None]
    turned = convergence["changes_orientations_deg"].gt(_ROUNDING_DEGREES).any()
    aligned = states[-1].aligned if states else bool(turned)
    table = last.classes
    collapsed = collapsed_classes(table["distribution"], share=collapsed_share)
    even = COLLAPSED_SHARE_OF_EVEN / len(table)
    unknown = end.unknown
    if not unknown and symmetry_operations(end.symmetry) is None:
        unknown = f"the symmetry {end.symmetry} spreads any view over the sphere"
    if not unknown and not coverage:
        unknown = "the model gives no resolution"
    return {
        "job": job.name,
        "path": job.place,
        "last_iteration": job.last,
        "iterations_read": len(read),
        "iterations_planned": states[-1].n_planned if states else None,
        "n_particles": end.n_particles,
        "n_classes": len(table),
        "voxel_size_angstrom": last.voxel_size_angstrom,
        "symmetry": end.symmetry,
        "aligned": aligned,
        "window": FEWEST_ITERATIONS,
        "classes": _settled(convergence["changes_classes"], MOST_CHANGING),
        "orientations": _turning(convergence, "orientations_deg", "rotations_deg", aligned=aligned),
        "offsets": _turning(convergence, "offsets_A", "translations_A", aligned=aligned),
        "distribution": dict(
            zip(table["class"].tolist(), table["distribution"].tolist(), strict=True)
        ),
        "collapsed": table["class"][collapsed].tolist(),
        "collapsed_share": even if collapsed_share is None else collapsed_share,
        "coverage": {
            number: {
                "sampling_factor": found.sampling_factor,
                "unsampled": found.unsampled,
                "poor": found.poor,
            }
            for number, found in coverage.items()
        },
        "coverage_unknown": unknown,
        "least_sampling_factor": LEAST_SAMPLING_FACTOR,
        "most_unsampled": MOST_UNSAMPLED,
        "notes": job.notes(),
    }


def _turning(
    convergence: pd.DataFrame,
    changes: str,
    accuracy: str,
    *,
    aligned: bool,
) -> dict[str, Any] | None:
    """Judge orientations or offsets: below RELION's own accuracy they count as steady."""
    if not aligned:
        return None
    accuracies = convergence[f"accuracy_{accuracy}"].dropna()
    limit = float(accuracies.iloc[-1]) if len(accuracies) else 0.0
    return _settled(convergence[f"changes_{changes}"], limit)


def _settled(changes: pd.Series, limit: float) -> dict[str, Any]:
    found = settling(changes.to_numpy(dtype=float), limit=limit)
    return {
        "state": found.state,
        "recent": found.recent,
        "earlier": found.earlier,
        "limit": limit,
    }
