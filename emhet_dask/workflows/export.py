"""``emhet export``: volumes of a store back as MRC files, a folder per state."""

from __future__ import annotations

from collections.abc import Iterator
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
from emhet_dask.runtime import Progress, connect
from emhet_dask.workflows.select import members_of, source_of

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

    Of a store, all or the chosen volumes; of a landscape, a folder ``cluster_000`` per state.
    Voxel size and origin are those of the ensemble.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        When a volume or state does not exist, or a file is there already.
    """
    folder = Path(options.output)
    ensemble, wanted = _wanted(options)
    paths = [folder / inside / f"{_safe(ensemble.names[volume])}.mrc" for volume, inside in wanted]
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
                path,
                volume,
                voxel_size_angstrom=self.voxel_size_angstrom,
                origin_angstrom=self.origin_angstrom,
            )


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
    if (Path(options.source) / "run.json").is_file():
        labels = members_of(options.source, options.clusters)
        ensemble = source_of(options.source)
        if options.volumes is not None:
            _check(options.volumes, ensemble)
            labels = labels[labels["volume"].isin(options.volumes)]
        pairs = zip(labels["volume"], labels["cluster"], strict=True)
        return ensemble, [(int(volume), f"cluster_{cluster:03d}") for volume, cluster in pairs]
    if options.clusters is not None:
        raise InputError(
            f"--clusters: {options.source} is a store, which has no states; expected the folder "
            "of a landscape"
        )
    ensemble = open_ensemble(options.source)
    numbers = range(ensemble.n_volumes) if options.volumes is None else options.volumes
    _check(numbers, ensemble)
    return ensemble, [(int(number), "") for number in numbers]


def _check(numbers: Any, ensemble: Ensemble) -> None:
    wrong = [number for number in numbers if not 0 <= number < ensemble.n_volumes]
    if wrong:
        raise InputError(
            f"--volumes: no volume {wrong[0]} in {ensemble.path}; it has 0 to "
            f"{ensemble.n_volumes - 1}"
        )


def _safe(name: str) -> str:
    """Return a name as one component of a path; names hold folders where bare ones repeat."""
    return name.replace("/", "_").replace("\\", "_").lstrip(".") or "volume"
