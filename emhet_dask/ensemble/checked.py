"""Stored arrays whose damage is told in words, with what mends it."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from emhet_dask.ensemble.shards import DamagedShardError, LocalShards
from emhet_dask.errors import InputError
from emhet_dask.urls import words_for_url

__all__ = ["REMAKE", "CheckedArray"]

# What mends a damaged result; what mends an ensemble is the default.
REMAKE = "remove that folder, and the same command makes it again"


class CheckedArray:
    """A stored array whose damage is told in words, on whichever worker it is read.

    Parameters
    ----------
    array : zarr.Array
    path : str
        Of the store, for the message.
    advice : str, optional
        What mends it; default: what mends an ensemble.
    """

    def __init__(self, array: zarr.Array, path: str, *, advice: str | None = None) -> None:
        self._array = array
        self._advice = advice or f"emhet info {path} says where, and ingest --overwrite mends it"
        self._local = LocalShards.of(array)
        self._path = path
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = len(array.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a part.

        Raises
        ------
        InputError
            When a checksum is wrong or a chunk cannot be decoded.
        """
        bounds = self._bounds(index)
        try:
            if self._local is not None and bounds is not None:
                return self._local.read(bounds)
            with words_for_url(self._path):
                return np.asarray(self._array[index])
        except InputError:
            raise
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{self._path}: damaged, {_damage(error)}; {self._advice}") from error

    def _bounds(self, index: Any) -> list[tuple[int, int]] | None:
        """Return the first and the last of plain slices, or None where others ask for more."""
        found = []
        parts = index if isinstance(index, tuple) else (index,)
        for part, size in zip(parts, self.shape, strict=False):
            if not isinstance(part, slice) or part.step not in (None, 1):
                return None
            start, stop, _ = part.indices(size)
            found.append((start, max(start, stop)))
        return found


def _damage(error: Exception) -> str:
    return str(error) if isinstance(error, DamagedShardError) else "a checksum is wrong"
