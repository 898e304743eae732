"""Which volumes a command works on: all that are usable, or the part that ``--keep`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.ensemble.integrity import check_shard, list_shards
from emhet_dask.errors import InputError
from emhet_dask.formats.tables import read_csv
from emhet_dask.options import kinds
from emhet_dask.urls import Place, check_url, is_url, place_of
from emhet_dask.workflows.select import members_of

__all__ = ["choose_volumes", "inputs_of", "open_source"]


def open_source(source: Any) -> Ensemble:
    """Open what the argument ENSEMBLE names.

    Parameters
    ----------
    source : path or Ensemble

    Returns
    -------
    Ensemble

    Raises
    ------
    InputError
        When there is no such ensemble, or shards of it are missing (Zarr reads them as zeros).
    """
    ensemble = source if isinstance(source, Ensemble) else open_ensemble(str(source))
    if ensemble.path is not None:
        missing = [shard for shard in list_shards(ensemble.path) if check_shard(shard, deep=False)]
        if missing:
            raise InputError(
                f"{ensemble.path}: {len(missing)} shards are missing, the first is "
                f"{missing[0].described}; ingest --overwrite mends it"
            )
    return ensemble


def inputs_of(source: Ensemble, chosen: Ensemble) -> dict[str, str | None]:
    """Return what ``run.json`` says that results are made from.

    Parameters
    ----------
    source, chosen : Ensemble
        As it was named, and the volumes of it that are worked on.

    Returns
    -------
    dict
        ``ensemble`` (its path), ``source`` and ``fingerprint`` (of all volumes, and of the chosen).
    """
    return {
        "ensemble": source.path,
        "source": source.fingerprint,
        "fingerprint": chosen.fingerprint,
    }


def choose_volumes(ensemble: Ensemble, keep: str | None = None) -> tuple[Ensemble, Place | None]:
    """Take the usable volumes, or those of them that ``--keep`` names.

    Parameters
    ----------
    ensemble : Ensemble
    keep : str, optional
        Volume numbers (``0-99,120``), a file with one name or number a line, or
        ``RESULTS:STATES`` for states of an earlier landscape.

    Returns
    -------
    ensemble : Ensemble
        Of the chosen volumes, in their order; the same one where these are all.
    earlier : Path, UrlPlace or None
        The results folder that was named; its mask can be reused.

    Raises
    ------
    InputError
        When a volume, name or state does not exist, or fewer than two volumes remain.
    """
    usable = np.asarray(ensemble.dataset["usable"].values)
    earlier = None
    if keep is not None and is_url(keep):
        check_url(keep)
    if keep is None:
        chosen = np.arange(ensemble.n_volumes)
    elif not is_url(keep) and Path(keep).is_file():
        chosen = _from_file(Path(keep), ensemble)
    elif ":" in keep:
        folder, _, states = keep.rpartition(":")
        earlier = place_of(folder)
        chosen = _from_states(earlier, states, ensemble)
    else:
        chosen = _from_numbers(keep, ensemble)
    chosen = np.unique(chosen)
    chosen = chosen[usable[chosen]]
    if len(chosen) < 2:
        raise InputError(
            f"{'--keep ' + keep if keep else ensemble.path}: {len(chosen)} usable volume"
            f"{'s' * (len(chosen) != 1)}, expected at least 2"
        )
    return ensemble if len(chosen) == ensemble.n_volumes else ensemble.select(chosen), earlier


def _from_numbers(keep: str, ensemble: Ensemble) -> np.ndarray:
    try:
        numbers = np.asarray(kinds.numbers().parse(keep))
    except ValueError:
        raise InputError(
            f"--keep: got {keep!r}, expected volume numbers such as 0-99,120, a file that exists, "
            "or RESULTS:STATES such as landscape:0,2"
        ) from None
    _check_range(numbers, ensemble, what="--keep")
    return numbers


def _from_file(path: Path, ensemble: Ensemble) -> np.ndarray:
    if path.suffix == ".csv":
        table = read_csv(path)
        column = "name" if "name" in table else table.columns[0]
        entries = table[column].tolist()
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text, expected one name or number a line") from None
        entries = [line.strip() for line in text.splitlines() if line.strip()]
    where = {name: number for number, name in enumerate(ensemble.names)}
    numbers, unknown = [], []
    for entry in entries:
        if entry in where:
            numbers.append(where[entry])
        elif entry.isdecimal():
            numbers.append(int(entry))
        else:
            unknown.append(entry)
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} of {len(entries)} names are not in the ensemble, the first is "
            f"{unknown[0]!r}; expected names such as {str(ensemble.names[0])!r}"
        )
    found = np.asarray(numbers, dtype=np.int64)
    _check_range(found, ensemble, what=str(path))
    return found


def _from_states(folder: Place, states: str, ensemble: Ensemble) -> np.ndarray:
    try:
        wanted = kinds.numbers().parse(states)
    except ValueError:
        raise InputError(f"--keep: got states {states!r}, expected numbers such as 0,2") from None
    try:
        members = members_of(folder, tuple(wanted))
    except InputError as error:
        raise InputError(f"--keep: {error}") from None
    # By name: the earlier landscape may itself have used a part of the ensemble.
    where = {name: number for number, name in enumerate(ensemble.names)}
    names = members["name"].tolist()
    absent = [name for name in names if name not in where]
    if absent:
        raise InputError(
            f"--keep: {absent[0]!r} of {folder} is not in the ensemble; is it of another one?"
        )
    return np.asarray([where[name] for name in names], dtype=np.int64)


def _check_range(numbers: np.ndarray, ensemble: Ensemble, *, what: str) -> None:
    wrong = numbers[(numbers < 0) | (numbers >= ensemble.n_volumes)]
    if len(wrong):
        raise InputError(
            f"{what}: no volume {int(wrong[0])}; expected 0 to {ensemble.n_volumes - 1}"
        )
