"""Figures, the HTML report, ChimeraX scripts and the notebook, from finished results.

Functions take NumPy arrays, pandas tables and xarray datasets that are already in memory and return
a `matplotlib.figure.Figure`; `save` writes it.
"""

from __future__ import annotations

import importlib
from typing import Any

# Each figure brings its own libraries, which a command that does not draw it does without.
_HOMES = {
    "BlockMap": "chimerax",
    "Picture": "html",
    "Quantity": "quantities",
    "Remark": "verdict",
    "Section": "html",
    "StateMap": "chimerax",
    "block_cells": "notebook",
    "block_colour": "block_parts",
    "block_histograms": "block_presence",
    "block_matrix": "block_pairs",
    "block_sheet": "block_sheets",
    "block_surfaces": "block_surface",
    "column_lines": "columns",
    "component_sheet": "sheets",
    "convergence_figure": "convergence",
    "dendrogram": "tree",
    "density_matrix": "density",
    "headline": "verdict",
    "landscape_cells": "notebook",
    "map_cells": "map_notebook",
    "mask_slices": "slices",
    "member_sheet": "members",
    "nearest_maps": "pairs",
    "occupancy_clustermap": "clustermap",
    "pair_histogram": "pairs",
    "particle_density": "map_figures",
    "pc_pairs": "scatter",
    "pc_scatter": "scatter",
    "quantity": "quantities",
    "relation_graph": "graph",
    "save": "style",
    "score_errors": "map_figures",
    "scree": "spectrum",
    "screening_figure": "screening",
    "separation_evidence": "evidence",
    "similarity_heatmap": "heatmap",
    "slice_sheet": "sheets",
    "state_colour": "palette",
    "state_colours": "palette",
    "state_confidence": "map_figures",
    "state_counts": "counts",
    "state_scatter": "scatter",
    "state_sheet": "sheets",
    "states_table": "html",
    "surface_sheet": "surface",
    "surface_views": "surface",
    "tile_sizes": "density",
    "to_png": "style",
    "verdict_warnings": "verdict",
    "write_blocks_chimerax": "chimerax",
    "write_chimerax": "chimerax",
    "write_notebook": "notebook",
    "write_report": "html",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the table is the one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
