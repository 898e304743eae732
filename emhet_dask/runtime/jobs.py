"""Workers as jobs of a queue: a YAML file names a class of dask-jobqueue, its options, how many."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import dask.config
import yaml
from distributed import SpecCluster

from emhet_dask.errors import InputError, need
from emhet_dask.runtime.blas import BLAS_VARIABLES
from emhet_dask.runtime.local import LOOPBACK, scheduler_settings

__all__ = ["start_jobs"]

JOBQUEUE_CLASSES = (
    "HTCondorCluster",
    "LSFCluster",
    "MoabCluster",
    "OARCluster",
    "PBSCluster",
    "SGECluster",
    "SLURMCluster",
)
# Jobs end at their wall time, so a task may lose many workers without being at fault (Dask's own
# default is 3).
ALLOWED_FAILURES = 10
# One BLAS thread per task, and no spilling: plans keep within the memory of a worker.
WORKER_ENVIRONMENT = {
    **dict.fromkeys(BLAS_VARIABLES, "1"),
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
}


def start_jobs(path: Path, *, defaults: Mapping[str, Any]) -> SpecCluster:
    """Submit the jobs that a YAML file describes, and keep up their number.

    Parameters
    ----------
    path : Path
        YAML with ``class``, ``options``, and ``jobs: N`` or ``adapt: {…}``.
    defaults : mapping
        Options for where the file does not say; ``scheduler_options`` are merged.

    Returns
    -------
    distributed.SpecCluster

    Raises
    ------
    InputError
        When the file or what it says cannot be used, or dask-jobqueue is not installed.
    """
    described = _read_yaml(path)
    name, given = described["class"], described.get("options") or {}
    scheduler = {**defaults.get("scheduler_options", {}), **(given.get("scheduler_options") or {})}
    options = {**defaults, **given, **_worker_options(given), "scheduler_options": scheduler}
    make = _jobqueue_class(name)
    settings = scheduler_settings() | {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}
    try:
        with dask.config.set(settings):
            cluster = make(**options)
    except Exception as error:  # whatever a queue's class says of its options, a user must mend
        raise InputError(f"--cluster {path}: {name} refuses its options: {_line(error)}") from error
    jobs = described.get("jobs")
    # A fixed number adapts between equal bounds: `scale` would not replace a job that ended at its
    # wall time or was cancelled.
    cluster.adapt(**(described.get("adapt") or {"minimum_jobs": jobs, "maximum_jobs": jobs}))
    return cluster


def _worker_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a job's script and worker, with what our workers want beside them."""
    prologue = [f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()]
    arguments = list(given.get("worker_extra_args") or [])
    if not any(str(argument).startswith("--dashboard-address") for argument in arguments):
        arguments += ["--dashboard-address", LOOPBACK]
    return {
        "job_script_prologue": [*prologue, *(given.get("job_script_prologue") or [])],
        "worker_extra_args": arguments,
    }


def _jobqueue_class(name: str) -> Callable[..., SpecCluster]:
    # Importing dask_jobqueue writes to ~/.config, and its runner takes over Ctrl-C.
    interrupt = signal.getsignal(signal.SIGINT)
    module = need("dask_jobqueue", extra="hpc", purpose=f"--cluster with class {name}")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
    return cast("Callable[..., SpecCluster]", getattr(module, name))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        described = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"--cluster {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--cluster {path}: not YAML: {_line(error)}") from error
    problem = _problem_of(described)
    if problem:
        raise InputError(f"--cluster {path}: {problem}")
    return cast("Mapping[str, Any]", described)


def _problem_of(described: Any) -> str | None:
    if not isinstance(described, Mapping) or "class" not in described:
        return "expected the keys class, options, and jobs or adapt"
    unknown = sorted(set(map(str, described)) - {"class", "options", "jobs", "adapt"})
    if unknown:
        return f"unknown key {unknown[0]!r}; expected class, options, and jobs or adapt"
    if described["class"] not in JOBQUEUE_CLASSES:
        return f"class is {described['class']!r}; expected one of {', '.join(JOBQUEUE_CLASSES)}"
    if not isinstance(described.get("options") or {}, Mapping):
        return f"options is {described['options']!r}; expected arguments of {described['class']}"
    return _problem_of_number(described)


def _problem_of_number(described: Mapping[str, Any]) -> str | None:
    if ("jobs" in described) == ("adapt" in described):
        return "expected either jobs: N or adapt: {minimum_jobs: A, maximum_jobs: B}"
    if "jobs" in described:
        jobs = described["jobs"]
        return None if _whole(jobs, 1) else f"jobs is {jobs!r}; expected a whole number of jobs"
    adapt = described["adapt"]
    bounds = {"minimum_jobs": 0, "maximum_jobs": 1}
    if (
        not isinstance(adapt, Mapping)
        or set(adapt) != set(bounds)
        or not all(_whole(adapt[name], least) for name, least in bounds.items())
        or adapt["minimum_jobs"] > adapt["maximum_jobs"]
    ):
        return f"adapt is {adapt!r}; expected {{minimum_jobs: A, maximum_jobs: B}}, A at most B"
    return None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
