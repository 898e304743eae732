"""The shape of a STAR file, read line by line, with everything refused that would be misread.

`starfile` pads a row that is cut short, takes what follows a ``#`` for a comment and merges blocks
without a word; RELION stops at Windows line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emhet_dask.errors import InputError

__all__ = ["BlockOutline", "Outline", "outline"]

_VERSION = re.compile(r"#\s*version\s+(\d+)")
_TOKEN = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")
# What parsers drop from a value, or stop at: in a row of a table, in a label–value pair.
LOST_IN_ROW = "\"'#"
LOST_IN_PAIR = "\"'\\"


@dataclass(frozen=True)
class BlockOutline:
    """One data block without its values.

    Attributes
    ----------
    name : str
        ``"particles"`` for ``data_particles``.
    columns : tuple of str
        Labels without the underscore.
    n_rows : int
        Rows of a table; 1 for a block of label–value pairs.
    is_table : bool
        Whether the block is a ``loop_``.
    """

    name: str
    columns: tuple[str, ...]
    n_rows: int
    is_table: bool


@dataclass(frozen=True)
class Outline:
    """What a STAR file holds, without its values.

    Attributes
    ----------
    version : int or None
        Number of the first ``# version`` line (30001 for RELION 3.1); None without one.
    blocks : tuple of BlockOutline
        In the order of the file.
    """

    version: int | None
    blocks: tuple[BlockOutline, ...]


def outline(path: str | Path) -> Outline:
    """Read names, labels and numbers of rows, and check the text on the way.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Outline

    Raises
    ------
    InputError
        When the file is absent, not text, has CRLF line ends (RELION stops at them), no data
        block, two blocks of one name, a row with more or fewer values than its table has columns,
        or a ``#`` or lone quote inside a value.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="\n") as lines:
            return _Scanner(str(path)).scan(lines)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a STAR file; it holds bytes that are not text") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


class _Scanner:
    """Walks over the lines of a file, one method per kind of line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.version: int | None = None
        self.blocks: list[BlockOutline] = []
        self.name: str | None = None  # of the block being read
        self.columns: list[str] = []
        self.n_rows = 0
        self.is_table = False
        self.has_comment = False  # after the first label

    def scan(self, lines: Iterable[str]) -> Outline:
        for number, line in enumerate(lines, start=1):
            if "\r" in line:
                raise InputError(
                    f"{self.path}: has Windows line ends (CRLF), at which RELION stops too; "
                    f"convert it, for example with: sed -i 's/\\r$//' {self.path}"
                )
            text = line.strip()
            if not text:
                continue
            if text[0] == "#":
                self._comment(text)
            elif text.startswith("data_"):
                self._start_block(text, number)
            elif self.name is None:
                raise self._damaged(number, "comes before any data_ line")
            elif text == "loop_":
                self._start_table(number)
            elif text[0] == "_" and not self.n_rows:
                self._label(text, number)
            elif not self.is_table or not self.columns:
                raise self._damaged(number, "is neither a label nor a row of a table")
            else:
                self._row(text, number)
        self._end_block()
        if not self.blocks:
            raise InputError(f"{self.path}: not a STAR file; it has no data_ block with labels")
        return Outline(self.version, tuple(self.blocks))

    def _comment(self, text: str) -> None:
        match = _VERSION.match(text)
        if match and self.version is None:
            self.version = int(match[1])
        self.has_comment = bool(self.columns)

    def _start_block(self, text: str, number: int) -> None:
        if len(text.split()) > 1:
            raise self._damaged(number, "starts with data_ but is not the name of a block")
        self._end_block()
        self.name = text.removeprefix("data_")
        if any(block.name == self.name for block in self.blocks):
            raise self._damaged(number, f"starts a second block data_{self.name}")

    def _start_table(self, number: int) -> None:
        if self.is_table or self.columns:
            raise self._damaged(number, f"starts a second table in data_{self.name}")
        self.is_table = True

    def _label(self, text: str, number: int) -> None:
        tokens = _TOKEN.findall(text)
        n_expected = (1, 2) if self.is_table else (2,)
        if len(tokens) not in n_expected:
            raise self._damaged(number, f"has {len(tokens)} words where a label was expected")
        if self.is_table and self.has_comment:
            raise self._damaged(number, "is a label after a comment; parsers take it for a row")
        if not self.is_table:
            self._check_value(tokens[1], number, lost=LOST_IN_PAIR)
        if tokens[0][1:] in self.columns:
            raise self._damaged(number, f"repeats the label {tokens[0]}")
        self.columns.append(tokens[0][1:])

    def _row(self, text: str, number: int) -> None:
        count = len(text.split())
        if "#" in text or '"' in text or "'" in text:
            tokens = _TOKEN.findall(text)
            count = len(tokens)
            for token in tokens:
                self._check_value(token, number, lost=LOST_IN_ROW)
        if count != len(self.columns):
            raise self._damaged(
                number,
                f"has {count} values, the table data_{self.name} has {len(self.columns)} columns; "
                "is the file cut short?",
            )
        self.n_rows += 1

    def _check_value(self, token: str, number: int, *, lost: str) -> None:
        quoted = len(token) > 1 and token[0] in "\"'" and token[-1] == token[0]
        marks = set(token[1:-1] if quoted else token) & set(lost)
        if marks:
            raise self._damaged(
                number, f"has a {min(marks)} inside the value {token}, which parsers drop"
            )

    def _end_block(self) -> None:
        if self.name is not None:
            if not self.columns:
                raise InputError(f"{self.path}: data_{self.name} has no labels; is it cut short?")
            n_rows = self.n_rows if self.is_table else 1
            self.blocks.append(BlockOutline(self.name, tuple(self.columns), n_rows, self.is_table))
        self.name, self.columns, self.n_rows = None, [], 0
        self.is_table = self.has_comment = False

    def _damaged(self, number: int, problem: str) -> InputError:
        return InputError(f"{self.path}: line {number} {problem}")
