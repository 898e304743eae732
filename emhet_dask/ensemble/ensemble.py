"""An ensemble as labelled, lazy arrays: opened from a store, or made from an array."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from emhet_dask.ensemble.checked import CheckedArray
from emhet_dask.ensemble.store import (
    SCHEMA_VERSION,
    digest_arrays,
    open_group,
    read_array,
)
from emhet_dask.errors import InputError
from emhet_dask.variables import ENSEMBLE, check, describe

__all__ = ["Ensemble", "from_array", "open_ensemble"]


@dataclass(frozen=True)
class Ensemble:
    """Volumes of one box and voxel size, with what is known of each.

    Attributes
    ----------
    dataset : xarray.Dataset
        ``volumes`` (volume, z, y, x) is a lazy float32 array with `scale` applied; the other
        arrays are those of `emhet_dask.variables.ENSEMBLE`, loaded. A repeated selection shares
        the data.
    fingerprint : str
        Changes when the volumes do, or what is known of them.
    path : str or None
        Where it is stored.
    """

    dataset: xr.Dataset
    fingerprint: str
    path: str | None = None

    @property
    def n_volumes(self) -> int:
        """Return the number of volumes."""
        return int(self.dataset.sizes["volume"])

    @property
    def box(self) -> int:
        """Return the voxels a side."""
        return int(self.dataset.sizes["x"])

    @property
    def voxel_size_angstrom(self) -> float:
        """Return the voxel size in Å."""
        return float(self.dataset.attrs["voxel_size_angstrom"])

    @property
    def origin_angstrom(self) -> tuple[float, float, float]:
        """Return the origin (x, y, z) in Å."""
        x, y, z = self.dataset.attrs["origin_angstrom"]
        return float(x), float(y), float(z)

    @property
    def volumes(self) -> da.Array:
        """Return the lazy volumes, float32, shape (volume, z, y, x)."""
        return self.dataset["volumes"].data

    @property
    def names(self) -> np.ndarray:
        """Return the names, shape (volume,)."""
        return np.asarray(self.dataset["name"].values).astype(str)

    @property
    def weights(self) -> np.ndarray | None:
        """Return the particles that each volume stands for, or None where they are not known."""
        return np.asarray(self.dataset["weight"].values) if "weight" in self.dataset else None

    @property
    def has_particles(self) -> bool:
        """Tell whether particles are assigned to the volumes."""
        return "particle_volume" in self.dataset

    def select(self, volumes: Sequence[int] | np.ndarray) -> Ensemble:
        """Return the ensemble of some volumes, in the order given.

        Parameters
        ----------
        volumes : sequence of int
            Positions, from 0.

        Returns
        -------
        Ensemble
            Particles keep their volume's position in *this* ensemble's numbering; ``-1`` where it
            is left out.
        """
        index = np.asarray(volumes, dtype=np.int64)
        chosen = self.dataset.isel(volume=index)
        if self.has_particles:
            moved = np.full(self.n_volumes + 1, -1, dtype=np.int64)
            moved[index] = np.arange(len(index))
            chosen["particle_volume"] = (
                ("particle",),
                moved[self.dataset["particle_volume"].values],
            )
        return Ensemble(chosen, f"{self.fingerprint}/{_digest(index)}", self.path)


def open_ensemble(path: str) -> Ensemble:
    """Open a store.

    Parameters
    ----------
    path : str
        Folder or fsspec URL of a finished ingest.

    Returns
    -------
    Ensemble

    Raises
    ------
    InputError
        When it is no ensemble store, was made by a newer version, or what makes it has not ended.
    """
    path = str(path) if "://" in str(path) else str(Path(path).absolute())
    group = open_group(path)
    attributes = dict(group.attrs)
    if attributes.get("schema") != "emhet_dask.ensemble":
        raise InputError(f"{path}: a Zarr group, but not an ensemble store made by emhet ingest")
    version = int(attributes.get("schema_version", 0))  # type: ignore[arg-type]
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {version}, but this emhet_dask reads up to {SCHEMA_VERSION}; "
            "a newer release will open it"
        )
    if not attributes.get("complete"):
        made_by: Any = attributes.get("made_by") or {}
        command = made_by.get("command", "emhet ingest")
        raise InputError(f"{path}: not finished; run the same {command} again")
    arrays = {name: array for name, array in group.arrays() if name in ENSEMBLE}
    missing = sorted({"volumes", "name", "usable"} - set(arrays))
    if missing:
        raise InputError(f"{path}: the arrays {', '.join(missing)} are missing; ingest it again")
    if "fingerprint" not in attributes:
        raise InputError(f"{path}: does not say what it holds; emhet ingest --overwrite mends it")
    stored = arrays.pop("volumes")
    variables: dict[str, Any] = {
        name: (ENSEMBLE[name].dims, read_array(group, name)) for name in arrays
    }
    scale = variables.get("scale")
    variables["volumes"] = (
        ENSEMBLE["volumes"].dims,
        _lazy_volumes(stored, None if scale is None else scale[1], path),
    )
    variables["volume_index"] = (("volume",), np.arange(stored.shape[0]))
    dataset = xr.Dataset(variables, attrs=_public(attributes))
    check(dataset, ENSEMBLE, what=path)
    return Ensemble(describe(dataset, ENSEMBLE), str(attributes["fingerprint"]), path)


def from_array(
    volumes: Any,
    *,
    voxel_size_angstrom: float,
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
    names: Sequence[str] | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
) -> Ensemble:
    """Make an ensemble of an array, for notebooks and scripts.

    Parameters
    ----------
    volumes : ndarray or dask.array.Array, shape (volume, z, y, x)
        Density maps; z = y = x.
    voxel_size_angstrom : float
        In Å.
    origin_angstrom : (float, float, float)
        (x, y, z) in Å.
    names : sequence of str, optional
        Default: ``vol_00000``, ….
    weights : sequence of float, optional
        Particles that each volume stands for.

    Returns
    -------
    Ensemble

    Raises
    ------
    InputError
        When the array is not a stack of cubes, or the names or weights do not fit.
    """
    array = volumes if isinstance(volumes, da.Array) else da.from_array(np.asarray(volumes))
    if array.ndim != 4 or len(set(array.shape[1:])) != 1:
        raise InputError(f"volumes: got shape {array.shape}, expected (volume, box, box, box)")
    array = array.rechunk({1: -1, 2: -1, 3: -1}).astype(np.float32)
    count = array.shape[0]
    named = [f"vol_{number:05d}" for number in range(count)] if names is None else list(names)
    variables: dict[str, Any] = {
        "volumes": (ENSEMBLE["volumes"].dims, array),
        "name": (("volume",), np.asarray(named, dtype=str)),
        "usable": (("volume",), np.ones(count, dtype=bool)),
        "volume_index": (("volume",), np.arange(count)),
    }
    if weights is not None:
        variables["weight"] = (("volume",), np.asarray(weights, dtype=np.float64))
    for name in ("name", "weight"):
        if name in variables and len(variables[name][1]) != count:
            raise InputError(f"{name}s: got {len(variables[name][1])} for {count} volumes")
    attributes = {
        "voxel_size_angstrom": float(voxel_size_angstrom),
        "origin_angstrom": [float(value) for value in origin_angstrom],
    }
    dataset = describe(xr.Dataset(variables, attrs=attributes), ENSEMBLE)
    told = {
        name: np.asarray(values) for name, (_, values) in variables.items() if name != "volumes"
    }
    digest = digest_arrays(told, facts={"volumes": array.name, **attributes})
    return Ensemble(dataset, fingerprint=f"array-{digest}")


def _lazy_volumes(stored: zarr.Array, scale: np.ndarray | None, path: str) -> da.Array:
    """Return the volumes as float32, one block per shard."""
    shards = stored.shards or stored.chunks
    checked = CheckedArray(stored, path)
    # The stored array names the graph, so that the same store gives the same names.
    name = f"volumes-{tokenize(path, stored.shape, str(stored.metadata))}"
    lazy = da.from_array(checked, chunks=shards, name=name, inline_array=True, asarray=False)
    if scale is None:
        return lazy
    factor = da.from_array(scale.astype(np.float32), chunks=shards[0])
    return lazy.astype(np.float32) * factor[:, None, None, None]


def _public(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in {"prepared", "complete"}}


def _digest(index: np.ndarray) -> str:
    return hashlib.sha256(index.tobytes()).hexdigest()[:16]
