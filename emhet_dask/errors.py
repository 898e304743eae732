"""The errors that a user can mend, and the sentence for a missing extra.

Anything else that reaches the command line is a bug and shows a traceback.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = ["EmhetError", "InputError", "join_problems", "need"]


class EmhetError(Exception):
    """Base of the errors that emhet_dask raises on purpose."""


class InputError(EmhetError, ValueError):
    """A file, value or option of the user's that cannot be used.

    The message is one line: it names the file or option, says what was found and what would be
    right. The command line prints it and exits with status 2.
    """


def join_problems(problems: Iterable[str], *, what: str, limit: int = 20) -> str:
    """Put many problems into one message.

    Parameters
    ----------
    problems : iterable of str
        One sentence per faulty file or value.
    what : str
        What they have in common, for the head of the message, e.g. ``"files cannot be read"``.
    limit : int
        At most this many are spelled out; the rest is counted.

    Returns
    -------
    str
        ``"3 files cannot be read: a.mrc: …; b.mrc: …; c.mrc: …"``.
    """
    problems = list(problems)
    if len(problems) == 1:
        return problems[0]
    shown = "; ".join(problems[:limit])
    rest = f"; and {len(problems) - limit} more" if len(problems) > limit else ""
    return f"{len(problems)} {what}: {shown}{rest}"


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Parameters
    ----------
    module : str
        Name to import, e.g. ``"umap"``.
    extra : str
        The extra of emhet-dask that installs it.
    purpose : str
        What asked for it, e.g. ``"--umap"``.

    Returns
    -------
    module

    Raises
    ------
    InputError
        When the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose} needs the package {module!r}, which is not installed: "
            f'pip install "emhet-dask[{extra}]"'
        ) from error
