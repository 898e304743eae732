"""Volumes that have a block or part, as the folders of ``blocks`` and ``occupancy`` tell."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from os import PathLike

import numpy as np
import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.urls import Place, place_of

__all__ = ["PresenceTables", "has_landscape", "is_presence_folder"]

# Presence, occupancy and combinations of what each command calls the things that come and go.
_FILES = {
    "block": ("block_presence.csv", "block_occupancy.csv", "block_states.csv"),
    "part": ("occupancy_presence.csv", "occupancy.csv", "occupancy_states.csv"),
}
_FIRST = ("volume", "name")
_NAMED = 6


@dataclass(frozen=True)
class PresenceTables:
    """Which volumes have which blocks or parts, and how much of them.

    Attributes
    ----------
    folder : str
    noun : {"block", "part"}
    columns : tuple of str
        Of the blocks or parts in both tables: ``block_001``, …, or the names of the masks.
    presence, occupancy : pandas.DataFrame
        ``volume``, ``name`` and a column for each block or part.
    states : pandas.DataFrame
        Combinations: ``state``, and 0 or 1 for each block or part.
    """

    folder: str
    noun: str
    columns: tuple[str, ...]
    presence: pd.DataFrame
    occupancy: pd.DataFrame
    states: pd.DataFrame

    @classmethod
    def open(cls, folder: str | PathLike[str], *, option: str) -> PresenceTables:
        """Read the tables of a finished folder.

        Parameters
        ----------
        folder : path or URL
        option : str
            That asks for them, for the message.

        Raises
        ------
        InputError
            When the folder is of neither command.
        """
        for noun, files in _FILES.items():
            if _holds(folder, noun):
                tables = [_read(place_of(folder) / file) for file in files]
                columns = tuple(c for c in tables[1].columns if c not in _FIRST)
                return cls(str(folder), noun, columns, *tables)
        found = (
            "is a landscape, of which --clusters chooses states"
            if has_landscape(folder)
            else "holds neither block_presence.csv nor occupancy_presence.csv"
        )
        raise InputError(
            f"{option}: {folder} {found}; expected the finished folder of emhet blocks or emhet "
            "occupancy"
        )

    def having(self, block: str) -> pd.DataFrame:
        """Return the volumes that have a block or part.

        Parameters
        ----------
        block : str
            Number of the block, or name of the part.

        Returns
        -------
        pandas.DataFrame
            ``volume``, ``name``, ``occupancy``, ``present`` (0 or 1) of all volumes.

        Raises
        ------
        InputError
            When there is no such block or part.
        """
        column = self._column(block)
        return self.presence[list(_FIRST)].assign(
            occupancy=self.occupancy[column].to_numpy(),
            present=self.presence[column].to_numpy(dtype=np.int64),
        )

    def in_states(self, states: tuple[int, ...]) -> pd.DataFrame:
        """Return the volumes in which certain combinations of blocks or parts are present.

        Parameters
        ----------
        states : tuple of int
            As numbered in the table of states.

        Returns
        -------
        pandas.DataFrame
            ``volume``, ``name``, ``state``.

        Raises
        ------
        InputError
            When there is no such combination.
        """
        known = self.states["state"].to_numpy()
        missing = sorted(set(states) - set(known.tolist()))
        if missing:
            raise InputError(
                f"--state: {self.folder} has no combination {missing[0]} of {self.noun}s; it has "
                f"{known[0]} to {known[-1]}"
            )
        keys = list(self.columns)
        number = dict(zip(map(tuple, self.states[keys].to_numpy()), known, strict=True))
        found = [number[key] for key in map(tuple, self.presence[keys].to_numpy())]
        table = self.presence[list(_FIRST)].assign(state=found)
        return table[table["state"].isin(states)]

    def _column(self, block: str) -> str:
        numbered = f"block_{int(block):03d}" if block.isdecimal() else block
        column = numbered if self.noun == "block" else block
        if column in self.columns:
            return column
        if not self.columns:
            raise InputError(f"--block {block}: {self.folder} has no {self.noun}s")
        if self.noun == "block":
            raise InputError(
                f"--block: {self.folder} has no block {block}; expected a number from 1 to "
                f"{len(self.columns)}"
            )
        others = " and others" if len(self.columns) > _NAMED else ""
        raise InputError(
            f"--block: {self.folder} has no part {block!r}; it has "
            f"{', '.join(self.columns[:_NAMED])}{others}"
        )


def has_landscape(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder holds the states of a landscape."""
    return (place_of(folder) / "clusters" / "cluster_labels.csv").is_file()


def is_presence_folder(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder holds blocks, or the occupancies of parts."""
    return any(_holds(folder, noun) for noun in _FILES)


def _holds(folder: str | PathLike[str], noun: str) -> bool:
    return all((place_of(folder) / file).is_file() for file in _FILES[noun])


def _read(path: Place) -> pd.DataFrame:
    """Read a table of ours: names stay text, also those that look like a missing value."""
    table = path.read_bytes()
    columns = pd.read_csv(BytesIO(table), nrows=0).columns
    return pd.read_csv(
        BytesIO(table),
        dtype={"name": str} if "name" in columns else None,
        keep_default_na=False,
        na_values={column: [""] for column in columns if column != "name"},
    )
