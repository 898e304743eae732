"""Options of ``emhet class3d compare``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Quiet

__all__ = ["Class3DCompare"]


@dataclass(frozen=True, kw_only=True)
class Class3DCompare(Quiet):
    """Compare classifications of the same particles, and find the classes they agree on.

    Counts and fractions of every pair of classes, agreement beside chance, which class corresponds
    to which, Sankey diagrams, consensus classes, and STAR files of all of them.
    """

    summary = "Compare classification jobs: intersections, agreement, consensus classes."
    examples = (
        "emhet class3d compare Class3D/job085 Class3D/job086 -o compare",
        "emhet class3d compare --project . --jobs 85,86,90 -o compare",
        "emhet class3d compare seed1.star seed2.star seed3.star -o compare --n-consensus 4",
        "emhet class3d compare J24.cs J25.cs --passthrough J24_passthrough.cs -o compare",
    )

    job: tuple[str, ...] | None = option(
        None,
        help="Folders of RELION jobs, of which the last iteration is read, STAR or .cs files.",
        kind=kinds.path(expected="a job folder, a STAR or a .cs file"),
        argument=True,
        many=True,
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    project: str | None = option(
        None,
        help="Folder of a RELION project, in which --jobs are found by number.",
        kind=kinds.path(expected="a folder"),
    )
    jobs: tuple[int, ...] | None = option(
        None, help="Numbers of jobs of --project, such as 85,86.", kind=kinds.numbers()
    )
    passthrough: tuple[str, ...] | None = option(
        None,
        help="Passthrough file of the .cs files, joined on uid; may be given more than once.",
        kind=kinds.path(expected="a .cs file"),
        many=True,
    )
    n_consensus: int | str = option(
        "auto",
        help="Number of consensus classes; auto: as many as the jobs support.",
        kind=kinds.whole(minimum=1, words=("auto",)),
    )
    min_size: int | None = option(
        None,
        help=(
            "Fewest particles of a consensus class; default: a tenth of an even share of the job "
            "with the most classes."
        ),
        kind=kinds.whole(minimum=1),
    )
    no_star: bool = option(False, help="Write no particle files (STAR, or .cs).", kind=kinds.flag())
    seed: int = option(
        0, help="Of the random tables that agreement is compared with.", kind=kinds.whole(minimum=0)
    )
    overwrite: bool = option(
        False,
        help="Start afresh where the output holds results made with other settings.",
        kind=kinds.flag(),
    )
