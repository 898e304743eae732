"""Heterogeneity in cryo-EM: ensembles of density maps, analysed out of core on Dask.

The commands of ``emhet`` are functions here, with the same names, options and defaults. Below
them, functions on arrays: `pca`, `auto_mask`, `choose_states`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Everything public is imported when first used: a notebook that only opens a store does not pay
# for the science, and `emhet --help` pays for nothing.
_HOMES = {
    "InputError": "emhet_dask.errors",
    "demo": "emhet_dask.workflows.demo",
    "simulate_assembly": "emhet_dask.workflows.simulate",
    "simulate_transition": "emhet_dask.workflows.simulate",
    "ingest": "emhet_dask.workflows.ingest",
    "decode": "emhet_dask.workflows.decode",
    "info": "emhet_dask.workflows.info",
    "align": "emhet_dask.workflows.align",
    "landscape": "emhet_dask.workflows.landscape",
    "map": "emhet_dask.workflows.map",
    "similarity": "emhet_dask.workflows.similarity",
    "blocks": "emhet_dask.workflows.blocks",
    "mask": "emhet_dask.workflows.mask",
    "occupancy": "emhet_dask.workflows.occupancy",
    "select": "emhet_dask.workflows.select",
    "export": "emhet_dask.workflows.export",
    "reconstruct": "emhet_dask.workflows.reconstruct",
    "class3d_run": "emhet_dask.workflows.class3d_run",
    "class3d_summary": "emhet_dask.workflows.class3d_summary",
    "class3d_compare": "emhet_dask.workflows.class3d_compare",
    "class3d_select": "emhet_dask.workflows.class3d_select",
    "class3d_table": "emhet_dask.workflows.class3d_table",
    "cluster_check": "emhet_dask.workflows.cluster_check",
    "Ensemble": "emhet_dask.ensemble",
    "open_ensemble": "emhet_dask.ensemble",
    "from_array": "emhet_dask.ensemble",
    "connect": "emhet_dask.runtime.clients",
    "consensus": "emhet_dask.analysis.consensus",
    "associations": "emhet_dask.analysis.cooccupancy",
    "auto_mask": "emhet_dask.analysis.mask",
    "critical_counts": "emhet_dask.analysis.hypergeometric",
    "choose_states": "emhet_dask.analysis.states",
    "block_relations": "emhet_dask.analysis.relations",
    "part_occupancy": "emhet_dask.analysis.occupancy",
    "pca": "emhet_dask.analysis.pca",
    "similarity_matrix": "emhet_dask.analysis.similarity",
    "similarity_to": "emhet_dask.analysis.ranking",
    "shell_similarity_matrix": "emhet_dask.analysis.similarity",
}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605 - the table is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emhet_dask' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
