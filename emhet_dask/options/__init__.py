"""What each command takes, defined once; light enough for ``--help`` and tab completion.

`COMMANDS` maps the words of a command to its options and to the function that does it, named as
``module:function`` so that nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from emhet_dask.options._base import Command, Option, command, spelled
from emhet_dask.options.align import Align
from emhet_dask.options.blocks import Blocks
from emhet_dask.options.class3d_compare import Class3DCompare
from emhet_dask.options.class3d_run import Class3DRun
from emhet_dask.options.class3d_select import Class3DSelect, Class3DTable
from emhet_dask.options.class3d_summary import Class3DSummary
from emhet_dask.options.cluster_check import ClusterCheck
from emhet_dask.options.decode import Decode
from emhet_dask.options.ingest import Info, Ingest
from emhet_dask.options.landscape import Landscape
from emhet_dask.options.map import Map
from emhet_dask.options.mask import Mask
from emhet_dask.options.occupancy import Occupancy
from emhet_dask.options.reconstruct import Reconstruct
from emhet_dask.options.similarity import Similarity
from emhet_dask.options.simulate import Demo, SimulateAssembly, SimulateTransition
from emhet_dask.options.subset import Export, Select

__all__ = ["COMMANDS", "Command", "Option", "command", "spelled"]

COMMANDS: dict[tuple[str, ...], tuple[type[Command], str]] = {
    ("demo",): (Demo, "emhet_dask.workflows.demo:demo"),
    ("simulate", "assembly"): (
        SimulateAssembly,
        "emhet_dask.workflows.simulate:simulate_assembly",
    ),
    ("simulate", "transition"): (
        SimulateTransition,
        "emhet_dask.workflows.simulate:simulate_transition",
    ),
    ("ingest",): (Ingest, "emhet_dask.workflows.ingest:ingest"),
    ("decode",): (Decode, "emhet_dask.workflows.decode:decode"),
    ("info",): (Info, "emhet_dask.workflows.info:info"),
    ("align",): (Align, "emhet_dask.workflows.align:align"),
    ("landscape",): (Landscape, "emhet_dask.workflows.landscape:landscape"),
    ("map",): (Map, "emhet_dask.workflows.map:map"),
    ("similarity",): (Similarity, "emhet_dask.workflows.similarity:similarity"),
    ("mask",): (Mask, "emhet_dask.workflows.mask:mask"),
    ("occupancy",): (Occupancy, "emhet_dask.workflows.occupancy:occupancy"),
    ("blocks",): (Blocks, "emhet_dask.workflows.blocks:blocks"),
    ("select",): (Select, "emhet_dask.workflows.select:select"),
    ("export",): (Export, "emhet_dask.workflows.export:export"),
    ("reconstruct",): (Reconstruct, "emhet_dask.workflows.reconstruct:reconstruct"),
    ("class3d", "summary"): (
        Class3DSummary,
        "emhet_dask.workflows.class3d_summary:class3d_summary",
    ),
    ("class3d", "compare"): (
        Class3DCompare,
        "emhet_dask.workflows.class3d_compare:class3d_compare",
    ),
    ("class3d", "run"): (Class3DRun, "emhet_dask.workflows.class3d_run:class3d_run"),
    ("class3d", "select"): (Class3DSelect, "emhet_dask.workflows.class3d_select:class3d_select"),
    ("class3d", "table"): (Class3DTable, "emhet_dask.workflows.class3d_table:class3d_table"),
    ("cluster", "check"): (ClusterCheck, "emhet_dask.workflows.cluster_check:cluster_check"),
}
