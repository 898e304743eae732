"""Build the command ``emhet`` from the options; nothing heavy is imported before a command runs."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from emhet_dask.errors import EmhetError
from emhet_dask.options import COMMANDS, Command, Option, spelled

__all__ = ["main"]

_GROUPS = {
    "cluster": "Look after the cluster that commands compute on.",
    "simulate": "Simulate ensembles with a known answer.",
    "class3d": "Read, compare and subset 3D classifications of RELION and cryoSPARC.",
}
_USER_ERROR = 2
_INTERRUPTED = 130


class _Words(click.ParamType):
    """Any text; completes words such as ``auto`` and, for paths, file names."""

    def __init__(self, meta: Option) -> None:
        self.name = "path" if meta.kind.is_path else "text"
        self._kind = meta.kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what stands for the value in the help."""
        del param, ctx
        kind = self._kind.type_name.split(" ", 1)[0]
        noun = {"int": "N", "float": "X", "path": "PATH"}.get(kind, "TEXT")
        if not self._kind.choices:
            return noun
        closed = kind.startswith("'")  # the words are all there is
        return "[" + "|".join([*self._kind.choices, *([] if closed else [noun])]) + "]"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete words, then leave files to the shell."""
        del ctx, param
        item = click.shell_completion.CompletionItem
        found = [item(word) for word in self._kind.choices if word.startswith(incomplete)]
        return [*found, item(incomplete, type="file")] if self._kind.is_path else found


def _parameter(name: str, meta: Option, default: Any) -> click.Parameter:
    required = default is dataclasses.MISSING
    if meta.argument:
        metavar = name.upper() + ("..." if meta.many else "")
        nargs = -1 if meta.many else 1
        return click.Argument(
            [name], required=required, nargs=nargs, type=_Words(meta), metavar=metavar
        )
    if meta.kind.type_name == "bool":
        long = spelled(name, meta)
        both = f"{long}/--no-{long[2:]}" if default else long
        return click.Option(
            [both, *meta.flags],
            default=default,
            is_flag=True,
            help=meta.help,
            show_default=bool(default),
        )
    return click.Option(
        [spelled(name, meta), *meta.flags],
        required=required,
        multiple=meta.many,
        type=_Words(meta),
        help=meta.help,
        show_default=default is not None and not required,
        **({} if required else {"default": default}),
    )


def _command(words: tuple[str, ...], options: type[Command], target: str) -> click.Command:
    def run(**given: Any) -> None:
        module, _, name = target.partition(":")
        with _part_of_this_rank(given):
            report = getattr(importlib.import_module(module), name)(**given)
        describe: Callable[[], str] | None = getattr(report, "describe", None)
        if describe is not None:
            click.echo(describe())
        if getattr(report, "failed", False):
            sys.exit(_USER_ERROR)

    examples = "\n".join(f"  {line}" for line in options.examples)
    return click.Command(
        name=words[-1],
        callback=run,
        params=[_parameter(name, *entry) for name, entry in options.options().items()],
        help=(options.__doc__ or options.summary).strip(),
        short_help=options.summary,
        epilog=f"\b\nExamples:\n{examples}" if examples else None,
    )


def _part_of_this_rank(given: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Let the ranks of an allocation that serve do so before a workflow touches its output."""
    if "runner" not in (given.get("cluster"), given.get("spec")):
        return nullcontext()
    from emhet_dask.runtime.runner import take_part  # noqa: PLC0415 - distributed takes a second

    return take_part(memory_limit=given["memory_limit"], tls=given["tls"])


def _build() -> click.Group:
    root = click.Group(
        name="emhet",
        help=(
            "Heterogeneity in cryo-EM: find states, blocks and motions in ensembles of density "
            "maps, from six classes to 100,000 volumes."
        ),
        epilog="\b\nStart with:\n  emhet demo\n  emhet COMMAND --help",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    root = click.version_option(package_name="emhet-dask")(root)
    for words, (options, target) in COMMANDS.items():
        group = root
        for word in words[:-1]:
            nested = group.commands.get(word)
            if not isinstance(nested, click.Group):
                nested = click.Group(name=word, help=_GROUPS[word])
                group.add_command(nested)
            group = nested
        group.add_command(_command(words, options, target))
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Raises
    ------
    SystemExit
        Status 0, 2 for what the user can mend, 130 when interrupted.
    """
    # What an interrupt cuts off in the event loop is no news to anybody.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # A terminated command ends like an interrupted one: what it holds is given back on the way.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        _build().main(args=arguments, prog_name="emhet", standalone_mode=False)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "emhet"
        click.echo(f"{where}: {error.format_message()} ({where} --help)", err=True)
        sys.exit(_USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        click.echo("emhet: interrupted; the same command again continues", err=True)
        sys.exit(_INTERRUPTED)
    except EmhetError as error:
        click.echo(f"emhet: {error}", err=True)
        sys.exit(_USER_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"emhet: {error.filename}: {error.strerror}", err=True)
        sys.exit(_USER_ERROR)
