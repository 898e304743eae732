"""The frame that maps are brought into: the reference that ``--to`` asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emhet_dask.analysis.alignment import FINEST_SHELLS, Reference, make_reference
from emhet_dask.analysis.typical import most_typical, shell_profile
from emhet_dask.ensemble import Ensemble
from emhet_dask.ensemble.reading import StoredVolumes, stream
from emhet_dask.ensemble.shards import crc32c
from emhet_dask.errors import InputError
from emhet_dask.runtime import Progress, state_plan
from emhet_dask.workflows.stages.foreign import read_map_on_box
from emhet_dask.workflows.stages.volume_costs import profiles_work

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Frame", "best_frame", "find_frame", "frame_of_volume"]

_PROFILES_AT_MOST = 1024
_PROFILES_PER_TASK = 16


@dataclass(frozen=True)
class Frame:
    """What maps are fitted to.

    Attributes
    ----------
    reference : Reference
    name : str
        What to call it.
    known_by : dict
        JSON values that are the same for the same frame.
    """

    reference: Reference
    name: str
    known_by: dict[str, Any]


def find_frame(ensemble: Ensemble, *, to: str, resolution: float | None = None) -> Frame | None:
    """Find what ``--to`` names.

    Parameters
    ----------
    ensemble : Ensemble
        Whose maps are to be fitted.
    to : str
        ``first``, ``best``, the number of a volume, or the path of a map.
    resolution : float, optional
        Finest detail that is compared, in Å. A map that is coarser than the ensemble sets a limit
        of its own.

    Returns
    -------
    Frame or None
        None for ``best``, which takes workers to find: `best_frame`.

    Raises
    ------
    InputError
        When there is no such volume or map, it cannot be used, is of another extent, or holds too
        few Fourier shells at that resolution.
    """
    if to == "best":
        return None
    usable = np.asarray(ensemble.dataset["usable"].values)
    if to == "first" or to.isdecimal():
        volume = int(np.argmax(usable)) if to == "first" else int(to)
        if not volume < ensemble.n_volumes:
            raise InputError(
                f"--to {to}: no such volume in {ensemble.path}; it has 0 to "
                f"{ensemble.n_volumes - 1}"
            )
        if not usable[volume]:
            raise InputError(f"--to {to}: the volume is not usable; name another")
        return frame_of_volume(ensemble, volume, to=to, resolution=resolution)
    density, resolution = _read_map(ensemble, to, resolution)
    return Frame(
        reference=_reference(ensemble, density, resolution, to=to),
        name=to,
        known_by={"crc32c": crc32c(density), "resolution": resolution},
    )


def frame_of_volume(
    ensemble: Ensemble, volume: int, *, to: str, resolution: float | None = None
) -> Frame:
    """Make a volume of the ensemble its frame.

    Parameters
    ----------
    ensemble : Ensemble
    volume : int
        Position in the ensemble.
    to : str
        What ``--to`` said, for the message.
    resolution : float, optional
        Finest detail that is compared, in Å.

    Returns
    -------
    Frame

    Raises
    ------
    InputError
        When the volume is constant or holds too few Fourier shells at that resolution.
    """
    (density,) = stream(ensemble, np.asarray([volume]))
    return Frame(
        reference=_reference(ensemble, density, resolution, to=to),
        name=f"volume {volume} ({ensemble.names[volume]})",
        known_by={"volume": volume},
    )


def best_frame(
    ensemble: Ensemble, *, resolution: float | None = None, client: Client, progress: Progress
) -> Frame:
    """Make the most typical volume the frame, of at most some thousand spread over the ensemble.

    Parameters
    ----------
    ensemble : Ensemble
        With at least one usable volume.
    resolution : float, optional
        Finest detail that is compared, in Å.
    client : distributed.Client
    progress : Progress

    Returns
    -------
    Frame

    Raises
    ------
    InputError
        As of `frame_of_volume`.
    """
    rows = np.flatnonzero(ensemble.dataset["usable"].values)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _PROFILES_AT_MOST)).astype(int)]
    parts = [
        stream(ensemble, rows[start : start + _PROFILES_PER_TASK])
        for start in range(0, len(rows), _PROFILES_PER_TASK)
    ]
    state_plan(profiles_work(ensemble, tasks=len(parts), volumes=len(rows)), client, progress)
    profiles = np.concatenate(list(progress.map(client, _profiles, parts, label="find the best")))
    weights = None if ensemble.weights is None else ensemble.weights[rows]
    volume = int(rows[most_typical(profiles, weights=weights)])
    frame = frame_of_volume(ensemble, volume, to="best", resolution=resolution)
    return replace(frame, name=f"{frame.name}, the most typical")


def _profiles(volumes: StoredVolumes) -> np.ndarray:
    return np.stack([shell_profile(volume) for volume in volumes])


def _read_map(
    ensemble: Ensemble, path: str, resolution: float | None
) -> tuple[np.ndarray, float | None]:
    """Read a map; return it on the ensemble's box, and the resolution that it allows."""
    if not Path(path).is_file():
        raise InputError(
            f"--to {path}: no such file; expected first, best, the number of a volume, or an "
            "MRC file"
        )
    found = read_map_on_box(path, ensemble, option="--to")
    if found.side < ensemble.box:
        # What it does not hold cannot be compared.
        extent = ensemble.box * ensemble.voxel_size_angstrom
        nyquist = extent / max((found.side - 1) // 2, 1)
        resolution = max(nyquist, extent / FINEST_SHELLS if resolution is None else resolution)
    return found.density, resolution


def _reference(
    ensemble: Ensemble, density: np.ndarray, resolution: float | None, *, to: str
) -> Reference:
    try:
        return make_reference(
            density,
            voxel_size_angstrom=ensemble.voxel_size_angstrom,
            resolution_angstrom=resolution,
        )
    except InputError as error:
        raise InputError(f"--to {to}: {error}") from error
