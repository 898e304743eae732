"""Options of ``emhet class3d summary``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run

__all__ = ["Class3DSummary"]


@dataclass(frozen=True, kw_only=True)
class Class3DSummary(Run):
    """Read RELION 3D classifications: how they converged, their classes, and a verdict on each."""

    summary = "How RELION classifications converged, their classes, and a verdict on each."
    examples = (
        "emhet class3d summary Class3D/job085 -o summary",
        "emhet class3d summary Class3D/job085 Class3D/job086 -o summary --align",
    )

    jobs: tuple[str, ...] = option(
        help="Folders of RELION Class3D jobs.",
        kind=kinds.path(expected="a folder of a RELION job"),
        argument=True,
        many=True,
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    align: bool = option(
        False,
        help="Fit the class maps of each job to its best one, for the sheet and as MRC files.",
        kind=kinds.flag(),
    )
    collapsed_share: float | None = option(
        None,
        help=(
            "Share of the particles below which a class has collapsed; default: a tenth of an even "
            "share, such as 0.025 of four classes."
        ),
        kind=kinds.number(minimum=0, maximum=1),
    )
