"""Options of ``emhet ingest`` and ``emhet info``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emhet_dask.options import kinds
from emhet_dask.options._base import option
from emhet_dask.options._common import Quiet, Run

__all__ = ["Info", "Ingest"]


@dataclass(frozen=True, kw_only=True)
class Ingest(Run):
    """Read maps into an ensemble store."""

    summary = "Read density maps into a chunked, checksummed ensemble store."
    examples = (
        "emhet ingest maps/ -o ensemble.zarr",
        "emhet ingest 'run1/*.mrc' 'run2/*.mrc' -o ensemble.zarr --box 64 --dtype float16",
        "emhet ingest analyze.20/kmeans500 -o ensemble.zarr --particles particles.star",
        "emhet ingest Class3D/job085 Class3D/job086 -o classes.zarr",
        "emhet ingest 'kmeans/center???.mrc' -o recovar.zarr --particle-latents latent_coords.npy",
        "emhet ingest frames/ -o 3dva.zarr --latents frames.csv --particle-latents particles.cs",
    )

    sources: Any = option(
        help=(
            "Folders, globs, text lists of paths, cryoDRGN volume folders, RELION Class3D jobs, or "
            "stacked MRC files (.mrc, .map, .ccp4; .gz and .bz2 too)."
        ),
        kind=kinds.path(),
        argument=True,
        many=True,
    )
    output: str = option(
        help="The store to make; its name ends in .zarr by custom.",
        kind=kinds.path(expected="a path such as ensemble.zarr", url=True),
        flags=("-o",),
    )
    box: int | None = option(
        None,
        help="Crop every volume in Fourier space to this many voxels a side.",
        kind=kinds.whole(minimum=8),
    )
    apix: float | None = option(
        None,
        help="Voxel size in Å of the files, where their headers do not say or are wrong.",
        kind=kinds.number(minimum=1e-3),
    )
    dtype: str = option(
        "float32",
        help="Precision in the store; float16 halves it, with one scale per volume.",
        kind=kinds.choice("float32", "float16"),
    )
    names: str | None = option(
        None,
        help="CSV with the columns original_filename,custom_name.",
        kind=kinds.path(expected="a CSV file"),
    )
    weights: str | None = option(
        None,
        help="CSV with the columns name (or volume) and weight: particles of each volume.",
        kind=kinds.path(expected="a CSV file"),
    )
    labels: str | None = option(
        None,
        help=(
            "cryoDRGN labels.pkl: the volume of each particle; found by itself beside the maps of "
            "a cryoDRGN folder."
        ),
        kind=kinds.path(expected="a labels.pkl"),
    )
    particles: str | None = option(
        None,
        help="STAR or .cs file of the particles, so that states can be written as particle lists.",
        kind=kinds.path(expected="a STAR or .cs file"),
    )
    ind: str | None = option(
        None,
        help="Indices of the particles used (cryoDRGN's --ind): .pkl, .npy or .txt.",
        kind=kinds.path(expected="a .pkl, .npy or .txt file"),
    )
    latents: str | None = option(
        None,
        help=(
            "Latents, one row per volume, or one per particle where --labels are known: npy, pkl, "
            "csv, txt, or a .cs file of 3D Variability or 3D Flex."
        ),
        kind=kinds.path(expected="an npy, pkl, csv, txt or cs file"),
    )
    particle_latents: str | None = option(
        None,
        help=(
            "Latents, one row per particle, in the same formats. Without labels each particle "
            "belongs to the volume nearest to it in latent space; --latents of the volumes are "
            "found where cryoDRGN, tomoDRGN or RECOVAR left them beside the maps."
        ),
        kind=kinds.path(expected="an npy, pkl, csv, txt or cs file"),
    )
    on_error: str = option(
        "stop",
        help="stop: one message with every faulty file; skip: go on without them, and list them.",
        kind=kinds.choice("stop", "skip"),
    )


@dataclass(frozen=True, kw_only=True)
class Info(Quiet):
    """Say what is in an ensemble store and whether it is whole."""

    summary = "Say what is in a store, and whether it is whole."
    examples = ("emhet info ensemble.zarr", "emhet info ensemble.zarr --json --quick")

    ensemble: str = option(help="The store.", kind=kinds.path(url=True), argument=True)
    json: bool = option(False, help="Print JSON instead of words.", kind=kinds.flag())
    quick: bool = option(
        False,
        help="Look only whether every shard is there; do not read them to test their checksums.",
        kind=kinds.flag(),
    )
