"""A stage states its plan before it begins, and is refused where it cannot fit."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING

from emhet_dask.errors import EmhetError
from emhet_dask.runtime.clients import resources
from emhet_dask.runtime.memory import Plan, Work, check_plan
from emhet_dask.runtime.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["give_back", "state_plan"]

# Below, a stage is done before its plan is read.
_WORTH_SAYING_BYTES = 2 << 30


def state_plan(work: Work, client: Client, progress: Progress) -> Plan:
    """Say what a stage is going to do, or refuse it.

    What earlier stages freed, and the allocator kept, workers give back to the system first.

    Parameters
    ----------
    work : Work
    client : distributed.Client
        Where it will be done. Before the first worker of a batch system has come nobody knows what
        workers have, and nothing is refused.
    progress : Progress
        Told of large stages, in one line.

    Returns
    -------
    Plan
        For the worker with most threads.

    Raises
    ------
    InputError
        When it needs more than the worker with least memory has; names the options to change.
    """
    try:
        have = resources(client)
    except EmhetError:
        return work.on(1)
    in_client = str(getattr(client.scheduler, "address", "")).startswith("inproc://")
    plan = work.on(have.threads_per_worker, in_client=in_client)
    check_plan(plan, have.memory_bytes_per_worker)
    # A worker that is just dying is replaced by one that has nothing to give back.
    client.run(give_back, on_error="ignore")
    if max(plan.read_bytes, plan.write_bytes) >= _WORTH_SAYING_BYTES:
        progress.say(plan.format())
    return plan


def give_back() -> None:
    """Return to the system what freed objects left in the heap of this process.

    The heap shrinks by itself only from its end, where an object that lives on may lie.
    """
    with suppress(OSError, AttributeError):  # only the GNU library has it
        ctypes.CDLL(None).malloc_trim(0)
