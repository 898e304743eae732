"""The tables of ``emhet occupancy``: how much of each part, where it is present, relations."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd

from emhet_dask.analysis.occupancy import Parts, part_dataset, part_presence, part_sums
from emhet_dask.analysis.relations import block_relations, state_table
from emhet_dask.ensemble.reading import stream
from emhet_dask.errors import InputError
from emhet_dask.formats.volumes import trailing_number
from emhet_dask.runtime import StageRecord
from emhet_dask.workflows.stages.costs import parts_work
from emhet_dask.workflows.stages.job import Job
from emhet_dask.workflows.stages.parts import PartFiles

__all__ = [
    "MavenLayout",
    "PartTables",
    "load_tables",
    "maven_stage",
    "measure_stage",
    "relate_stage",
]

# Volumes that a task streams; of an array in memory it is given all of them at once.
_RUN = 64
_RUN_IN_MEMORY = 32
_DIGITS = "%.9g"
_TEXTS = ("name", "part", "block_a", "block_b", "relation")


@dataclass(frozen=True)
class PartTables:
    """What the tables hold.

    Attributes
    ----------
    occupancy : pandas.DataFrame
        ``volume``, ``name`` and a column for each part.
    presence : pandas.DataFrame
        The same with 0 and 1.
    relations : pandas.DataFrame
        A row per pair of parts; see `emhet_dask.analysis.relations.block_relations`.
    states : pandas.DataFrame
        Combinations of parts that are present, the most frequent first.
    parts : pandas.DataFrame
        A row per part: ``part``, ``voxels``, ``mask_sum``, ``cut`` (NaN: there are no two
        modes, and the part counts as present or missing throughout), ``volumes`` that have it,
        ``fraction``.
    """

    occupancy: pd.DataFrame
    presence: pd.DataFrame
    relations: pd.DataFrame
    states: pd.DataFrame
    parts: pd.DataFrame

    @property
    def names(self) -> list[str]:
        """Return the names of the parts."""
        return [str(name) for name in self.parts["part"]]

    @property
    def undecided(self) -> list[str]:
        """Return the parts without a cut, which count as present or missing throughout."""
        return [str(name) for name in self.parts["part"][self.parts["cut"].isna()]]


def load_tables(folder: Path) -> PartTables:
    """Read the tables of a results folder.

    Parameters
    ----------
    folder : Path
    """
    return PartTables(
        _read(folder / "occupancy.csv"),
        _read(folder / "occupancy_presence.csv"),
        _read(folder / "occupancy_relations.csv"),
        _read(folder / "occupancy_states.csv"),
        _read(folder / "parts.csv"),
    )


# Occupancies --------------------------------------------------------------------------------------


def measure_stage(job: Job, files: PartFiles) -> StageRecord:
    """Write the occupancies, in one reading of the volumes; or find that done.

    Parameters
    ----------
    job : Job
    files : PartFiles

    Returns
    -------
    StageRecord
        Facts are ``voxels`` and ``mask_sum`` of each part.

    Raises
    ------
    InputError
        When a mask or a reference cannot be used.
    """

    def build(workspace: Path) -> dict[str, Any]:
        reference_sums = files.reference_sums(job.ensemble)
        parts = Parts.of(files.read_masks(job.ensemble.box))
        found = part_dataset(_sums(job, parts), parts, reference_sums)
        for name, file in (("occupancy", "occupancy.csv"), ("density", "mean_density.csv")):
            table = _labelled(job, pd.DataFrame(found[name].values, columns=list(files.names)))
            table.to_csv(workspace / file, index=False, float_format=_DIGITS)
        return {
            "voxels": np.diff(parts.weights.indptr).tolist(),
            "mask_sum": parts.sums.tolist(),
            "voxels_in_any": len(parts.voxels),
        }

    return job.results.stage("occupancy", parameters=files.recorded(), build=build)


def _sums(job: Job, parts: Parts) -> np.ndarray:
    run = _RUN if job.ensemble.path is not None else _RUN_IN_MEMORY
    volumes = np.arange(job.ensemble.n_volumes)
    # Sent to the workers once, and not with every task.
    shared = dask.delayed(parts, pure=False, traverse=False)
    tasks = [
        _sums_of_run(stream(job.ensemble, volumes[start : start + run]), shared)
        for start in range(0, len(volumes), run)
    ]
    size = parts.voxels.nbytes + 12 * parts.weights.nnz
    job.results.state(
        parts_work(job.ensemble, stage="occupancy", tasks=len(tasks), parts_bytes=size)
    )
    return np.concatenate(job.progress.compute(job.client, tasks, label="occupancy"))


@dask.delayed(pure=False)
def _sums_of_run(volumes: Iterable[np.ndarray], parts: Parts) -> np.ndarray:
    return part_sums(volumes, parts)


def _labelled(job: Job, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "volume", job.ensemble.dataset["volume_index"].values)
    table.insert(1, "name", job.ensemble.names)
    return table


# MAVEn's table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MavenLayout:
    """By what MAVEn knows volumes and parts.

    Attributes
    ----------
    numbers : tuple of int
        That end the names of the volumes.
    columns : tuple of (str, str)
        PDB and chain of each part.
    """

    numbers: tuple[int, ...]
    columns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, volumes: Iterable[str], parts: Iterable[str]) -> MavenLayout:
        """Find both, or say why MAVEn could not.

        Raises
        ------
        InputError
            When a volume's name does not end in a number, or two volumes or parts would be one.
        """
        numbers: dict[int, str] = {}
        for name in volumes:
            number = trailing_number(name)
            if number is None:
                raise InputError(
                    f"--format maven: volume {name!r} does not end in a number, by which MAVEn "
                    "knows it; leave the option out"
                )
            if number in numbers:
                raise InputError(
                    f"--format maven: volumes {numbers[number]!r} and {name!r} end in the same "
                    "number, by which MAVEn knows them; leave the option out"
                )
            numbers[number] = name
        columns: dict[tuple[str, str], str] = {}
        for name in parts:
            pdb, marked, chain = name.rpartition("_chain")
            column = (pdb, chain) if marked else (name, "a")
            if column in columns:
                raise InputError(
                    f"--format maven: masks {columns[column]!r} and {name!r} would both be chain "
                    f"{column[1]} of {column[0]}; rename one"
                )
            columns[column] = name
        return cls(tuple(numbers), tuple(columns))


def maven_stage(job: Job, layout: MavenLayout) -> None:
    """Write ``occupancies.csv``; or find that done.

    Parameters
    ----------
    job : Job
    layout : MavenLayout
    """

    def build(workspace: Path) -> None:
        values = _read(job.results.path("occupancy.csv")).iloc[:, 2:].to_numpy(dtype=np.float64)
        pdbs = sorted({pdb for pdb, _ in layout.columns})
        every = [(pdb, letter) for pdb in pdbs for letter in string.ascii_lowercase]
        every += [column for column in layout.columns if column not in every]
        place = {column: number for number, column in enumerate(every)}
        filled = np.full((len(values), len(every)), np.nan)
        filled[:, [place[column] for column in layout.columns]] = values
        columns = pd.MultiIndex.from_tuples(every, names=["PDB", "Chain"])
        table = pd.DataFrame(filled, index=list(layout.numbers), columns=columns)
        table.to_csv(workspace / "occupancies.csv", float_format=_DIGITS)

    job.results.stage("maven", parameters={}, after=("occupancy",), build=build, replaceable=True)


# Relations ----------------------------------------------------------------------------------------


def relate_stage(job: Job, files: PartFiles, measured: StageRecord, *, cut: float | None) -> None:
    """Write where parts are present, their relations, and the states; or find that done.

    Parameters
    ----------
    job : Job
    files : PartFiles
    measured : StageRecord
        Of the occupancies.
    cut : float or None
        Occupancy above which a part is present.
    """

    def build(workspace: Path) -> None:
        names = list(files.names)
        values = _read(job.results.path("occupancy.csv"))[names].to_numpy(dtype=np.float64)
        present, cuts = part_presence(values, relative=files.references is not None, cut=cut)
        relations = block_relations(present, names)
        states, _ = state_table(present, names, particles=job.ensemble.weights)
        parts = pd.DataFrame(
            {
                "part": names,
                "voxels": measured.summary["voxels"],
                "mask_sum": measured.summary["mask_sum"],
                "cut": cuts,
                "volumes": present.sum(axis=0),
                "fraction": present.mean(axis=0),
            }
        )
        presence = _labelled(job, pd.DataFrame(present.astype(np.int64), columns=names))
        for table, file in (
            (presence, "occupancy_presence.csv"),
            (relations, "occupancy_relations.csv"),
            (states, "occupancy_states.csv"),
            (parts, "parts.csv"),
        ):
            table.to_csv(workspace / file, index=False, float_format=_DIGITS)

    job.results.stage(
        "relations", parameters={"cut": cut}, after=("occupancy",), build=build, replaceable=True
    )


def _read(path: Path) -> pd.DataFrame:
    """Read a table of ours: names stay text, and an empty number is NaN."""
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(set(_TEXTS) & set(columns), str),
        keep_default_na=False,
        na_values={column: "" for column in columns if column not in _TEXTS},
    )
