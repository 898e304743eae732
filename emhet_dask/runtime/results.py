"""The results folder: stages that are finished or not there, what they were made with, and a lock.

A stage is one step of a command, with everything it writes. It is built in a staging folder, moved
into place when it is whole, and then recorded in ``run.json`` under a key made of its parameters,
those of the stages before it, and its input. The same key again means that nothing is left to do.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emhet_dask.errors import InputError
from emhet_dask.runtime import moves
from emhet_dask.runtime.damage import words_for_damage
from emhet_dask.runtime.full_disk import words_for_full_disk
from emhet_dask.runtime.lock import NAME as LOCK_NAME
from emhet_dask.runtime.lock import FolderLock, ObjectLock
from emhet_dask.runtime.measurement import measure
from emhet_dask.runtime.memory import Plan, Work
from emhet_dask.runtime.progress import Progress
from emhet_dask.runtime.provenance import digest, plain, versions
from emhet_dask.runtime.publishing import Published
from emhet_dask.runtime.record import RUN_FILE, Run, StageRecord, changes, read_entry
from emhet_dask.runtime.replacing import replacement
from emhet_dask.urls import UrlPlace, is_url

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ResultsFolder"]

KEY_PREFIX = 12


class ResultsFolder:
    """The folder of ``-o`` while a command works in it; see `ResultsFolder.open`.

    Attributes
    ----------
    place : Path or UrlPlace
        Where the results are for everybody else: the folder as it was given, or the URL.
    client : distributed.Client or None
        Whose workers' memory is recorded too; may be set once the folder is taken.
    """

    def __init__(
        self,
        root: Path,
        run: Run,
        *,
        recorded: Run | None,
        overwrite: bool,
        lock: FolderLock,
        progress: Progress,
        client: Client | None,
        published: tuple[Published, ObjectLock] | None = None,
    ) -> None:
        self._root = root
        self._published = published
        self.place: Path | UrlPlace = root if published is None else UrlPlace(published[0].url)
        self._run = run
        self._recorded = recorded
        self._overwrite = overwrite
        self._lock = lock
        self._progress = progress
        self.client = client
        self._keys: dict[str, str] = {}
        self._plans: list[Plan] = []

    @classmethod
    @contextmanager
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        command: str,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
        client: Client | None = None,
    ) -> Iterator[ResultsFolder]:
        """Take a folder for the results of one run, new or to be continued.

        Parameters
        ----------
        path : path or URL
            Made where it does not exist. Of a URL, stages are built in a folder of this machine,
            and published when they are finished.
        command : str
            E.g. ``"landscape"``.
        inputs : mapping
            What identifies the data; part of every stage's key.
        parameters : mapping, optional
            All of the command's options, for the reader of ``run.json``; without those that say
            where and how loudly it runs.
        overwrite : bool
            Let stages replace ones with other settings. Those with the same settings stay, so that
            a run with this option can be continued by the same command too.
        progress : Progress, optional
            Told what is skipped.
        client : distributed.Client, optional
            Its workers' memory is recorded too.

        Yields
        ------
        ResultsFolder

        Raises
        ------
        InputError
            When the path cannot be such a folder, holds other things, holds results of another
            command or input (and `overwrite` is not set), or another run works there.
        """
        progress = Progress(quiet=True) if progress is None else progress
        with ExitStack() as stack:
            published = None
            if is_url(os.fspath(path)):
                published = stack.enter_context(
                    Published.open(os.fspath(path), command=f"emhet {command}", say=progress.say)
                )
                path = published[0].folder
            run = Run(command, plain(parameters or {}), versions(), plain(inputs), {}, {})
            folder = stack.enter_context(
                cls._open(
                    Path(path).absolute(),
                    run,
                    overwrite=overwrite,
                    progress=progress,
                    client=client,
                    published=published,
                )
            )
            if published is None:
                folder.place = Path(path)
            stack.enter_context(words_for_damage(Path(path).absolute(), folder.place))
            yield folder

    @classmethod
    @contextmanager
    def _open(
        cls,
        root: Path,
        run: Run,
        *,
        overwrite: bool,
        progress: Progress,
        client: Client | None,
        published: tuple[Published, ObjectLock] | None,
    ) -> Iterator[ResultsFolder]:
        """Take a folder of this machine."""
        made = _make(root)
        lock = FolderLock(root, command=f"emhet {run.command}", say=progress.say)
        with words_for_full_disk("opening", root, finished="stages"):
            lock.acquire()
        try:
            recorded = _recover(root)
            if not overwrite and recorded is not None and recorded.stages:
                _refuse_other(root, recorded, run)
            if recorded is None:
                moves.write_json(root / RUN_FILE, run.entry())
            folder = cls(
                root,
                run,
                recorded=recorded,
                overwrite=overwrite,
                lock=lock,
                progress=progress,
                client=client,
                published=published,
            )
            folder._publish()
            finished = False
            try:
                yield folder
                finished = True
            finally:
                folder._leave(finished=finished)
        finally:
            lock.release()
            if made:
                with suppress(OSError):
                    root.rmdir()  # where nothing came of it

    def path(self, *parts: str) -> Path:
        """Return a place in the folder."""
        return self._root.joinpath(*parts)

    def stage(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        after: Sequence[str] = (),
        replaceable: bool = False,
        keep_as: str | None = None,
        resumable: bool = False,
    ) -> StageRecord:
        """Finish a stage, or find it finished.

        Parameters
        ----------
        name : str
        parameters : mapping
            Everything that decides what the stage writes.
        build : callable
            Given an empty folder, writes there what is to be in the results folder, under the same
            names (``mask.mrc``, ``results.zarr/mask/…``, ``clusters/…``); may return facts to
            record.
        after : sequence of str
            Stages that it reads; finished in this run.
        replaceable : bool
            True where other parameters replace an earlier version without being asked.
        keep_as : str, optional
            Name for the stage's one folder when it is replaced later, so that it stays. May refer
            to parameters and facts: ``"clusters_{linkage}_{n_clusters}"``.
        resumable : bool
            Give `build` what an attempt with the same key left behind, instead of an empty folder.

        Returns
        -------
        StageRecord

        Raises
        ------
        InputError
            When the folder holds the stage with other parameters and it may not be replaced;
            nothing is touched.
        EmhetError
            When the disk is full.
        """
        key = self._key(name, parameters, after)
        record = None if self._recorded is None else self._recorded.stages.get(name)
        if record is not None and record.key == key:
            missing = record.missing()
            if not missing:
                self._progress.say(f"{name}: done before")
                self._keys[name] = key
                return dataclasses.replace(record, done_before=True)
            self._progress.say(f"{name}: {missing[0]} is missing; made again")
        elif record is not None and not (replaceable or self._overwrite):
            raise InputError(_difference(self._root, record, plain(parameters)))
        with (
            words_for_full_disk(name, self._root, finished="stages"),
            self._workspace(name, key, resumable=resumable) as workspace,
        ):
            self._plans = []
            with measure(self.client) as measured:
                summary = plain(build(workspace) or {})
            _sweep(workspace)
            done = StageRecord(
                name=name,
                key=key,
                parameters=plain(parameters),
                after=tuple(after),
                files=moves.files_of(workspace),
                summary=summary,
                seconds=round(measured.seconds, 3),
                peak_memory_bytes=measured.peak_bytes,
                worker_peak_memory_bytes=measured.worker_peak_bytes,
                finished=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                keep_as=_name_of(keep_as, {**plain(parameters), **summary}),
                root=self._root,
                plans=tuple(dataclasses.asdict(plan) for plan in self._plans),
            )
            self._commit(done, workspace)
        self._keys[name] = key
        return done

    def state(self, work: Work) -> None:
        """State what the stage that is being built will do; recorded with it.

        Parameters
        ----------
        work : Work

        Raises
        ------
        InputError
            When it needs more memory than the smallest worker has.
        """
        if self.client is not None:
            from emhet_dask.runtime.stating import state_plan  # noqa: PLC0415 - distributed

            self._plans.append(state_plan(work, self.client, self._progress))

    # --- what a stage does to the folder ---

    def _key(self, name: str, parameters: Mapping[str, Any], after: Sequence[str]) -> str:
        unknown = [earlier for earlier in after if earlier not in self._keys]
        if unknown:
            raise ValueError(f"{name} comes after {unknown[0]}, which this run has not finished")
        upstream = {earlier: self._keys[earlier] for earlier in after}
        return digest([self._run.command, name, parameters, upstream, self._run.inputs])

    @contextmanager
    def _workspace(self, name: str, key: str, *, resumable: bool) -> Iterator[Path]:
        """Make the staging folder of a stage, and remove those of attempts with other keys."""
        staging = self._root / moves.STAGING
        workspace = staging / f"{name}-{key[:KEY_PREFIX]}"
        for left in staging.glob(f"{name}-*"):
            other = left != workspace and _is_attempt_at(name, left)
            if other or (left == workspace and not resumable):
                moves.clear(left)
        workspace.mkdir(parents=True, exist_ok=True)
        try:
            yield workspace
        finally:
            if not resumable and not self._is_moving():
                moves.clear(workspace)

    def _is_moving(self) -> bool:
        """Tell whether moves are unfinished; until they are done, staging may not be touched."""
        return "moving" in read_entry(self._root)

    def _commit(self, done: StageRecord, workspace: Path) -> None:
        self._lock.check()
        recorded = self._run if self._recorded is None else self._recorded
        new = replacement(self._root, recorded=recorded, run=self._run, done=done)
        moves.clear(self._root / moves.REPLACED)
        going = moves.plan(
            self._root,
            workspace=workspace.relative_to(self._root).as_posix(),
            new=done.files,
            old=new.old,
            kept=new.kept,
            outdated_folders=new.outdated_folders,
        )
        if new.kept is not None:
            self._progress.say(f"{done.name}: the earlier version stays in {new.kept[1]}/")
        # From here on the new stage is what a later run will find, whenever this one is killed.
        moving = {"moves": going, "run": new.after.entry()}
        moves.write_json(self._root / RUN_FILE, new.before.entry() | {"moving": moving})
        self._recorded = _recover(self._root)
        self._publish()

    def _publish(self) -> None:
        if self._published is not None:
            published, lock = self._published
            lock.check()
            published.publish()

    def _leave(self, *, finished: bool) -> None:
        """Leave nothing behind but results, and what a resumable stage may go on from."""
        if self._is_moving():
            return
        staging = self._root / moves.STAGING
        if finished:
            moves.clear(staging)
        with suppress(OSError):
            staging.rmdir()
        nothing = self._recorded is None or not self._recorded.stages
        if nothing and not finished and not staging.exists():
            (self._root / RUN_FILE).unlink(missing_ok=True)


# --- opening --------------------------------------------------------------------------------------


def _make(root: Path) -> bool:
    """Make the folder, refuse one that is not ours; return whether it is new."""
    try:
        root.mkdir(parents=True)
    except FileExistsError:
        if not root.is_dir():
            raise InputError(f"-o: {root} is a file, expected a folder") from None
    except OSError as error:
        raise InputError(f"-o: {root} cannot be made: {error.strerror}") from error
    else:
        return True
    if not os.access(root, os.W_OK | os.X_OK):
        raise InputError(f"-o: {root} may not be written to")
    # A run that was killed before its first record leaves no more than these.
    ours = (LOCK_NAME, f".{RUN_FILE}.new")
    names = [entry.name for entry in root.iterdir()]
    if RUN_FILE not in names and not all(name.startswith(ours) for name in names):
        raise InputError(
            f"-o: {root} is not empty and not a results folder (it has no {RUN_FILE}); choose "
            "another -o"
        )
    return False


def _recover(root: Path) -> Run | None:
    """Read the record, after finishing moves that were under way when a run was killed."""
    if not (root / RUN_FILE).exists():
        return None
    entry = read_entry(root)
    moving = entry.get("moving")
    if moving is not None:
        moves.finish(root, moving["moves"])
        entry = moving["run"]
        moves.write_json(root / RUN_FILE, entry)
        moves.clear(root / moves.REPLACED)
        moves.clear(root / moving["moves"]["workspace"])
    return Run.of(entry, root)


def _refuse_other(root: Path, recorded: Run, run: Run) -> None:
    if recorded.command != run.command:
        what = f"holds results of 'emhet {recorded.command}', not '{run.command}'"
    elif digest(recorded.inputs) != digest(run.inputs):
        what = f"holds results of other input ({changes(recorded.inputs, run.inputs)})"
    else:
        return
    raise InputError(f"-o: {root} {what}; add --overwrite to replace them, or choose another -o")


def _difference(root: Path, record: StageRecord, parameters: Mapping[str, Any]) -> str:
    found = changes(record.parameters, parameters) or f"other {' and '.join(record.after)}"
    return (
        f"-o: {root} holds {record.name} made with other settings ({found}); add --overwrite to "
        "replace it, or choose another -o"
    )


def _is_attempt_at(name: str, folder: Path) -> bool:
    return re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{{KEY_PREFIX}}}", folder.name) is not None


def _name_of(template: str | None, facts: Mapping[str, Any]) -> str | None:
    return None if template is None else re.sub(r"[^\w.+-]+", "-", template.format_map(facts))


def _sweep(workspace: Path) -> None:
    """Remove what an interrupted write of Zarr's left among resumed files."""
    for left in workspace.rglob("*.partial"):
        left.unlink()
