"""Options are defined once: a dataclass per command serves Python, the command line and services.

A field made by `option` carries its help, its flags and how a text becomes a value. Values are
parsed and checked when the dataclass is made, so that Python callers and the command line meet the
same rules and the same messages.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from emhet_dask.errors import InputError
from emhet_dask.options.kinds import Kind, NotOnDiskError
from emhet_dask.urls import redact

__all__ = ["Command", "Option", "command", "option"]


@dataclass(frozen=True)
class Option:
    """What a front end needs to know of one field.

    Attributes
    ----------
    help : str
        One sentence, for ``--help`` and for the docstring.
    kind : Kind
        How a value is given.
    flags : tuple of str
        Short flags beside the long one, e.g. ``("-o",)``.
    argument : bool
        True for a positional argument.
    many : bool
        True where several values may be given.
    """

    help: str
    kind: Kind
    flags: tuple[str, ...] = ()
    argument: bool = False
    many: bool = False


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - the word that every command-line library uses
    kind: Kind,
    flags: Sequence[str] = (),
    argument: bool = False,
    many: bool = False,
) -> Any:
    """Declare a field of a command's dataclass.

    Parameters
    ----------
    default : object, optional
        Without it the option is required.
    help : str
        One sentence.
    kind : Kind
        Made by `emhet_dask.options.kinds`, e.g. ``kinds.whole(minimum=1)``.
    flags : sequence of str
        Short flags.
    argument : bool
        Positional on the command line and in Python.
    many : bool
        A sequence of values.

    Returns
    -------
    dataclasses.Field
    """
    meta = Option(help=help, kind=kind, flags=tuple(flags), argument=argument, many=many)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"option": meta})
    return dataclasses.field(default=default, metadata={"option": meta})


@dataclass(frozen=True)
class Command:
    """Base of every command's options: parses and checks each field when made.

    Raises
    ------
    InputError
        When a value cannot be used; the message names the option as it is typed.
    """

    summary: ClassVar[str] = ""
    examples: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Parse every field; collect nothing, the first wrong one is named."""
        for field in dataclasses.fields(self):
            meta = field.metadata.get("option")
            if meta is None:
                continue
            given = getattr(self, field.name)
            if given is None and field.default is None:
                continue
            object.__setattr__(self, field.name, _parse(field.name, meta, given))

    @classmethod
    def options(cls) -> dict[str, tuple[Option, Any]]:
        """Return name → (option, default): arguments first, then the command's own, then shared."""
        owners = {
            name: depth
            for depth, base in enumerate(cls.__mro__[::-1])
            for name in vars(base).get("__annotations__", {})
        }
        found = {
            field.name: (cast("Option", field.metadata["option"]), field.default)
            for field in dataclasses.fields(cls)
            if "option" in field.metadata
        }
        return dict(
            sorted(found.items(), key=lambda item: (not item[1][0].argument, -owners[item[0]]))
        )

    def parameters(self, *names: str) -> dict[str, Any]:
        """Return the named options as plain values, for the record of a stage."""
        return {name: _plain(getattr(self, name)) for name in names}


def spelled(name: str, meta: Option) -> str:
    """Return an option's name as a user types it."""
    return name.upper() if meta.argument else "--" + name.replace("_", "-")


def _parse(name: str, meta: Option, given: Any) -> Any:
    try:
        if meta.many:
            single = isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Sequence)
            return tuple(meta.kind.parse(value) for value in ([given] if single else given))
        return meta.kind.parse(given)
    except InputError:
        raise
    except NotOnDiskError as error:
        raise InputError(
            f"{spelled(name, meta)}: got {redact(str(error))}, which is a URL; expected "
            f"{meta.kind.expected} on a disk"
        ) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{spelled(name, meta)}: got {given!r}, expected {meta.kind.expected}"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


C = TypeVar("C", bound=Command)
R = TypeVar("R")


def command(options_class: type[C]) -> Callable[[Callable[[C], R]], Callable[..., R]]:
    """Give a workflow its public face: the options as keywords, checked, and a full docstring.

    Parameters
    ----------
    options_class : type
        Subclass of `Command`.

    Returns
    -------
    callable
        Decorator for ``function(options) -> result``; the decorated function takes the options
        of the command: arguments by position, everything else by keyword.
    """

    def decorate(function: Callable[[C], R]) -> Callable[..., R]:
        signature = _signature(options_class)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            bound = signature.bind(*args, **kwargs)
            return function(options_class(**bound.arguments))

        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            return_annotation=inspect.signature(function).return_annotation
        )
        call.__doc__ = _docstring(function.__doc__ or "", options_class)
        call.__annotations__ = {}
        return call

    return decorate


def _signature(options_class: type[Command]) -> inspect.Signature:
    parameters = []
    for name, (meta, default) in options_class.options().items():
        kind = (
            inspect.Parameter.POSITIONAL_OR_KEYWORD
            if meta.argument
            else inspect.Parameter.KEYWORD_ONLY
        )
        empty = inspect.Parameter.empty if default is dataclasses.MISSING else default
        parameters.append(inspect.Parameter(name, kind, default=empty))
    parameters.sort(
        key=lambda parameter: (
            parameter.kind,
            parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            and parameter.default is not inspect.Parameter.empty,
        )
    )
    return inspect.Signature(parameters)


def _docstring(written: str, options_class: type[Command]) -> str:
    """Insert a numpydoc 'Parameters' section, made from the options, after the summary."""
    lines = ["Parameters", "----------"]
    for name, (meta, default) in options_class.options().items():
        optional = "" if default is dataclasses.MISSING else f", default {default!r}"
        many = "sequence of " if meta.many else ""
        lines.append(f"{name} : {many}{meta.kind.type_name}{optional}")
        lines.extend(textwrap.wrap(meta.help, 92, initial_indent="    ", subsequent_indent="    "))
    head, _, rest = inspect.cleandoc(written).partition("\n\n")
    return "\n\n".join(part for part in (head, "\n".join(lines), rest) if part)
