"""Options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import Command, option

__all__ = ["Masked", "Quiet", "Run", "source_ensemble"]


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
            "(tcp://… or tls://…), scheduler-file:PATH, runner (every rank of srun or mpirun runs "
            "this same command), or a YAML file with class, options and jobs or adapt; from Python "
            "also a distributed.Client. See also emhet cluster check."
        ),
        kind=kinds.anything("a cluster specification such as local:4", "str or Client"),
    )
    memory_limit: str | None = option(
        None,
        help="Memory that one worker may use, such as 4GB; default: its share of the machine.",
        kind=kinds.memory(),
    )
    tls: bool = option(
        False,
        help=(
            "Encrypt the traffic between client, scheduler and workers; certificates are made once "
            "and kept where only you can read them."
        ),
        kind=kinds.flag(),
    )
    overwrite: bool = option(
        False,
        help="Start afresh where the output holds results made with other settings.",
        kind=kinds.flag(),
    )


@dataclass(frozen=True, kw_only=True)
class Masked(Run):
    """Options of every command that compares volumes inside a mask."""

    mask: str = option(
        "auto",
        help=(
            "auto (voxels that more volumes reach than background noise explains), none (the whole "
            "box), or an MRC file."
        ),
        kind=kinds.path(words=("auto", "none"), expected="auto, none or a file"),
    )
    threshold: float | None = option(
        None,
        help=(
            "Density from which a voxel counts for the mask; default: half of the 99.99th "
            "percentile, mean over the volumes. For a mask file: where it is cut (0.5)."
        ),
        kind=kinds.number(),
    )
    dilate: float | None = option(
        None,
        help="Grow the mask by so many Å; default: two voxels for auto, 0 for a file.",
        kind=kinds.number(minimum=0),
    )
    cosine_edge: float = option(
        0.0, help="Width of a soft edge around the mask, in Å.", kind=kinds.number(minimum=0)
    )
