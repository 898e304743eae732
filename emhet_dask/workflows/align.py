"""``emhet align``: every map of an ensemble in one frame, as a new ensemble.

One task fits, moves and writes the volumes of one shard. The fits lie in the new store beside the
volumes, written before the record that says that the shard is finished; ``transforms.csv`` is made
of them at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from emhet_dask.analysis.alignment import Fitter, Reference
from emhet_dask.analysis.intensity import measure
from emhet_dask.analysis.rigid import move
from emhet_dask.ensemble import Ensemble
from emhet_dask.ensemble.layout import Layout, plan_layout
from emhet_dask.ensemble.reading import StoredVolumes, stream
from emhet_dask.ensemble.shards import crc32c
from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    create_store,
    finish_store,
    open_array,
    open_group,
    read_records,
    sweep_store,
    write_shard,
)
from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.align import Align
from emhet_dask.runtime import Progress, connect, digest, state_plan, versions
from emhet_dask.runtime.making import making_store
from emhet_dask.variables import ENSEMBLE
from emhet_dask.workflows.stages.frame import Frame, best_frame, find_frame, frame_of_volume
from emhet_dask.workflows.stages.making import HowFar, how_far, to_stored
from emhet_dask.workflows.stages.selection import open_source
from emhet_dask.workflows.stages.transforms import (
    FIT_COLUMNS,
    FITS,
    TRANSFORMS,
    create_fits,
    row_of,
    transforms_table,
    write_transforms,
)
from emhet_dask.workflows.stages.volume_costs import align_work

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Aligned", "align", "align_ensemble"]

# A fit takes a second: also small stores are cut so that many workers have something to do.
_LEAST_SHARDS = 64
# Made by reading, or counted anew for the moved volumes.
_OWN_ARRAYS = {
    "volumes",
    "scale",
    "usable",
    "volume_index",
    "source_crc32c",
    "minimum",
    "maximum",
    "mean",
    "std",
    "percentile_9999",
}
_OWN_ATTRIBUTES = {"schema", "schema_version", "ingest_key", "fingerprint", "aligned_to"}


@dataclass(frozen=True)
class Aligned:
    """What an alignment did.

    Attributes
    ----------
    path : str
        The store.
    reference : str
        What the maps were fitted to.
    transforms : pandas.DataFrame
        The table ``transforms.csv``.
    written : int
        Volumes written by this call; fewer than all where an earlier one had begun.
    """

    path: str
    reference: str
    transforms: pd.DataFrame
    written: int

    @property
    def flagged(self) -> list[str]:
        """Return the names of the maps whose fit is no better than its rivals."""
        return list(self.transforms.loc[self.transforms["flagged"], "name"])

    def describe(self) -> str:
        """Return it in words."""
        count = len(self.transforms)
        done = "" if self.written else "; nothing was left to do"
        lines = [f"{self.path}: {count} volumes aligned to {self.reference}{done}"]
        if 0 < self.written < count:
            lines.append(f"continued: {count - self.written} volumes were there before")
        flagged = self.flagged
        shown = ", ".join(flagged[:10]) + (", …" if len(flagged) > 10 else "")
        lines.append(
            f"{len(flagged)} of {count} fits are flagged, no better than their rivals: {shown} "
            f"(reasons in {TRANSFORMS})"
            if flagged
            else "every fit is clearly better than its rivals"
        )
        return "\n".join(lines)


@command(Align)
def align(options: Align) -> Aligned:
    """Bring every map of an ensemble into one frame.

    Each map is fitted to the reference by rotation and shift, moved with one interpolation, and
    written to a new store; one that lies within a tenth of a voxel of its place is copied as it
    is. A call that was killed is continued by the same call. In ``transforms.csv`` of the store, a
    point ``p`` of a map, counted in Å from the centre voxel ``box // 2``, goes to ``R p + t``:
    ``rot, tilt, psi`` are the angles of R in RELION's convention, ``shift_…_angstrom`` is t, and
    ``chimerax_matrix`` is both as ChimeraX's ``view matrix models`` takes them. A map that is
    `mirrored` had x reversed about the centre before.

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        When there is no such ensemble, volume or reference, the reference is of another extent,
        or the output is the input or was made with other settings.
    """
    ensemble = open_source(options.ensemble)
    say = Progress(quiet=options.quiet).say
    with making_store(options.output, command="emhet align", say=say):
        plan = _plan(ensemble, options)
        if plan.how_far == "complete":
            return plan.report(written=0)
        progress = Progress(quiet=options.quiet)
        with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
            return plan.run(client, progress)


def align_ensemble(
    ensemble: Ensemble,
    *,
    output: str,
    to: str,
    client: Client,
    progress: Progress,
    hand: bool = False,
    resolution: float | None = None,
    overwrite: bool = False,
) -> Aligned:
    """Do what `align` does, for a workflow that has an open ensemble and workers.

    Parameters
    ----------
    ensemble : Ensemble
        Of a store, or a part of one.
    output, to, hand, resolution, overwrite
        As for `align`.
    client : distributed.Client
    progress : Progress

    Returns
    -------
    Aligned

    Raises
    ------
    InputError
        As for `align`.
    """
    options = Align(
        ensemble=ensemble,
        output=output,
        to=to,
        hand=hand,
        resolution=resolution,
        overwrite=overwrite,
    )
    plan = _plan(ensemble, options)
    return plan.report(written=0) if plan.how_far == "complete" else plan.run(client, progress)


@dataclass(frozen=True)
class _Plan:
    """All that is decided before anything is written.

    `frame` is None for ``best``, which takes the workers to find.
    """

    ensemble: Ensemble
    options: Align
    path: str
    layout: Layout
    key: str
    frame: Frame | None
    how_far: HowFar

    def run(self, client: Client, progress: Progress) -> Aligned:
        """Fit, move and write what is not written yet."""
        reference = self._prepare(client, progress)
        tasks = list(self._unfinished(reference))
        for _ in progress.map(client, _ShardTask.run, tasks, label="align", unit="shards"):
            pass
        finish_store(self.path)
        return self.report(written=sum(len(task.positions) for task in tasks))

    def report(self, *, written: int) -> Aligned:
        """Write the table, where it is not there, and tell what was done."""
        group = open_group(self.path)
        table = transforms_table(self.ensemble, np.asarray(open_array(group, FITS)[...]))
        write_transforms(self.path, table)
        return Aligned(self.path, str(group.attrs["aligned_to"]), table, written)

    def _prepare(self, client: Client, progress: Progress) -> Reference:
        """Make the store, or find it as an interrupted call left it; return the reference."""
        if self.how_far == "begun":
            group = open_group(self.path)
            if FITS in group:
                sweep_store(self.path)
                frame = self.frame or frame_of_volume(
                    self.ensemble,
                    int(group.attrs["reference_volume"]),  # type: ignore[arg-type]
                    to=self.options.to,
                    resolution=self.options.resolution,
                )
                self._state(frame, client, progress)
                return frame.reference
        frame = self.frame or best_frame(
            self.ensemble,
            resolution=self.options.resolution,
            client=client,
            progress=progress,
        )
        # What cannot fit is refused before anything is replaced.
        self._state(frame, client, progress)
        self._create(frame)
        return frame.reference

    def _state(self, frame: Frame, client: Client, progress: Progress) -> None:
        work = align_work(self.layout, shells=frame.reference.shells, hand=self.options.hand)
        state_plan(work, client, progress)

    def _create(self, frame: Frame) -> None:
        ensemble = self.ensemble
        carried = {
            key: value
            for key, value in ensemble.dataset.attrs.items()
            if key not in _OWN_ATTRIBUTES
        }
        create_store(
            self.path,
            self.layout,
            known={
                key: np.asarray(ensemble.dataset[key].values)
                for key in ENSEMBLE
                if key in ensemble.dataset and key not in _OWN_ARRAYS
            },
            attributes={
                **carried,
                "ingest_key": self.key,
                "aligned_to": frame.name,
                **({"reference_volume": frame.known_by["volume"]} if self.frame is None else {}),
                "made_by": {
                    "command": "emhet align",
                    "options": self.options.parameters("to", "hand", "resolution"),
                    "source": {"path": ensemble.path, "fingerprint": ensemble.fingerprint},
                    "source_made_by": ensemble.dataset.attrs.get("made_by"),
                    "versions": versions(),
                },
            },
        )
        create_fits(self.path, self.layout)

    def _unfinished(self, reference: Reference) -> Iterator[_ShardTask]:
        finished = ~np.isnan(read_records(self.path)[:, 0])
        usable = np.asarray(self.ensemble.dataset["usable"].values)
        for start, stop in self.layout.shards():
            if not finished[start:stop].all():
                positions = np.arange(start, stop)
                yield _ShardTask(
                    path=self.path if "://" in self.path else str(Path(self.path).resolve()),
                    bounds=(start, stop),
                    positions=positions,
                    names=self.ensemble.names[start:stop],
                    volumes=stream(self.ensemble, positions),
                    usable=usable[start:stop],
                    dtype=self.layout.dtype,
                    reference=reference,
                    hand=self.options.hand,
                )


def _plan(ensemble: Ensemble, options: Align) -> _Plan:
    if ensemble.path is None:
        raise InputError(
            "ENSEMBLE: an ensemble in memory, expected a store; from Python, "
            "emhet_dask.analysis.alignment.Fitter fits arrays"
        )
    if "://" not in options.output and Path(options.output).resolve() == Path(ensemble.path):
        raise InputError(f"-o {options.output}: is the ensemble that is read; choose another -o")
    if not ensemble.dataset["usable"].values.any():
        raise InputError(f"{ensemble.path}: no volume in it is usable")
    frame = find_frame(ensemble, to=options.to, resolution=options.resolution)
    stored = open_array(open_group(ensemble.path), "volumes")
    layout = plan_layout(ensemble.n_volumes, ensemble.box, str(stored.dtype))
    chunks = -(-layout.n_volumes // layout.volumes_per_chunk)
    finely = layout.volumes_per_chunk * -(-chunks // _LEAST_SHARDS)
    key = digest(
        {
            "ensemble": ensemble.fingerprint,
            "reference": {"volume": "best"} if frame is None else frame.known_by,
            **options.parameters("hand", "resolution"),
        }
    )
    return _Plan(
        ensemble=ensemble,
        options=options,
        path=options.output,
        layout=replace(layout, volumes_per_shard=min(layout.volumes_per_shard, finely)),
        key=key,
        frame=frame,
        how_far=how_far(
            options.output,
            key=key,
            overwrite=options.overwrite,
            made_from="another ensemble, reference or options",
        ),
    )


@dataclass(frozen=True)
class _ShardTask:
    """Everything that one worker needs to write one shard."""

    path: str
    bounds: tuple[int, int]
    positions: np.ndarray
    names: np.ndarray
    volumes: StoredVolumes
    usable: np.ndarray
    dtype: str
    reference: Reference
    hand: bool

    def run(self) -> None:
        """Fit, move, measure and write the volumes."""
        count = len(self.positions)
        record = np.zeros((count, len(RECORD_COLUMNS)))
        fits = np.full((count, len(FIT_COLUMNS)), np.nan)

        def finished() -> np.ndarray:
            start, stop = self.bounds
            open_array(open_group(self.path, mode="r+"), FITS)[start:stop] = fits
            return record

        write_shard(self.path, self.bounds, self._moved(record, fits), finished)

    def _moved(self, record: np.ndarray, fits: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the volumes as they are stored, and note what they are and how they were moved."""
        fitter = _fitter(self.reference)
        for row, volume in enumerate(self.volumes):
            if not self.usable[row]:
                yield volume
                continue
            try:
                fit = fitter.fit(volume, hand=self.hand)
            except InputError as error:
                raise InputError(f"{self.names[row]}: {error}") from error
            density = move(volume, fit.motion)
            fits[row] = row_of(fit)
            density, record[row] = to_stored(
                density, measure(density), dtype=self.dtype, source_crc32c=crc32c(density)
            )
            yield density


_FITTERS: dict[str, Fitter] = {}
_ONE_AT_A_TIME = threading.Lock()


def _fitter(reference: Reference) -> Fitter:
    """Return the fitter of a reference, made once per process."""
    key = f"{crc32c(reference.density)} {reference.density.shape} {reference.box}"
    with _ONE_AT_A_TIME:
        if key not in _FITTERS:
            _FITTERS.clear()
            _FITTERS[key] = Fitter(reference)
        return _FITTERS[key]
