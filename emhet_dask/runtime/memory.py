"""How much memory a stage will take, said before it starts; a plan that cannot fit is refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from dask.utils import format_bytes
from dask.utils import parse_bytes as dask_parse_bytes

from emhet_dask.errors import InputError

__all__ = [
    "WORKER_BYTES",
    "Plan",
    "Work",
    "check_plan",
    "format_bytes",
    "parse_bytes",
    "task_memory_bytes",
    "waiting",
]

# Less cannot hold a Python process with NumPy and Dask in it, so it is a slip: "4" for "4GB".
SMALLEST_LIMIT = 100 * 10**6
# The randomised PCA holds its matrix up to half of it; an exact tree of 13,000 maps fits.
DEFAULT_MEMORY_BYTES = 2 << 30
# A worker that has imported what stages need and holds no data: 202 to 214 MiB were measured.
WORKER_BYTES = 240 << 20
# Of what tasks leave behind, the allocator returns most, not all, to the system.
_RETURNED_LATE = 1.15
# Neighbours that are merged at a time (`emhet_dask.analysis.bands.tree`).
_ARITY = 4


def parse_bytes(text: str | int, *, option: str = "--memory-limit") -> int:
    """Turn an amount of memory such as ``"2GB"`` into bytes.

    Parameters
    ----------
    text : str or int
        A number with a unit (``"512MB"``, ``"1.5 GiB"``, ``"4g"``), or bytes.
    option : str
        What the value was given for, for the message.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    InputError
        When it is not an amount, or less than any worker needs (100 MB).
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgtp]?)(i?)b?\s*", str(text).lower())
    if found is None:
        raise InputError(f"{option}: got {text!r}, expected an amount of memory such as 4GB")
    number, prefix, binary = found.groups()
    amount = int(dask_parse_bytes(f"{number}{prefix}{binary}B"))
    if amount < SMALLEST_LIMIT:
        raise InputError(
            f"{option}: got {text!r}, {amount:,} bytes; expected at least 100MB, such as 4GB"
        )
    return amount


def task_memory_bytes(limit: str | None) -> int:
    """Return what methods may count on in one process: the limit less the process itself, or 2 GiB.

    It decides how things are computed, so that it is never a matter of how many workers there are.
    Of a limit that hardly holds a process, half: the plan of the stage then says what is missing.

    Parameters
    ----------
    limit : str or None
        As in `parse_bytes`.
    """
    if limit is None:
        return DEFAULT_MEMORY_BYTES
    amount = parse_bytes(limit)
    return max(amount // 2, int((amount - WORKER_BYTES) / _RETURNED_LATE))


@dataclass(frozen=True)
class _Stage:
    """A stage that is going to be computed.

    Attributes
    ----------
    stage : str
    tasks : int
        Tasks that go to the workers.
    read_bytes, write_bytes : int
        Bytes to and from files, before compression.
    remedy : str
        The option that makes it need less memory, as typed, e.g. ``"--n-components"``; may be
        empty.
    """

    stage: str
    tasks: int
    read_bytes: int
    write_bytes: int
    remedy: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Work(_Stage):
    """What a stage hands to the workers, whoever they are.

    Attributes
    ----------
    stage, tasks, read_bytes, write_bytes, remedy
        As of every stage.
    task_bytes : int
        Most memory that one task takes, its input and what it returns included.
    held_bytes : int
        What may lie in one worker between tasks: parts that wait for others, and what all share.
    client_bytes : int
        What the client takes at the same time; it counts where workers are its own threads.
    """

    task_bytes: int
    held_bytes: int = 0
    client_bytes: int = 0

    def on(self, threads_per_worker: int, *, in_client: bool = False) -> Plan:
        """Return the plan for workers that run so many tasks at a time, perhaps in the client."""
        at_once = max(1, min(threads_per_worker, self.tasks))
        data = self.held_bytes + at_once * self.task_bytes + in_client * self.client_bytes
        return Plan(
            self.stage,
            self.tasks,
            self.read_bytes,
            self.write_bytes,
            WORKER_BYTES + int(_RETURNED_LATE * data),
            remedy=self.remedy,
        )


@dataclass(frozen=True)
class Plan(_Stage):
    """What a stage is going to do.

    Attributes
    ----------
    stage, tasks, read_bytes, write_bytes, remedy
        As of every stage.
    peak_bytes_per_worker : int
        Most memory of one worker at a time, the process itself and all its threads together.
    """

    peak_bytes_per_worker: int

    def format(self) -> str:
        """Return the plan as one line for people."""
        return (
            f"{self.stage}: {self.tasks:,} task{'s' * (self.tasks != 1)}, "
            f"reads {format_bytes(self.read_bytes)}, writes {format_bytes(self.write_bytes)}, "
            f"at most {format_bytes(self.peak_bytes_per_worker)} per worker"
        )


def check_plan(plan: Plan, limit_bytes: int) -> None:
    """Refuse a plan that cannot fit.

    Parameters
    ----------
    plan : Plan
    limit_bytes : int
        Memory of the smallest worker, see `emhet_dask.runtime.resources`.

    Raises
    ------
    InputError
        When the peak of the plan is more than the limit; names the options that change either.
    """
    if plan.peak_bytes_per_worker <= limit_bytes:
        return
    smaller = f"use {plan.remedy} to need less, or " if plan.remedy else ""
    raise InputError(
        f"{plan.stage} needs {format_bytes(plan.peak_bytes_per_worker)} per worker, but a worker "
        f"has {format_bytes(limit_bytes)}: {smaller}give workers more memory (--memory-limit, or "
        f"fewer of them with --cluster local:N)"
    )


def waiting(parts: int) -> int:
    """Return how many parts of a sum wait to be merged at once, a few at each level of the tree."""
    levels = math.ceil(math.log(max(parts, 2), _ARITY))
    return min(parts, _ARITY * (levels + 1))
