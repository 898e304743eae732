"""Making a store: what is there already, and what is stored of each volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    forget_records,
    half_scale,
    holds_store,
    open_group,
)
from emhet_dask.errors import InputError

__all__ = ["HowFar", "how_far", "to_stored"]

HowFar = Literal["nowhere", "begun", "complete"]


def how_far(path: str, *, key: str, overwrite: bool, made_from: str) -> HowFar:
    """Tell how far an earlier call came with a store; refuse what is in its way.

    Of a complete one, records that a kill at the very end left are removed.

    Parameters
    ----------
    path : str
        Of the store that is to be made.
    key : str
        The ``ingest_key`` of this call: sources and settings.
    overwrite : bool
        Whether to replace a store, whatever it was made from.
    made_from : str
        What a store with another key differs in, for the message.

    Returns
    -------
    {"nowhere", "begun", "complete"}
        Nowhere also where the store is to be made anew. One that was begun has all its arrays, and
        some of its shards.

    Raises
    ------
    InputError
        When there is something else than a store, or one with another key.
    """
    if not holds_store(path):
        return "nowhere"
    attributes = dict(open_group(path).attrs)
    if attributes.get("schema") != "emhet_dask.ensemble":
        raise InputError(f"{path}: exists and is not an ensemble store; choose another -o")
    if overwrite:
        return "nowhere"
    if attributes.get("ingest_key") != key:
        raise InputError(f"{path}: made from {made_from}; --overwrite replaces it")
    if not attributes.get("prepared"):
        return "nowhere"
    if not attributes.get("complete"):
        return "begun"
    forget_records(path)
    return "complete"


def to_stored(
    volume: np.ndarray, measured: Mapping[str, float], *, dtype: str, source_crc32c: int
) -> tuple[np.ndarray, list[float]]:
    """Return a usable volume as it is stored, and what is recorded of it.

    Parameters
    ----------
    volume : ndarray of float32, shape (z, y, x)
        With finite densities.
    measured : mapping
        From `emhet_dask.analysis.intensity.measure`.
    dtype : str
        Of the store; ``float16`` is stored with a scale of its own.
    source_crc32c : int
        Checksum of the volume as it was read.

    Returns
    -------
    volume : ndarray of float32, shape (z, y, x)
        Divided by its scale.
    record : list of float
        A value for each of `RECORD_COLUMNS`, 0 where it is not known here.
    """
    scale = 1.0
    if dtype == "float16":
        scale = half_scale(measured["minimum"], measured["maximum"])
        volume = volume / np.float32(scale)
    known = {**measured, "usable": 1.0, "scale": scale, "source_crc32c": float(source_crc32c)}
    return volume, [known.get(name, 0.0) for name in RECORD_COLUMNS]
