"""Words for finished work that was damaged since: which folder it is, and what mends it.

Arrays are stored with checksums, or compressed, so that what was cut short or changed cannot be
read. Whoever meets that raises what Zarr's codecs raise, on any worker. Only then is it looked up
where the damage is.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime import moves
from emhet_dask.runtime.record import Run, read_entry
from emhet_dask.urls import Place

__all__ = ["words_for_damage"]

_READERS = ("zarr", "numcodecs")
# Of a checksum, of a decoder, of a chunk that has too few bytes.
_ERRORS = (ValueError, RuntimeError, TypeError, IndexError)


@contextmanager
def words_for_damage(root: Path, place: Place) -> Iterator[None]:
    """Name the part of a results folder that is damaged, where the block could not read it.

    Parameters
    ----------
    root : Path
        The results folder.
    place : Path or UrlPlace
        As it is called in messages.

    Raises
    ------
    InputError
        When the block raises an error of Zarr's, and a finished or unfinished stage is damaged.
    """
    try:
        yield
    except EmhetError:
        raise
    except _ERRORS as error:
        if not _is_of_reading(error):
            raise
        found = _find(root)
        if found is None:
            raise
        folder, array, why = found
        raise InputError(
            f"{place / folder}: damaged, array {array}: {why}; remove that folder, and the same "
            "command makes it again"
        ) from error


def _is_of_reading(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, comes out of Zarr."""
    seen: BaseException | None = error
    while seen is not None:
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] in _READERS:
                return True
        seen = seen.__cause__ or seen.__context__
    return False


def _find(root: Path) -> tuple[str, str, str] | None:
    """Return the folder to remove, the array inside and what is wrong with it."""
    for folder in _folders(root):
        for path in sorted(path.parent for path in (root / folder).rglob("zarr.json")):
            why = _problem(path)
            if why is not None:
                return folder, path.relative_to(root / folder).as_posix(), why
    return None


def _folders(root: Path) -> list[str]:
    """Return what can be made again as a whole: groups of stages, and stages under way."""
    under_way = sorted((root / moves.STAGING).glob("*"))
    found = [path.relative_to(root).as_posix() for path in under_way if path.is_dir()]
    with suppress(EmhetError):
        for stage in Run.of(read_entry(root), root).stages.values():
            found += [unit.rstrip("/") for unit in stage.files if unit.endswith("/")]
    return [folder for folder in found if (root / folder).is_dir()]


def _problem(path: Path) -> str | None:
    """Read all of an array, piece by piece; tell what is wrong."""
    import zarr  # noqa: PLC0415 - where something is damaged only

    try:
        array: Any = zarr.open(store=str(path), mode="r")
        if not isinstance(array, zarr.Array):
            return None
        sides = array.shards or array.chunks
        corners = (
            range(0, max(size, 1), side) for size, side in zip(array.shape, sides, strict=True)
        )
        for corner in product(*corners):
            where = tuple(slice(at, at + side) for at, side in zip(corner, sides, strict=True))
            array[where]
    except (*_ERRORS, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None
