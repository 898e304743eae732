"""Groups that are filled in many steps, and kept only as long as they are of the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

__all__ = ["keyed_group"]


def keyed_group(path: str, facts: Mapping[str, Any]) -> tuple[zarr.Group, bool]:
    """Return the group to fill, and whether it is empty.

    Parameters
    ----------
    path : str
        What it holds of other facts is removed.
    facts : mapping
        JSON values, ``key`` among them, that the caller writes to the attributes of an empty group
        as the last of all that is known beforehand.
    """
    try:
        group = zarr.open_group(path, mode="r+", zarr_format=3)
        if all(group.attrs.get(name) == value for name, value in facts.items()):
            return group, False
        # Killed while it is emptied, it must not pass for what it was.
        group.attrs.update({"key": None, "complete": False})
    except (FileNotFoundError, zarr.errors.GroupNotFoundError):
        pass
    if "://" not in path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    return zarr.open_group(path, mode="w", zarr_format=3), True
