"""``emhet ingest``: maps of any origin into one store, each shard written once by one task."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.analysis.fourier import crop_box
from emhet_dask.analysis.intensity import measure
from emhet_dask.ensemble.layout import Layout, plan_layout
from emhet_dask.ensemble.shards import crc32c
from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    create_store,
    digest_arrays,
    finish_store,
    open_array,
    open_group,
    read_array,
    read_records,
    sweep_store,
    write_shard,
)
from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats.mrc import read_volumes
from emhet_dask.formats.sources import VolumeSource, check_uniform, find_volumes
from emhet_dask.formats.tables import read_names, read_weights
from emhet_dask.options import command
from emhet_dask.options.ingest import Ingest
from emhet_dask.runtime import Progress, Work, connect, digest, state_plan, versions
from emhet_dask.runtime.making import making_store
from emhet_dask.workflows.particles import find_particles
from emhet_dask.workflows.stages.costs import ingest_work
from emhet_dask.workflows.stages.making import HowFar, how_far, to_stored

__all__ = ["Ingested", "ingest"]

_UNPACKED_BYTES = 256 << 20
# How a source is known not to have changed: the last of RECORD_COLUMNS.
_STAMPS = ("source_size", "source_mtime_ns")


@dataclass(frozen=True)
class Ingested:
    """What an ingest did.

    Attributes
    ----------
    path : str
        The store.
    n_volumes, box : int
    voxel_size_angstrom : float
        In Å.
    written : int
        Volumes written by this call; fewer than `n_volumes` where an earlier one had begun.
    skipped : list of str
        Faulty files that ``on_error="skip"`` went on without, each with what is wrong.
    """

    path: str
    n_volumes: int
    box: int
    voxel_size_angstrom: float
    written: int
    skipped: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return it in words."""
        what = f"{self.n_volumes} volumes of {self.box}³ at {self.voxel_size_angstrom:g} Å"
        lines = [f"{self.path}: {what}" + ("" if self.written else "; nothing was left to do")]
        if 0 < self.written < self.n_volumes:
            lines.append(f"continued: {self.n_volumes - self.written} volumes were there before")
        lines.extend(f"skipped {problem}" for problem in self.skipped)
        return "\n".join(lines)


@command(Ingest)
def ingest(options: Ingest) -> Ingested:
    """Read maps into an ensemble store.

    Every header is read and judged before the first byte is written. A call that was killed is
    continued by the same call: finished shards stay as they are.

    Returns
    -------
    Ingested

    Raises
    ------
    InputError
        When files are faulty (all are named in one message), boxes or voxel sizes differ, tables
        do not fit the volumes, the store at `output` was made of other sources or settings, or
        another run is making it.
    """
    plan = _plan(options)
    say = Progress(quiet=options.quiet).say
    with making_store(plan.path, command="emhet ingest", say=say):
        return _make(plan, options)


def _make(plan: _Plan, options: Ingest) -> Ingested:
    found = how_far(
        plan.path,
        key=plan.key,
        overwrite=options.overwrite,
        made_from="other files, tables or options",
    )
    if found == "complete":
        _refuse_changed_sources(plan)
        return plan.report(written=0, skipped=_faulty(plan))
    tasks = _tasks(plan) if found == "nowhere" else _unfinished(plan)
    progress = Progress(quiet=options.quiet)
    problems: list[str] = []
    with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
        if tasks:  # what cannot fit is refused before anything is replaced
            state_plan(_work(plan, tasks), client, progress)
        _prepare(plan, found)
        for told in progress.map(client, _ShardTask.run, tasks, label="ingest", unit="shards"):
            problems.extend(told)
    if problems and not plan.skip:
        raise InputError(join_problems(problems, what="maps cannot be used"))
    finish_store(plan.path)
    earlier = _faulty(plan, but=tasks)
    written = sum(len(task.sources) for task in tasks)
    return plan.report(written=written, skipped=[*earlier, *problems])


@dataclass(frozen=True)
class _Plan:
    """All that is decided before anything is written."""

    path: str
    sources: tuple[VolumeSource, ...]
    layout: Layout
    voxel_size_angstrom: float
    skip: bool
    skipped: tuple[str, ...]
    known: dict[str, np.ndarray]
    key: str
    attributes: dict[str, Any]

    def report(self, *, written: int, skipped: Sequence[str] = ()) -> Ingested:
        return Ingested(
            path=self.path,
            n_volumes=self.layout.n_volumes,
            box=self.layout.box,
            voxel_size_angstrom=self.voxel_size_angstrom,
            written=written,
            skipped=[*self.skipped, *skipped],
        )


def _plan(options: Ingest) -> _Plan:
    skip = options.on_error == "skip"
    if skip:
        sources, skipped = find_volumes(options.sources, on_error="skip")
    else:
        sources, skipped = find_volumes(options.sources), []
    uniform = check_uniform(sources, apix=options.apix, box=options.box)
    box = options.box or uniform.box
    voxel_size = uniform.voxel_size_angstrom * uniform.box / box
    known, attributes = _known(options, sources)
    layout = plan_layout(len(sources), box, options.dtype)
    settings = options.parameters(
        "box",
        "apix",
        "dtype",
        "names",
        "weights",
        "labels",
        "particles",
        "ind",
        "latents",
        "particle_latents",
    )
    files = [(os.path.realpath(source.header.path), source.index) for source in sources]
    tables = {name: known[name] for name in known if not name.startswith("source")}
    return _Plan(
        path=options.output,
        sources=tuple(sources),
        layout=layout,
        voxel_size_angstrom=voxel_size,
        skip=skip,
        skipped=tuple(skipped),
        known=known,
        key=digest(
            {"files": files, "settings": settings, "skip": skip, "tables": digest_arrays(tables)}
        ),
        attributes={
            **attributes,
            "voxel_size_angstrom": voxel_size,
            "origin_angstrom": list(uniform.origin_angstrom),
            "box": box,
            "made_by": {"command": "emhet ingest", "options": settings, "versions": versions()},
        },
    )


def _known(
    options: Ingest, sources: Sequence[VolumeSource]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and attributes that are known before the volumes are read."""
    names = [source.name for source in sources]
    particles, attributes = find_particles(options, sources)
    known: dict[str, np.ndarray] = {
        "name": np.asarray(
            names if options.names is None else read_names(options.names, names=names)
        ),
        "source": np.asarray([source.header.path for source in sources]),
        "source_index": np.asarray([source.index for source in sources], dtype=np.int32),
        **particles,
    }
    if options.weights is not None:
        known["weight"] = read_weights(options.weights, names=names)
    return known, attributes


def _prepare(plan: _Plan, found: HowFar) -> None:
    """Make the store, or clean up what an earlier ingest left half-written."""
    if found == "nowhere":
        create_store(
            plan.path,
            plan.layout,
            known=plan.known,
            attributes={**plan.attributes, "ingest_key": plan.key},
        )
    else:
        sweep_store(plan.path)


def _stamps(sources: Sequence[VolumeSource]) -> np.ndarray:
    """Return size and modification time of the source of each volume, shape (volume, 2)."""
    seen: dict[str, tuple[int, int]] = {}
    for source in sources:
        if source.header.path not in seen:
            status = Path(source.header.path).stat()
            seen[source.header.path] = (status.st_size, status.st_mtime_ns)
    return np.asarray([seen[source.header.path] for source in sources], dtype=np.float64)


def _refuse_changed_sources(plan: _Plan) -> None:
    group = open_group(plan.path)
    stored = np.stack([np.asarray(open_array(group, name)[...]) for name in _STAMPS], axis=1)
    changed = np.flatnonzero((stored.astype(np.float64) != _stamps(plan.sources)).any(axis=1))
    if len(changed):
        first = plan.sources[changed[0]].header.path
        raise InputError(
            f"{plan.path}: {len(changed)} of its source files changed since it was made, the first "
            f"is {first}; --overwrite reads them again"
        )


def _faulty(plan: _Plan, *, but: Sequence[_ShardTask] = ()) -> list[str]:
    """Name the volumes of a complete store that are not usable, but for those of some tasks."""
    usable = read_array(open_group(plan.path), "usable")
    for task in but:
        usable[slice(*task.bounds)] = True
    return [
        f"{_where(plan.sources[row])}: was faulty when it was read, and is left out"
        for row in np.flatnonzero(~usable)
    ]


def _unfinished(plan: _Plan) -> list[_ShardTask]:
    """Return a task for each shard without a record, or whose sources changed since."""
    records = read_records(plan.path)
    stamps = _stamps(plan.sources)
    finished = ~np.isnan(records[:, 0]) & (records[:, -len(_STAMPS) :] == stamps).all(axis=1)
    return [task for task in _tasks(plan) if not finished[slice(*task.bounds)].all()]


def _tasks(plan: _Plan) -> list[_ShardTask]:
    """Return a task for each shard."""
    stamps = _stamps(plan.sources)
    return [
        _ShardTask(
            path=plan.path if "://" in plan.path else str(Path(plan.path).resolve()),
            bounds=(start, stop),
            sources=plan.sources[start:stop],
            stamps=stamps[start:stop],
            layout=plan.layout,
            skip=plan.skip,
        )
        for start, stop in plan.layout.shards()
    ]


def _work(plan: _Plan, tasks: Sequence[_ShardTask]) -> Work:
    headers = [source.header for task in tasks for source in task.sources]
    return ingest_work(
        plan.layout,
        source_box=max(max(header.shape) for header in headers),
        compressed=any(header.compression is not None for header in headers),
        in_files="://" not in plan.path,
        tasks=len(tasks),
        volumes=len(headers),
    )


@dataclass(frozen=True)
class _ShardTask:
    """Everything that one worker needs to write one shard."""

    path: str
    bounds: tuple[int, int]
    sources: tuple[VolumeSource, ...]
    stamps: np.ndarray
    layout: Layout
    skip: bool

    @property
    def nbytes(self) -> int:
        return len(self.sources) * self.layout.volume_bytes

    def run(self) -> list[str]:
        """Read, crop, measure and write the volumes; return what is wrong with which."""
        record = np.zeros((len(self.sources), len(RECORD_COLUMNS)))
        record[:, -len(_STAMPS) :] = self.stamps
        problems: list[str] = []
        write_shard(
            self.path,
            self.bounds,
            self._volumes(record, problems),
            lambda: record if self.skip or not problems else None,
        )
        return problems

    def _volumes(self, record: np.ndarray, problems: list[str]) -> Iterator[np.ndarray]:
        """Yield the volumes as they are stored, and note what they are; zeros for a faulty one."""
        layout = self.layout
        read = _Reader(self.sources)
        for row, source in enumerate(self.sources):
            try:
                density = read(row)
                volume = crop_box(density, layout.box)
                measured = measure(volume)
                _refuse_nonsense(source, measured)
            except InputError as error:
                problems.append(str(error))
                yield np.zeros(layout.shape[1:], dtype=layout.dtype)
                continue
            volume, known = to_stored(
                volume, measured, dtype=layout.dtype, source_crc32c=crc32c(density)
            )
            record[row, : -len(_STAMPS)] = known[: -len(_STAMPS)]
            yield volume


class _Reader:
    """Reads the volumes of a shard one by one, but unpacks a compressed stack in long runs.

    A volume that is read alone lies in memory that the next one is read to.
    """

    def __init__(self, sources: Sequence[VolumeSource]) -> None:
        self._sources = sources
        self._run: dict[int, np.ndarray] = {}
        self._alone = np.empty((1, 0, 0, 0), dtype=np.float32)

    def __call__(self, row: int) -> np.ndarray:
        """Return the density of a volume, float32, shape (z, y, x)."""
        if row not in self._run:
            rows = self._rows_from(row)
            header = self._sources[row].header
            if len(rows) == 1 and self._alone.shape[1:] != header.shape:
                self._alone = np.empty((1, *header.shape), dtype=np.float32)
            indices = [self._sources[other].index for other in rows]
            found = read_volumes(header, indices, out=self._alone if len(rows) == 1 else None)
            self._run = dict(zip(rows, found, strict=True))
        return self._run.pop(row)

    def _rows_from(self, row: int) -> range:
        """Return the rows to read together: reaching one volume unpacks all that lie before it."""
        header = self._sources[row].header
        if header.compression is None:
            return range(row, row + 1)
        most = max(1, _UNPACKED_BYTES // (4 * int(np.prod(header.shape))))
        last = row + 1
        while last < len(self._sources) and last - row < most:
            here, before = self._sources[last], self._sources[last - 1]
            if here.header != header or here.index <= before.index:
                break
            last += 1
        return range(row, last)


def _where(source: VolumeSource) -> str:
    stacked = source.header.n_volumes > 1
    return source.header.path + (f" (volume {source.index})" if stacked else "")


def _refuse_nonsense(source: VolumeSource, measured: dict[str, float]) -> None:
    where = _where(source)
    if not np.isfinite([measured["minimum"], measured["maximum"], measured["mean"]]).all():
        raise InputError(f"{where}: holds NaN or infinite densities, expected finite numbers")
    if measured["minimum"] == measured["maximum"]:
        raise InputError(
            f"{where}: every voxel is {measured['minimum']:g}, expected a map with density"
        )
