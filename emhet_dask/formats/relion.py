"""A RELION classification job: which iterations it finished, its class maps and their shares."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emhet_dask import formats
from emhet_dask.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from emhet_dask.formats.star import StarFile

__all__ = ["JobFolder", "is_job_folder"]

# A continued job writes run_ct12_it025_…, which a glob run_it* would miss.
_ITERATION_FILE = re.compile(
    r"(?P<prefix>\w+?(?:_ct(?P<ct>\d+))?_it(?P<iteration>\d{3,}))_"
    r"(?:class(?P<class_number>\d{3,})\.mrc|(?P<kind>data|model|optimiser|sampling)\.star)"
)
_CLASS_NUMBER = re.compile(r"class(\d{3,})\.mrcs?$")


@dataclass(frozen=True)
class JobFolder:
    """Files of a Class3D (or InitialModel) job, told by their names.

    Attributes
    ----------
    path : Path
        The folder.
    prefixes : dict of int to str
        Iteration to the prefix of its files, such as ``"run_it025"``; of a continued job, where
        an iteration was run twice, the later run's.
    maps : dict of int to dict of int to Path
        Iteration to class number (from 1) to map. Half maps and bodies are no class maps.
    """

    path: Path
    prefixes: dict[int, str]
    maps: dict[int, dict[int, Path]]

    @classmethod
    def open(cls, path: str | Path) -> JobFolder:
        """List a job folder.

        Raises
        ------
        InputError
            When the folder is absent or holds no file of any iteration.
        """
        folder = Path(path)
        try:
            matches = _iteration_files(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
        if not matches:
            raise InputError(
                f"{folder}: not a RELION classification job; expected files such as "
                "run_it025_model.star"
            )
        runs: dict[int, tuple[int, str]] = {}
        for match in matches:
            run = int(match["ct"] or -1), match["prefix"]
            runs[int(match["iteration"])] = max(run, runs.get(int(match["iteration"]), run))
        maps: dict[int, dict[int, Path]] = {}
        for match in sorted(matches, key=lambda match: int(match["class_number"] or 0)):
            iteration = int(match["iteration"])
            if match["class_number"] and match["prefix"] == runs[iteration][1]:
                maps.setdefault(iteration, {})[int(match["class_number"])] = folder / match[0]
        return cls(folder, {number: runs[number][1] for number in sorted(runs)}, maps)

    @property
    def iterations(self) -> list[int]:
        """Iterations of which any file is there, ascending; 0 is the input."""
        return list(self.prefixes)

    @property
    def last_iteration(self) -> int:
        """The highest iteration that has class maps; intermediate maps may have been cleaned up.

        Raises
        ------
        InputError
            When only the starting references, or no class maps, are there.
        """
        finished = [iteration for iteration in self.maps if iteration > 0]
        if not finished:
            raise InputError(
                f"{self.path}: has no class maps of a finished iteration; expected files such as "
                "run_it025_class001.mrc"
            )
        return max(finished)

    @property
    def modelled_iterations(self) -> list[int]:
        """Finished iterations (from 1) whose ``_model.star`` is there, ascending."""
        return [
            iteration
            for iteration in self.iterations
            if iteration > 0 and self.has("model", iteration=iteration)
        ]

    def continued_at(self, iteration: int) -> int | None:
        """Return the iteration after which the run that made this one was continued, or None."""
        match = re.search(r"_ct(\d+)_it\d+$", self.prefixes[iteration])
        return None if match is None else int(match[1])

    def class_maps(self, *, iteration: int | None = None) -> dict[int, Path]:
        """Return class number (from 1) to map, of the last iteration by default.

        Raises
        ------
        InputError
            When there are no maps, or fewer than the classes that ``_model.star`` counts.
        """
        iteration = self.last_iteration if iteration is None else iteration
        maps = self.maps.get(iteration)
        if not maps:
            raise InputError(f"{self.path}: has no class maps of iteration {iteration}")
        if self.has("model", iteration=iteration):
            missing = set(self.class_distribution(iteration=iteration).index) - set(maps)
            if missing:
                raise InputError(
                    f"{self.path}: maps of classes {', '.join(map(str, sorted(missing)))} of "
                    f"iteration {iteration} are missing; its _model.star has them"
                )
        return maps

    def star_path(self, kind: str, *, iteration: int | None = None) -> Path:
        """Return the path of the ``data``, ``model``, ``optimiser`` or ``sampling`` STAR file.

        Raises
        ------
        InputError
            When the job has no such iteration.
        """
        iteration = self.last_iteration if iteration is None else iteration
        if iteration not in self.prefixes:
            raise InputError(
                f"{self.path}: has no iteration {iteration}; it has "
                f"{min(self.prefixes)} to {max(self.prefixes)}"
            )
        return self.path / f"{self.prefixes[iteration]}_{kind}.star"

    def has(self, kind: str, *, iteration: int | None = None) -> bool:
        """Whether the STAR file of that kind and iteration is there."""
        return self.star_path(kind, iteration=iteration).is_file()

    def star(self, kind: str, *, iteration: int | None = None) -> StarFile:
        """Read the ``data``, ``model``, ``optimiser`` or ``sampling`` STAR file.

        Raises
        ------
        InputError
            When the iteration or the file is absent, or cannot be read.
        """
        return formats.star.read_star(self.star_path(kind, iteration=iteration))

    def class_distribution(self, *, iteration: int | None = None) -> pd.Series:
        """Return ``rlnClassDistribution`` by class number (from 1).

        Raises
        ------
        InputError
            When ``_model.star`` is absent, or has no usable class table.
        """
        import pandas as pd  # noqa: PLC0415 - a quarter of a second, for tables alone

        star = self.star("model", iteration=iteration)
        table = star.table("model_classes")
        for column in ("rlnReferenceImage", "rlnClassDistribution"):
            if column not in table:
                raise InputError(f"{star.path}: data_model_classes has no column _{column}")
        numbers = [_CLASS_NUMBER.search(name) for name in table["rlnReferenceImage"].astype(str)]
        shares = pd.to_numeric(table["rlnClassDistribution"], errors="coerce")
        if not all(numbers) or not shares.ge(0).all():
            raise InputError(
                f"{star.path}: data_model_classes needs reference images that end in "
                "class001.mrc, … and class distributions of at least 0"
            )
        index = [int(match[1]) for match in numbers if match]
        return pd.Series(shares.to_numpy(float), index=index, name="rlnClassDistribution")

    def class_weights(self, *, iteration: int | None = None) -> dict[int, float] | None:
        """Return what each class stands for, by class number: its share times the particles.

        The shares alone where the job's ``_data.star`` is not there; None where its
        ``_model.star`` is not there either.

        Raises
        ------
        InputError
            When a file that is there cannot be read.
        """
        if not self.has("model", iteration=iteration):
            return None
        n_particles = 1
        if self.has("data", iteration=iteration):
            n_particles = formats.star.count_particles(self.star_path("data", iteration=iteration))
        shares = self.class_distribution(iteration=iteration) * n_particles
        return dict(zip(shares.index.tolist(), shares.tolist(), strict=True))


def is_job_folder(path: str | Path) -> bool:
    """Whether a folder holds class maps under RELION's names."""
    return any(match["class_number"] is not None for match in _iteration_files(path))


def _iteration_files(folder: str | Path) -> list[re.Match[str]]:
    names = os.listdir(folder)  # noqa: PTH208 - names, not paths
    return [match for match in map(_ITERATION_FILE.fullmatch, names) if match is not None]
