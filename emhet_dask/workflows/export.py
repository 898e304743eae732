"""``emhet export``: volumes of a store back as MRC files, a folder per state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.ensemble.reading import stream
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.options import command
from emhet_dask.options.subset import Export
from emhet_dask.runtime import Progress, connect, state_plan
from emhet_dask.urls import place_of
from emhet_dask.workflows.select import members_of, source_of
from emhet_dask.workflows.stages.volume_costs import export_work

__all__ = ["Exported", "export"]

_MAPS_PER_TASK = 32


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    folder : Path
    n_volumes : int
    """

    folder: Path
    n_volumes: int

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.n_volumes} maps in {self.folder}"


@command(Export)
def export(options: Export) -> Exported:
    """Write volumes back to MRC files.

    Of a store, all usable or the chosen volumes; of a landscape, a folder ``cluster_000`` per
    state. Folders in the names of volumes are kept. Voxel size and origin are those of the
    ensemble.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        When a volume or state does not exist, a volume is not usable, none is chosen, two would
        be one file, or a file is there already.
    """
    folder = Path(options.output)
    ensemble, wanted = _wanted(options)
    paths = _paths(folder, ensemble, wanted)
    taken = [path for path in paths if path.exists()]
    if taken and not options.overwrite:
        raise InputError(
            f"{taken[0]}: exists, as do {len(taken) - 1} more of the files; --overwrite replaces "
            "them"
        )
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    volumes = np.asarray([volume for volume, _ in wanted], dtype=np.int64)
    tasks = list(_tasks(ensemble, volumes, [str(path.absolute()) for path in paths]))
    progress = Progress(quiet=options.quiet)
    with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
        state_plan(export_work(ensemble, tasks=len(tasks), volumes=len(paths)), client, progress)
        for _ in progress.map(client, _Task.run, tasks, label=f"export {len(paths)} maps"):
            pass
    return Exported(folder, len(paths))


@dataclass(frozen=True)
class _Task:
    volumes: Any
    paths: list[str]
    voxel_size_angstrom: float
    origin_angstrom: tuple[float, float, float]

    def run(self) -> None:
        for path, volume in zip(self.paths, self.volumes, strict=True):
            write_map(
                f"{path}.partial",
                volume,
                voxel_size_angstrom=self.voxel_size_angstrom,
                origin_angstrom=self.origin_angstrom,
            )
            os.replace(f"{path}.partial", path)  # noqa: PTH105 - a map is there when it is whole


def _tasks(ensemble: Ensemble, volumes: np.ndarray, paths: list[str]) -> Iterator[_Task]:
    for start in range(0, len(volumes), _MAPS_PER_TASK):
        part = slice(start, start + _MAPS_PER_TASK)
        yield _Task(
            stream(ensemble, volumes[part]),
            paths[part],
            ensemble.voxel_size_angstrom,
            ensemble.origin_angstrom,
        )


def _wanted(options: Export) -> tuple[Ensemble, list[tuple[int, str]]]:
    """Return the ensemble, and for each volume to write its number and folder."""
    if (place_of(options.source) / "run.json").is_file():
        labels = members_of(options.source, options.clusters)
        ensemble = source_of(options.source)
        if options.volumes is not None:
            _check(options.volumes, ensemble)
            labels = labels[labels["volume"].isin(options.volumes)]
            if labels.empty:
                raise InputError("--volumes: none of them is in the chosen states of the landscape")
        pairs = zip(labels["volume"], labels["cluster"], strict=True)
        return ensemble, [(int(volume), f"cluster_{cluster:03d}") for volume, cluster in pairs]
    if options.clusters is not None:
        raise InputError(
            f"--clusters: {options.source} is a store, which has no states; expected the folder "
            "of a landscape"
        )
    ensemble = open_ensemble(options.source)
    if options.volumes is None:
        numbers = np.flatnonzero(ensemble.dataset["usable"].values).tolist()
    else:
        _check(options.volumes, ensemble)
        numbers = list(dict.fromkeys(options.volumes))
    return ensemble, [(int(number), "") for number in numbers]


def _check(numbers: Sequence[int], ensemble: Ensemble) -> None:
    wrong = [number for number in numbers if not 0 <= number < ensemble.n_volumes]
    if wrong:
        raise InputError(
            f"--volumes: no volume {wrong[0]} in {ensemble.path}; it has 0 to "
            f"{ensemble.n_volumes - 1}"
        )
    usable = ensemble.dataset["usable"].values
    faulty = [number for number in numbers if not usable[number]]
    if faulty:
        source = ensemble.dataset["source"].values[faulty[0]]
        raise InputError(
            f"--volumes: volume {faulty[0]} of {ensemble.path} ({source}) was faulty when it was "
            "ingested and is not usable; leave it out"
        )


def _paths(folder: Path, ensemble: Ensemble, wanted: list[tuple[int, str]]) -> list[Path]:
    """Return the file of each volume that is wanted."""
    names: dict[Path, str] = {}
    for volume, inside in wanted:
        name = str(ensemble.names[volume])
        path = folder / inside / _file_of(name)
        if path in names:
            raise InputError(
                f"{path}: the volumes {names[path]!r} and {name!r} would be written to one file; "
                "ingest them with other --names"
            )
        names[path] = name
    return list(names)


def _file_of(name: str) -> str:
    """Return the file of a name, always below the folder; a name may hold folders itself."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
    return "/".join("__" if part == ".." else part for part in parts or ["volume"]) + ".mrc"
