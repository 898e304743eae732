"""Files of cryoDRGN runs: labels, latents, indices, and what they count from.

cryoDRGN has changed its numbering more than once, so nothing is taken for granted: labels say by
their values and their folder whether they count from 0 or 1, volumes and epochs by their files.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from emhet_dask.errors import InputError
from emhet_dask.formats.pickles import load_pickle

__all__ = [
    "epochs",
    "find_labels",
    "load_pickle",
    "match_labels",
    "read_array",
    "read_config",
    "read_indices",
    "read_labels",
    "read_z",
    "training_subset",
    "volume_number",
    "write_indices",
]

_VOLUME_NAME = re.compile(r"vol_(\d+)\.mrc(\.gz|\.bz2)?")
_KMEANS_FOLDER = re.compile(r"kmeans(\d+)")
# analyze_landscape and its relatives add vol_start_index (1) to the labels that they write.
_FROM_ONE_NAMES = ("state_labels.pkl", "cluster_labels.pkl")
_FIRST_VERSION_FROM_ONE = (3, 5)
_KEY_COLUMNS = {"volume", "particle", "name", "index", "cluster"}


def read_array(path: str | Path) -> np.ndarray:
    """Read one array of numbers from ``.pkl`` (the first pickle), ``.npy``, ``.csv`` or ``.txt``.

    Parameters
    ----------
    path : str or Path
        The file; without a known ending it is read as a pickle.

    Returns
    -------
    ndarray
        Of whole numbers, real numbers or booleans.

    Raises
    ------
    InputError
        When the file is absent or damaged, or holds anything but one array of numbers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".npy", ".txt", ".csv"):
        values = load_pickle(path)
    else:
        try:
            if suffix == ".npy":
                values = np.load(path, allow_pickle=False)
            else:
                values = _read_text(Path(path))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot be read as an array ({reason})") from None
    try:
        array = np.asarray(sorted(values) if isinstance(values, (set, frozenset)) else values)
    except (ValueError, TypeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: expected one array of numbers, found {type(values).__name__} "
            f"of dtype {array.dtype}"
        )
    return array


def read_z(path: str | Path) -> np.ndarray:
    """Read latents: one row per particle that the model was trained on.

    Of the two pickles in ``train_vae``'s ``z.N.pkl`` (mean, then log-variance) the first is taken.

    Parameters
    ----------
    path : str or Path
        ``z.N.pkl``, or an array in ``.npy``, ``.csv`` or ``.txt``.

    Returns
    -------
    ndarray
        float32 or float64, ``particle × latent dimension``.

    Raises
    ------
    InputError
        When the file cannot be read, is not one- or two-dimensional, or has values not finite.
    """
    array = read_array(path)
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(
            f"{path}: expected latents as rows and dimensions, found an array of {array.shape}"
        )
    array = array.reshape(len(array), -1)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: has latents that are NaN or infinite")
    return array


def read_labels(path: str | Path) -> np.ndarray:
    """Read the cluster of each particle, counted from 0 whatever the file counts from.

    ``analyze.N/kmeansK/labels.pkl`` counts from 0, the label files of the landscape commands from
    1. A label 0 settles it; without one the folder and file name do, and where they say nothing a
    smallest label of 1 is taken to count from 1.

    Parameters
    ----------
    path : str or Path
        ``labels.pkl``, ``state_labels.pkl``, or an array in ``.npy``, ``.csv`` or ``.txt``.

    Returns
    -------
    ndarray
        int64, one label per particle.

    Raises
    ------
    InputError
        When the file cannot be read or does not hold whole numbers of at least 0.
    """
    labels = _whole_numbers(read_array(path), path, what="labels")
    smallest = int(labels.min())
    if smallest == 0:
        return labels
    if smallest < 0:
        raise InputError(f"{path}: has the label {smallest}; labels count from 0 or 1")
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - keeps the names of symbolic links
    parents = [folder.name for folder in absolute.parents[:3]]
    from_one = absolute.name in _FROM_ONE_NAMES or any(
        name.startswith("landscape") for name in parents
    )
    from_zero = any(name.startswith("analyze") for name in parents)
    return labels - 1 if from_one or (smallest == 1 and not from_zero) else labels


def find_labels(folder: str | Path) -> Path | None:
    """Return ``labels.pkl`` beside the maps of a k-means folder, or None."""
    path = Path(folder) / "labels.pkl"
    return path if path.is_file() else None


def volume_number(name: str) -> int | None:
    """Return N of ``vol_N.mrc`` (the width of N is a minimum), or None for another name."""
    match = _VOLUME_NAME.fullmatch(name)
    return int(match[1]) if match else None


def match_labels(
    labels: np.ndarray, numbers: Sequence[int], *, folder: str | Path, path: str | Path
) -> np.ndarray:
    """Say to which of the volumes at hand each particle belongs.

    Label 0 is the first volume that cryoDRGN wrote: ``vol_000`` before version 3.5, ``vol_001``
    since. Which of them it is follows from the numbers (0 is there, or the number of labels), or
    else from the version in the run's ``config.yaml``; gaps are allowed.

    Parameters
    ----------
    labels : ndarray of int
        From `read_labels`.
    numbers : sequence of int
        Number in the file name of each volume.
    folder : str or Path
        Where the volumes lie: ``…/analyze.N/kmeansK``.
    path : str or Path
        The label file, for messages.

    Returns
    -------
    ndarray
        int64, per particle the row of its volume in ``numbers``; -1 where that volume is not there.

    Raises
    ------
    InputError
        When volumes have numbers that no label can have, or nothing tells which number is label 0.
    """
    kmeans = _KMEANS_FOLDER.fullmatch(Path(os.path.abspath(folder)).name)  # noqa: PTH100
    n_labels = max(int(labels.max()) + 1, int(kmeans[1]) if kmeans else 0)
    first = _first_number(set(numbers), n_labels, Path(folder), path)
    row_of_label = np.full(n_labels, -1, np.int64)
    row_of_label[np.asarray(numbers, np.int64) - first] = np.arange(len(numbers))
    return row_of_label[labels]


def read_indices(path: str | Path) -> np.ndarray:
    """Read particle indices (cryoDRGN's ``--ind``), counted from 0.

    Parameters
    ----------
    path : str or Path
        ``.pkl``, ``.npy`` or ``.txt``.

    Returns
    -------
    ndarray
        int64, in the order of the file.

    Raises
    ------
    InputError
        When the file cannot be read, or holds anything but different whole numbers of at least 0.
    """
    indices = _whole_numbers(read_array(path), path, what="indices")
    if indices.min() < 0:
        raise InputError(f"{path}: has the index {indices.min()}; indices count from 0")
    if len(np.unique(indices)) != len(indices):
        raise InputError(
            f"{path}: has {len(indices)} indices, of which {len(np.unique(indices))} are different"
        )
    return indices


def write_indices(path: str | Path, indices: np.ndarray) -> None:
    """Write particle indices as a pickle that cryoDRGN's ``--ind`` reads.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    indices : array_like of int
        Counted from 0 in the particle file before any subset.
    """
    with Path(path).open("wb") as file:
        pickle.dump(np.asarray(indices, np.int64), file, protocol=4)


def epochs(workdir: str | Path) -> list[int]:
    """Return the epochs of which both latents and weights are there, ascending.

    They count from 1 since cryoDRGN 3.5 and from 0 before.

    Raises
    ------
    InputError
        When the folder cannot be listed.
    """
    try:
        names = set(os.listdir(workdir))  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise InputError(f"{workdir}: cannot be listed ({error.strerror})") from None
    matches = (re.fullmatch(r"z\.(\d+)\.pkl", name) for name in names)
    numbers = (match[1] for match in matches if match)
    return sorted(int(number) for number in numbers if f"weights.{number}.pkl" in names)


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Read ``config.yaml`` of a run.

    Raises
    ------
    InputError
        When the file is absent or is not a YAML mapping of plain values.
    """
    path = Path(workdir) / "config.yaml"
    try:
        config = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the folder of a cryoDRGN run") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as YAML ({reason})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a mapping with dataset_args, found {config!r:.40}")
    return config


def training_subset(config: dict[str, Any], *, path: str | Path) -> Path | int | None:
    """Return the particles that a run was trained on, as its configuration has them.

    Parameters
    ----------
    config : dict
        From `read_config`.
    path : str or Path
        Where it was read, for messages.

    Returns
    -------
    Path, int or None
        The file of indices that the run was given (a name in a file of others: whoever follows it
        decides whether it lies where it may), the number of first particles, or None for all.

    Raises
    ------
    InputError
        When ``dataset_args.ind`` is something else.
    """
    arguments = config.get("dataset_args")
    subset = arguments.get("ind") if isinstance(arguments, dict) else None
    if subset is None or (isinstance(subset, int) and not isinstance(subset, bool)):
        return subset
    if isinstance(subset, str):
        return Path(subset)
    raise InputError(
        f"{path}: dataset_args.ind is {subset!r:.40}; expected a path, null or a number"
    )


def _read_text(path: Path) -> np.ndarray:
    """Read rows of numbers, between commas or spaces, with or without one line of column names."""
    with path.open(encoding="utf-8") as file:
        rows = [line for line in file if line.strip() and not line.startswith("#")]
    delimiter = "," if rows and "," in rows[0] else None
    names = [name.strip().lower() for name in rows[0].split(delimiter)] if rows else []
    if any(re.match(r"[a-z_]", name) and name not in ("nan", "inf") for name in names):
        keys = sorted(_KEY_COLUMNS & set(names))
        if keys:
            raise ValueError(f"its column {keys[0]} is no coordinate; leave it out")
        rows = rows[1:]
    if not rows:
        raise ValueError("it holds no numbers")
    return np.loadtxt(rows, delimiter=delimiter, ndmin=1)


def _whole_numbers(array: np.ndarray, path: str | Path, *, what: str) -> np.ndarray:
    whole = array.astype(np.int64) if np.isfinite(array).all() else None
    if array.ndim != 1 or array.size == 0 or whole is None or not np.array_equal(whole, array):
        raise InputError(
            f"{path}: expected {what}, one whole number each, found an array of shape "
            f"{array.shape} and dtype {array.dtype}"
        )
    return whole


def _first_number(numbers: set[int], n_labels: int, folder: Path, path: str | Path) -> int:
    """Return the number in the file name of the volume that is label 0."""
    if max(numbers) > n_labels or {0, n_labels} <= numbers:
        raise InputError(
            f"{path}: has {n_labels} labels, but volumes are numbered from {min(numbers)} to "
            f"{max(numbers)}; they do not belong together"
        )
    if 0 in numbers:
        return 0
    if n_labels in numbers:
        return 1
    version = _run_version(folder)
    if version is None:
        raise InputError(
            f"{path}: cannot tell whether its first label is vol_000 or vol_001, since neither "
            f"vol_000 nor vol_{n_labels:03d} is there and no config.yaml names cryoDRGN's version; "
            f"give the maps as a glob ({folder}/vol_*.mrc) with --weights instead"
        )
    return 1 if version >= _FIRST_VERSION_FROM_ONE else 0


def _run_version(folder: Path) -> tuple[int, ...] | None:
    """Return the version of cryoDRGN that made a run, from the config.yaml above a folder."""
    for parent in Path(os.path.abspath(folder)).parents[:2]:  # noqa: PTH100
        if (parent / "config.yaml").is_file():
            match = re.match(r"(\d+)\.(\d+)", str(read_config(parent).get("version")))
            return (int(match[1]), int(match[2])) if match else None
    return None
