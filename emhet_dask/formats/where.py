"""Conditions on the columns of a table, such as ``MaxValueProbDistribution > 0.9``.

A small language with Python's grammar and none of its reach: an expression is parsed, and only
comparisons, ``and``, ``or``, ``not``, ``in``, arithmetic, ``abs``, column names and constants are
carried out, each by a line here.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emhet_dask.errors import InputError

__all__ = ["columns_of", "rows_where"]

_LONGEST = 2_000
_PREFIXES = ("", "rln")
_HINTS = {
    ast.BitAnd: "'and' instead of '&'",
    ast.BitOr: "'or' instead of '|'",
    ast.BitXor: "** for powers",
    ast.Invert: "'not' instead of '~'",
    ast.Is: "== instead of 'is'",
    ast.IsNot: "!= instead of 'is not'",
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_OF_TEXT = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)

Columns = Mapping[str, npt.NDArray[Any]]
# A column, a number or text, or several of them.
Value = Any


class _Lazy(Mapping[str, npt.NDArray[Any]]):
    """Columns that are made when asked for: texts as Python objects are large."""

    def __init__(self, make: Mapping[str, Callable[[], npt.NDArray[Any]]]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._make[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def columns_of(particles: pd.DataFrame | np.ndarray) -> Columns:
    """Return the columns that hold one number or text per row; texts as objects."""
    if isinstance(particles, pd.DataFrame):
        return _Lazy({str(name): partial(_of_table, column) for name, column in particles.items()})
    return _Lazy(
        {
            name: partial(_of_records, particles[name])
            for name in particles.dtype.names or ()
            if particles[name].ndim == 1
        }
    )


def _of_table(column: pd.Series) -> npt.NDArray[Any]:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy()
    # What stands for no value is a text like others, as it is in the file.
    return column.astype(object).where(column.notna(), "nan").map(str).to_numpy(dtype=object)


def _of_records(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values.astype(object) if values.dtype.kind == "U" else values


def rows_where(
    expression: str, columns: Columns, *, source: str, option: str = "--where"
) -> npt.NDArray[np.bool_]:
    """Tell for which rows of a table a condition holds.

    Parameters
    ----------
    expression : str
        Such as ``"ClassNumber in (2, 3) and abs(OriginXAngst) < 5"``, with columns by their names,
        with or without ``rln``; ``"mic007" in MicrographName`` asks for a part of a text. Nothing
        compares with an undefined number but ``!=``. Arithmetic is in double precision.
    columns : mapping of str to ndarray (row,)
        Numbers, or texts as objects.
    source : str
        Where the columns come from, for messages.
    option : str
        That gave the expression, for messages.

    Returns
    -------
    ndarray of bool (row,)

    Raises
    ------
    InputError
        When it cannot be parsed, names a column that is not there, is not a condition, or wants
        something that this language does not have.
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", expression).strip()
    if len(text) > _LONGEST:
        raise InputError(
            f"{option}: has {len(text)} characters, expected an expression of at most {_LONGEST}"
        )
    reader = _Reader(columns, source=source, head=f"{option} {text!r}")
    try:
        found = reader.read(text)
    except (RecursionError, MemoryError):
        raise InputError(f"{option}: is nested too deeply") from None
    if not _is_condition(found) or found.ndim != 1:
        raise InputError(
            f"{option} {text!r}: is no condition on the rows; compare a column with something, such"
            " as rlnMaxValueProbDistribution > 0.9"
        )
    return found


class _Reader:
    """Carries out one expression; a method per kind of node."""

    def __init__(self, columns: Columns, *, source: str, head: str) -> None:
        self.columns = columns
        self.source = source
        self.head = head
        # cryoSPARC's names have a slash, which would be a division.
        self.slashed = {
            name: f"_column{number}_"
            for number, name in enumerate(columns)
            if not name.isidentifier()
        }
        self.named = {stand_in: name for name, stand_in in self.slashed.items()}

    def read(self, text: str) -> Value:
        for name in sorted(self.slashed, key=len, reverse=True):
            text = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w/])", self.slashed[name], text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError) as error:
            hint = "; use == to compare" if re.search(r"(?<![=<>!])=(?!=)", text) else ""
            reason = getattr(error, "msg", None) or str(error)
            raise InputError(f"{self.head}: cannot be understood ({reason}){hint}") from None
        with np.errstate(all="ignore"):
            return self.value(tree.body)

    def value(self, node: ast.AST) -> Value:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise self._refused(node)
        return method(node)

    def _constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
            raise self._refused(node)
        if isinstance(node.value, str):
            for stand_in, name in self.named.items():
                node.value = node.value.replace(stand_in, name)
        return node.value

    def _name(self, node: ast.Name) -> Value:
        given = self.named.get(node.id, node.id).removeprefix("_")
        for prefix in _PREFIXES:
            if prefix + given in self.columns:
                return self.columns[prefix + given]
        near = difflib.get_close_matches(
            given.lower(), [name.lower() for name in self.columns], n=1, cutoff=0.5
        ) or difflib.get_close_matches(
            f"rln{given}".lower(), [name.lower() for name in self.columns], n=1, cutoff=0.5
        )
        meant = next((name for name in self.columns if near and name.lower() == near[0]), None)
        known = f"did you mean {meant}?" if meant else f"it has {', '.join(list(self.columns)[:8])}"
        raise InputError(f"{self.head}: {self.source} has no column {given!r}; {known}")

    def _boolop(self, node: ast.BoolOp) -> Value:
        conditions = [self._condition(each) for each in node.values]
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return combine.reduce(np.broadcast_arrays(*conditions))

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return ~self._condition(node.operand)
        if isinstance(node.op, ast.USub | ast.UAdd):
            value = self._number(node.operand)
            if isinstance(node.op, ast.UAdd):
                return value
            return -value if isinstance(value, int | float) else -value.astype(np.float64)
        raise self._refused(node.op)

    def _binop(self, node: ast.BinOp) -> Value:
        calculate = _ARITHMETIC.get(type(node.op))
        if calculate is None:
            raise self._refused(node.op)
        left, right = self._number(node.left), self._number(node.right)
        # The remainder of a uid is lost in double precision.
        if isinstance(node.op, ast.Mod) and all(_is_whole(each) for each in (left, right)):
            try:
                return calculate(left, right)
            except OverflowError:
                raise InputError(f"{self.head}: {right} is too large for a whole number") from None
        try:
            return calculate(np.asarray(left, np.float64), np.asarray(right, np.float64))
        except OverflowError:
            raise InputError(f"{self.head}: holds a number that is too large") from None

    def _call(self, node: ast.Call) -> Value:
        named = isinstance(node.func, ast.Name) and node.func.id == "abs"
        if not named or len(node.args) != 1 or node.keywords:
            raise self._refused(node)
        return np.abs(np.asarray(self._number(node.args[0]), dtype=np.float64))

    def _tuple(self, node: ast.Tuple) -> Value:
        return [self._constant(each) if isinstance(each, ast.Constant) else self._number(each)
                for each in node.elts]  # fmt: skip

    _list = _set = _tuple

    def _compare(self, node: ast.Compare) -> Value:
        values = [self.value(each) for each in (node.left, *node.comparators)]
        found = [
            self._compared(kind, left, right)
            for kind, left, right in zip(node.ops, values, values[1:], strict=False)
        ]
        return np.logical_and.reduce(np.broadcast_arrays(*found))

    def _compared(self, kind: ast.cmpop, left: Value, right: Value) -> Value:
        if isinstance(kind, ast.In | ast.NotIn):
            found = self._contained(left, right)
            return ~found if isinstance(kind, ast.NotIn) else found
        compare = _COMPARISONS.get(type(kind))
        if compare is None:
            raise self._refused(kind)
        if any(isinstance(each, list) for each in (left, right)):
            raise InputError(f"{self.head}: a list is compared; expected 'in' before it")
        texts = [_is_text(each) for each in (left, right)]
        if any(texts) and not (all(texts) and isinstance(kind, _OF_TEXT)):
            raise InputError(
                f"{self.head}: compares {'texts' if all(texts) else 'a text with a number'}; texts "
                "go with texts, by ==, != and in"
            )
        return np.asarray(compare(left, right), dtype=bool)

    def _contained(self, left: Value, right: Value) -> Value:
        if isinstance(left, str) and _is_text(right) and not isinstance(right, str):
            return np.fromiter((left in each for each in right), dtype=bool, count=len(right))
        if not isinstance(right, list) or isinstance(left, list):
            raise InputError(
                f"{self.head}: 'in' needs a column before a list, such as ClassNumber in (2, 3), or"
                " a text before a column of texts"
            )
        parts = [self._compared(ast.Eq(), left, each) for each in right]
        return np.logical_or.reduce(parts) if parts else np.zeros(np.shape(left), dtype=bool)

    def _condition(self, node: ast.AST) -> npt.NDArray[np.bool_]:
        value = self.value(node)
        if not _is_condition(value):
            raise InputError(
                f"{self.head}: {ast.unparse(node)!r} is no condition; and, or and not join "
                "comparisons"
            )
        return value

    def _number(self, node: ast.AST) -> Any:
        value = self.value(node)
        if _is_text(value) or _is_condition(value) or isinstance(value, list):
            raise InputError(f"{self.head}: {ast.unparse(node)!r} is no number to calculate with")
        return value

    def _refused(self, node: ast.AST) -> InputError:
        hint = _HINTS.get(type(node))
        what = f"use {hint}" if hint else "cannot hold " + _plain(node)
        return InputError(
            f"{self.head}: {what}; expected comparisons, and, or, not, in, arithmetic and abs over "
            "column names"
        )


def _plain(node: ast.AST) -> str:
    try:
        return repr(ast.unparse(node))
    except (ValueError, RecursionError):
        return type(node).__name__


def _is_text(value: Value) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype == object)


def _is_condition(value: Value) -> bool:
    return isinstance(value, np.ndarray | np.bool) and value.dtype == bool


def _is_whole(value: Value) -> bool:
    return isinstance(value, int) or (isinstance(value, np.ndarray) and value.dtype.kind in "iu")
