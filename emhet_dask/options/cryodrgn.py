"""Options of every command that decodes with a trained cryoDRGN model."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import Command, option

__all__ = ["CryodrgnEpoch"]


@dataclass(frozen=True, kw_only=True)
class CryodrgnEpoch(Command):
    """Which model, which particles it was trained on, and where it decodes."""

    workdir: str = option(
        help="Folder of a cryoDRGN run (train_vae -o): config.yaml, weights.N.pkl, z.N.pkl.",
        kind=kinds.path(expected="a folder"),
        argument=True,
    )
    epoch: int | str = option(
        help="N of z.N.pkl, or last.",
        kind=kinds.whole(minimum=0, words=("last",)),
        argument=True,
    )
    ind: str | None = option(
        None,
        help=(
            "Indices of the particles that the model was trained on (cryoDRGN's --ind): .pkl, .npy "
            "or .txt; default: the file that config.yaml names."
        ),
        kind=kinds.path(expected="a .pkl, .npy or .txt file"),
    )
    device: str = option(
        "auto",
        help="Where each worker decodes: cpu, cuda, or auto for a GPU where there is one.",
        kind=kinds.choice("auto", "cpu", "cuda"),
    )
