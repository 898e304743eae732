"""Dask's log, kept to what a person needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["only_critical"]


@contextmanager
def only_critical(*names: str) -> Iterator[None]:
    """Let these loggers say nothing less than critical for as long as the block takes."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
