"""Latent coordinates of volumes and particles, as the programs that find them write them.

- cryoDRGN and tomoDRGN: ``z.N.pkl`` (and ``.txt`` or ``.npy`` made of it), a row per particle that
  the model was trained on; ``centers.txt``, ``centers_ind.txt`` or ``z_values.txt`` beside maps.
- cryoSPARC's 3DVA and 3DFlex: ``components_mode_K/value`` of a ``.cs`` file, by uid.
- RECOVAR: ``model/zdim_N/latent_coords.npy``, or ``model/embeddings.pkl`` of older versions, a row
  per particle of its file, NaN for one left out; beside maps ``centers.txt`` or
  ``latent_coords.txt``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc
from emhet_dask.formats.cryodrgn import read_array, read_indices
from emhet_dask.formats.pickles import load_pickle

__all__ = ["Latents", "find_volume_latents", "read_latents"]

_COMPONENT = re.compile(r"components_mode_(\d+)/value")
# RECOVAR's dictionary of embeddings: older versions call them zs.
_EMBEDDINGS = ("latent_coords", "zs")
_BESIDE_MAPS = ("centers.txt", "latent_coords.txt", "z_values.txt")
_ROWS_BESIDE_MAPS = "centers_ind.txt"


@dataclass(frozen=True)
class Latents:
    """Latent coordinates, and what is known of whose they are.

    Attributes
    ----------
    path : Path
    values : ndarray
        float, ``row × latent dimension``, all finite.
    kept : ndarray of int64 or None
        Where rows of the file were NaN, which stands for particles that were left out: the numbers
        of the others in the file.
    uids : ndarray or None
        Texts, where the file names its particles (``.cs``).
    """

    path: Path
    values: np.ndarray
    kept: np.ndarray | None = None
    uids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_dims(self) -> int:
        """Return the dimension of the latent space."""
        return int(self.values.shape[1])


def read_latents(
    path: str | Path, *, n_dims: int | None = None, may_lack_rows: bool = False
) -> Latents:
    """Read latent coordinates.

    Parameters
    ----------
    path : str or Path
        ``.npy``, ``.csv``, ``.txt`` or ``.pkl`` (of plain arrays), numbers only: of two pickles in
        a file (mean, then log-variance) the first. A ``.cs`` file with ``components_mode_K/value``.
        RECOVAR's ``embeddings.pkl``.
    n_dims : int, optional
        Which of several embeddings is meant.
    may_lack_rows : bool
        Whether rows that are NaN throughout are left out, or refused.

    Returns
    -------
    Latents

    Raises
    ------
    InputError
        When the file cannot be read, has no coordinates, has values that are not finite, or holds
        several embeddings of which none has `n_dims` dimensions.
    """
    path = Path(path)
    uids = None
    if path.suffix.lower() == ".cs":
        records = cryosparc.read_particles(path)
        values, uids = _components(records, path), records["uid"].astype(str)
    else:
        values = _as_rows(_numbers(path, n_dims), path)
    absent = np.isnan(values).all(axis=1)
    if may_lack_rows and absent.any() and not absent.all():
        kept = np.flatnonzero(~absent)
        found = Latents(path, values[kept], kept, None if uids is None else uids[kept])
    else:
        found = Latents(path, values, None, uids)
    if not np.isfinite(found.values).all():
        raise InputError(f"{path}: has latents that are NaN or infinite")
    return found


def find_volume_latents(
    folder: str | Path, *, n_volumes: int, particles: np.ndarray | None = None
) -> Latents | None:
    """Read the latents that a program left beside its maps.

    Parameters
    ----------
    folder : str or Path
        Where the maps lie: ``kmeansK`` of cryoDRGN or tomoDRGN, ``kmeans`` or ``traj000`` of
        RECOVAR, a folder of decoded volumes.
    n_volumes : int
        How many maps there are; a table of another length is not theirs.
    particles : ndarray, optional
        Latents of the particles, ``particle × latent dimension``, which ``centers_ind.txt`` counts.

    Returns
    -------
    Latents or None
        One row per map, in natural order of their names.

    Raises
    ------
    InputError
        When a table is there that cannot be read.
    """
    for name in _BESIDE_MAPS:
        path = Path(folder) / name
        if path.is_file():
            found = read_latents(path)
            if len(found) == n_volumes:
                return found
    path = Path(folder) / _ROWS_BESIDE_MAPS
    if particles is not None and path.is_file():
        rows = read_indices(path)
        if len(rows) == n_volumes and rows.max() < len(particles):
            return Latents(path, particles[rows])
    return None


def _numbers(path: Path, n_dims: int | None) -> np.ndarray:
    if path.suffix.lower() in (".npy", ".csv", ".txt"):
        return read_array(path)
    held = load_pickle(path)
    if not isinstance(held, dict):
        return read_array(path)
    name = next((name for name in _EMBEDDINGS if isinstance(held.get(name), dict)), None)
    if name is None:
        raise InputError(
            f"{path}: expected an array of latents or RECOVAR's embeddings, found a dictionary "
            f"of {_listed(held)}"
        )
    return _embedding(held[name], path, n_dims)


def _embedding(by_dims: dict[Any, Any], path: Path, n_dims: int | None) -> np.ndarray:
    """Return the embedding of one dimension; ``4_noreg`` and the like are not meant."""
    known = {int(key): value for key, value in by_dims.items() if str(key).isdigit()}
    if n_dims is None and len(known) == 1:
        return np.asarray(*known.values())
    if n_dims not in known:
        wanted = "latents of the volumes, which tell" if n_dims is None else f"one of {n_dims}"
        raise InputError(
            f"{path}: holds embeddings of {_listed(known)} dimensions; expected {wanted}"
            + (" which is meant" if n_dims is None else "")
        )
    return np.asarray(known[n_dims])


def _as_rows(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim not in (1, 2) or array.size == 0 or array.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: expected latents as rows and dimensions, found an array of {array.shape}"
        )
    rows = array.reshape(len(array), -1)
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def _components(records: np.ndarray, path: Path) -> np.ndarray:
    """Return the coordinates of 3DVA or 3DFlex, whose fields are numbered from 0."""
    names = records.dtype.names or ()
    numbers = sorted(int(match[1]) for match in map(_COMPONENT.fullmatch, names) if match)
    if not numbers:
        raise InputError(
            f"{path}: has no latents; expected the fields components_mode_0/value and so on, which "
            "3D Variability and 3D Flex write to their particles"
        )
    if numbers != list(range(len(numbers))):
        raise InputError(
            f"{path}: has components_mode_K/value for K of {_listed(numbers)}; expected all from 0"
        )
    return np.stack([records[f"components_mode_{k}/value"] for k in numbers], axis=1)


def _listed(things: Any) -> str:
    shown = [str(thing) for thing in things]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")
