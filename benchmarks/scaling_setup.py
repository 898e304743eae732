"""Stores of many cheap volumes, and a scheduler and workers in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import ndimage

from benchmarks.measuring import CHECKOUT
from benchmarks.scaling_client import peak_bytes
from emhet_dask.ensemble.layout import plan_layout
from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    create_store,
    finish_store,
    half_scale,
    write_shard,
)
from emhet_dask.formats.mrc import write_map

BOX, VOXEL_SIZE = 32, 6.0
NOISE = 0.25
# Files that may be one another's links, where most file systems allow 32,000 and more.
LINKS = 4_000
# Patience with a scheduler that starts beside much other work.
STARTING_SECONDS = 300
# One BLAS thread in every process, as on a cluster.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Maps:
    """Five lumps about the middle of the box, three of which come and go, in correlated noise."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        z, y, x = np.indices((BOX,) * 3) - BOX / 2
        places = 5 * np.stack([np.cos(a := 2 * np.pi * np.arange(5) / 5), np.sin(a), 0 * a], axis=1)
        lumps = [np.exp(-((z - c) ** 2 + (y - b) ** 2 + (x - a) ** 2) / 8) for a, b, c in places]
        core = lumps[0] + lumps[1]
        self._states = np.stack(
            [core + sum(lumps[2 + k] for k in range(3) if state >> k & 1) for state in range(8)]
        ).astype(np.float32)
        noise = ndimage.gaussian_filter(rng.standard_normal((160,) * 3, np.float32), 0.8)
        self._noise = NOISE * noise / noise.std()
        self._rng = rng

    def one(self) -> np.ndarray:
        """Return another map, float32 (z, y, x)."""
        corner = self._rng.integers(0, len(self._noise) - BOX, 3)
        cut = tuple(slice(first, first + BOX) for first in corner)
        amplitude = self._rng.uniform(0.9, 1.1)
        state = self._states[self._rng.integers(len(self._states))]
        return np.asarray(amplitude * state + self._noise[cut], dtype=np.float32)


def make_files(folder: Path, n: int) -> Path:
    """Make `n` MRC files, most of them links."""
    folder.mkdir(parents=True)
    maps = Maps()
    for number in range(n):
        path = folder / f"vol_{number:06d}.mrc"
        if number % LINKS == 0:
            first = path
            write_map(path, maps.one(), voxel_size_angstrom=VOXEL_SIZE)
        else:
            os.link(first, path)
    return folder


def make_store(path: Path, n: int, *, dtype: str = "float16") -> Path:
    """Make an ensemble of `n` volumes.

    All of them differ: a map that is there twice would be a cluster of its own.
    """
    layout = plan_layout(n, BOX, dtype)
    maps = Maps()
    create_store(
        str(path),
        layout,
        known={"name": np.asarray([f"vol_{number:06d}" for number in range(n)])},
        attributes={
            "voxel_size_angstrom": VOXEL_SIZE,
            "origin_angstrom": [0.0, 0.0, 0.0],
            "box": BOX,
            "ingest_key": "cheap",
        },
    )
    for start, stop in layout.shards():
        record = np.zeros((stop - start, len(RECORD_COLUMNS)))
        write_shard(str(path), (start, stop), _measured(maps, record, dtype), record)
    finish_store(str(path))
    return path


def _measured(maps: Maps, record: np.ndarray, dtype: str) -> Iterator[np.ndarray]:
    names = {name: column for column, name in enumerate(RECORD_COLUMNS)}
    for row in record:
        volume = maps.one()
        low, high = float(volume.min()), float(volume.max())
        scale = half_scale(low, high) if dtype == "float16" else 1.0
        row[names["usable"]], row[names["scale"]] = 1, scale
        row[names["minimum"]], row[names["maximum"]] = low, high
        row[names["mean"]], row[names["std"]] = volume.mean(), volume.std()
        row[names["percentile_9999"]] = np.partition(volume.ravel(), -4)[-4]
        yield (volume / scale).astype(dtype)


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers, each a process.

    Attributes
    ----------
    address : str
    scheduler : int
        Its process.
    """

    address: str
    scheduler: int

    def run(self, folder: Path, *arguments: Any, before: str = "-") -> dict[str, Any]:
        """Run a command on it; return what it took, and the peak memory of the scheduler."""
        told = run_watched(folder, *arguments, "--cluster", self.address, before=before)
        return {**told, "scheduler_peak": peak_bytes(self.scheduler)}


def run_watched(folder: Path, *arguments: Any, before: str = "-") -> dict[str, Any]:
    """Run a command, to its end or before a stage, and return what it says it took."""
    target = folder / "told.json"
    given = [target, before, *arguments, "-q"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling_client", *map(str, given)],
        check=True,
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    told: dict[str, Any] = json.loads(target.read_text())
    return told


@contextmanager
def cluster(folder: Path, workers: int, *, memory: str = "4GiB") -> Iterator[Cluster]:
    """Start a scheduler and workers of one thread, each in a process; end them."""
    file = folder / f"scheduler_{workers}.json"
    file.unlink(missing_ok=True)
    common = {"cwd": CHECKOUT, "env": ENVIRONMENT, "stderr": subprocess.DEVNULL}
    scheduler = ["scheduler", "--scheduler-file", file, "--host", "127.0.0.1", "--port", "0"]
    worker = ["worker", "--scheduler-file", file, "--nthreads", "1", "--no-nanny"]
    worker += ["--memory-limit", memory, "--local-directory", folder, "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen([*dask, *map(str, [*scheduler, "--no-dashboard"])], **common),
        *(subprocess.Popen([*dask, *map(str, worker)], **common) for _ in range(workers)),
    ]
    try:
        until = time.monotonic() + STARTING_SECONDS
        while not file.exists() or not file.stat().st_size:
            assert time.monotonic() < until, "the scheduler does not start"
            time.sleep(0.1)
        yield Cluster(json.loads(file.read_text())["address"], started[0].pid)
    finally:
        for process in reversed(started):  # they hold nothing that is wanted
            process.kill()
            process.wait()


def idle_cores(seconds: float = 1.0) -> float:
    """Return how many cores nobody uses just now."""
    return (1 - psutil.cpu_percent(seconds) / 100) * (psutil.cpu_count() or 1)
