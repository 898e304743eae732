"""Options of ``emhet reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run

__all__ = ["Reconstruct"]


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Run):
    """Reconstruct each state from its particle images, as half maps that confirm it or do not."""

    summary = "Half maps, FSC and post-processed map of each state, from particle images."
    examples = (
        "emhet reconstruct particles.star -o reconstruction",
        "emhet reconstruct particles.star --labels consensus.csv -o reconstruction",
        "emhet reconstruct Class3D/job085/run_it025_data.star --labels class -o reconstruction",
        "emhet reconstruct particles.star --clusters landscape --states 0,2 --mask mask.mrc "
        "-o reconstruction",
    )

    particles: str = option(
        help="Particle STAR file of RELION 3.0 or later, with poses and CTFs.",
        kind=kinds.path(expected="a STAR file"),
        argument=True,
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    labels: str | None = option(
        None,
        help=(
            "State of each particle: a CSV file with the columns particle (row, from 0) or "
            "rlnImageName, and state; cryoDRGN's labels.pkl; or class (rlnClassNumber). Default: "
            "all particles are one state."
        ),
        kind=kinds.path(words=("class",), expected="class or a file of labels"),
    )
    clusters: str | None = option(
        None,
        help="Folder of a landscape of these particles, whose states are taken.",
        kind=kinds.path(expected="a results folder", url=True),
    )
    states: tuple[int, ...] | None = option(
        None, help="Reconstruct these states alone, such as 0,3.", kind=kinds.numbers()
    )
    root: str | None = option(
        None,
        help=(
            "Folder that the stacks in the STAR file are relative to, and below which they lie; "
            "default: the working directory, or the nearest folder above the file that has them."
        ),
        kind=kinds.path(expected="a folder"),
    )
    mask: str = option(
        "auto",
        help=(
            "For the FSC: auto (around the density of each state), none, or an MRC file with "
            "values from 0 to 1."
        ),
        kind=kinds.path(words=("auto", "none"), expected="auto, none or a file"),
    )
    symmetry: str = option(
        "C1",
        help="Point group: C1, C4, D2, T, O, I (I2), I1 to I4, set up as in RELION.",
        kind=kinds.text(expected="a point group such as D2"),
    )
    box: int | None = option(
        None,
        help="Box of the maps, of the same extent; default: that of the images.",
        kind=kinds.whole(minimum=4),
    )
    max_resolution: float | None = option(
        None,
        help="Use the images to this resolution in Å; default: Nyquist.",
        kind=kinds.number(minimum=0.1),
    )
    b_factor: str | float | None = option(
        None,
        help=(
            "Sharpen the post-processed maps by this B-factor in Å² (negative sharpens), or auto: "
            "fitted to each map finer than 10 Å; default: no sharpening."
        ),
        kind=kinds.number(words=("auto",)),
    )
    gridding_iterations: int = option(
        10,
        help="Iterations of the gridding weights; 0 divides by the weights as they are.",
        kind=kinds.whole(minimum=0, maximum=100),
    )
    no_ctf: bool = option(False, help="Take the images as they are.", kind=kinds.flag())
    ctf_intact_first_peak: bool = option(
        False, help="Leave the CTF out up to its first peak.", kind=kinds.flag()
    )
    seed: int = option(
        0,
        help="Of random halves, where the particles have no rlnRandomSubset, and random phases.",
        kind=kinds.whole(minimum=0),
    )
