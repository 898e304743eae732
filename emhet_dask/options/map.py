"""Options of ``emhet map``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run
from emhet_dask.options.cryodrgn import CryodrgnEpoch
from emhet_dask.options.energy import EnergyChoices

__all__ = ["Map"]


@dataclass(frozen=True, kw_only=True)
class Map(EnergyChoices, CryodrgnEpoch, Run):
    """Place every particle of a cryoDRGN run on the landscape of some of its volumes."""

    summary = "Place every particle of a cryoDRGN run on a landscape: scores, states, free energy."
    examples = (
        "emhet map 00_vae 25 --landscape landscape -o full",
        "emhet map 00_vae 25 --landscape landscape -o quick --sample 2000",
        "emhet map 00_vae 25 --landscape landscape -o full --axes 1,3 --particles particles.star",
    )

    landscape: str = option(
        help="Results of emhet landscape, of volumes that were decoded from this epoch.",
        kind=kinds.path(expected="a folder of emhet landscape", url=True),
    )
    output: str = option(
        help="Folder for the results.",
        kind=kinds.path(expected="a folder", url=True),
        flags=("-o",),
    )
    sample: int | None = option(
        None,
        help=(
            "Decode so many particles, drawn at random, and predict the scores of the others from "
            "their latents, with a cross-validated error; default: decode all."
        ),
        kind=kinds.whole(minimum=20),
    )
    full_decode: bool = option(
        False,
        help=(
            "Transform each volume back to voxels instead of projecting its Fourier coefficients; "
            "a landscape with --clip-negative always needs it."
        ),
        kind=kinds.flag(),
    )
    flip: bool = option(
        False,
        help=(
            "The volumes of the landscape are mirrored; known already where emhet decode made them."
        ),
        kind=kinds.flag(),
    )
    particles: str | None = option(
        None,
        help=(
            "STAR or .cs file of the particles, to write those of each state; default: the one "
            "that the ensemble was made with."
        ),
        kind=kinds.path(expected="a STAR or .cs file"),
    )
    seed: int = option(0, help="Seed of everything random.", kind=kinds.whole(minimum=0))
