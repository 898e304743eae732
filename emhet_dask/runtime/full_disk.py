"""Words for a disk that is full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emhet_dask.errors import EmhetError

__all__ = ["words_for_full_disk"]


@contextmanager
def words_for_full_disk(what: str, target: Path, *, finished: str) -> Iterator[None]:
    """Turn the error of a full disk, or of a used-up quota, into one line.

    Parameters
    ----------
    what : str
        What is being written, for the head of the line.
    target : Path
        Where to.
    finished : str
        What the same command goes on from, in the plural.

    Raises
    ------
    EmhetError
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EmhetError(
            f"{what}: no space left for {target}; make some, then the same command goes on from "
            f"the {finished} that are finished"
        ) from error
