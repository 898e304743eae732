"""Where work runs and what is kept of it: clients, progress, memory plans, the results folder.

Only what asks for workers imports Dask's scheduler; a results folder can be read without.
"""

from __future__ import annotations

import importlib
from typing import Any

# No module has the name of what it defines: importing it would put the module in that name's place.
_HOMES = {
    "Plan": "memory",
    "Progress": "progress",
    "Resources": "clients",
    "ResultsFolder": "results",
    "Run": "record",
    "StageRecord": "record",
    "State": "progress",
    "Work": "memory",
    "check_plan": "memory",
    "connect": "clients",
    "digest": "provenance",
    "fingerprint_file": "provenance",
    "fingerprint_values": "provenance",
    "format_bytes": "memory",
    "measure": "measurement",
    "parse_bytes": "memory",
    "read_run": "record",
    "resources": "clients",
    "state_plan": "stating",
    "task_memory_bytes": "memory",
    "versions": "provenance",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
