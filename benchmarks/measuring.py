"""Seconds and memory of commands."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """Seconds, and the peak of resident memory summed over all processes, of a command."""

    seconds: float
    peak_gib: float


def run_measured(arguments, **options) -> Cost:
    """Run a command to its end, sampling the memory of its whole process tree."""
    began = time.perf_counter()
    process = subprocess.Popen([str(part) for part in arguments], **options)
    peak = 0
    ended = threading.Event()

    def sample():
        nonlocal peak
        root = psutil.Process(process.pid)
        while not ended.wait(0.05):
            total = 0
            try:
                for each in [root, *root.children(recursive=True)]:
                    total += each.memory_info().rss
            except psutil.Error:
                continue
            peak = max(peak, total)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    status = process.wait()
    seconds = time.perf_counter() - began
    ended.set()
    sampler.join()
    assert status == 0, f"{arguments} ended with {status}"
    return Cost(seconds, peak / 2**30)


def emhet(*arguments) -> list[str]:
    """Return the command line of ``emhet`` in this environment."""
    return [sys.executable, "-m", "emhet_dask", *map(str, arguments)]


def sgemm_rate(seconds: float, threads: int = 2, side: int = 2048) -> float:
    """Floating-point operations a second of threads that do nothing else, one BLAS thread each."""
    a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
    done, began = [0] * threads, time.perf_counter()
    end = began + seconds

    def multiply(number: int) -> None:
        out = np.empty((side, side), np.float32)
        while time.perf_counter() < end:
            np.matmul(a, b.T, out=out)
            done[number] += 1

    workers = [threading.Thread(target=multiply, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) * 2 * side**3 / (time.perf_counter() - began)
