"""Whether a store is whole: every shard there, every checksum right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from zarr.core.sync import sync

from emhet_dask.ensemble.store import content_digest, open_array, open_group, read_array

__all__ = ["Shard", "check_arrays", "check_shard", "list_shards"]


@dataclass(frozen=True)
class Shard:
    """One file (or object) of the volumes.

    Attributes
    ----------
    path : str
        Of the store.
    key : str
        Of the shard, inside the store.
    bounds : (int, int)
        First volume, and the one after the last.
    """

    path: str
    key: str
    bounds: tuple[int, int]

    @property
    def described(self) -> str:
        """Return the shard in words."""
        return f"shard {self.key} (volumes {self.bounds[0]} to {self.bounds[1] - 1})"


def list_shards(path: str) -> Iterator[Shard]:
    """Yield the shards that a store should have.

    Parameters
    ----------
    path : str
        Any store with the array ``volumes``, its ingest finished or not.
    """
    volumes = open_array(open_group(path), "volumes")
    length = (volumes.shards or volumes.chunks)[0]
    count = volumes.shape[0]
    for number in range(-(-count // length)):
        bounds = (number * length, min((number + 1) * length, count))
        yield Shard(path, f"volumes/c/{number}/0/0/0", bounds)


def check_shard(shard: Shard, *, deep: bool) -> str | None:
    """Look whether a shard is there and, if asked, whether its checksums are right.

    Parameters
    ----------
    shard : Shard
    deep : bool
        Read it.

    Returns
    -------
    str or None
        What is wrong, as a sentence.
    """
    group = open_group(shard.path)
    store, prefix = group.store_path.store, group.store_path.path
    key = f"{prefix}/{shard.key}".lstrip("/")
    if not sync(store.exists(key)):
        return f"{shard.described} is missing"
    if not deep:
        return None
    volumes = open_array(group, "volumes")
    try:
        np.asarray(volumes[shard.bounds[0] : shard.bounds[1]])
    except Exception as error:
        return f"{shard.described} is damaged: {_first_line(error)}"
    return None


def check_arrays(path: str) -> list[str]:
    """Read every array but the volumes, and compare the content with what was ingested.

    A chunk that is missing reads as zeros; only the comparison finds it.

    Parameters
    ----------
    path : str
        A store.

    Returns
    -------
    list of str
        What is wrong, as sentences.
    """
    group = open_group(path)
    problems = []
    for name in sorted(set(group.array_keys()) - {"volumes"}):
        try:
            read_array(group, name)
        except Exception as error:
            problems.append(f"array {name} is damaged: {_first_line(error)}")
    fingerprint = group.attrs.get("fingerprint")
    if not problems and fingerprint is not None and content_digest(group) != fingerprint:
        problems.append(
            "names, weights, particles or checksums of the sources are other than when they were "
            "ingested"
        )
    return problems


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
