"""While a store is made: one run at a time, and words for a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emhet_dask.runtime.full_disk import words_for_full_disk
from emhet_dask.runtime.lock import NAME, FolderLock
from emhet_dask.urls import is_url

__all__ = ["making_store"]


class _LockBeside(FolderLock):
    """The lock of a store lies beside it: a store that is made again is emptied."""

    def __init__(self, store: Path, *, command: str) -> None:
        super().__init__(store.parent, command=command)
        self._where = str(store)
        self._path = store.with_name(f".{store.name}{NAME}")


@contextmanager
def making_store(path: str, *, command: str) -> Iterator[None]:
    """Make sure that no other run makes the same store for as long as the block takes.

    Parameters
    ----------
    path : str
        Of the store. One at a URL is not locked.
    command : str
        What the run does, for the message to others.

    Raises
    ------
    InputError
        When another run does so.
    EmhetError
        When the disk is full.
    """
    if is_url(path):
        yield
        return
    store = Path(path).absolute()
    with words_for_full_disk("store", store, finished="shards"):
        store.parent.mkdir(parents=True, exist_ok=True)
        lock = _LockBeside(store, command=command)
        lock.acquire()
        try:
            yield
        finally:
            lock.release()
