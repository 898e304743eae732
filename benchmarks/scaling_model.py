"""Seconds of a command on any number of workers, from what its tasks took on one.

A pass of independent and dependent tasks on W workers takes no longer than its longest chain and a
W-th of all other work (R. L. Graham, Bell System Technical Journal 1966), unless the scheduler, one
process, needs longer for so many tasks. Passes follow one another, and what the client does between
them, nobody can share:

    client + sum over passes of (chain + max((work - chain) / W, scheduler))

Seconds are those of CPU, so that what else a machine does is not counted. Disks and networks are
taken to be fast enough, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Stage", "by_label", "by_stage", "predicted"]


@dataclass(frozen=True)
class Stage:
    """What a stage of a command took.

    Attributes
    ----------
    name : str
    passes, tasks : int
    wall : float
        Seconds of its passes by the clock.
    work, chain : float
        Seconds of CPU of all tasks, and of the longest chains of each pass.
    scheduler : float
        Seconds of CPU of the scheduler, without those in which it waits.
    graph : float
        Seconds of CPU in which the client made tasks and handed them over.
    client : float
        Seconds of CPU of the client that are not waited for by workers: all of them but those
        that the scheduler is part of.
    bound : list of (float, float, float)
        ``chain``, other ``work`` and ``scheduler`` of each pass.
    """

    name: str
    passes: int
    tasks: int
    wall: float
    work: float
    chain: float
    scheduler: float
    graph: float
    client: float
    bound: list[tuple[float, float, float]]

    def seconds(self, workers: int) -> float:
        """Return what the model says, in seconds."""
        return self.client + sum(
            chain + max(rest / workers, scheduler) for chain, rest, scheduler in self.bound
        )


def by_stage(told: Mapping[str, Any]) -> list[Stage]:
    """Return the stages of a command, in their order, from what `scaling_client` wrote."""
    outside = told["outside_client"]
    names = dict.fromkeys([*outside, *(each["stage"] for each in told["passes"])])
    return [
        _stage(
            name,
            [each for each in told["passes"] if each["stage"] == name],
            outside=outside.get(name, 0.0),
            graph=told["graph"].get(name, 0.0),
            idle=told["scheduler_idle"],
            apart=told["scheduler_apart"],
        )
        for name in names
    ]


def by_label(told: Mapping[str, Any]) -> dict[str, Stage]:
    """Return the passes of a command by what it calls them, nothing beside them included."""
    labels = dict.fromkeys(each["label"] for each in told["passes"])
    return {
        label: _stage(
            label,
            [each for each in told["passes"] if each["label"] == label],
            outside=0.0,
            graph=0.0,
            idle=told["scheduler_idle"],
            apart=told["scheduler_apart"],
        )
        for label in labels
    }


def predicted(stages: Iterable[Stage], workers: int) -> float:
    """Return what the model says of several stages, in seconds."""
    return sum(stage.seconds(workers) for stage in stages)


def _stage(
    name: str,
    passes: list[Mapping[str, Any]],
    *,
    outside: float,
    graph: float,
    idle: float,
    apart: bool,
) -> Stage:
    total = {
        key: sum(each[key] for each in passes)
        for key in ("tasks", "wall", "client", "scheduler", "workers", "work")
    }
    # A scheduler looks after its workers whether or not there is work.
    total["scheduler"] = max(0.0, total["scheduler"] - idle * total["wall"])
    # Tasks are timed by the clock; what of it was theirs, the CPU of their processes tells.
    share = total["workers"] / total["work"] if total["work"] else 1.0
    per_task = total["scheduler"] / total["tasks"] if total["tasks"] else 0.0
    bound = [
        (
            share * each["chain"],
            share * max(0.0, each["work"] - each["chain"]),
            per_task * each["tasks"],
        )
        for each in passes
    ]
    return Stage(
        name=name,
        passes=len(passes),
        tasks=total["tasks"],
        wall=total["wall"],
        work=total["workers"],
        chain=sum(chain for chain, _, _ in bound),
        scheduler=total["scheduler"],
        graph=graph,
        # Of one process, seconds of the scheduler and of the client are told twice.
        client=outside + (total["client"] if apart else 0.0),
        bound=bound,
    )
