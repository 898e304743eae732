"""cryoSPARC particle files (``.cs``): NumPy records, joined on ``uid``, which names a particle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from emhet_dask.errors import InputError

__all__ = ["read_particles", "write_particles"]

# NumPy's own limit for the text that describes the fields is 10,000 characters.
_MAX_HEADER = 200_000


def read_particles(path: str | Path, *, passthrough: Sequence[str | Path] = ()) -> np.ndarray:
    """Read a ``.cs`` file and the fields that its passthrough files add.

    Parameters
    ----------
    path : str or Path
        The particles; their order is kept.
    passthrough : sequence of str or Path
        Files whose rows are found by ``uid``; a field that is there already is not replaced.

    Returns
    -------
    ndarray
        Structured, one record per particle, with the field ``uid``.

    Raises
    ------
    InputError
        When a file is not a ``.cs`` file, has no or repeated ``uid``, or a passthrough file lacks
        a particle.
    """
    particles = _load(path)
    for other in passthrough:
        particles = _join(particles, _load(other), path=path, other=other)
    return particles


def write_particles(
    path: str | Path, particles: np.ndarray, *, rows: np.ndarray | None = None
) -> None:
    """Write records, or some of them, as a ``.cs`` file that cryoSPARC imports.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    particles : ndarray
        From `read_particles`.
    rows : ndarray of int or bool, optional
        Which records, in this order; all by default.

    Raises
    ------
    InputError
        When a row is asked for that is not there.
    """
    if rows is not None:
        try:
            particles = particles[np.asarray(rows)]
        except IndexError as error:
            raise InputError(
                f"{path}: has {len(particles)} particles to choose from: {error}"
            ) from None
    with Path(path).open("wb") as file:  # np.save would add .npy to a name
        np.save(file, particles, allow_pickle=False)


def _load(path: str | Path) -> np.ndarray:
    try:
        with Path(path).open("rb") as file:
            records = np.load(file, allow_pickle=False, max_header_size=_MAX_HEADER)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # NumPy parses the header as Python text, which fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a cryoSPARC .cs file ({reason})") from None
    names = getattr(getattr(records, "dtype", None), "names", None)
    if not names or "uid" not in names or records.ndim != 1:
        raise InputError(f"{path}: not a cryoSPARC particle file; it has no records with a uid")
    n_different = len(np.unique(records["uid"]))
    if n_different != len(records):
        raise InputError(f"{path}: {len(records)} particles have only {n_different} different uids")
    return cast(np.ndarray, records)


def _join(
    particles: np.ndarray, more: np.ndarray, *, path: str | Path, other: str | Path
) -> np.ndarray:
    order = np.argsort(more["uid"], kind="stable")
    position = np.searchsorted(more["uid"], particles["uid"], sorter=order)
    rows = order[np.minimum(position, len(more) - 1)] if len(more) else np.empty(0, np.int64)
    found = more["uid"][rows] == particles["uid"] if len(more) else np.zeros(len(particles), bool)
    if not found.all():
        raise InputError(
            f"{other}: lacks {np.count_nonzero(~found)} of the {len(particles)} particles of "
            f"{path}, by uid"
        )
    fields = [
        (name, more.dtype[name])
        for name in more.dtype.names or ()
        if name not in (particles.dtype.names or ())
    ]
    joined = np.empty(len(particles), [*_fields(particles), *fields])
    for name in particles.dtype.names or ():
        joined[name] = particles[name]
    for name, _ in fields:
        joined[name] = more[name][rows]
    return joined


def _fields(records: np.ndarray) -> list[tuple[str, np.dtype]]:
    return [(name, records.dtype[name]) for name in records.dtype.names or ()]
