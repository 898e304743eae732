"""Figures, the HTML report, ChimeraX scripts and the notebook, from finished results.

Functions take NumPy arrays, pandas tables and xarray datasets that are already in memory and return
a `matplotlib.figure.Figure`; `save` writes it.
"""

from emhet_dask.report.chimerax import StateMap, write_chimerax
from emhet_dask.report.counts import state_counts
from emhet_dask.report.density import density_matrix, tile_sizes
from emhet_dask.report.evidence import separation_evidence
from emhet_dask.report.heatmap import similarity_heatmap
from emhet_dask.report.html import Picture, Section, states_table, write_report
from emhet_dask.report.members import member_sheet
from emhet_dask.report.notebook import landscape_cells, write_notebook
from emhet_dask.report.pairs import nearest_maps, pair_histogram
from emhet_dask.report.palette import state_colour, state_colours
from emhet_dask.report.quantities import Quantity, quantity
from emhet_dask.report.scatter import pc_pairs, pc_scatter, state_scatter
from emhet_dask.report.sheets import component_sheet, slice_sheet, state_sheet
from emhet_dask.report.slices import mask_slices
from emhet_dask.report.spectrum import scree
from emhet_dask.report.style import save, to_png
from emhet_dask.report.surface import surface_sheet, surface_views
from emhet_dask.report.tree import dendrogram
from emhet_dask.report.verdict import Remark, headline, verdict_warnings

__all__ = [
    "Picture",
    "Quantity",
    "Remark",
    "Section",
    "StateMap",
    "component_sheet",
    "dendrogram",
    "density_matrix",
    "headline",
    "landscape_cells",
    "mask_slices",
    "member_sheet",
    "nearest_maps",
    "pair_histogram",
    "pc_pairs",
    "pc_scatter",
    "quantity",
    "save",
    "scree",
    "separation_evidence",
    "similarity_heatmap",
    "slice_sheet",
    "state_colour",
    "state_colours",
    "state_counts",
    "state_scatter",
    "state_sheet",
    "states_table",
    "surface_sheet",
    "surface_views",
    "tile_sizes",
    "to_png",
    "verdict_warnings",
    "write_chimerax",
    "write_notebook",
    "write_report",
]
