"""Run a command of emhet whose workers are struck by a signal, in each stage that has work.

Run by tests as ``python struck.py SIGNAL TIMES COMMAND…``, in a process of its own, since what is
asked for is what a terminal sees. The last line of the output names the stages that were struck.

A stage is struck when a worker has finished the first task, so that its result is lost, and is in
the middle of the next one. Unless TIMES is -1, so many strikes are all.

The variable KILLED_AFTER has the command itself killed when the first task of that name is done.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# From having finished a task to being in the middle of the next.
UNDER_WAY_SECONDS = 0.01
KILLED_AFTER = "KILLED_AFTER"


class Strikes:
    """A plugin of the scheduler, which is in this process."""

    def __init__(self, cluster: Any, number: signal.Signals, times: int) -> None:
        self.stage = "ingest or decode"
        self.done: list[str] = []
        self._nannies = cluster.workers
        self._scheduler = cluster.scheduler
        self._signal = number
        self._times = times

    def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
        if (start, finish) != ("processing", "memory"):
            return
        if str(key).startswith(os.environ.get(KILLED_AFTER, "\0")):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.stage in self.done or len(self.done) == self._times:
            return
        self.done.append(self.stage)
        worker = next(iter(self._scheduler.tasks[key].who_has))
        pid = self._nannies[worker.name].pid
        self._scheduler.loop.call_later(UNDER_WAY_SECONDS, os.kill, pid, self._signal)


def strike(number: signal.Signals, times: int) -> list[Strikes]:
    """Have clusters of processes struck; return the list to which what did it is added."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    from emhet_dask.runtime import clients
    from emhet_dask.runtime.results import ResultsFolder

    class Plugin(Strikes, SchedulerPlugin):
        pass

    made: list[Strikes] = []
    start, stage = clients.start_processes, ResultsFolder.stage

    def start_processes(*arguments: Any, **options: Any) -> Any:
        cluster = start(*arguments, **options)
        made.append(Plugin(cluster, number, times))
        cluster.scheduler.add_plugin(made[-1])
        return cluster

    def named_stage(self: ResultsFolder, name: str, **options: Any) -> Any:
        if made:
            made[-1].stage = name
        return stage(self, name, **options)

    clients.start_processes = start_processes
    ResultsFolder.stage = named_stage
    return made


if __name__ == "__main__":
    # Not above: workers import this file again.
    sys.path.append(str(Path(__file__).parents[2]))
    from emhet_dask.cli.main import main
    from tests.faults.pieces import make_small

    make_small(setattr)
    struck = strike(signal.Signals[sys.argv[1]], int(sys.argv[2]))
    try:
        main(sys.argv[3:])
    finally:
        print(json.dumps([each for cluster in struck for each in cluster.done]))
