"""Tables of the user's own about volumes: weights, names, thresholds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emhet_dask.errors import InputError, join_problems

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_csv", "read_names", "read_thresholds", "read_weights"]

_MAP_ENDING = re.compile(r"\.(mrc|map|ccp4)(\.gz|\.bz2)?$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"\d+$")
_CUSTOM_NAME = re.compile(r"custom_?name(_?1)?", re.IGNORECASE)


def read_weights(path: str | Path, *, names: Sequence[str]) -> np.ndarray:
    """Read the weight of every volume from a CSV file.

    Parameters
    ----------
    path : str or Path
        With the columns ``weight`` and either ``name`` (with or without folders and ``.mrc``) or
        ``volume`` (counted from 0 in the order of ``names``). Rows of volumes that are not among
        ``names`` are left aside, so that one table serves subsets too.
    names : sequence of str
        The volumes.

    Returns
    -------
    ndarray
        float64, one weight per volume.

    Raises
    ------
    InputError
        When a column is missing, a volume is missing or there twice, a weight is negative or not
        a number, or all are 0.
    """
    weights = _column_of_volumes(path, ("weight",), names=names, least=0.0)
    if not weights.any():
        raise InputError(f"{path}: all weights are 0")
    return weights


def read_thresholds(path: str | Path, *, names: Sequence[str]) -> np.ndarray:
    """Read the density from which a voxel counts as occupied, of every volume, from a CSV file.

    Parameters
    ----------
    path : str or Path
        With the columns ``threshold`` and either ``name`` or ``volume``, as `read_weights` takes
        them; or SIREn's ``predictions.csv``, with ``vol_id`` and ``denormalized_predictions``. A
        ``vol_id`` is the name of a map, or the number at the end of it.
    names : sequence of str
        The volumes.

    Returns
    -------
    ndarray
        float64, one threshold per volume, in the units of the maps.

    Raises
    ------
    InputError
        When a column is missing, a volume is missing or there twice, or a threshold is no number.
    """
    return _column_of_volumes(path, ("threshold", "denormalized_predictions"), names=names)


def read_names(path: str | Path, *, names: Sequence[str]) -> list[str]:
    """Read names for figures and tables.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``original_filename`` and ``custom_name`` (``customname_1`` occurs
        too); file names with or without folders and ``.mrc``. Rows of other files are left aside.
    names : sequence of str
        The volumes.

    Returns
    -------
    list of str
        The custom name of each volume.

    Raises
    ------
    InputError
        When a column or volume is missing, a volume is there twice, or two custom names are equal
        or one is empty.
    """
    table = read_csv(path)
    columns = {str(column).strip().lower(): column for column in table}
    custom = [column for name, column in columns.items() if _CUSTOM_NAME.fullmatch(name)]
    if "original_filename" not in columns or len(custom) != 1:
        raise InputError(
            f"{path}: expected the columns original_filename,custom_name, found "
            f"{','.join(map(str, table.columns))}"
        )
    rows = _rows_by_name(table[columns["original_filename"]], names, path=path)
    given = table[custom[0]].iloc[rows].str.strip()
    empty = np.flatnonzero(given == "")
    if empty.size:
        raise InputError(
            f"{path}: the custom name of {names[empty[0]]} is empty{_and_others(empty.size - 1)}"
        )
    twice = given[given.duplicated()].unique()
    if len(twice):
        raise InputError(
            f"{path}: the custom name {twice[0]!r} is given to more than one volume"
            f"{_and_others(len(twice) - 1)}"
        )
    return [str(name) for name in given]


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a CSV file with every cell as text, so that ``NA`` and ``001`` stay what they are.

    Parameters
    ----------
    path : str or Path
        With a line of column names.

    Returns
    -------
    pandas.DataFrame
        Texts; an empty cell is ``""``.

    Raises
    ------
    InputError
        When there is no such file, or it cannot be read as CSV.
    """
    import pandas as pd  # noqa: PLC0415 - a quarter of a second, for tables alone

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as CSV ({reason})") from None
    return table if isinstance(table.index, pd.RangeIndex) else _without_last(table, path)


def _without_last(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Take away the empty cell that a comma at the end of each row makes, as spreadsheets write it.

    pandas takes the first column for the names of the rows then.
    """
    if table.index.nlevels > 1 or (table.iloc[:, -1] != "").any():
        raise InputError(f"{path}: rows have more cells than the {table.shape[1]} columns named")
    names = list(table.columns)
    whole = table.reset_index().iloc[:, :-1].astype(str)
    whole.columns = names
    return whole


def _column_of_volumes(
    path: str | Path,
    wanted: tuple[str, ...],
    *,
    names: Sequence[str],
    least: float = float("-inf"),
) -> np.ndarray:
    """Return one number for each volume, from the first of some columns that the table has."""
    table = read_csv(path)
    columns = {str(column).strip().lower(): column for column in table}
    found = next((name for name in wanted if name in columns), None)
    if found is None or not {"name", "volume", "vol_id"} & set(columns):
        raise InputError(
            f"{path}: expected the columns name,{wanted[0]} or volume,{wanted[0]}, found "
            f"{','.join(map(str, table.columns))}"
        )
    if "name" in columns:
        rows = _rows_by_name(table[columns["name"]], names, path=path)
    elif "volume" in columns:
        rows = _rows_by_number(table[columns["volume"]], len(names), path=path)
    else:
        rows = _rows_by_map(table[columns["vol_id"]], names, path=path)
    texts = table[columns[found]].iloc[rows]
    values = _numbers(texts)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= least)))
    if bad.size:
        bound = f" of at least {least:g}" if np.isfinite(least) else ""
        raise InputError(
            f"{path}: the {found} of {names[bad[0]]} is {texts.iloc[bad[0]]!r}; expected a number"
            f"{bound}{_and_others(bad.size - 1)}"
        )
    return values


def _rows_by_map(keys: pd.Series, names: Sequence[str], *, path: str | Path) -> np.ndarray:
    """Return the row of each volume, whose key is its name or the number at the end of it."""
    if not keys.str.strip().str.fullmatch(r"\d{1,18}").all():
        return _rows_by_name(keys, names, path=path)
    rows_of: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(int(key), []).append(row)
    told = f"{path}: gives volumes by the number at the end of their names, "
    rows, problems, seen = np.zeros(len(names), np.int64), [], dict[int, str]()
    for index, name in enumerate(names):
        end = _LAST_NUMBER.search(_MAP_ENDING.sub("", name))
        if end is None:
            raise InputError(f"{told}but {name} ends in none; use a column name")
        number = int(end.group())
        if number in seen:
            raise InputError(f"{told}which {seen[number]} and {name} share; use a column name")
        seen[number] = name
        found = rows_of.get(number, [])
        if len(found) == 1:
            rows[index] = found[0]
        else:
            problems.append(f"{name} is " + (f"there {len(found)} times" if found else "missing"))
    if problems:
        raise InputError(f"{path}: " + join_problems(problems, what="volumes do not fit", limit=5))
    return rows


def _numbers(texts: pd.Series) -> np.ndarray:
    """Return texts as numbers, NaN where they are none."""
    import pandas as pd  # noqa: PLC0415 - a quarter of a second, for tables alone

    return pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)


def _rows_by_name(keys: pd.Series, names: Sequence[str], *, path: str | Path) -> np.ndarray:
    """Return, for each name, the row whose key is it, or a suffix of it, or has it as suffix."""
    by_last: dict[str, list[tuple[int, str]]] = {}
    for row, key in enumerate(keys):
        plain = _MAP_ENDING.sub("", key.strip().replace("\\", "/"))
        by_last.setdefault(plain.rsplit("/", 1)[-1], []).append((row, f"/{plain}"))
    rows, problems = np.zeros(len(names), np.int64), []
    for index, name in enumerate(names):
        wanted = "/" + _MAP_ENDING.sub("", name)
        candidates = by_last.get(wanted.rsplit("/", 1)[-1], [])
        exact = [row for row, key in candidates if key == wanted]
        found = exact or [
            row for row, key in candidates if key.endswith(wanted) or wanted.endswith(key)
        ]
        if len(found) == 1:
            rows[index] = found[0]
        elif not found:
            problems.append(f"{name} is missing")
        else:
            problems.append(f"{name} is there {len(found)} times")
    if problems:
        raise InputError(f"{path}: " + join_problems(problems, what="volumes do not fit", limit=5))
    used, counts = np.unique(rows, return_counts=True)
    if (counts > 1).any():
        row = used[counts > 1][0]
        twice = [names[index] for index in np.flatnonzero(rows == row)[:2]]
        raise InputError(
            f"{path}: {keys.iloc[row]} may be {twice[0]} or {twice[1]}; name the folder too"
        )
    return rows


def _rows_by_number(keys: pd.Series, n_volumes: int, *, path: str | Path) -> np.ndarray:
    numbers = _numbers(keys)
    if not (numbers == np.round(numbers)).all():
        raise InputError(f"{path}: the column volume holds something else than whole numbers")
    rows = np.full(n_volumes, -1, np.int64)
    for row, number in enumerate(numbers.astype(np.int64)):
        if not 0 <= number < n_volumes:
            raise InputError(
                f"{path}: has volume {number}; volumes are numbered from 0 to {n_volumes - 1} in "
                "the order of ingest (to go by file name, use a column name instead)"
            )
        if rows[number] >= 0:
            raise InputError(f"{path}: volume {number} is there twice")
        rows[number] = row
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise InputError(f"{path}: volume {missing[0]} is missing{_and_others(missing.size - 1)}")
    return rows


def _and_others(count: int) -> str:
    return f" (and {count} more)" if count else ""
