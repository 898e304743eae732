"""Dask's log, kept to what a person needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["only_critical", "only_warnings"]


@contextmanager
def only_critical(*names: str) -> Iterator[None]:
    """Let these loggers say nothing less than critical for as long as the block takes."""
    with _at_least(logging.CRITICAL, names):
        yield


@contextmanager
def only_warnings(*names: str) -> Iterator[None]:
    """Let these loggers say nothing less than a warning for as long as the block takes."""
    with _at_least(logging.WARNING, names):
        yield


@contextmanager
def _at_least(least: int, names: Iterable[str]) -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in names}
    for name in before:
        logging.getLogger(name).setLevel(least)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
