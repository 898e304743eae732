"""While a store is made: one run at a time, and words for a disk that is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emhet_dask.errors import InputError
from emhet_dask.runtime.full_disk import words_for_full_disk
from emhet_dask.runtime.lock import NAME, FolderLock, ObjectLock
from emhet_dask.urls import check_url, is_url, words_for_url

__all__ = ["making_store"]

Say = Callable[[str], None]


class _LockBeside(FolderLock):
    """The lock of a store lies beside it: a store that is made again is emptied."""

    def __init__(self, store: Path, *, command: str, say: Say | None) -> None:
        super().__init__(store.parent, command=command, say=say)
        self._where = str(store)
        self._path = store.with_name(f".{store.name}{NAME}")


class _ObjectLockBeside(ObjectLock):
    """The same in an object store."""

    def __init__(self, url: str, *, command: str, say: Say | None) -> None:
        import fsspec  # noqa: PLC0415 - object stores only

        files, root = fsspec.core.url_to_fs(url.rstrip("/"), use_listings_cache=False)
        folder, _, name = root.rpartition("/")
        if not folder:
            raise InputError(
                f"{url}: is a whole bucket; expected a place in it, such as "
                f"{url.rstrip('/')}/ensemble.zarr"
            )
        super().__init__(files, folder, where=url, command=command, say=say)
        self._object = f"{folder}/.{name}{NAME}"


@contextmanager
def making_store(path: str, *, command: str, say: Say | None = None) -> Iterator[None]:
    """Make sure that no other run makes the same store for as long as the block takes.

    Parameters
    ----------
    path : str
        Of the store, or its URL.
    command : str
        What the run does, for the message to others.
    say : callable, optional
        Told, in one sentence, when there is reason to wait.

    Raises
    ------
    InputError
        When another run does so, or a URL holds credentials, cannot be reached or written to, or
        is a whole bucket.
    EmhetError
        When the disk is full.
    """
    if is_url(path):
        with _alone_at(path, command=command, say=say):
            yield
        return
    store = Path(path).absolute()
    with words_for_full_disk("store", store, finished="shards"):
        store.parent.mkdir(parents=True, exist_ok=True)
        lock = _LockBeside(store, command=command, say=say)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _alone_at(url: str, *, command: str, say: Say | None) -> Iterator[None]:
    check_url(url)
    with words_for_url(url):
        lock = _ObjectLockBeside(url, command=command, say=say)
        try:
            lock.acquire()
        except FileNotFoundError as error:
            raise InputError(f"{url}: there is no such bucket to write to") from error
    try:
        yield
    finally:
        with words_for_url(url):
            lock.release()
