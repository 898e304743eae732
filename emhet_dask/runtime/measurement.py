"""Seconds and peak memory of a piece of work, summed over this process and all its children."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Measurement", "measure"]

SAMPLE_SECONDS = 0.1
# Finding new children walks all of /proc, and asking the scheduler is a round trip: less often.
CENSUS_SECONDS = 1.0
# A scheduler that hangs must not hang the end of a measurement.
JOIN_SECONDS = 10.0


@dataclass
class Measurement:
    """What `measure` found; complete when its block has ended.

    Attributes
    ----------
    seconds : float
        Wall time.
    peak_bytes : int
        Largest sum of resident memory over this process and its descendants. Pages that processes
        share are counted in each.
    worker_peak_bytes : int or None
        Largest memory of a single worker, as the workers report it; None without a client.
    """

    seconds: float = 0.0
    peak_bytes: int = 0
    worker_peak_bytes: int | None = None


@contextmanager
def measure(client: Client | None = None) -> Iterator[Measurement]:
    """Measure what happens in the block.

    Parameters
    ----------
    client : distributed.Client, optional
        Ask its workers for their memory too, which may be on other machines.

    Yields
    ------
    Measurement
    """
    found = Measurement()
    sampler = _Sampler(found, client)
    started = time.perf_counter()
    sampler.sample()
    sampler.start()
    try:
        yield found
    finally:
        sampler.stop()
        found.seconds = time.perf_counter() - started


class _Sampler(threading.Thread):
    def __init__(self, found: Measurement, client: Client | None) -> None:
        super().__init__(name="emhet-measure", daemon=True)
        self._found = found
        self._client = client
        self._ended = threading.Event()
        self._this = psutil.Process()
        self._family: list[psutil.Process] = []
        self._next_census = 0.0

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.sample()
        self._next_census = 0.0  # workers that started since the last census count too
        self.sample()

    def stop(self) -> None:
        self._ended.set()
        self.join(JOIN_SECONDS)

    def sample(self) -> None:
        now = time.monotonic()
        if now >= self._next_census:
            self._next_census = now + CENSUS_SECONDS
            self._census()
        total = 0
        for process in self._family:
            with suppress(psutil.Error):
                total += process.memory_info().rss
        self._found.peak_bytes = max(self._found.peak_bytes, total)

    def _census(self) -> None:
        with suppress(psutil.Error):
            self._family = [self._this, *self._this.children(recursive=True)]
        if self._client is None:
            return
        # A scheduler that is gone is for the computation to report, not for its thermometer.
        with suppress(OSError, ValueError, RuntimeError, TimeoutError):
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            peak = max((worker["metrics"].get("memory", 0) for worker in workers), default=0)
            self._found.worker_peak_bytes = max(self._found.worker_peak_bytes or 0, peak)
