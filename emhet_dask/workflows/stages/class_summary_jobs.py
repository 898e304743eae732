"""The jobs of ``emhet class3d summary``: what is there of each, and what of it is read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats.relion import JobFolder

__all__ = ["SummaryJob", "open_jobs"]


@dataclass(frozen=True)
class SummaryJob:
    """One classification job.

    Attributes
    ----------
    name : str
        Its folder's name, with as much of the path before it as tells two jobs apart.
    folder : JobFolder
    iterations : tuple of int
        Finished iterations whose model is there, ascending; never empty.
    place : str
        Where readers find it; of results that go to a URL that is not where they are read.
    """

    name: str
    folder: JobFolder
    iterations: tuple[int, ...]
    place: str

    @property
    def last(self) -> int:
        """The highest iteration that is read."""
        return self.iterations[-1]

    def star(self, kind: str, iteration: int) -> Path | None:
        """Return the path of a STAR file, None where it is not there."""
        path = self.folder.star_path(kind, iteration=iteration)
        return path if path.is_file() else None

    def notes(self) -> list[str]:
        """Say which iterations cannot be read, and what is odd about the others."""
        said = []
        there = set(self.iterations)
        known = max(self.folder.iterations)
        absent = [number for number in range(1, known + 1) if number not in there]
        if absent:
            said.append(
                f"skipped {'iterations' if len(absent) > 1 else 'iteration'} {_runs(absent)}: no "
                "_model.star"
            )
        silent = [number for number in self.iterations if self.star("optimiser", number) is None]
        if silent:
            said.append(
                f"{'iterations' if len(silent) > 1 else 'iteration'} {_runs(silent)} without "
                "_optimiser.star: how many particles changed class is not known"
            )
        runs = [self.folder.continued_at(number) or 0 for number in self.iterations]
        if any(later < earlier for earlier, later in itertools.pairwise(runs)):
            said.append(
                "its last iterations are of an earlier run than those before them; a continued run "
                "was stopped sooner"
            )
        return said

    def fingerprint(self) -> list[list[Any]]:
        """Return name, size and time of change of every file that is read."""
        paths = [self.star(kind, n) for n in self.iterations for kind in ("model", "optimiser")]
        paths += [self.star(kind, self.last) for kind in ("data", "sampling")]
        found = []
        for path in paths:
            if path is not None:
                stat = path.stat()
                found.append([path.name, stat.st_size, stat.st_mtime_ns])
        return found


def open_jobs(paths: Sequence[str]) -> list[SummaryJob]:
    """Open job folders, and name them.

    Parameters
    ----------
    paths : sequence of str

    Returns
    -------
    list of SummaryJob

    Raises
    ------
    InputError
        When none is given, one is given twice, is no classification job, or has no finished
        iteration.
    """
    if not paths:
        raise InputError("JOBS: none given, expected folders of RELION Class3D jobs")
    places = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - links stay
    jobs: list[SummaryJob] = []
    problems: list[str] = []
    for given, place, name in zip(paths, places, _names(places), strict=True):
        try:
            jobs.append(_open(given, place, name))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(join_problems(problems, what="jobs cannot be used"))
    return jobs


def _open(given: str, place: Path, name: str) -> SummaryJob:
    if not place.is_dir():
        what = "a file, expected the folder of a job" if place.exists() else "no such folder"
        raise InputError(f"{given}: {what}")
    folder = JobFolder.open(place)
    iterations = folder.modelled_iterations
    if not iterations:
        raise InputError(
            f"{given}: has no finished iteration; expected files such as run_it001_model.star"
        )
    return SummaryJob(name, folder, tuple(iterations), str(folder.path))


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ, their parts joined by ``_``."""
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        raise InputError(f"{min(twice)}: given twice")
    for length in range(1, max(len(place.parts) for place in places) + 1):
        names = ["_".join(part.strip("/") for part in place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [f"{place.name}_{number}" for number, place in enumerate(places, start=1)]


def _runs(numbers: Sequence[int]) -> str:
    """Return numbers with runs drawn together: 3, 5–9."""
    words: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            words.append(f"{start}" if start == previous else f"{start}–{previous}")
            start = number
        previous = number
    return ", ".join(words)
