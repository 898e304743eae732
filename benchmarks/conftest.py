"""Benchmarks compute what they claim: small in the test suite, at full size with ``--size full``.

Each compares with a peer or with a limit of the machine in the same run, and puts its figures in
``extra_info``, which ``--benchmark-json`` keeps and a line on the terminal shows.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--size", choices=("small", "full"), default="small", help="size of the benchmarks"
    )


@pytest.fixture(scope="session")
def full(request) -> bool:
    """Whether to measure at the size that is reported."""
    return request.config.getoption("--size") == "full"


@pytest.fixture(scope="module")
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
