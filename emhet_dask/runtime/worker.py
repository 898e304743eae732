"""What a worker process of our own does when it starts, by way of Dask's ``preload``."""

from __future__ import annotations

import logging
import signal
from typing import Any

__all__ = ["dask_setup"]


def dask_setup(_: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that a person started.

    And say nothing of connections that end when the work does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.core").setLevel(logging.CRITICAL)
