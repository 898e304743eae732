"""``blocks.pkl``: blocks as autoseg keeps them, a dictionary of lists of voxels.

Keys are the numbers of the blocks, values the voxels of each as indices into the flattened box
(z slowest). Lists of whole numbers, not arrays: a pickled array names modules that other versions
of NumPy do not have.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emhet_dask.errors import InputError
from emhet_dask.formats.pickles import load_pickle

__all__ = ["read_blocks_pickle", "write_blocks_pickle"]


def write_blocks_pickle(path: str | Path, labels: npt.ArrayLike) -> None:
    """Write blocks as a pickled dictionary of lists.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    labels : array (z, y, x) of int
        Block that a voxel belongs to, from 1; 0 is none, and is left out.
    """
    flat = np.asarray(labels).ravel()
    inside = np.flatnonzero(flat)
    order = inside[np.argsort(flat[inside], kind="stable")]
    numbers, first = np.unique(flat[order], return_index=True)
    parts = np.split(order, first[1:])
    blocks = {int(number): part.tolist() for number, part in zip(numbers, parts, strict=False)}
    with Path(path).open("wb") as file:
        pickle.dump(blocks, file, protocol=4)


def read_blocks_pickle(path: str | Path) -> dict[int, npt.NDArray[np.int64]]:
    """Read blocks that `write_blocks_pickle`, or autoseg, wrote; no code in the file is run.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict of int to array (voxel,) of int64
        Indices into whatever list of voxels the writer counts in: here the flattened box.

    Raises
    ------
    InputError
        When the file cannot be read, or is no dictionary of whole numbers to lists of indices.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a dictionary of blocks, found {type(content).__name__}")
    blocks = {}
    for number, voxels in content.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise InputError(f"{path}: expected block numbers as keys, found {number!r:.40}")
        blocks[int(number)] = _indices(voxels, f"{path}: block {number}")
    return blocks


def _indices(voxels: object, where: str) -> npt.NDArray[np.int64]:
    if isinstance(voxels, (set, frozenset)):
        voxels = list(voxels)
    try:
        found = np.asarray(voxels)
    except (ValueError, TypeError):  # lists of unequal length
        found = np.empty(0, dtype=object)
    if found.size == 0 and found.dtype.kind == "f":
        return np.empty(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        raise InputError(f"{where}: expected indices of voxels, whole numbers from 0")
    return np.sort(found).astype(np.int64)
