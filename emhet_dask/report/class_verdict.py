"""What is to be said of a classification, in the words that a reader sees first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emhet_dask.report.style import counted

__all__ = ["ClassVerdict", "class_verdict"]

_SETTLED = {
    "settled": "converged",
    "moving": "still moving",
    "level": "not settling",
    "unknown": "too few iterations to tell whether it converged",
}


@dataclass(frozen=True)
class ClassVerdict:
    """The verdict on one job.

    Attributes
    ----------
    words : str
        In one line, such as ``"converged; class 1 collapsed"``.
    reasons : tuple of str
        Sentences with the numbers behind it.
    good : bool
        Whether there is nothing to object to.
    """

    words: str
    reasons: tuple[str, ...]
    good: bool


def class_verdict(facts: Mapping[str, Any]) -> ClassVerdict:
    """Put what was measured of a job into words.

    Parameters
    ----------
    facts : mapping
        ``classes``, ``orientations`` and ``offsets``: each with ``state`` (see
        `emhet_dask.analysis.convergence.Settling`), ``recent``, ``earlier`` and ``limit``, the
        last two None where orientations were not searched. ``window`` (iterations that ``recent``
        is a mean of), ``last_iteration``, ``aligned``, ``distribution`` (class to share),
        ``collapsed`` (class numbers), ``collapsed_share``, ``coverage`` (class to
        ``sampling_factor``, ``unsampled``, ``poor``), ``least_sampling_factor``,
        ``most_unsampled`` and ``coverage_unknown`` (why there is none).
    """
    state = _overall(facts)
    words = [_SETTLED[state]]
    reasons = [_about_changes(facts, state)]
    collapsed = facts["collapsed"]
    if collapsed:
        words.append(f"{_classes(collapsed)} collapsed")
        shares = ", ".join(f"{facts['distribution'][number]:.1%}" for number in collapsed)
        reasons.append(
            f"{_classes(collapsed).capitalize()} {'holds' if len(collapsed) == 1 else 'hold'} "
            f"{shares} of the particles, less than {facts['collapsed_share']:.1%}."
        )
    poor = [
        number
        for number, found in facts["coverage"].items()
        if found["poor"] and number not in collapsed
    ]
    if poor:
        words.append(f"orientation coverage poor in {_classes(poor)}")
    reasons.append(_about_coverage(facts, poor))
    good = state == "settled" and not collapsed and not poor
    return ClassVerdict("; ".join(words), tuple(reasons), good)


def _overall(facts: Mapping[str, Any]) -> str:
    """Return the state of the job: also one whose classes are settled may still be turning."""
    state = str(facts["classes"]["state"])
    turning = [facts[name] for name in ("orientations", "offsets") if facts[name] is not None]
    if state == "settled" and any(found["state"] == "moving" for found in turning):
        return "moving"
    return state


def _about_changes(facts: Mapping[str, Any], state: str) -> str:
    found = facts["classes"]
    if np.isnan(found["recent"]):
        return "No optimiser file says how many particles changed class."
    if state == "unknown":
        return (
            f"Fewer than {counted(facts['window'], 'iteration')} say how many particles changed "
            f"class: {found['recent']:.2%} on average."
        )
    said = (
        f"In the last {counted(facts['window'], 'iteration')}, up to {facts['last_iteration']}, "
        f"{found['recent']:.2%} of the particles changed class on average (at most "
        f"{found['limit']:.0%} counts as converged)"
    )
    if state == "level":
        said += (
            f", after {found['earlier']:.2%} in those before: it is no longer falling, so more "
            "iterations alone will not settle it; fewer classes, a stronger regularisation (T) or "
            "a mask may"
        )
    elif found["state"] == "moving" and not np.isnan(found["earlier"]):
        said += f", after {found['earlier']:.2%} in those before"
    return said + "." + _about_turning(facts)


def _about_turning(facts: Mapping[str, Any]) -> str:
    if not facts["aligned"]:
        return " Orientations were not searched."
    said = ""
    for name, unit in (("orientations", "°"), ("offsets", " Å")):
        found = facts[name]
        if found is None or np.isnan(found["recent"]):
            continue
        moving = "still changing" if found["state"] == "moving" else "steady"
        said += f" {name.capitalize()} are {moving}: {found['recent']:.2f}{unit} an iteration"
        if found["state"] == "moving" and not np.isnan(found["earlier"]):
            said += f" after {found['earlier']:.2f}{unit}"
        said += "."
    return said


def _about_coverage(facts: Mapping[str, Any], poor: Sequence[int]) -> str:
    coverage = facts["coverage"]
    if not coverage:
        return f"Orientation coverage was not judged: {facts['coverage_unknown']}."
    given = "" if facts["aligned"] else ", of the angles that the job was given"
    shown = poor or [number for number in coverage if number not in facts["collapsed"]]
    if not shown:
        return "No class that has not collapsed has orientations to judge."
    which = "that has not collapsed" if facts["collapsed"] else "judged"
    lowest = min(shown, key=lambda number: coverage[number]["sampling_factor"])
    found = coverage[lowest]
    verdict = (
        f"Orientation coverage is poor in {_classes(poor)}{given}"
        if poor
        else f"Orientation coverage is sufficient in every class {which}{given}"
    )
    return (
        f"{verdict}: the lowest sampling factor is {found['sampling_factor']:.2f}, of class "
        f"{lowest}, with {found['unsampled']:.1%} of its Fourier shell empty (below "
        f"{facts['least_sampling_factor']:g}, or above {facts['most_unsampled']:.0%}, is poor)."
    )


def _classes(numbers: Sequence[int]) -> str:
    return ("class " if len(numbers) == 1 else "classes ") + ", ".join(map(str, numbers))
