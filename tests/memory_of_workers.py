"""What the kernel says of the memory of workers, stage by stage."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from dask.sizeof import sizeof

from emhet_dask.runtime import ResultsFolder
from emhet_dask.runtime.stating import give_back

MIB = 1 << 20


def measurable():
    """Skip where peaks cannot be measured."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are measured by Linux")


def forget_peak():
    """Forget it, as it is when a stage states its plan."""
    give_back()
    Path("/proc/self/clear_refs").write_text("5")


def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def condition(dask_worker):
    """Return who a worker is, whether it is at work, and what it put on its disk."""
    spilled = list(getattr(dask_worker.data, "slow", ()))
    folder = Path(dask_worker.local_directory)
    return os.getpid(), dask_worker.status.name, spilled, list(folder.rglob("storage*"))


def holdings(dask_worker):
    """Return the data that a worker holds, MiB by key."""
    sizes = {str(key): sizeof(value) // MIB for key, value in dask_worker.data.items()}
    return {key: size for key, size in sizes.items() if size}


@contextmanager
def undisturbed(client):
    """See to it that workers live on, are at work, and spilled nothing."""
    before = client.run(condition)
    yield
    after = client.run(condition)
    assert after == before  # the same processes, none of them paused
    for _, status, spilled, files in after.values():
        assert (status, spilled, files) == ("running", [], [])


def peaks_of_stages(client, monkeypatch):
    """Return where the peak of each stage to come will be, the largest of all workers.

    What workers hold before each is printed, for whoever has to find out why a plan was not kept.
    """
    found = {}
    run_stage = ResultsFolder.stage

    def measured(self, name, **options):
        client.run(forget_peak)
        before = [each // MIB for each in client.run(peak).values()]
        record = run_stage(self, name, **options)
        found[name] = max(client.run(peak).values())
        print(f"{name}: workers took {before} MiB before, held {client.run(holdings)} after")
        return record

    monkeypatch.setattr(ResultsFolder, "stage", measured)
    return found


def assert_kept(out, peaks, *, planned, limit):
    """Compare peaks with the plans that a results folder records; `planned` must have some."""
    stages = json.loads((out / "run.json").read_text())["stages"]
    assert planned <= {name for name, stage in stages.items() if stage["plans"]}
    for name, stage in stages.items():
        plans = [plan["peak_bytes_per_worker"] for plan in stage["plans"]]
        print(name, peaks[name] // MIB, [plan // MIB for plan in plans])
        assert all(plan <= limit for plan in plans)
        if plans:
            assert peaks[name] < max(plans), name
