"""The Zarr v3 group that an ensemble lives in: making it, filling it shard by shard, finishing it.

A store passes through three states, told by attributes that are written last: *prepared* (all
arrays exist and all that is known before reading is in them), then shards are filled in any order,
then *complete*. While it is filled, the array ``ingest_record`` holds one row per volume, written
after the shard it speaks of: a shard with its record is finished and is never written again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync

from emhet_dask.ensemble.layout import Layout
from emhet_dask.ensemble.shards import LocalShards, gather_rows
from emhet_dask.errors import InputError
from emhet_dask.urls import check_url, is_url, words_for_url
from emhet_dask.variables import ENSEMBLE

__all__ = [
    "RECORD_COLUMNS",
    "SCHEMA_VERSION",
    "content_digest",
    "create_store",
    "digest_arrays",
    "finish_store",
    "forget_records",
    "half_scale",
    "has_chunk",
    "holds_store",
    "open_array",
    "open_group",
    "put_array",
    "read_array",
    "read_records",
    "sweep_store",
    "write_shard",
]

SCHEMA_VERSION = 1

# One row per volume, in the order in which finish_store takes them apart.
RECORD_COLUMNS = (
    "usable",
    "scale",
    "minimum",
    "maximum",
    "mean",
    "std",
    "percentile_9999",
    "source_crc32c",
    "source_size",
    "source_mtime_ns",
)
_RECORD = "ingest_record"
# Largest magnitude of a half-precision volume in the store: precise to 2^-11 down to 6e-8 of it.
_HALF_PEAK = 1024.0
_STORED_AS = {"usable": "bool", "source_crc32c": "uint32", "source_size": "int64"}

# The best compressor that was measured saves 13% of simulated and decoded maps, and costs two
# thirds of the writing and half of the reading speed (docs/performance.md).
_COMPRESSORS = (Crc32cCodec(),)
_SMALL_COMPRESSORS = (ZstdCodec(), Crc32cCodec())

# What the content of a store is told by, besides its scale and shape: never where it was read
# from or when, so that maps that were moved or copied stay the same ensemble.
_CONTENT = (
    "source_crc32c",
    "usable",
    "scale",
    "name",
    "weight",
    "particle_volume",
    "particle_index",
    "particle_name",
    "particle_copy",
    "latent",
    "particle_latent",
)


def open_group(path: str, *, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open the group at a path or URL.

    Parameters
    ----------
    path : str
        Folder or fsspec URL.
    mode : {"r", "r+"}

    Returns
    -------
    zarr.Group

    Raises
    ------
    InputError
        When there is no Zarr v3 group, or the URL holds credentials or cannot be reached.
    """
    if is_url(path):
        check_url(path)
    elif not Path(path).is_dir():
        raise InputError(f"{path}: no such store; make one with emhet ingest SOURCE -o {path}")
    try:
        with words_for_url(path):
            return zarr.open_group(path, mode=mode, zarr_format=3)
    except InputError:
        raise
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not an ensemble store (no Zarr v3 group inside), expected the output of "
            "emhet ingest"
        ) from error


def holds_store(path: str) -> bool:
    """Tell whether there is a store, finished or not, at the path or URL of one to be made.

    Raises
    ------
    InputError
        When there is something else, which must not be written over.
    """
    if is_url(path):
        check_url(path)
        with words_for_url(path):
            try:
                zarr.open_group(path, mode="r", zarr_format=3)
            except (FileNotFoundError, zarr.errors.GroupNotFoundError):
                return False
        return True
    target = Path(path)
    if target.is_dir() and not any(target.iterdir()):
        return False
    if target.exists() and not (target / "zarr.json").is_file():
        raise InputError(f"{path}: exists and is not an ensemble store; choose another -o")
    return target.exists()


def sweep_store(path: str) -> None:
    """Remove what a killed writer left half-written; files get their names when they are whole."""
    if not is_url(path):
        for partial in Path(path).rglob("*.partial"):
            partial.unlink(missing_ok=True)


def half_scale(minimum: float, maximum: float) -> float:
    """Return the power of two that a volume is divided by before it is stored in half precision."""
    peak = max(abs(minimum), abs(maximum))
    return float(2.0 ** np.ceil(np.log2(peak / _HALF_PEAK))) if peak > 0 else 1.0


def put_array(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    dims: tuple[str, ...],
    *,
    attributes: Mapping[str, Any] | None = None,
    chunks: tuple[int, ...] | None = None,
) -> None:
    """Write a small array in one go, replacing one of the same name.

    Parameters
    ----------
    group : zarr.Group
    name : str
    values : ndarray
        Texts are stored as variable-length strings.
    dims : tuple of str
    attributes : mapping, optional
    chunks : tuple of int, optional
        Default: one chunk.
    """
    text = values.dtype.kind in "UOT"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=chunks or tuple(max(1, size) for size in values.shape),
        dtype=str if text else values.dtype,
        compressors=_SMALL_COMPRESSORS,
        dimension_names=dims,
        attributes={**(attributes or {})},
        overwrite=True,
    )
    array[...] = values.astype(np.dtypes.StringDType()) if text else values


def create_store(
    path: str,
    layout: Layout,
    *,
    known: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> None:
    """Make an empty store: all arrays, and what is known of the volumes before they are read.

    Parameters
    ----------
    path : str
        Whatever is there is replaced.
    layout : Layout
    known : mapping of str to ndarray
        Arrays named in `emhet_dask.variables.ENSEMBLE`: ``name``, ``source``, ``weight``, …
    attributes : mapping
        JSON values: ``voxel_size_angstrom``, ``origin_angstrom``, ``ingest_key``, ….
    """
    try:
        with words_for_url(path):
            _create(path, layout, known=known, attributes=attributes)
    except FileNotFoundError as error:
        if not is_url(path):
            raise
        raise InputError(f"{path}: there is no such bucket to write to") from error


def _create(
    path: str,
    layout: Layout,
    *,
    known: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
) -> None:
    _withdraw(path)
    group = zarr.create_group(
        path,
        zarr_format=3,
        overwrite=True,
        attributes={
            **attributes,
            "schema": "emhet_dask.ensemble",
            "schema_version": SCHEMA_VERSION,
            "prepared": False,
            "complete": False,
        },
    )
    box = (layout.box,) * 3
    group.create_array(
        "volumes",
        shape=layout.shape,
        chunks=(layout.volumes_per_chunk, *box),
        shards=(layout.volumes_per_shard, *box),
        dtype=layout.dtype,
        compressors=_COMPRESSORS,
        dimension_names=ENSEMBLE["volumes"].dims,
        attributes={**ENSEMBLE["volumes"].attributes()},
        config={"write_empty_chunks": True},
    )
    group.create_array(
        _RECORD,
        shape=(layout.n_volumes, len(RECORD_COLUMNS)),
        chunks=(layout.volumes_per_shard, len(RECORD_COLUMNS)),
        dtype="float64",
        fill_value=float("nan"),
        dimension_names=("volume", "record"),
    )
    for name, values in known.items():
        variable = ENSEMBLE[name]
        put_array(group, name, values, variable.dims, attributes=variable.attributes())
    group.attrs["prepared"] = True


def _withdraw(path: str) -> None:
    """Empty a store that is to be replaced; killed in the middle, it is still known for one."""
    try:
        group = zarr.open_group(path, mode="r+", zarr_format=3)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        return
    group.attrs.update({"prepared": False, "complete": False})
    for name in list(group):
        del group[name]


def write_shard(
    path: str,
    bounds: tuple[int, int],
    volumes: Iterable[np.ndarray],
    record: np.ndarray | Callable[[], np.ndarray | None] | None,
) -> None:
    """Write one shard, then the record that it is finished.

    Parameters
    ----------
    path : str
    bounds : (int, int)
        First volume, and the one after the last; a whole shard.
    volumes : iterable of ndarray, shape (z, y, x)
        One after another, each in the memory of the last if that is convenient: on a disk, a shard
        is never held as a whole. In the dtype of the store, or float32, which is converted.
    record : ndarray, shape (volume, len(RECORD_COLUMNS)), or a function that returns it, or None
        The function is called when all volumes were taken. None leaves the shard unfinished, to
        be written again.
    """
    group = open_group(path, mode="r+")
    start, stop = bounds
    array = open_array(group, "volumes")
    local = LocalShards.of(array)
    if local is None:
        # Copies, since one volume may lie where the last one lay.
        shard = np.stack([np.array(volume, dtype=array.dtype) for volume in volumes])
        with words_for_url(path):
            array[start:stop] = shard
    else:
        number = start // local.shards[0]
        local.write((number, 0, 0, 0), gather_rows(volumes, local.chunks, local.dtype))
    finished = record() if callable(record) else record
    if finished is not None:
        with words_for_url(path):
            open_array(group, _RECORD)[start:stop] = finished


def read_records(path: str) -> np.ndarray:
    """Return the records, NaN where a shard is not finished; shape (volume, record)."""
    return np.asarray(open_array(open_group(path), _RECORD)[...])


def finish_store(path: str) -> None:
    """Turn the records into named arrays, and say what the store holds and that it is complete.

    Parameters
    ----------
    path : str
        A store whose every shard is finished.
    """
    sweep_store(path)  # of what a worker left that died while it wrote
    group = open_group(path, mode="r+")
    records = np.asarray(open_array(group, _RECORD)[...])
    if np.isnan(records[:, 0]).any():
        raise ValueError(f"{path}: {int(np.isnan(records[:, 0]).sum())} volumes are not written")
    half = open_array(group, "volumes").dtype == np.float16
    for column, name in enumerate(RECORD_COLUMNS):
        if name == "scale" and not half:
            continue
        values = records[:, column].astype(_STORED_AS.get(name, "float64"))
        meaning = ENSEMBLE[name].attributes() if name in ENSEMBLE else {}
        put_array(group, name, values, ("volume",), attributes=meaning)
    group.attrs.update({"fingerprint": content_digest(group), "complete": True})
    del group[_RECORD]


def forget_records(path: str) -> None:
    """Remove what is left of the records of a complete store, where the last call died over it.

    Parameters
    ----------
    path : str
    """
    del open_group(path, mode="r+")[_RECORD]


def content_digest(group: zarr.Group) -> str:
    """Return a text that changes when the content of a store does, told by its small arrays.

    Parameters
    ----------
    group : zarr.Group
        Whose volumes are all written. They are not read: the checksums of their sources, the box
        and the precision stand for them.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    volumes = open_array(group, "volumes")
    facts = {
        "shape": list(volumes.shape),
        "dtype": str(volumes.dtype),
        "voxel_size_angstrom": group.attrs.get("voxel_size_angstrom"),
        "origin_angstrom": group.attrs.get("origin_angstrom"),
    }
    arrays = {name: read_array(group, name) for name in _CONTENT if name in group}
    return digest_arrays(arrays, facts=facts)


def digest_arrays(arrays: Mapping[str, np.ndarray], *, facts: Any = None) -> str:
    """Return a text that changes when arrays do: their names, dtypes, shapes or values.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Numbers, booleans or texts; of texts, the way in which they are stored does not count.
    facts : optional
        JSON values that count too.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        if values.dtype.kind in "UOT":
            found.update(json.dumps([name, values.tolist()]).encode())
        else:
            found.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode())
            found.update(values.tobytes())
    return found.hexdigest()


def open_array(group: zarr.Group, name: str) -> zarr.Array:
    """Return an array of a group.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise InputError(f"{group.store_path}: no array {name} inside; ingest it again")
    return array


def read_array(group: zarr.Group, name: str) -> np.ndarray:
    """Return the values of a small array; texts as NumPy's fixed-width ones.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    values = np.asarray(open_array(group, name)[...])
    return np.asarray(values.tolist(), dtype=str) if values.dtype.kind == "T" else values


def has_chunk(array: zarr.Array, *numbers: int) -> bool:
    """Tell whether a chunk (or shard) of an array was written."""
    name = "/".join(str(number) for number in numbers)
    key = f"{array.store_path.path}/c/{name}".lstrip("/")
    return bool(sync(array.store_path.store.exists(key)))
