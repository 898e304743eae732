"""Where voxels are occupied, as bits that tiles of pairs read: made from the stored matrix.

The matrix is read once, by columns, for several levels of thresholds. A second, small step keeps
the voxels that are worth comparing and lays their bits out in bands of voxels, cut in runs of
bytes: a tile reads its two bands and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dask
import numpy as np
import zarr
from dask.delayed import Delayed
from numpy.typing import ArrayLike
from zarr.codecs import Crc32cCodec

from emhet_dask.ensemble.checked import REMAKE, CheckedArray
from emhet_dask.ensemble.keyed import keyed_group
from emhet_dask.ensemble.rows import StoredRows
from emhet_dask.ensemble.shards import LocalShards
from emhet_dask.ensemble.store import (
    has_chunk,
    open_array,
    open_group,
    put_array,
    read_array,
)
from emhet_dask.errors import InputError
from emhet_dask.variables import OCCUPIED

__all__ = ["StoredBits", "finish_occupied", "open_occupied", "write_occupied"]

Choose = Callable[[np.ndarray, int], np.ndarray]

# Voxels of a band that is stored as one file, and bytes in a chunk of it: 2,048 volumes are what
# one step of counting takes.
_VOXELS = 1024
_BYTES = 256
_PARTS = ("all_bits", "all_margins", "column_index")


@dataclass(frozen=True)
class StoredBits:
    """Bits of the kept voxels of one level; only the path travels to the tasks that read them.

    Bit *v* of a voxel is volume *v*: ``numpy.unpackbits(bits, axis=1, count=n_volumes)``.

    Attributes
    ----------
    path : str
        Group of the level.
    """

    path: str

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels."""
        return int(self._bits().shape[0])

    @property
    def n_bytes(self) -> int:
        """Return the number of bytes of each voxel."""
        return int(self._bits().shape[1])

    @property
    def n_volumes(self) -> int:
        """Return the number of volumes."""
        return int(str(open_group(self.path).attrs["n_volumes"]))

    @property
    def margins(self) -> np.ndarray:
        """Return the number of volumes in which each voxel is occupied, int64 (voxel,)."""
        return read_array(open_group(self.path), "margin")

    @property
    def matrix_column(self) -> np.ndarray:
        """Return the column of each voxel in the matrix, (voxel,)."""
        return read_array(open_group(self.path), "matrix_column")

    @property
    def voxel_index(self) -> np.ndarray:
        """Return the position of each voxel in the flattened box, (voxel,)."""
        return read_array(open_group(self.path), "voxel_index")

    def __call__(self, voxels: slice, octets: slice) -> np.ndarray:
        """Read bits, uint8 (voxel, byte).

        Raises
        ------
        InputError
            When they are damaged.
        """
        # All levels are one result, and made again together.
        whole = str(Path(self.path).parent)
        return CheckedArray(self._bits(), whole, advice=REMAKE)[voxels, octets]

    def _bits(self) -> zarr.Array:
        return open_array(open_group(self.path), "bits")


def write_occupied(
    path: str, matrix_path: str, thresholds: ArrayLike, *, key: str
) -> list[Delayed]:
    """Plan the comparison of the whole matrix with thresholds; nothing is read yet.

    Parameters
    ----------
    path : str
        Group of its own. Columns that an earlier call with the same `key` finished are kept.
    matrix_path : str
        From `emhet_dask.ensemble.matrix.write_matrix`. Its values are compared, whatever the
        weights of its voxels.
    thresholds : array of float (level, volume)
        Occupied is what is above that of its volume.
    key : str
        Of everything that the bits and the choice of voxels depend on.

    Returns
    -------
    list of dask.delayed.Delayed
        One for each chunk of columns that is not there yet, to be computed in any order; then
        comes `finish_occupied`.

    Raises
    ------
    InputError
        When a threshold is not finite, or there are more or fewer than volumes.
    """
    rows = StoredRows(matrix_path)
    n_volumes, n_columns = rows.shape
    values = np.asarray(thresholds, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != n_volumes or not len(values):
        raise InputError(
            f"thresholds: found an array of shape {values.shape}; one number for each of the "
            f"{n_volumes} volumes is needed, at each level"
        )
    if not np.isfinite(values).all():
        raise InputError("thresholds: some are NaN or infinite; they must be finite numbers")
    group, fresh = keyed_group(path, {"key": key})
    if group.attrs.get("complete"):
        return []
    if fresh:
        matrix = open_group(matrix_path)
        width = open_array(matrix, "matrix").chunks[1]
        n_bytes = -(-n_volumes // 8)
        _create(group, "all_bits", (len(values), n_columns, n_bytes), (len(values), width))
        group.create_array(
            "all_margins",
            shape=(len(values), n_columns),
            chunks=(len(values), width),
            dtype="int32",
            fill_value=-1,  # of columns that are not there
            compressors=(Crc32cCodec(),),
            dimension_names=OCCUPIED["all_margins"].dims,
            attributes={**OCCUPIED["all_margins"].attributes()},
        )
        _put(group, "column_index", read_array(matrix, "voxel_index"))
        # Last: with the key, the arrays are known to be there.
        group.attrs.update({"n_volumes": n_volumes, "levels": len(values), "key": key})
    record = open_array(group, "all_margins")
    limits = dask.delayed(_rounded_down(values), pure=False)  # once, not once for each task
    task = dask.delayed(_pack_columns, pure=False)
    return [
        task(path, rows, limits, number, dask_key_name=f"occupied-{number:06d}-{uuid4().hex}")
        for number in range(-(-n_columns // record.chunks[1]))
        if fresh or not has_chunk(record, 0, number)
    ]


def finish_occupied(path: str, *, choose: Choose) -> None:
    """Keep the voxels that are worth comparing, and lay their bits out in bands of voxels.

    Parameters
    ----------
    path : str
        A store whose tasks are all done; a finished one is left as it is.
    choose : callable
        ``choose(margins, n_volumes)`` gives the columns to keep, rising, for each level;
        `emhet_dask.analysis.binarised.kept_voxels`, which refuses a level that leaves none.
    """
    group = open_group(path, mode="r+")
    if not group.attrs.get("complete"):
        record = open_array(group, "all_margins")
        count = -(-record.shape[1] // record.chunks[1])
        missing = sum(not has_chunk(record, 0, number) for number in range(count))
        if missing:
            raise ValueError(f"{path}: {missing} of {count} chunks of columns are not written")
        n_volumes = int(str(group.attrs["n_volumes"]))
        margins = read_array(group, "all_margins")
        chosen = [np.asarray(choose(each, n_volumes)) for each in margins]
        index = read_array(group, "column_index")
        for level, columns in enumerate(chosen):
            kept = group.create_group(
                f"level_{level}", overwrite=True, attributes={"n_volumes": n_volumes}
            )
            _put(kept, "margin", margins[level, columns].astype(np.int64))
            _put(kept, "matrix_column", columns.astype(np.int64))
            _put(kept, "voxel_index", index[columns])
            _lay_out(group, level, columns, kept)
        group.attrs["complete"] = True
    for name in _PARTS:
        if name in group:
            del group[name]


def open_occupied(path: str, level: int = 0) -> StoredBits:
    """Open the bits of one level.

    Parameters
    ----------
    path : str
    level : int

    Raises
    ------
    InputError
        When there are none, or they are not finished.
    """
    group = open_group(path)
    if not group.attrs.get("complete"):
        raise InputError(f"{path}: not all maps are compared with the threshold; run it again")
    return StoredBits(f"{path}/level_{level}")


def _pack_columns(path: str, rows: StoredRows, limits: np.ndarray, number: int) -> int:
    """Write the bits of a chunk of columns, at all levels, then the record that it is finished."""
    group = open_group(path, mode="r+")
    record, target = open_array(group, "all_margins"), open_array(group, "all_bits")
    width = record.chunks[1]
    columns = slice(number * width, min((number + 1) * width, record.shape[1]))
    length = columns.stop - columns.start
    n_levels, n_volumes = limits.shape
    bits = np.zeros((n_levels, length, target.shape[2]), dtype=np.uint8)
    margins = np.zeros((n_levels, length), dtype=np.int32)
    waiting = np.empty((n_levels, 0, length), dtype=bool)  # volumes that do not fill a byte yet
    filled = 0
    for run, values in rows(slice(0, n_volumes), columns):
        occupied = np.concatenate([waiting, values > limits[:, run, None]], axis=1)
        count = occupied.shape[1] if run.stop == n_volumes else occupied.shape[1] // 8 * 8
        octets = np.packbits(occupied[:, :count], axis=1)
        bits[:, :, filled : filled + octets.shape[1]] = octets.transpose(0, 2, 1)
        margins += np.count_nonzero(occupied[:, :count], axis=1)
        filled += octets.shape[1]
        waiting = occupied[:, count:]
    _write(target, (0, number, 0), (slice(0, n_levels), columns), bits)
    record[:, columns] = margins
    return number


def _lay_out(group: zarr.Group, level: int, columns: np.ndarray, kept: zarr.Group) -> None:
    """Copy the bits of chosen columns, a band of voxels at a time."""
    source = open_array(group, "all_bits")
    checked = CheckedArray(source, str(group.store_path), advice=REMAKE)
    width, n_bytes = source.chunks[1], source.shape[2]
    target = _create(kept, "bits", (len(columns), n_bytes), (min(_VOXELS, len(columns)),))
    step = target.chunks[0]
    for number, start in enumerate(range(0, len(columns), step)):
        band = columns[start : start + step]
        bits = np.empty((len(band), n_bytes), dtype=np.uint8)
        for chunk in np.unique(band // width):
            inside = band // width == chunk
            first, last = int(band[inside][0]), int(band[inside][-1])
            found = checked[level : level + 1, first : last + 1, 0:n_bytes][0]
            bits[inside] = found[band[inside] - first]
        _write(target, (number, 0), (slice(start, start + len(band)),), bits)


def _create(
    group: zarr.Group, name: str, shape: tuple[int, ...], shard: tuple[int, ...]
) -> zarr.Array:
    """Make an array of bits: shards of whole voxels, cut in chunks of bytes (and levels)."""
    n_bytes = min(_BYTES, shape[-1])
    return group.create_array(
        name,
        shape=shape,
        chunks=(*(1,) * (len(shard) - 1), shard[-1], n_bytes),
        shards=(*shard, -(-shape[-1] // n_bytes) * n_bytes),
        dtype="uint8",
        compressors=(Crc32cCodec(),),
        dimension_names=OCCUPIED[name].dims,
        attributes={**OCCUPIED[name].attributes()},
    )


def _write(
    target: zarr.Array, shard: tuple[int, ...], place: tuple[slice, ...], bits: np.ndarray
) -> None:
    """Write a whole shard."""
    local = LocalShards.of(target)
    if local is None:
        target[place] = bits
    else:
        local.write(shard, _chunks(bits.reshape(-1, *bits.shape[-2:]), local.chunks[-2:]))


def _chunks(levels: np.ndarray, chunk: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Cut bits (level, voxel, byte) in chunks, filled up with zeros, in the order of a shard."""
    for bits in levels:
        for start in range(0, bits.shape[1], chunk[1]):
            part = bits[:, start : start + chunk[1]]
            padded = np.zeros((1, *chunk), dtype=np.uint8)
            padded[0, : part.shape[0], : part.shape[1]] = part
            yield padded


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 up to each threshold: a float32 is above both or neither."""
    with np.errstate(over="ignore"):
        found = thresholds.astype(np.float32)
    above = found > thresholds
    found[above] = np.nextafter(found[above], np.float32(-np.inf))
    return found


def _put(group: zarr.Group, name: str, values: np.ndarray) -> None:
    variable = OCCUPIED[name]
    put_array(group, name, values, variable.dims, attributes=variable.attributes())
