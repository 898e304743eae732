"""Where results come from: versions, fingerprints of inputs, and values in one spelling.

Nothing here says on which machine or as whom a run was made, and passwords in URLs are cut out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from emhet_dask.urls import redact

__all__ = [
    "canonical_json",
    "digest",
    "fingerprint_file",
    "fingerprint_values",
    "plain",
    "redact",
    "versions",
]

PACKAGES = (
    "emhet-dask",
    "dask",
    "distributed",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "xarray",
    "zarr",
    "mrcfile",
    "starfile",
    "scikit-network",
    "networkx",
    "plotly",
    "fastcluster",
)
_HEAD_BYTES = 1 << 20


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions, Python's first; nothing is imported.

    Parameters
    ----------
    packages : sequence of str
        Distribution names; those that are not installed are left out.

    Returns
    -------
    dict of name to version
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Reduce a value to what JSON can hold, in one way only.

    Tuples become lists, sets sorted lists, paths text, NumPy scalars Python numbers; URLs lose
    their credentials. Not-a-number and infinities become text, since JSON has none.

    Raises
    ------
    TypeError
        When the value, or something in it, has no such form (an array, for instance).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=canonical_json)
    if isinstance(value, (str, os.PathLike)):
        return redact(str(value))
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> bool | int | float | str | None:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be recorded: {value!r}")


def canonical_json(value: Any) -> str:
    """Return JSON that is the same text for the same value: keys sorted, no spaces."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fingerprint_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Identify a file's content without reading all of a large one.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        ``bytes``, and ``sha256`` of the whole file up to 1 MiB; of a larger one the time of its
        last change too (``changed``, ns), and ``sha256`` of the first MiB.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    path = Path(path)
    status = path.stat()
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    found: dict[str, Any] = {"bytes": status.st_size, "sha256": head}
    # The time is left out where the hash says all, so that a copied mask is still the same mask.
    if status.st_size > _HEAD_BYTES:
        found["changed"] = status.st_mtime_ns
    return found


def fingerprint_values(values: Any) -> str:
    """Identify an array by dtype, shape and bytes.

    Parameters
    ----------
    values : numpy.ndarray

    Returns
    -------
    str
        SHA-256 in hex.
    """
    head = f"{values.dtype.str}{values.shape}".encode()
    return hashlib.sha256(head + values.tobytes()).hexdigest()
