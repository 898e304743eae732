"""How the volumes of an ensemble are cut into chunks and shards.

Sizes were chosen by measurement (``docs/performance.md``): one volume per chunk is read alone
without its neighbours, a shard is written once by one task, and a store has few enough files for a
parallel file system at 10^5 volumes yet enough shards to share out where it is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Layout", "plan_layout"]

_CHUNK_BYTES = 1 << 20
_LARGEST_SHARD_BYTES = 128 << 20
_SMALLEST_SHARD_BYTES = 16 << 20
_SHARDS_OF_A_SMALL_STORE = 64


@dataclass(frozen=True)
class Layout:
    """Shape of the array ``volumes`` and how it is cut.

    Attributes
    ----------
    n_volumes : int
    box : int
        Voxels a side.
    dtype : str
        ``"float32"`` or ``"float16"``.
    volumes_per_chunk, volumes_per_shard : int
        A shard holds a whole number of chunks.
    """

    n_volumes: int
    box: int
    dtype: str
    volumes_per_chunk: int
    volumes_per_shard: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (volume, z, y, x)."""
        return (self.n_volumes, self.box, self.box, self.box)

    @property
    def nbytes(self) -> int:
        """Return the size of all volumes, uncompressed."""
        return self.n_volumes * self.volume_bytes

    @property
    def volume_bytes(self) -> int:
        """Return the size of one volume, uncompressed."""
        return self.box**3 * np.dtype(self.dtype).itemsize

    @property
    def n_shards(self) -> int:
        """Return the number of shards."""
        return -(-self.n_volumes // self.volumes_per_shard)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Return the first volume of a shard and the one after its last."""
        start = shard * self.volumes_per_shard
        return start, min(start + self.volumes_per_shard, self.n_volumes)

    def shards(self) -> Iterator[tuple[int, int]]:
        """Yield the bounds of every shard."""
        return (self.bounds(shard) for shard in range(self.n_shards))


def plan_layout(n_volumes: int, box: int, dtype: str) -> Layout:
    """Choose chunks and shards for an ensemble.

    Parameters
    ----------
    n_volumes : int
    box : int
        Voxels a side.
    dtype : str
        ``"float32"`` or ``"float16"``.

    Returns
    -------
    Layout
        Chunks of whole volumes, about 1 MiB where volumes are smaller; shards of 16 to 128 MiB,
        about 64 of them where the store allows it.
    """
    volume_bytes = box**3 * np.dtype(dtype).itemsize
    per_chunk = max(1, min(_CHUNK_BYTES // volume_bytes, n_volumes))
    wanted = n_volumes * volume_bytes / _SHARDS_OF_A_SMALL_STORE
    shard_bytes = min(max(wanted, _SMALLEST_SHARD_BYTES), _LARGEST_SHARD_BYTES)
    chunks_per_shard = max(1, round(shard_bytes / (per_chunk * volume_bytes)))
    chunks_in_all = -(-n_volumes // per_chunk)
    return Layout(
        n_volumes=n_volumes,
        box=box,
        dtype=dtype,
        volumes_per_chunk=per_chunk,
        volumes_per_shard=per_chunk * min(chunks_per_shard, chunks_in_all),
    )
