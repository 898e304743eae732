"""Options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import Command, option

__all__ = ["Quiet", "Run", "source_ensemble"]


def source_ensemble() -> Any:
    """Declare the argument ENSEMBLE of a command that reads one."""
    return option(
        help="An ensemble store (ENS.zarr); from Python also an open Ensemble.",
        kind=kinds.anything("a path of a store", "path or Ensemble", is_path=True),
        argument=True,
    )


@dataclass(frozen=True, kw_only=True)
class Quiet(Command):
    """Options of every command that reports progress."""

    quiet: bool = option(False, help="Show no progress.", kind=kinds.flag(), flags=("-q",))


@dataclass(frozen=True, kw_only=True)
class Run(Quiet):
    """Options of every command that computes."""

    cluster: Any = option(
        "local",
        help=(
            "Where to compute: local (threads of this process), local:N (N processes), an address "
            "(tcp://… or tls://…), scheduler-file:PATH, or a YAML file with class, options and "
            "jobs or adapt; from Python also a distributed.Client."
        ),
        kind=kinds.anything("a cluster specification such as local:4", "str or Client"),
    )
    memory_limit: str | None = option(
        None,
        help="Memory that one worker may use, such as 4GB; default: its share of the machine.",
        kind=kinds.memory(),
    )
    tls: bool = option(
        False, help="Encrypt the traffic between client, scheduler and workers.", kind=kinds.flag()
    )
    overwrite: bool = option(
        False,
        help="Start afresh where the output holds results made with other settings.",
        kind=kinds.flag(),
    )
