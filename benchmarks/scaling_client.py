"""Run one ``emhet`` command and write down what its scheduling took, pass by pass.

``python -m benchmarks.scaling_client OUT.json STAGE COMMAND ARGUMENTS…`` is the command itself:
nothing of it is replaced. What is called is timed, and a plugin on the scheduler adds up what tasks
took. The command ends before the stage that is named; ``-`` names none.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import distributed
import psutil
from dask.delayed import DelayedLeaf
from distributed.diagnostics.plugin import SchedulerPlugin

from emhet_dask.cli import main as command
from emhet_dask.runtime import submit
from emhet_dask.runtime.results import ResultsFolder
from emhet_dask.workflows import ingest

RECORDER = "emhet-scaling"
# What is of no stage: loading, options, connecting, and commands that have none.
COMMAND = "command"
IDLE_SECONDS = 2.0


@dataclass
class Pass:
    """One submission of tasks, until the last of them is done.

    Attributes
    ----------
    stage, label : str
    tasks : int
        That workers ran.
    wall, client, scheduler, workers : float
        Seconds of the clock, and of CPU of each process (of workers: their sum).
    work, chain : float
        Seconds that tasks took by the clock, and those of the longest chain of them.
    """

    stage: str
    label: str
    tasks: int
    wall: float
    client: float
    scheduler: float
    workers: float
    work: float
    chain: float


@dataclass
class Told:
    """What a command took.

    Attributes
    ----------
    wall, client : float
        Seconds, and those of CPU of the client, from its first line to its last.
    outside_wall, outside_client : dict
        The same by stage, outside of passes.
    graph : dict
        Seconds of CPU by stage in which the client made tasks and handed them over.
    scheduler_apart : bool
        Whether the scheduler is another process than the client.
    scheduler_idle : float
        Seconds of CPU that the scheduler takes in a second in which nothing is done.
    client_peak : int
        Bytes, at the end.
    passes : list of Pass
    """

    wall: float = 0.0
    client: float = 0.0
    outside_wall: dict[str, float] = field(default_factory=dict)
    outside_client: dict[str, float] = field(default_factory=dict)
    graph: dict[str, float] = field(default_factory=dict)
    scheduler_apart: bool = False
    scheduler_idle: float = 0.0
    client_peak: int = 0
    passes: list[Pass] = field(default_factory=list)


class Recorder(SchedulerPlugin):
    """Adds up tasks on the scheduler: how many, how long, and the longest chain of them."""

    name = RECORDER

    def __init__(self) -> None:
        self.clear()

    async def start(self, scheduler: Any) -> None:
        """Take hold of the scheduler."""
        self.scheduler = scheduler

    def clear(self) -> None:
        """Begin anew."""
        self.tasks, self.work, self.chains = 0, 0.0, {}

    def transition(self, key: Any, start: str, finish: str, *_: Any, **more: Any) -> None:
        """Count a task that a worker has finished."""
        if (start, finish) != ("processing", "memory"):
            return
        times = more.get("startstops") or ()
        seconds = sum(each["stop"] - each["start"] for each in times if each["action"] == "compute")
        before = (
            self.chains.get(other.key, 0.0) for other in self.scheduler.tasks[key].dependencies
        )
        self.chains[key] = seconds + max(before, default=0.0)
        self.tasks += 1
        self.work += seconds


def _begin(module: str, dask_scheduler: Any) -> int:
    if RECORDER not in dask_scheduler.plugins:
        recorder = Recorder()
        recorder.scheduler = dask_scheduler
        dask_scheduler.add_plugin(recorder, name=RECORDER)
    return _load(module)


def _collect(dask_scheduler: Any) -> tuple[int, float, float]:
    recorder = dask_scheduler.plugins[RECORDER]
    found = recorder.tasks, recorder.work, max(recorder.chains.values(), default=0.0)
    recorder.clear()
    return found


def _load(module: str) -> int:
    """Load what tasks need, so that no stage pays for it; return the process."""
    importlib.import_module(module)
    return os.getpid()


class Watch:
    """Times passes, and what lies between them.

    Parameters
    ----------
    module : str
        What tasks need, to be loaded by every process before the first of them.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self.told = Told()
        self.stage = COMMAND
        self._depth = 0
        self._processes: dict[str, list[psutil.Process]] = {}
        # Loading Python and this file, too, are of the command.
        loaded = time.time() - psutil.Process().create_time()
        self._mark = (time.perf_counter() - loaded, 0.0)
        self._begun = self._mark

    def lap(self) -> None:
        """Put down what passed since the last time as time outside of passes."""
        now = (time.perf_counter(), time.process_time())
        if not self._depth:
            _add(self.told.outside_wall, self.stage, now[0] - self._mark[0])
            _add(self.told.outside_client, self.stage, now[1] - self._mark[1])
        self._mark = now

    @contextmanager
    def a_pass(self, client: distributed.Client, label: str) -> Iterator[None]:
        """Time one pass."""
        self.lap()
        self._meet(client)
        self._mark = (time.perf_counter(), time.process_time())  # watching is not counted
        before, began = self._cpu(), self._mark
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            wall = time.perf_counter() - began[0]
            client_cpu = time.process_time() - began[1]
            after = self._cpu()
            tasks, work, chain = client.run_on_scheduler(_collect)
            self.told.passes.append(
                Pass(
                    self.stage,
                    re.sub(r"\d+", "N", label),
                    tasks,
                    wall,
                    client_cpu,
                    after["scheduler"] - before["scheduler"],
                    after["workers"] - before["workers"],
                    work,
                    chain,
                )
            )
            self._mark = (time.perf_counter(), time.process_time())

    def done(self) -> Told:
        """Return what was taken."""
        self.lap()
        self.told.wall = self._mark[0] - self._begun[0]
        self.told.client = self._mark[1]
        self.told.client_peak = peak_bytes(os.getpid())
        return self.told

    def _meet(self, client: distributed.Client) -> None:
        if not self._processes:
            scheduler = client.run_on_scheduler(_begin, self._module)
            workers = client.run(_load, self._module)
            self.told.scheduler_apart = scheduler != os.getpid()
            self._processes = {
                "scheduler": [psutil.Process(scheduler)],
                "workers": [psutil.Process(each) for each in workers.values()],
            }
            before = self._cpu()["scheduler"]
            time.sleep(IDLE_SECONDS)
            self.told.scheduler_idle = (self._cpu()["scheduler"] - before) / IDLE_SECONDS

    def _cpu(self) -> dict[str, float]:
        return {
            name: sum(sum(each.cpu_times()[:2]) for each in processes)
            for name, processes in self._processes.items()
        }


def _add(sums: dict[str, float], name: str, seconds: float) -> None:
    sums[name] = sums.get(name, 0.0) + seconds


def peak_bytes(process: int) -> int:
    """Return the largest resident memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


class _EnoughError(Exception):
    """The stage has come that nobody waits for."""


def watched(watch: Watch, last: str) -> None:
    """Have calls that submit work, and those that make tasks, timed; end before a stage."""
    compute, map_items, stage = submit.compute, submit.map_items, ResultsFolder.stage

    def timed_compute(client: Any, collections: Any, **options: Any) -> Any:
        with watch.a_pass(client, options["label"]):
            return compute(client, collections, **options)

    def timed_map(client: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        with watch.a_pass(client, options["label"]):
            yield from map_items(client, *arguments, **options)

    def timed_stage(self: Any, name: str, **options: Any) -> Any:
        if name == last:
            raise _EnoughError
        watch.lap()
        outer, watch.stage = watch.stage, name
        try:
            return stage(self, name, **options)
        finally:
            watch.lap()
            watch.stage = outer

    submit.compute, submit.map_items = timed_compute, timed_map  # type: ignore[assignment]
    ResultsFolder.stage = timed_stage  # type: ignore[assignment,method-assign]
    makes_tasks = _making(watch)
    for owner, name in (
        (distributed.Client, "compute"),
        (distributed.Client, "persist"),
        (distributed.Client, "submit"),
        (da.Array, "rechunk"),
        (da.Array, "to_delayed"),
        (DelayedLeaf, "__call__"),
        (ingest, "_tasks"),
    ):
        setattr(owner, name, makes_tasks(getattr(owner, name)))


def _making(watch: Watch) -> Callable[[Any], Any]:
    """Return what counts the time of functions as that of making tasks, once where they nest."""
    within = False

    def makes_tasks(function: Any) -> Any:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            nonlocal within
            if within:
                return function(*arguments, **options)
            within, began = True, time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                within = False
                _add(watch.told.graph, watch.stage, time.thread_time() - began)

        return timed

    return makes_tasks


def main() -> None:
    """Run the command in the arguments."""
    target, last, *arguments = sys.argv[1:]
    name = "class3d_run" if arguments[0] == "class3d" else arguments[0]
    watch = Watch("cryodrgn.models" if name == "decode" else f"emhet_dask.workflows.{name}")
    watched(watch, last)
    with suppress(_EnoughError):
        command(arguments)
    Path(target).write_text(json.dumps(asdict(watch.done())))


if __name__ == "__main__":
    main()
