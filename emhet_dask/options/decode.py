"""Options of ``emhet decode``."""

from __future__ import annotations

from dataclasses import dataclass

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Run
from emhet_dask.options.cryodrgn import CryodrgnEpoch

__all__ = ["Decode"]


@dataclass(frozen=True, kw_only=True)
class Decode(CryodrgnEpoch, Run):
    """Decode volumes of a trained cryoDRGN model into an ensemble store."""

    summary = "Decode volumes of a trained cryoDRGN model straight into a store."
    examples = (
        "emhet decode 00_vae 25 -n 1000 -o ensemble.zarr",
        "emhet decode 00_vae last -o ensemble.zarr --box 128 --particles particles.star",
        "emhet decode 00_vae 25 --z path.txt -o path.zarr --apix 1.31 --flip",
    )

    output: str = option(
        help="The store to make; its name ends in .zarr by custom.",
        kind=kinds.path(expected="a path such as ensemble.zarr", url=True),
        flags=("-o",),
    )
    n: int | None = option(
        None,
        help=(
            "How many volumes: k-means of the latents, each centre moved to the nearest particle "
            "of its cluster; default: 1000, or one for each particle where they are fewer."
        ),
        kind=kinds.whole(minimum=1),
        flags=("-n",),
    )
    z: str | None = option(
        None,
        help=(
            "Latents to decode, one row each (txt, csv, npy, pkl), instead of -n; each volume "
            "stands for the particles that are nearest to it."
        ),
        kind=kinds.path(expected="a txt, csv, npy or pkl file"),
    )
    indices: str | None = option(
        None,
        help=(
            "Particles to decode, instead of -n: rows of z.N.pkl from 0 (.pkl, .npy, .txt); each "
            "volume stands for the particles that are nearest to it."
        ),
        kind=kinds.path(expected="a .pkl, .npy or .txt file"),
    )
    particles: str | None = option(
        None,
        help="STAR or .cs file of the particles, so that states can be written as particle lists.",
        kind=kinds.path(expected="a STAR or .cs file"),
    )
    box: int | None = option(
        None,
        help="Decode to this many voxels a side, leaving out what is finer; default: as trained.",
        kind=kinds.whole(minimum=8),
    )
    apix: float | None = option(
        None,
        help="Voxel size in Å as trained, before --box; default: from the run's CTF parameters.",
        kind=kinds.number(minimum=1e-3),
    )
    flip: bool = option(False, help="Mirror the volumes, to change their hand.", kind=kinds.flag())
    dtype: str = option(
        "float32",
        help="Precision in the store; float16 halves it, with one scale per volume.",
        kind=kinds.choice("float32", "float16"),
    )
    seed: int = option(0, help="Seed of k-means.", kind=kinds.whole(minimum=0))
