"""STAR files of RELION 3.0 to 5: checked by `outline`, parsed once by `starfile`, written exactly.

Writing is our own: `starfile` rounds to six decimals, stamps the time of day and leaves out
RELION's ``# version`` line.
"""

from __future__ import annotations

import csv
import linecache
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import starfile

from emhet_dask.errors import InputError
from emhet_dask.formats.star_outline import LOST_IN_PAIR, LOST_IN_ROW, BlockOutline, outline

__all__ = [
    "ParticleIdentity",
    "ParticleTable",
    "StarFile",
    "count_particles",
    "outline",
    "particle_identity",
    "read_particles",
    "read_star",
    "write_particles",
    "write_star",
]

Block = pd.DataFrame | dict[str, Any]

FIRST_VERSION_WITH_OPTICS = 30001
_PARTICLE_BLOCKS = ("particles", "images", "")
_IDENTITY_COLUMNS = ("rlnImageName", "rlnTomoParticleName")
# Labels whose values are text even where they look like numbers ('007', '3').
_TEXT_LABEL = re.compile(r"(Name|Image|File|Label|Title|Path)$")
_PLAIN = re.compile(r"(?!_|data_|loop_)[^\s\"'#\\]+")


@dataclass(frozen=True)
class StarFile:
    """A STAR file in memory.

    Attributes
    ----------
    path : str
        The file.
    version : int or None
        Number of the first ``# version`` line; None without one.
    blocks : dict of str to DataFrame or dict
        Tables as DataFrames, label–value blocks as dicts, in the order of the file.
    """

    path: str
    version: int | None
    blocks: dict[str, Block]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name; a label–value block is a table of one row, as RELION has it.

        Raises
        ------
        InputError
            When the file holds no such block.
        """
        block = self.blocks.get(name)
        if block is None:
            raise InputError(
                f"{self.path}: has no block data_{name}; it holds {_listed(self.blocks)}"
            )
        return block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])


@dataclass(frozen=True)
class ParticleTable:
    """Particles with all that has to be kept when a subset of them is written.

    Attributes
    ----------
    path : str
        The file they came from.
    version : int or None
        Number of the first ``# version`` line; None without one.
    particles : DataFrame
        One row per particle, columns in the order of the file.
    optics : DataFrame or None
        The optics groups; None for RELION 3.0.
    block : str
        Name of the particles' block: ``"particles"``, ``"images"`` or empty.
    order : tuple of str
        Names of all blocks in the order of the file.
    others : dict of str to DataFrame or dict
        Blocks that are neither particles nor optics, written back unchanged.
    """

    path: str
    version: int | None
    particles: pd.DataFrame
    optics: pd.DataFrame | None
    block: str = "particles"
    order: tuple[str, ...] = ("optics", "particles")
    others: dict[str, Block] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``"3.1"`` for RELION 3.1 and later (optics groups, origins in Å), else ``"3.0"``."""
        return "3.0" if self.optics is None else "3.1"


class ParticleIdentity(NamedTuple):
    """Who each particle is: image names repeat after symmetry expansion, pairs do not.

    Attributes
    ----------
    names : ndarray of str
        ``rlnImageName``, or ``rlnTomoParticleName`` where there is none.
    copies : ndarray of int64
        How many earlier rows bear the same name.
    """

    names: np.ndarray
    copies: np.ndarray


def read_star(path: str | Path) -> StarFile:
    """Read all blocks of a STAR file.

    Text labels (``rlnImageName``, ``rlnMicrographName``, …) stay text, whole numbers stay whole.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    StarFile

    Raises
    ------
    InputError
        When `outline` refuses the file, or `starfile` cannot parse it.
    """
    name = str(path)
    outlined = outline(path)
    labels = {column for block in outlined.blocks for column in block.columns}
    # starfile reads lines through this cache and leaves them there when it fails, so that a file
    # mended in place would be seen as it was before.
    linecache.cache.pop(str(Path(name)), None)
    try:
        with warnings.catch_warnings():
            # A column that is numbers in one stretch and text in another would be read as both.
            warnings.simplefilter("error", pd.errors.DtypeWarning)
            blocks = starfile.read(
                name,
                always_dict=True,
                parse_as_string=sorted(label for label in labels if _TEXT_LABEL.search(label)),
            )
    except Exception as error:  # whatever a parser of foreign text may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: cannot be read as STAR ({reason})") from None
    for block in outlined.blocks:
        parsed = blocks.get(block.name)
        found = (tuple(parsed), len(parsed)) if isinstance(parsed, pd.DataFrame) else None
        if block.is_table and found != (block.columns, block.n_rows):
            raise InputError(
                f"{name}: data_{block.name} has {block.n_rows} rows of {len(block.columns)} "
                "columns in the text, but starfile parses another table"
            )
        if isinstance(parsed, pd.DataFrame):
            _restore_text(parsed, name, block)
    return StarFile(name, outlined.version, blocks)


def _restore_text(table: pd.DataFrame, path: str, block: BlockOutline) -> None:
    """Put text back that spells nan, which starfile takes for a missing value."""
    texts = [label for label in table if _TEXT_LABEL.search(str(label))]
    missing = [label for label in texts if table[label].isna().any()]
    if not missing:
        return
    lines = iter(Path(path).read_text(encoding="utf-8").split("\n"))
    for line in lines:
        if line.strip() == f"data_{block.name}":
            break
    filled = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    kept = dropwhile(lambda line: line.startswith(("_", "loop_")), filled)
    # As starfile splits them.
    rows = "\n".join(islice(kept, block.n_rows)).replace("'", '"')
    again = pd.read_csv(
        StringIO(rows), sep=r"\s+", header=None, comment="#", dtype=str, na_filter=False
    )
    for label in missing:
        table[label] = again[block.columns.index(label)]


def count_particles(path: str | Path) -> int:
    """Count the particles of a STAR file without parsing their values.

    Raises
    ------
    InputError
        When `outline` refuses the file, or it holds no particle table.
    """
    blocks = {block.name: block for block in outline(path).blocks}
    tables = {name: block.columns for name, block in blocks.items() if block.is_table}
    return blocks[_particle_block(tables, str(path))].n_rows


def read_particles(path: str | Path) -> ParticleTable:
    """Read a particle STAR file of RELION 3.0, 3.1, 4 or 5.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputError
        When the file cannot be read, holds no particles, or has particles of an optics group that
        it does not define (RELION stops at such a file).
    """
    star = read_star(path)
    tables = {
        name: tuple(map(str, block))
        for name, block in star.blocks.items()
        if isinstance(block, pd.DataFrame) and name != "optics"
    }
    block = _particle_block(tables, star.path)
    optics = star.table("optics") if "optics" in star.blocks else None
    if optics is not None and not len(optics):
        optics = None
    particles = star.table(block)
    if optics is not None:
        _check_optics(particles, optics, star.path)
    return ParticleTable(
        path=star.path,
        version=star.version,
        particles=particles,
        optics=optics,
        block=block,
        order=tuple(star.blocks),
        others={
            name: other for name, other in star.blocks.items() if name not in (block, "optics")
        },
    )


def particle_identity(table: ParticleTable) -> ParticleIdentity:
    """Name every particle and number the copies of equal names.

    Parameters
    ----------
    table : ParticleTable
        From `read_particles`.

    Returns
    -------
    ParticleIdentity
        Two arrays as long as the table.
    """
    column = next(name for name in _IDENTITY_COLUMNS if name in table.particles)
    names = table.particles[column].astype(str)
    copies = names.groupby(names, sort=False).cumcount()
    return ParticleIdentity(names.to_numpy(dtype=object), copies.to_numpy(dtype=np.int64))


def write_particles(
    path: str | Path, table: ParticleTable, *, rows: np.ndarray | None = None
) -> None:
    """Write particles as RELION reads them: same columns and blocks, optics groups in use, LF.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    table : ParticleTable
        From `read_particles`.
    rows : ndarray of int or bool, optional
        Which particles, in this order; all by default. Group numbers stay as they are.

    Raises
    ------
    InputError
        When a row is asked for that the table does not have, or a value cannot be written as STAR.
    """
    particles = table.particles if rows is None else _take(table, np.asarray(rows))
    optics = table.optics
    version = table.version
    if optics is not None:
        version = FIRST_VERSION_WITH_OPTICS if version is None else version
        if len(particles) and "rlnOpticsGroup" in particles:
            optics = optics[optics["rlnOpticsGroup"].isin(particles["rlnOpticsGroup"])]
    blocks: dict[str, Block] = {}
    for name in table.order:
        if name == table.block:
            blocks[name] = particles
        elif name != "optics":
            blocks[name] = table.others[name]
        elif optics is not None:
            blocks[name] = optics
    write_star(path, blocks, version=version)


def write_star(
    path: str | Path, blocks: Mapping[str, Block], *, version: int | None = None
) -> None:
    """Write blocks; numbers get the shortest text that reads back to the same number.

    Parameters
    ----------
    path : str or Path
        Written anew if it exists.
    blocks : mapping of str to DataFrame or mapping
        Tables, or label–value pairs.
    version : int, optional
        Written as RELION's ``# version`` line before each block.

    Raises
    ------
    InputError
        When a text value holds a tab, line break, quote, ``#`` (in a table) or backslash (in a
        pair), which STAR, as others parse it, cannot carry.
    """
    head = "" if version is None else f"\n# version {version}\n"
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for name, block in blocks.items():
            file.write(f"{head}\ndata_{name}\n\n")
            if isinstance(block, pd.DataFrame):
                _write_table(file, block, str(path))
            else:
                for label, value in block.items():
                    file.write(f"_{label:<45} {_as_token(value, str(path), lost=LOST_IN_PAIR)}\n")
            file.write("\n")


def _particle_block(tables: Mapping[str, tuple[str, ...]], path: str) -> str:
    """Name the block that holds particles: 3.1 says data_particles, 3.0 data_images or data_."""
    named = [name for name, columns in tables.items() if set(_IDENTITY_COLUMNS) & set(columns)]
    for name in _PARTICLE_BLOCKS:
        if name in named:
            return name
    raise InputError(
        f"{path}: has no particles; expected data_particles (or data_images, data_) with "
        f"_rlnImageName, found {_listed(tables)}"
    )


def _listed(names: Mapping[str, Any], limit: int = 8) -> str:
    shown = [f"data_{name}" for name in list(names)[:limit]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "no table"


def _check_optics(particles: pd.DataFrame, optics: pd.DataFrame, path: str) -> None:
    if "rlnOpticsGroup" not in optics:
        raise InputError(f"{path}: data_optics has no column _rlnOpticsGroup")
    if "rlnOpticsGroup" not in particles:
        if len(optics) > 1:
            raise InputError(
                f"{path}: its particles have no column _rlnOpticsGroup to choose among "
                f"{len(optics)} optics groups"
            )
        return
    groups = particles["rlnOpticsGroup"]
    undefined = groups[~groups.isin(optics["rlnOpticsGroup"])]
    if len(undefined):
        raise InputError(
            f"{path}: {len(undefined)} particles are of optics groups that data_optics does not "
            f"define ({', '.join(map(str, undefined.unique()[:5]))}; defined are "
            f"{', '.join(map(str, optics['rlnOpticsGroup'][:5]))})"
        )


def _take(table: ParticleTable, rows: np.ndarray) -> pd.DataFrame:
    n = len(table.particles)
    if rows.dtype == bool and rows.shape == (n,):
        return table.particles[rows]
    if rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n):
        raise InputError(
            f"{table.path}: has {n} particles (rows 0 to {n - 1}); asked for rows of dtype "
            f"{rows.dtype} from {rows.min()} to {rows.max()}"
        )
    return table.particles.iloc[rows.astype(np.int64)]


def _write_table(file: Any, frame: pd.DataFrame, path: str) -> None:
    file.write("loop_\n")
    for number, label in enumerate(frame.columns, start=1):
        file.write(f"_{label} #{number}\n")
    text = {
        label: [_as_token(value, path, lost=LOST_IN_ROW) for value in frame[label]]
        for label in frame.columns
        if not pd.api.types.is_numeric_dtype(frame[label].dtype)
    }
    frame.assign(**text).to_csv(
        file,
        sep="\t",
        header=False,
        index=False,
        na_rep="nan",
        quoting=csv.QUOTE_NONE,
        lineterminator="\n",
    )


def _as_token(value: Any, path: str, *, lost: str) -> str:
    """Return a value as one STAR word, in quotes where it has spaces or would look like a label."""
    if not isinstance(value, str):
        return "nan" if pd.isna(value) else str(value)
    if _PLAIN.fullmatch(value):
        return value
    marks = set(value) & {*lost, "\t", "\n", "\r"}
    if marks:
        raise InputError(f"{path}: cannot write {value!r} as STAR; {min(marks)!r} does not fit")
    return f'"{value}"'
