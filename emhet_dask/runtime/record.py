"""What ``run.json`` says: the stages that are finished, and what they were made with."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emhet_dask.errors import InputError
from emhet_dask.runtime.moves import StageFiles
from emhet_dask.runtime.provenance import plain
from emhet_dask.urls import Place, place_of

__all__ = ["RUN_FILE", "Run", "StageRecord", "changes", "read_entry", "read_run"]

RUN_FILE = "run.json"
SCHEMA = 1


@dataclass(frozen=True)
class StageRecord:
    """A finished stage.

    Attributes
    ----------
    name, key : str
    parameters : mapping
        What it was made with, as plain values.
    after : tuple of str
        The stages that it was made from.
    files : mapping
        Path relative to the folder → SHA-256 of a small file, None for others. A Zarr group is one
        entry that ends in ``/``.
    summary : mapping
        What the builder returned.
    seconds : float
    peak_memory_bytes : int
        Over this process and its children, while the stage was built.
    worker_peak_memory_bytes : int or None
        Of one worker, where a client was given.
    finished : str
        Time, ISO 8601.
    keep_as : str or None
        The name that its folder gets when other settings replace it.
    plans : tuple of mapping
        What was said before its work began: see `emhet_dask.runtime.Plan`.
    root : Path or UrlPlace
        The results folder.
    done_before : bool
        True where this run found it finished.
    """

    name: str
    key: str
    parameters: Mapping[str, Any]
    after: tuple[str, ...]
    files: StageFiles
    summary: Mapping[str, Any]
    seconds: float
    peak_memory_bytes: int
    worker_peak_memory_bytes: int | None
    finished: str
    keep_as: str | None
    root: Place = dataclasses.field(compare=False)
    plans: tuple[Mapping[str, Any], ...] = ()
    done_before: bool = dataclasses.field(default=False, compare=False)

    def path(self, name: str) -> Place:
        """Return where a file of the folder is."""
        return self.root / name

    def missing(self) -> list[str]:
        """List the files that are no longer there."""
        return [name for name in self.files if not (self.root / name).exists()]

    def entry(self) -> dict[str, Any]:
        """Return what is written of it."""
        left_out = {"name", "root", "done_before"}
        fields = (field.name for field in dataclasses.fields(self))
        return {name: plain(getattr(self, name)) for name in fields if name not in left_out}


@dataclass(frozen=True)
class Run:
    """What ``run.json`` says.

    Attributes
    ----------
    command : str
    parameters, versions, inputs : mapping
    stages : mapping of str to StageRecord
    kept : mapping
        Folder of an earlier version of a stage → what it was made with.
    """

    command: str
    parameters: Mapping[str, Any]
    versions: Mapping[str, str]
    inputs: Mapping[str, Any]
    stages: Mapping[str, StageRecord]
    kept: Mapping[str, Mapping[str, Any]]

    def entry(self) -> dict[str, Any]:
        """Return what is written of it."""
        stages = {name: record.entry() for name, record in self.stages.items()}
        return (
            {"schema": SCHEMA} | {f: plain(getattr(self, f)) for f in _FIELDS} | {"stages": stages}
        )

    @staticmethod
    def of(entry: Mapping[str, Any], root: Place) -> Run:
        """Make it from what is written.

        Raises
        ------
        InputError
            When that lacks something.
        """
        try:
            stages = {
                name: StageRecord(
                    **{
                        **stage,
                        "after": tuple(stage["after"]),
                        "plans": tuple(stage.get("plans", ())),
                    },
                    name=name,
                    root=root,
                )
                for name, stage in entry["stages"].items()
            }
            return Run(stages=stages, **{field: entry[field] for field in _FIELDS})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{root / RUN_FILE}: not a record of emhet ({error})") from error


_FIELDS = ("command", "parameters", "versions", "inputs", "kept")


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read what a results folder holds, without taking part in it.

    Parameters
    ----------
    path : path or URL
        A folder that a command wrote with ``-o``.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        When it is no such folder.
    """
    root = place_of(path)
    if not (root / RUN_FILE).is_file():
        raise InputError(f"{root}: not a results folder (it has no {RUN_FILE})")
    return Run.of(read_entry(root), root)


def read_entry(root: Place) -> dict[str, Any]:
    """Read the JSON of ``run.json``.

    Raises
    ------
    InputError
        When it cannot be read, is something else, or was written by a later version.
    """
    path = root / RUN_FILE
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        schema = int(entry["schema"])
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a record of emhet; choose another folder") from error
    if schema > SCHEMA:
        raise InputError(f"{path}: written by a later version of emhet-dask (schema {schema})")
    return dict(entry)


def changes(before: Mapping[str, Any], now: Mapping[str, Any], *, limit: int = 3) -> str:
    """Say in words which values differ: ``"n_components: 20 → 10"``; empty where none does."""
    names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    shown = [f"{n}: {_short(before.get(n))} → {_short(now.get(n))}" for n in names[:limit]]
    return ", ".join(shown + ["…"] * (len(names) > limit))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
