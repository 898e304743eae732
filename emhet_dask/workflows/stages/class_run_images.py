"""The stages ``images`` and ``consensus`` of ``emhet class3d run``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import zarr

from emhet_dask.analysis.common_map import consensus_and_noise
from emhet_dask.analysis.projection import image_transforms, plan_slices
from emhet_dask.analysis.support import disc, map_of
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.particle_images import ParticleImages, read_images
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_run_blocks import (
    Consensus,
    StoredBlock,
    block_rows,
    cut_blocks,
    radial_order,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Common", "consensus_stage", "images_stage"]

IMAGES = "images.zarr"
CONSENSUS = "consensus"
# Pixels of a chunk: passes over few shells read no more than they need.
_CHUNK_PIXELS = 256


@dataclass(frozen=True, eq=False)
class Common:
    """What the images have in common, and the blocks of what it leaves of them.

    Attributes
    ----------
    blocks : list of StoredBlock
    transform : ndarray of complex64 (voxel,)
        Of the consensus, up to half of the box.
    weight : ndarray of float32 (voxel,)
        Sum of CTF² over the noise.
    noise : ndarray of float64 (group, shell)
        Amplitude.
    """

    blocks: list[StoredBlock]
    transform: np.ndarray
    weight: np.ndarray
    noise: np.ndarray


def images_stage(
    images: ParticleImages,
    *,
    zero_outside_pixels: float | None,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> Path:
    """Run the stage, or find it done: transforms of all images, centred.

    Parameters
    ----------
    images : ParticleImages
    zero_outside_pixels : float or None
        Diameter of a disc outside of which images are filled with zeros.
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    Path
        Zarr array of complex64 (particle, pixel), pixels by their distance from the origin.

    Raises
    ------
    InputError
        When a stack cannot be read, or an image holds NaN.
    """

    def build(workspace: Path) -> None:
        grid = plan_slices(images.box)
        rows = block_rows(images)
        path = workspace / IMAGES
        zarr.create_array(
            str(path),
            shape=(len(images), grid.n_pixels),
            chunks=(rows[0].stop, min(_CHUNK_PIXELS, grid.n_pixels)),
            dtype="complex64",
            compressors=None,
            fill_value=0,
            dimension_names=("particle", "pixel"),
            overwrite=True,
        )
        blocks = [(images[each], each.start) for each in rows]
        write = partial(_write_block, str(path), zero_outside_pixels)
        for _ in progress.map(client, write, blocks, label="images", unit="blocks"):
            pass

    results.stage("images", parameters={"zero_outside_pixels": zero_outside_pixels}, build=build)
    return results.path(IMAGES)


def _write_block(
    path: str, zero_outside_pixels: float | None, block: tuple[ParticleImages, int]
) -> None:
    images, start = block
    grid = plan_slices(images.box)
    pixels = read_images(images)
    if zero_outside_pixels is not None:
        pixels *= disc(images.box, diameter=zero_outside_pixels, shifts=images.shifts)
    slices = image_transforms(pixels, grid, shifts=images.shifts)
    stored = zarr.open_array(path, mode="r+")
    stored[start : start + len(images)] = slices[:, radial_order(grid)]


def consensus_stage(
    path: Path,
    images: ParticleImages,
    *,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> Common:
    """Run the stage, or find it done.

    Parameters
    ----------
    path : Path
        From `images_stage`.
    images : ParticleImages
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    Common
    """
    names, groups = np.unique(images.group, return_inverse=True)
    grid = plan_slices(images.box)

    def build(workspace: Path) -> None:
        blocks = cut_blocks(str(path), images, groups)
        with progress.computing(client, label="consensus") as compute:
            transform, weight, noise = consensus_and_noise(
                blocks,
                [block.groups for block in blocks],
                n_groups=len(names),
                grid=grid,
                compute=compute,
            )
        folder = workspace / CONSENSUS
        folder.mkdir()
        np.save(folder / "transform.npy", transform)
        np.save(folder / "weight.npy", weight)
        np.save(folder / "noise.npy", noise)
        _noise_table(noise, names).to_csv(workspace / "noise.csv", index=False, float_format="%.6g")
        density = map_of(transform, grid)
        write_map(
            workspace / "consensus.mrc", density, voxel_size_angstrom=images.pixel_size_angstrom
        )

    record = results.stage("consensus", parameters={}, after=("images",), build=build)
    folder = results.path(CONSENSUS)
    noise = np.load(folder / "noise.npy")
    consensus = Consensus(str(folder / "transform.npy"), noise, record.key)
    return Common(
        cut_blocks(str(path), images, groups, consensus),
        np.load(folder / "transform.npy"),
        np.load(folder / "weight.npy"),
        noise,
    )


def _noise_table(noise: np.ndarray, names: np.ndarray) -> pd.DataFrame:
    group, shell = np.indices(noise.shape)
    return pd.DataFrame(
        {
            "optics_group": names[group.ravel()],
            "shell": shell.ravel(),
            "noise_variance": np.square(noise).ravel(),
        }
    )
