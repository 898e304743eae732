"""The kinds of value that options have: how each is parsed, checked and described."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emhet_dask.urls import is_url

__all__ = [
    "Kind",
    "NotOnDiskError",
    "anything",
    "choice",
    "decimals",
    "flag",
    "label",
    "memory",
    "number",
    "number_or_path",
    "numbers",
    "path",
    "text",
    "whole",
]


class NotOnDiskError(ValueError):
    """A URL was given for what other programs write, or are to read, as a file."""


# Nobody means more by 0-N; a slip, or an attempt to fill the memory of a service.
_LONGEST_RANGE = 10_000_000


@dataclass(frozen=True)
class Kind:
    """How a value is given.

    Attributes
    ----------
    parse : callable
        Turns what was given, text or value, into the value; raises ``ValueError`` or ``TypeError``
        otherwise.
    expected : str
        The end of the message 'expected …'.
    type_name : str
        For docstrings and metavars.
    choices : tuple of str
        Words for completion; `parse` decides what is allowed.
    is_path : bool
        Complete file names.
    """

    parse: Callable[[Any], Any]
    expected: str
    type_name: str
    choices: tuple[str, ...] = ()
    is_path: bool = False


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum:g} to {maximum:g}"
    if minimum is not None:
        return f" of at least {minimum:g}"
    return "" if maximum is None else f" of at most {maximum:g}"


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _numeric(
    convert: Callable[[Any], float],
    described: tuple[str, str],
    minimum: float | None,
    maximum: float | None,
    words: tuple[str, ...],
) -> Kind:
    def parse(given: Any) -> Any:
        if isinstance(given, str) and given in words:
            return given
        value = convert(given)
        if not math.isfinite(value) or not _within(value, minimum, maximum):
            raise ValueError(given)
        return value

    noun, type_name = described
    alternatives = "".join(f", or {word}" for word in words)
    return Kind(
        parse,
        f"{noun}{_bounds(minimum, maximum)}{alternatives}",
        " or ".join([type_name, *(repr(word) for word in words)]),
        words,
    )


def whole(
    *, minimum: int | None = None, maximum: int | None = None, words: tuple[str, ...] = ()
) -> Kind:
    """Make the kind 'whole number', with bounds and words such as ``auto`` that are allowed too."""

    def convert(given: Any) -> int:
        if isinstance(given, bool) or (isinstance(given, float) and not given.is_integer()):
            raise ValueError(given)
        return int(given)

    return _numeric(convert, ("a whole number", "int"), minimum, maximum, words)


def number(
    *, minimum: float | None = None, maximum: float | None = None, words: tuple[str, ...] = ()
) -> Kind:
    """Make the kind 'number', with bounds and words that are allowed too."""

    def convert(given: Any) -> float:
        if isinstance(given, bool):
            raise TypeError(given)
        return float(given)

    return _numeric(convert, ("a number", "float"), minimum, maximum, words)


def choice(*words: str) -> Kind:
    """Make the kind 'one of these words'."""

    def parse(given: Any) -> str:
        if given not in words:
            raise ValueError(given)
        return str(given)

    return Kind(parse, "one of " + ", ".join(words), " or ".join(map(repr, words)), words)


def flag() -> Kind:
    """Make the kind 'yes or no'."""

    def parse(given: Any) -> bool:
        if not isinstance(given, bool):
            raise TypeError(given)
        return given

    return Kind(parse, "True or False", "bool")


def text(*, words: tuple[str, ...] = (), expected: str = "a text") -> Kind:
    """Make the kind 'any text', with words that complete."""

    def parse(given: Any) -> str:
        if not isinstance(given, str) or not given:
            raise ValueError(given)
        return given

    return Kind(parse, expected, "str", words)


def label(expected: str) -> Kind:
    """Make the kind 'name or whole number', kept as text."""

    def parse(given: Any) -> str:
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        if not isinstance(given, str) or not given:
            raise ValueError(given)
        return given

    return Kind(parse, expected, "int or str")


def path(*, words: tuple[str, ...] = (), expected: str = "a path", url: bool = False) -> Kind:
    """Make the kind 'path', kept as text, with words that complete; with `url`, URLs are too."""

    def parse(given: Any) -> str:
        spelled = os.fspath(given)
        if not isinstance(spelled, str) or not spelled:
            raise ValueError(given)
        if is_url(spelled) and not url:
            raise NotOnDiskError(given)
        return spelled

    return Kind(parse, expected, "path", words, is_path=True)


def number_or_path(*, words: tuple[str, ...] = (), expected: str) -> Kind:
    """Make the kind 'number or path', kept as text, with words that complete."""
    as_path = path(words=words, expected=expected)

    def parse(given: Any) -> Any:
        # NumPy's numbers too; a text has no such method.
        if hasattr(given, "__float__") and not isinstance(given, bool):
            return repr(float(given))
        return as_path.parse(given)

    type_name = " or ".join(["float", "path", *(repr(word) for word in words)])
    return Kind(parse, expected, type_name, words, is_path=True)


def numbers(expected: str = "whole numbers separated by commas, such as 0,3,7-9") -> Kind:
    """Make the kind 'list of whole numbers', with ranges."""

    def parse(given: Any) -> tuple[int, ...]:
        if isinstance(given, int) and not isinstance(given, bool):
            given = [given]
        if not isinstance(given, str):
            return tuple(int(value) for value in given)
        found: list[int] = []
        for part in given.split(","):
            first, dash, last = part.strip().partition("-")
            run = range(int(first), (int(last) if dash else int(first)) + 1)
            if not 0 < len(run) <= _LONGEST_RANGE:
                raise ValueError(given)
            found.extend(run)
        return tuple(found)

    return Kind(parse, expected, "str or sequence of int")


def decimals(expected: str, *, above: float, below: float = math.inf) -> Kind:
    """Make the kind 'list of numbers', each of them within bounds that are not allowed."""

    def parse(given: Any) -> tuple[float, ...]:
        if isinstance(given, str):
            given = given.split(",")
        elif isinstance(given, int | float) and not isinstance(given, bool):
            given = [given]
        values = tuple(float(value) for value in given)
        if not values or not all(above < value < below for value in values):
            raise ValueError(given)
        return values

    return Kind(parse, expected, "str or sequence of float")


def memory() -> Kind:
    """Make the kind 'amount of memory', such as ``4GB``; kept as text."""

    def parse(given: Any) -> str:
        if not re.fullmatch(r"\d+(\.\d*)?\s*([kmgtp]i?)?b?", str(given).strip().lower()):
            raise ValueError(given)
        return str(given).strip()

    return Kind(parse, "an amount of memory such as 4GB", "str")


def anything(expected: str, type_name: str, *, is_path: bool = False) -> Kind:
    """Make the kind that passes objects through, for arguments that Python may give as objects."""
    return Kind(lambda given: given, expected, type_name, is_path=is_path)
