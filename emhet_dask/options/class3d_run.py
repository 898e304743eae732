"""Options of ``emhet class3d run``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run

__all__ = ["Class3DRun"]


@dataclass(frozen=True, kw_only=True)
class Class3DRun(Run):
    """Classify particle images at given poses: classes, their maps, and what speaks for them."""

    summary = "Classify particle images at given poses, without alignment."
    examples = (
        "emhet class3d run Refine3D/job030/run_data.star --k 4 -o Class3D/job100",
        "emhet class3d run particles.star --k auto --particle-diameter 170 -o Class3D/job101",
    )

    particles: str = option(
        help="Particle STAR file with poses and CTFs, of RELION 3.0 or later.",
        kind=kinds.path(expected="a STAR file"),
        argument=True,
    )
    output: str = option(
        help="Folder for the results, in which RELION's programs find a job.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    k: int | str = option(
        4,
        help=(
            "Classes at most: those that the images do not speak for stay empty; or auto, as many "
            "as they speak for."
        ),
        kind=kinds.whole(minimum=1, maximum=100, words=("auto",)),
    )
    ref: tuple[str, ...] | None = option(
        None,
        help=(
            "One map to check poses and hand against, or a map per class to begin with, resampled "
            "to the images. By default the consensus at the given poses and states that halves of "
            "the particles agree on."
        ),
        kind=kinds.path(expected="an MRC file"),
        many=True,
    )
    root: str | None = option(
        None,
        help="Folder that the names of image stacks are relative to; default: found.",
        kind=kinds.path(expected="a folder"),
    )
    iterations: int = option(
        25, help="At most; fewer where nothing changes any more.", kind=kinds.whole(minimum=1)
    )
    tau2_fudge: float = option(
        4.0,
        help="Variance that classes are given to differ, over what is measured of it.",
        kind=kinds.number(minimum=1e-3),
    )
    particle_diameter: float | None = option(
        None,
        help="In Å: images are masked by it, and classes differ inside; default: 0.9 of the box.",
        kind=kinds.number(minimum=1),
    )
    zero_mask: bool = option(
        False,
        help="Fill images outside the particle with zeros; by default they stay as they are.",
        kind=kinds.flag(),
    )
    noise_mask: bool = option(
        False,
        help="Fill them with noise of their own spectrum, as RELION does without --zero-mask.",
        kind=kinds.flag(),
    )
    mask: str | None = option(
        None,
        help="MRC file: classes differ nowhere else (focused classification).",
        kind=kinds.path(expected="an MRC file"),
    )
    subtract: bool = option(
        False,
        help=(
            "Take what the consensus has outside --mask off the images; maps are then of what is "
            "inside."
        ),
        kind=kinds.flag(),
    )
    symmetry: str = option(
        "C1",
        help="Point group of all classes: C1, C4, D2, T, O, I (I2), I1 to I4, as in RELION.",
        kind=kinds.text(expected="a point group such as D2"),
    )
    no_ctf: bool = option(False, help="Take the images as they are.", kind=kinds.flag())
    ctf_intact_first_peak: bool = option(
        False, help="Leave the CTF out up to its first peak.", kind=kinds.flag()
    )
    firstiter_cc: bool = option(
        False,
        help=(
            "Give images at first to the map of --ref that they correlate with best, on whatever "
            "grey scales the maps are."
        ),
        kind=kinds.flag(),
    )
    groups: str = option(
        "optics",
        help="Images that share a spectrum of noise: those of an optics group or of a micrograph.",
        kind=kinds.choice("optics", "micrograph"),
    )
    scale: bool = option(
        False,
        help="Correct the amplitude of each of --groups by one factor, as RELION's --scale.",
        kind=kinds.flag(),
    )
    local_search: float | None = option(
        None,
        help=(
            "Look for better poses within so many degrees of the given ones, and within "
            "--offset-range, before classes are looked for and after every iteration."
        ),
        kind=kinds.number(minimum=0.1, maximum=30),
    )
    global_search: float | None = option(
        None,
        help=(
            "Look for poses from nothing, whatever is given: among orientations so many degrees "
            "apart (7.5 is RELION's --healpix_order 2 with its oversampling) and within "
            "--offset-range, against --ref first, in the first iterations, and then near what was "
            "found, within --local-search or as many degrees. For small sets."
        ),
        kind=kinds.number(minimum=2, maximum=30),
    )
    offset_range: float = option(
        3.0,
        help="How far, in pixels, --local-search and --global-search may move images.",
        kind=kinds.number(minimum=0.1),
    )
    ini_high: float | None = option(
        None,
        help=(
            "Resolution in Å that states are looked for at; default: six Fourier shells of a "
            "particle that fills the box."
        ),
        kind=kinds.number(minimum=0.1),
    )
    limit_resolution: float | None = option(
        None,
        help="Resolution in Å beyond which images are not compared; default: as far as it helps.",
        kind=kinds.number(minimum=0.1),
    )
    components: int = option(
        6,
        help="Directions of difference that are looked for; what follows noise is dropped.",
        kind=kinds.whole(minimum=2, maximum=20),
    )
    restarts: int = option(
        6,
        help="Random starts beside those from splitting, for each number of classes.",
        kind=kinds.whole(minimum=0, maximum=1000),
    )
    seed: int = option(0, help="Of all that is random.", kind=kinds.whole(minimum=0))
