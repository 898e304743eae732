"""Which volumes a command works on: all that are usable, or the part that ``--keep`` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.options import kinds

__all__ = ["choose_volumes", "open_source"]


def open_source(source: Any) -> Ensemble:
    """Open what the argument ENSEMBLE names.

    Parameters
    ----------
    source : path or Ensemble

    Returns
    -------
    Ensemble
    """
    return source if isinstance(source, Ensemble) else open_ensemble(str(source))


def choose_volumes(ensemble: Ensemble, keep: str | None) -> tuple[np.ndarray, Path | None]:
    """Resolve ``--keep``.

    Parameters
    ----------
    ensemble : Ensemble
    keep : str or None
        Volume numbers (``0-99,120``), a file with one name or number a line, or
        ``RESULTS:STATES`` for states of an earlier landscape.

    Returns
    -------
    volumes : ndarray of int
        Positions in the ensemble, ascending; unusable volumes are left out.
    earlier : Path or None
        The results folder that was named; its mask can be reused.

    Raises
    ------
    InputError
        When a volume, name or state does not exist, or fewer than two volumes remain.
    """
    usable = np.asarray(ensemble.dataset["usable"].values)
    earlier = None
    if keep is None:
        chosen = np.arange(ensemble.n_volumes)
    elif Path(keep).is_file():
        chosen = _from_file(Path(keep), ensemble)
    elif ":" in keep:
        folder, _, states = keep.rpartition(":")
        earlier = Path(folder)
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
    return chosen, earlier


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
        table = pd.read_csv(path)
        column = "name" if "name" in table else table.columns[0]
        entries = table[column].astype(str).tolist()
    else:
        entries = [line.strip() for line in path.read_text().splitlines() if line.strip()]
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
            f"{path}: {len(unknown)} names are not in the ensemble, the first is {unknown[0]!r}; "
            f"expected names such as {ensemble.names[0]!r}"
        )
    found = np.asarray(numbers, dtype=np.int64)
    _check_range(found, ensemble, what=str(path))
    return found


def _from_states(folder: Path, states: str, ensemble: Ensemble) -> np.ndarray:
    table = folder / "clusters" / "cluster_labels.csv"
    if not table.is_file():
        raise InputError(f"--keep: {folder} holds no {table.name}; expected a finished landscape")
    labels = pd.read_csv(table)
    try:
        wanted = kinds.numbers().parse(states)
    except ValueError:
        raise InputError(f"--keep: got states {states!r}, expected numbers such as 0,2") from None
    known = sorted(labels["cluster"].unique())
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise InputError(
            f"--keep: {folder} has no state {missing[0]}; it has {known[0]} to {known[-1]}"
        )
    # By name: the earlier landscape may itself have used a part of the ensemble.
    where = {name: number for number, name in enumerate(ensemble.names)}
    names = labels.loc[labels["cluster"].isin(wanted), "name"].astype(str)
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
