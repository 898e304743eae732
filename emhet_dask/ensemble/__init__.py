"""The store: schema, create, open, validate; volumes and masked voxels as labelled arrays.

Only what opens an ensemble imports labelled and lazy arrays; filling a store does without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emhet_dask.ensemble.ensemble import Ensemble, from_array, open_ensemble

__all__ = ["Ensemble", "from_array", "open_ensemble"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.ensemble"), name)
