"""Benchmarks compute what they claim: small in the test suite, at full size with ``--size full``.

Each compares with a peer or with a limit of the machine in the same run, and puts its figures in
``extra_info``, which ``--benchmark-json`` keeps and a line on the terminal shows.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--size", choices=("small", "full"), default="small", help="size of the benchmarks"
    )


@pytest.fixture(scope="session")
def full(request) -> bool:
    """Whether to measure at the size that is reported."""
    return request.config.getoption("--size") == "full"


@pytest.fixture(scope="session")
def scratch(tmp_path_factory) -> Path:
    """A folder on the disk that is measured."""
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture
def report(benchmark, capsys):
    """Return a function that records figures and shows them."""

    def show(**figures):
        benchmark.extra_info.update(figures)
        with capsys.disabled():
            described = ", ".join(f"{name} {_short(value)}" for name, value in figures.items())
            print(f"\n{benchmark.name}: {described}")

    return show


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
