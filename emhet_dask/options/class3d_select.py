"""Options of ``emhet class3d select`` and ``emhet class3d table``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import Command, option
from emhet_dask.options._common import Quiet

__all__ = ["Class3DSelect", "Class3DTable"]


@dataclass(frozen=True, kw_only=True)
class Class3DSelect(Quiet):
    """Write the particles of a classification that meet every condition given.

    All columns stay, in their order, and so do the optics groups that are still used.
    """

    summary = "Write the particles of chosen classes, or that meet other conditions."
    examples = (
        "emhet class3d select Class3D/job085 --classes 2,3 --min-pmax 0.8 -o particles.star",
        "emhet class3d select Class3D/job085 --consensus compare/consensus.csv --classes 1 "
        "-o core.star",
        "emhet class3d select job085 --where 'ClassNumber == 2 and DefocusU < 15000' -o near.star",
        "emhet class3d select job085 --classes 1-3 --results landscape --clusters 0 -o both.star",
        "emhet class3d select J24_particles.cs --passthrough J24_passthrough.cs -c 0 -o class_0.cs",
    )

    job: str = option(
        help="Folder of a RELION job, of which the last iteration is read, a STAR or .cs file.",
        kind=kinds.path(expected="a job folder, a STAR or a .cs file"),
        argument=True,
    )
    classes: tuple[int, ...] | None = option(
        None,
        help="Classes, such as 2,3 or 1-4, as the program, or the consensus, numbers them.",
        kind=kinds.numbers(),
        flags=("-c",),
    )
    min_pmax: float | None = option(
        None,
        help="Least posterior probability of a particle's class, such as 0.8.",
        kind=kinds.number(minimum=0, maximum=1),
    )
    where: str | None = option(
        None,
        help=(
            "Condition on the columns, which may leave out rln: comparisons, and, or, not, in, "
            "arithmetic, abs, such as 'abs(OriginXAngst) < 5 and \"mic7\" in MicrographName'."
        ),
        kind=kinds.text(expected="a condition such as 'DefocusU < 15000'"),
    )
    consensus: str | None = option(
        None,
        help="The consensus.csv of a comparison, whose classes --classes then means.",
        kind=kinds.path(expected="a consensus.csv"),
    )
    min_confidence: float | None = option(
        None,
        help="Of --consensus: least confidence of a particle.",
        kind=kinds.number(minimum=0, maximum=1),
    )
    results: str | None = option(
        None,
        help="Folder of a landscape, blocks or occupancy, for --clusters or --block.",
        kind=kinds.path(expected="a results folder", url=True),
    )
    clusters: tuple[int, ...] | None = option(
        None, help="Of --results: particles of these states of a landscape.", kind=kinds.numbers()
    )
    block: str | None = option(
        None,
        help="Of --results: particles of volumes in which this block or part is present.",
        kind=kinds.label(expected="a number or a name"),
    )
    passthrough: tuple[str, ...] | None = option(
        None,
        help="Passthrough file of a .cs file, joined on uid; may be given more than once.",
        kind=kinds.path(expected="a .cs file"),
        many=True,
    )
    output: str = option(
        help="File to write: .star (of a .cs file: .cs), .txt (names) or .csv (names and classes).",
        kind=kinds.path(expected="a file ending in .star, .cs, .txt or .csv"),
        flags=("-o",),
    )
    overwrite: bool = option(False, help="Replace the file.", kind=kinds.flag())


@dataclass(frozen=True, kw_only=True)
class Class3DTable(Command):
    """Print or plot columns of any table of a STAR file."""

    summary = "Print or plot columns of any table of a STAR file."
    examples = (
        "emhet class3d table run_it025_model.star model_classes rlnClassDistribution",
        "emhet class3d table run_it025_model.star data_model_class_1 Resolution SsnrMap "
        "--plot ssnr.png",
        "emhet class3d table run_it025_data.star particles --format csv -o particles.csv",
    )

    file: str = option(help="A STAR file.", kind=kinds.path(expected="a STAR file"), argument=True)
    table: str = option(
        help="Name of a table, with or without data_.",
        kind=kinds.text(expected="the name of a table"),
        argument=True,
    )
    columns: tuple[str, ...] | None = option(
        None,
        help="Columns, with or without _rln; default: all.",
        kind=kinds.text(expected="the name of a column"),
        argument=True,
        many=True,
    )
    plot: str | None = option(
        None,
        help="Plot the columns over the first one, or a single one over its rows, into this PNG.",
        kind=kinds.path(expected="a file ending in .png"),
    )
    format: str = option(
        "text",
        help="How the columns are printed: text (values alone), csv, or star.",
        kind=kinds.choice("text", "csv", "star"),
    )
    output: str | None = option(
        None, help="File to print into.", kind=kinds.path(expected="a file"), flags=("-o",)
    )
    overwrite: bool = option(False, help="Replace the files.", kind=kinds.flag())
