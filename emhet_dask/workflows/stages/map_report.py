"""The stage ``report`` of ``emhet map``: figures, ``map.json``, the page and the notebook."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from emhet_dask.report.html import Picture, Section, states_table, write_report
from emhet_dask.report.map_figures import particle_density, score_errors, state_confidence
from emhet_dask.report.map_notebook import map_cells
from emhet_dask.report.notebook import write_notebook
from emhet_dask.report.style import counted, save_all
from emhet_dask.report.verdict import Remark
from emhet_dask.runtime import read_run
from emhet_dask.runtime.progress import duration
from emhet_dask.workflows.stages.map_job import MapJob
from emhet_dask.workflows.stages.map_scores import Mapped
from emhet_dask.workflows.stages.map_states import ParticleStates
from emhet_dask.workflows.stages.provenance import provenance

__all__ = ["MapFindings", "report_stage"]

_LARGE_ERROR = 0.01
_POOR_REGRESSION = 0.1
_POOR_ACCURACY = 0.8


@dataclass(frozen=True)
class MapFindings:
    """What the other stages found.

    Attributes
    ----------
    mapped : Mapped
    states : ParticleStates
    check : dict
        From `check_stage`.
    energy : sequence of Section
        Of the page.
    energy_sentence : str
    """

    mapped: Mapped
    states: ParticleStates
    check: dict[str, Any]
    energy: Sequence[Section]
    energy_sentence: str


def report_stage(job: MapJob, found: MapFindings, *, after: tuple[str, ...]) -> dict[str, Any]:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : MapJob
        With all other stages finished.
    found : MapFindings
    after : tuple of str
        These stages.

    Returns
    -------
    dict
        As in ``map.json``.
    """

    def build(workspace: Path) -> None:
        figures = workspace / "figures"
        figures.mkdir()
        draw = _drawings(job, found)
        with job.progress.task("figures", total=len(draw), unit="figures") as task:
            save_all(draw, figures, done=partial(task.update, 1))
        facts = _facts(job, found)
        (workspace / "map.json").write_text(json.dumps(facts, indent=2) + "\n")
        write_notebook(
            workspace / "explore.ipynb",
            map_cells(folder=job.results.place, sketch=job.sketch.folder),
        )
        _write_page(workspace / "report.html", job, found, facts)

    job.results.stage("report", parameters={}, after=after, build=build, replaceable=True)
    known: dict[str, Any] = json.loads(job.results.path("map.json").read_text())
    return known


def _drawings(job: MapJob, found: MapFindings) -> dict[str, Callable[[], Figure]]:
    sketch = job.sketch
    shared: dict[str, Any] = {
        "sketch": sketch.scores,
        "states": sketch.states,
        "ratios": sketch.ratios,
        "noun": sketch.noun,
    }
    scores = found.mapped.scores
    drawings: dict[str, Callable[[], Figure]] = {}
    if job.n_components > 1:
        drawings["particles_pc1_pc2.png"] = lambda: particle_density(scores, **shared)
    if job.n_components > 2:
        drawings["particles_pc1_pc3.png"] = lambda: particle_density(
            scores, components=(0, 2), **shared
        )
    drawings["confidence.png"] = lambda: state_confidence(
        found.states.state, found.states.confidence, noun=sketch.noun
    )
    drawings["errors.png"] = lambda: score_errors(_errors(found))
    return drawings


def _errors(found: MapFindings) -> dict[str, list[float]]:
    errors: dict[str, list[float]] = {}
    if "regression_error" in found.mapped.facts:
        errors["predicted from latents\n(cross-validated)"] = found.mapped.facts["regression_error"]
    errors["volumes of the sketch,\ndecoded again"] = found.check["sketch_error"]
    if "fourier_error" in found.check:
        errors["Fourier projection against\nvoxels of a full decode"] = found.check["fourier_error"]
    return errors


def _facts(job: MapJob, found: MapFindings) -> dict[str, Any]:
    sketch, mapped, check = job.sketch, found.mapped, found.check
    seconds = check.get("seconds_fourier", check["seconds_full"])
    sampled = int(mapped.decoded.sum())
    stages = read_run(job.results.path()).stages
    took = sum(stages[name].seconds for name in ("sample", "scores") if name in stages)
    return {
        "headline": _headline(job, mapped),
        "mode": "exact" if mapped.decoded.all() else "sample",
        "read_out": "fourier" if job.fourier else "voxels",
        "n_particles": job.n_particles,
        "n_decoded": sampled,
        "n_volumes_of_sketch": sketch.ensemble.n_volumes,
        "box": sketch.ensemble.box,
        "n_components": job.n_components,
        **found.states.facts,
        "standard_deviation": sketch.spread.tolist(),
        "error": {
            "sketch": check["sketch_error"],
            "fourier": check.get("fourier_error"),
            "regression": mapped.facts.get("regression_error"),
        },
        "regression": mapped.facts.get("regression"),
        "n_held_out": check["n_held_out"],
        "seconds": {
            "per_particle_full_decode": check["seconds_full"],
            "per_particle_fourier": check.get("seconds_fourier"),
            "mapping": took,
            "all_exact_on_one_core": seconds * job.n_particles,
        },
    }


def _headline(job: MapJob, mapped: Mapped) -> str:
    where = f"on the landscape of {counted(job.sketch.ensemble.n_volumes, 'volume')}"
    if mapped.decoded.all():
        return f"{counted(job.n_particles, 'particle')} {where}, each one decoded"
    sampled = counted(int(mapped.decoded.sum()), "particle")
    return f"{counted(job.n_particles, 'particle')} {where}: {sampled} decoded, the rest predicted"


def _write_page(path: Path, job: MapJob, found: MapFindings, facts: dict[str, Any]) -> None:
    figures = path.parent / "figures"

    def pictures(*captions: tuple[str, str]) -> list[Picture]:
        return [
            Picture(figures / f"{name}.png", caption)
            for name, caption in captions
            if (figures / f"{name}.png").is_file()
        ]

    states = states_table(found.states.table(job.sketch.states), noun=job.sketch.noun)
    states["Mean confidence"] = found.states.table(job.sketch.states)["mean_confidence"]
    density = (
        "Particles in each pixel, with the volumes of the sketch. Where particles lie and no "
        "volume does, the sketch has missed something."
    )
    write_report(
        path,
        title=f"{Path(job.sketch.folder).name}, all particles",
        headline=facts["headline"],
        reason=found.energy_sentence,
        summary=_summary(job, found, facts),
        warnings=_warnings(facts),
        sections=[
            Section(
                "Where particles are",
                _about_scores(facts),
                pictures(("particles_pc1_pc2", density), ("particles_pc1_pc3", density)),
            ),
            *found.energy,
            Section(
                f"{job.sketch.noun.capitalize()}s of the particles",
                _about_states(facts),
                pictures(
                    ("confidence", "How many particles each has, and how sure it is of them.")
                ),
                states,
            ),
            Section(
                "How exact it is",
                _about_errors(facts),
                pictures(("errors", "The dashed line is a hundredth of the standard deviation.")),
            ),
        ],
        provenance=provenance(job.results.path()),
    )


def _summary(job: MapJob, found: MapFindings, facts: dict[str, Any]) -> list[tuple[str, object]]:
    signal = facts["n_signal"]
    error = facts["error"]["regression"] or facts["error"]["sketch"]
    shown = [
        ("Particles", facts["n_particles"]),
        ("Decoded", f"{facts['n_decoded']:,} at {facts['box']}³"),
        ("Largest error of a component above the noise", f"{max(error[:signal]):.2%} of its sd"),
        ("Particles with a confidence of 0.8", f"{np.mean(found.states.confidence >= 0.8):.1%}"),
        ("Particles far from every volume", facts["n_outliers"]),
    ]
    if facts["accuracy"] is not None:
        shown.append(("Volumes whose state their neighbours find", f"{facts['accuracy']:.1%}"))
    return [*shown, ("Seconds of one core for 1,000 particles", _per_thousand(facts))]


def _per_thousand(facts: dict[str, Any]) -> str:
    seconds = facts["seconds"]
    fast = seconds["per_particle_fourier"]
    full = f"{1000 * seconds['per_particle_full_decode']:.3g}"
    return full if fast is None else f"{1000 * fast:.3g} ({full} with the inverse transform)"


def _about_scores(facts: dict[str, Any]) -> str:
    how = (
        "its Fourier coefficients were projected on the components, which needs no inverse "
        "transform and gives the same by Parseval's theorem"
        if facts["read_out"] == "fourier"
        else "its voxels inside the mask were projected on the components"
    )
    text = f"The volume of each decoded particle was not kept: {how}."
    if facts["mode"] == "exact":
        return f"{text} All particles were decoded: nothing here is predicted."
    errors = facts["error"]["regression"]
    first = ", ".join(f"PC{number} {error:.2%}" for number, error in enumerate(errors[:5], start=1))
    exact = duration(facts["seconds"]["all_exact_on_one_core"])
    return (
        f"{text} {facts['n_decoded']:,} particles were decoded, drawn at random; the scores of the "
        f"others were predicted from their latents. Cross-validated error, as a share of the "
        f"standard deviation: {first}. To decode all would take about {exact} of one core: the "
        "same command without --sample, into another folder."
    )


def _about_states(facts: dict[str, Any]) -> str:
    text = (
        f"The {facts['n_neighbours']} nearest volumes of the sketch along the "
        f"{facts['n_signal']} components above the noise vote for the state of a particle, "
        "the nearer the more."
    )
    if facts["accuracy"] is not None:
        text += (
            f" Left out one at a time, {facts['accuracy']:.1%} of the volumes are assigned to "
            f"their own, with a mean confidence of {facts['mean_confidence']:.2f}."
        )
    return (
        f"{text} Outliers are further from every volume than twice what the loneliest volume is "
        "from its nearest; they are listed with the state that is nearest. The particles of each "
        "are in states/."
    )


def _about_errors(facts: dict[str, Any]) -> str:
    text = (
        "Some volumes of the sketch were decoded again and placed as particles are; they fall "
        "where the landscape has them."
    )
    if facts["error"]["fourier"] is not None:
        text += (
            f" The projection in Fourier space was compared with that of voxels of "
            f"{facts['n_held_out']} random particles decoded in full: it differs by at most "
            f"{max(facts['error']['fourier']):.2g} of the standard deviation of a component."
        )
    return text


def _warnings(facts: dict[str, Any]) -> list[Remark]:
    remarks = []
    signal = facts["n_signal"]
    regression = facts["error"]["regression"]
    if regression is not None:
        poor = [n for n, error in enumerate(regression[:signal], 1) if error > _POOR_REGRESSION]
        if poor:
            names = ", ".join(f"PC{number}" for number in poor)
            remarks.append(
                Remark(
                    f"{names}: predicted with an error above {_POOR_REGRESSION:.0%} of the "
                    "standard deviation; decode more particles, or all.",
                    serious=False,
                )
            )
    fourier = facts["error"]["fourier"]
    if fourier is not None and max(fourier) > _LARGE_ERROR:
        remarks.append(
            Remark(
                "The projection in Fourier space is off by more than 1%; use --full-decode.",
                serious=True,
            )
        )
    accuracy = facts["accuracy"]
    if accuracy is not None and accuracy < _POOR_ACCURACY:
        remarks.append(
            Remark(
                f"Only {accuracy:.0%} of the volumes have the state of their neighbours: states of "
                "particles between them are a guess, as their confidence says.",
                serious=False,
            )
        )
    return remarks
