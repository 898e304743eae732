"""``emhet class3d table``: columns of a STAR file, printed or plotted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from emhet_dask.errors import InputError
from emhet_dask.formats.star import StarFile, read_star, write_star
from emhet_dask.options import command
from emhet_dask.options.class3d_select import Class3DTable

__all__ = ["Printed", "class3d_table"]


@dataclass(frozen=True)
class Printed:
    """Columns of a table.

    Attributes
    ----------
    table : DataFrame
        Only these columns, under their full names.
    text : str
        What is printed; the names of the files where there are any.
    """

    table: pd.DataFrame
    text: str

    def describe(self) -> str:
        """Return what is printed."""
        return self.text


@command(Class3DTable)
def class3d_table(options: Class3DTable) -> Printed:
    """Print or plot columns of any table of a STAR file.

    Returns
    -------
    Printed

    Raises
    ------
    InputError
        When the file cannot be read, has no such table or column, a column that is to be plotted
        has no numbers, or a file to write exists.
    """
    outputs = [Path(each) for each in (options.output, options.plot) if each is not None]
    for output in outputs:
        if output.exists() and not options.overwrite:
            raise InputError(f"{output}: exists; --overwrite replaces it")
    if options.plot is not None and Path(options.plot).suffix != ".png":
        raise InputError(f"--plot: got {options.plot!r}, expected a file ending in .png")
    name, table = _table(read_star(options.file), options.table)
    if options.columns:
        table = table[_columns(table, options.columns, source=f"{options.file}: data_{name}")]
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    if options.plot is not None:
        _plot(table, Path(options.plot), title=f"{Path(options.file).name}: data_{name}")
    if options.output is not None:
        Path(options.output).write_text(
            _printed(table, options.format, name) + "\n", encoding="utf-8", newline="\n"
        )
    if outputs:
        return Printed(table, "\n".join(map(str, outputs)))
    return Printed(table, _printed(table, options.format, name))


def _table(star: StarFile, name: str) -> tuple[str, pd.DataFrame]:
    """Find a table by its name, with or without ``data_``."""
    bare = name if name in star.blocks else name.removeprefix("data_")
    return bare, star.table(bare)


def _columns(table: pd.DataFrame, names: Sequence[str], *, source: str) -> list[str]:
    found = []
    for given in names:
        bare = given.removeprefix("_")
        column = next((each for each in (bare, f"rln{bare}") if each in table), None)
        if column is None:
            raise InputError(
                f"{source} has no column {given!r}; it has {', '.join(map(str, table.columns))}"
            )
        found.append(column)
    return list(dict.fromkeys(found))


def _printed(table: pd.DataFrame, form: str, name: str) -> str:
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n").rstrip("\n")
    if form == "star":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "table.star")
            write_star(path, {name: table})
            return path.read_text(encoding="utf-8").rstrip("\n")
    # As relion_star_printtable prints them: values alone, one space between two of them.
    return table.to_csv(index=False, header=False, sep=" ", na_rep="nan").rstrip("\n")


def _plot(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Plot the columns over the first one; a single one over the numbers of its rows."""
    from emhet_dask.report import column_lines, save  # noqa: PLC0415 - brings matplotlib

    drawn = table if len(table.columns) == 1 else table.iloc[:, 1:]
    texts = [str(name) for name, column in drawn.items() if not _is_number(column)]
    if texts:
        raise InputError(f"--plot: column {texts[0]} has no numbers to plot")
    x = None if len(table.columns) == 1 else table.iloc[:, 0]
    figure = column_lines(
        {str(name): column.to_numpy(dtype=float) for name, column in drawn.items()},
        x=None if x is None else x.to_numpy(),
        x_label="row" if x is None else str(x.name),
        title=title,
    )
    save(figure, path)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype)
