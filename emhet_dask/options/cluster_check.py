"""Options of ``emhet cluster check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Quiet

__all__ = ["ClusterCheck"]


@dataclass(frozen=True, kw_only=True)
class ClusterCheck(Quiet):
    """Start or find a cluster, say whether it is fit for work, and stop what was started."""

    summary = "Is a cluster fit for work: versions, shared folder, memory, threads, rates."
    examples = (
        "emhet cluster check local:2",
        "emhet cluster check slurm.yaml --folder /shared/project --workers 4",
        "emhet cluster check tls://head:8786 --json",
        "srun -n 4 --kill-on-bad-exit=1 emhet cluster check runner --folder /shared/project",
    )

    spec: Any = option(
        help="What --cluster takes: local:N, an address, scheduler-file:PATH, runner, a YAML file.",
        kind=kinds.anything("a cluster specification", "str or Client", is_path=True),
        argument=True,
    )
    folder: str = option(
        ".",
        help="Folder for ensembles and results, which every worker must see.",
        kind=kinds.path(expected="a folder"),
    )
    workers: int = option(
        1, help="Wait for so many workers before the check begins.", kind=kinds.whole(minimum=1)
    )
    wait: float = option(
        300.0,
        help="Seconds to wait for them; jobs may have to queue.",
        kind=kinds.number(minimum=1),
    )
    memory_limit: str | None = option(
        None,
        help="Memory that one worker may use, such as 4GB; default: its share of the machine.",
        kind=kinds.memory(),
    )
    tls: bool = option(
        False, help="Encrypt the traffic between client, scheduler and workers.", kind=kinds.flag()
    )
    json: bool = option(False, help="Print JSON instead of a table.", kind=kinds.flag())
