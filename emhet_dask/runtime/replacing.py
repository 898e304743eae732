"""What has to go, and what stays under another name, when a stage takes the place of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emhet_dask.runtime.moves import StageFiles
from emhet_dask.runtime.provenance import digest
from emhet_dask.runtime.record import Run, StageRecord

__all__ = ["Replacement", "replacement"]


@dataclass(frozen=True)
class Replacement:
    """How a new stage enters a folder.

    Attributes
    ----------
    old : mapping
        Files that go.
    kept : (str, str) or None
        A folder of theirs, and the name under which it stays.
    outdated_folders : tuple of str
        Folders kept earlier that go.
    before, after : Run
        The record while files are moved, and when they are.
    """

    old: StageFiles
    kept: tuple[str, str] | None
    outdated_folders: tuple[str, ...]
    before: Run
    after: Run


def replacement(root: Path, *, recorded: Run, run: Run, done: StageRecord) -> Replacement:
    """Decide how a new stage enters a folder.

    Parameters
    ----------
    root : Path
    recorded : Run
        What the folder holds.
    run : Run
        The run that made the stage.
    done : StageRecord
        The new stage.

    Returns
    -------
    Replacement

    Raises
    ------
    ValueError
        When the stage writes a file of another one's, or is to keep one folder and wrote several.
    """
    outdated = _outdated(recorded, run, done)
    staying = {n: record for n, record in recorded.stages.items() if n not in outdated}
    _refuse_shared_files(done, staying.values())
    entries = {n: entry for n, entry in recorded.kept.items() if (root / n).is_dir()}
    # A version kept of a stage was made from the stages before it: with those it goes.
    afresh = _other_data(recorded, run)
    going = {n for n, e in entries.items() if afresh or set(e["after"]) & set(outdated)}
    kept, kept_entry = None, {}
    replaced = outdated.get(done.name)
    if replaced is not None and replaced.keep_as and replaced.key != done.key and not afresh:
        name = _free_name(root, replaced, entries)
        going |= {name} & set(entries)
        kept, kept_entry = (_folder_of(replaced), name), {name: _kept_entry(replaced)}
    entries = {n: entry for n, entry in entries.items() if n not in going} | kept_entry
    return Replacement(
        old={file: sha for record in outdated.values() for file, sha in record.files.items()},
        kept=kept,
        outdated_folders=tuple(sorted(going)),
        before=dataclasses.replace(recorded, stages=staying),
        after=dataclasses.replace(run, stages={**staying, done.name: done}, kept=entries),
    )


def _other_data(recorded: Run, run: Run) -> bool:
    return recorded.command != run.command or digest(recorded.inputs) != digest(run.inputs)


def _outdated(recorded: Run, run: Run, done: StageRecord) -> dict[str, StageRecord]:
    """Return the recorded stages that cannot stay beside the new one."""
    stages = recorded.stages
    if _other_data(recorded, run):
        return dict(stages)
    gone = {done.name} & set(stages)
    if gone and stages[done.name].key != done.key:
        while more := {n for n, record in stages.items() if gone & set(record.after)} - gone:
            gone |= more
    return {n: record for n, record in stages.items() if n in gone}


def _refuse_shared_files(done: StageRecord, others: Iterable[StageRecord]) -> None:
    for other in others:
        if shared := set(done.files) & set(other.files):
            raise ValueError(f"{done.name} and {other.name} both write {min(shared)}")


def _folder_of(record: StageRecord) -> str:
    folders = {name.split("/")[0] for name in record.files if "/" in name and ".zarr/" not in name}
    if len(folders) != 1:
        raise ValueError(f"{record.name} is to keep its one folder, but wrote {sorted(folders)}")
    return folders.pop()


def _free_name(root: Path, replaced: StageRecord, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a name that is free, or that of the same version kept earlier."""
    name, number = str(replaced.keep_as), 1
    while (root / name).exists() and entries.get(name, {}).get("key") != replaced.key:
        number += 1
        name = f"{replaced.keep_as}_{number}"
    return name


def _kept_entry(replaced: StageRecord) -> dict[str, Any]:
    return {
        "stage": replaced.name,
        "key": replaced.key,
        "parameters": replaced.parameters,
        "after": list(replaced.after),
    }
