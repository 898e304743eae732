"""The stages ``images`` and ``consensus`` of ``emhet class3d run``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr

from emhet_dask.analysis.common_map import consensus_and_noise, group_scales
from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.projection import image_transforms, plan_slices
from emhet_dask.analysis.support import disc, filled_with_noise, map_of
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.particle_images import ParticleImages, read_images
from emhet_dask.formats.star import ParticleTable
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import (
    Consensus,
    Particles,
    Placed,
    StoredBlock,
    block_rows,
    cut_blocks,
    halves_of,
    radial_order,
)

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Common",
    "Filling",
    "consensus_of_half",
    "consensus_stage",
    "create_transforms",
    "find_consensus",
    "group_images",
    "images_stage",
    "load_consensus",
    "save_consensus",
]

IMAGES = "images.zarr"
CONSENSUS = "consensus"
# Pixels of a chunk: passes over few shells read no more than they need.
_CHUNK_PIXELS = 256
_SCALE_ROUNDS = 2
# By which groups are named, the first that there is.
_MICROGRAPHS = ("rlnMicrographName", "rlnGroupName")


@dataclass(frozen=True, eq=False)
class Common:
    """What the images have in common, and the blocks of what it leaves of them.

    Attributes
    ----------
    particles : Particles
        With the amplitudes of their groups.
    blocks : list of StoredBlock
    transform : ndarray of complex64 (voxel,)
        Of the consensus, up to half of the box.
    weight : ndarray of float32 (voxel,)
        Sum of CTF² over the noise.
    noise : ndarray of float64 (group, shell)
        Amplitude.
    whole : ndarray (voxel,) or None
        Transform of the consensus before a part of it was subtracted.
    consensus : Consensus or None
        As blocks read it.
    """

    particles: Particles
    blocks: list[StoredBlock]
    transform: np.ndarray
    weight: np.ndarray
    noise: np.ndarray
    whole: np.ndarray | None = None
    consensus: Consensus | None = None

    def blocks_for(self, radius: int) -> list[StoredBlock]:
        """Return blocks for comparisons up to a radius: larger ones where there are few shells."""
        return cut_blocks(self.particles, self.consensus, radius=radius)

    @cached_property
    def power(self) -> np.ndarray:
        """Return the mean power (shell,) of the consensus."""
        grid = plan_slices(self.particles.images.box)
        return shell_mean(np.square(np.abs(self.transform)), grid)

    @cached_property
    def mean_weight(self) -> np.ndarray:
        """Return the mean weight (shell,)."""
        return shell_mean(self.weight, plan_slices(self.particles.images.box))

    @property
    def power_from(self) -> np.ndarray:
        """Return the transform whose power tells how much particles may differ."""
        return self.transform if self.whole is None else self.whole


@dataclass(frozen=True)
class Filling:
    """What images are filled with outside of a disc.

    Attributes
    ----------
    diameter_pixels : float
    noise : bool
        Noise of the spectrum that is there; zeros otherwise.
    seed : int
        Of the noise.
    """

    diameter_pixels: float
    noise: bool
    seed: int


def group_images(
    table: ParticleTable, images: ParticleImages, by: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of groups of images, and the group (particle,) of each, from 0.

    Parameters
    ----------
    table : ParticleTable
    images : ParticleImages
    by : ``"optics"`` or ``"micrograph"``

    Raises
    ------
    InputError
        When micrographs are asked for and particles name none.
    """
    if by == "optics":
        names, groups = np.unique(images.group, return_inverse=True)
        return tuple(f"optics_{name}" for name in names), groups
    column = next((name for name in _MICROGRAPHS if name in table.particles), None)
    if column is None:
        raise InputError(
            f"{table.path}: --groups micrograph needs the column _rlnMicrographName or "
            "_rlnGroupName; expected one of them"
        )
    names, groups = np.unique(table.particles[column].astype(str), return_inverse=True)
    return tuple(names.tolist()), groups


def images_stage(
    images: ParticleImages,
    *,
    filling: Filling | None,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> tuple[Path, str]:
    """Run the stage, or find it done: transforms of all images, centred.

    Parameters
    ----------
    images : ParticleImages
    filling : Filling or None
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    path : Path
        Zarr array of complex64 (particle, pixel), pixels by their distance from the origin.
    key : str
        Of the stage.

    Raises
    ------
    InputError
        When a stack cannot be read, or an image holds NaN.
    """

    def build(workspace: Path) -> None:
        results.state(Imaging.on(client, images).transforms(filled=filling is not None))
        path = create_transforms(workspace / IMAGES, images)
        blocks = [(images[each], each.start) for each in block_rows(images)]
        write = partial(_write_block, path, filling)
        for _ in progress.map(client, write, blocks, label="images", unit="blocks"):
            pass

    record = results.stage(
        "images",
        parameters={"filling": filling and repr(filling)},
        build=build,
    )
    return results.path(IMAGES), record.key


def create_transforms(path: Path, images: ParticleImages) -> str:
    """Create the Zarr array that blocks of transforms are written to."""
    grid = plan_slices(images.box)
    zarr.create_array(
        str(path),
        shape=(len(images), grid.n_pixels),
        chunks=(block_rows(images)[0].stop, min(_CHUNK_PIXELS, grid.n_pixels)),
        dtype="complex64",
        compressors=None,
        fill_value=0,
        dimension_names=("particle", "pixel"),
        overwrite=True,
    )
    return str(path)


def _write_block(path: str, filling: Filling | None, block: tuple[ParticleImages, int]) -> None:
    images, start = block
    grid = plan_slices(images.box)
    pixels = read_images(images)
    if filling is not None:
        inside = disc(images.box, diameter=filling.diameter_pixels, shifts=images.shifts)
        if filling.noise:
            random = np.random.default_rng([filling.seed, start])
            pixels = filled_with_noise(pixels, inside, random)
        else:
            pixels *= inside
    slices = image_transforms(pixels, grid, shifts=images.shifts)
    stored = zarr.open_array(path, mode="r+")
    stored[start : start + len(images)] = slices[:, radial_order(grid)]


def consensus_stage(
    particles: Particles,
    *,
    operators: np.ndarray,
    correct_scale: bool,
    parameters: dict[str, Any],
    results: ResultsFolder,
    client: Client,
    progress: Progress,
    name: str = CONSENSUS,
    after: str = "images",
) -> Common:
    """Run the stage, or find it done.

    Parameters
    ----------
    particles : Particles
    operators : ndarray (operator, 3, 3)
        Of the point group.
    correct_scale : bool
        Find the amplitude of each group.
    parameters : dict
        For the record.
    results, client, progress
        Where results go and work runs.
    name : str
        Of the stage and its folder.
    after : str
        Stage that wrote the transforms.

    Returns
    -------
    Common
    """

    def build(workspace: Path) -> None:
        results.state(Imaging.on(client, particles.images).consensus(stage=name))
        with progress.computing(client, label=name) as anywhere:
            compute = Placed(anywhere, client)
            found = find_consensus(
                particles, operators=operators, correct_scale=correct_scale, compute=compute
            )
        save_consensus(workspace / name, found)
        table = _noise_table(found)
        table.to_csv(workspace / f"{name}_noise.csv", index=False, float_format="%.6g")
        density = map_of(found.transform, plan_slices(particles.images.box))
        write_map(
            workspace / f"{name}.mrc",
            density,
            voxel_size_angstrom=particles.images.pixel_size_angstrom,
        )

    results.stage(name, parameters=parameters, after=(after,), build=build)
    return load_consensus(results.path(name), particles)


def find_consensus(
    particles: Particles,
    *,
    operators: np.ndarray,
    correct_scale: bool,
    compute: Callable[..., tuple[Any, ...]],
) -> Common:
    """Reconstruct all particles together, with the noise and the amplitude of each group.

    Parameters
    ----------
    particles : Particles
    operators : ndarray (operator, 3, 3)
    correct_scale : bool
    compute : callable
        Like `dask.compute`.

    Returns
    -------
    Common
        Without blocks.
    """
    grid = plan_slices(particles.images.box)
    rounds = _SCALE_ROUNDS if correct_scale and particles.n_groups > 1 else 0
    for number in range(rounds + 1):
        blocks = cut_blocks(particles)
        groups = [block.particles.groups for block in blocks]
        transform, weight, noise = consensus_and_noise(
            blocks,
            groups,
            n_groups=particles.n_groups,
            grid=grid,
            operators=operators,
            compute=compute,
        )
        if number == rounds:
            break
        factor = group_scales(blocks, groups, transform, noise, grid=grid, compute=compute)
        scale = particles.scale * factor
        scale /= np.average(scale, weights=np.bincount(particles.groups, minlength=len(scale)))
        particles = replace(particles, scale=scale)
    return Common(particles, [], transform, weight, noise)


def consensus_of_half(
    particles: Particles,
    parity: int,
    *,
    operators: np.ndarray,
    compute: Callable[..., tuple[Any, ...]],
) -> np.ndarray:
    """Return the transform (voxel,) of the particles of even or odd rows alone."""
    half = halves_of(cut_blocks(particles))[parity]
    transform, _, _ = consensus_and_noise(
        half,
        [block.particles.groups[block.rows] for block in half],
        n_groups=particles.n_groups,
        grid=plan_slices(particles.images.box),
        operators=operators,
        compute=compute,
    )
    return np.asarray(transform)


def save_consensus(folder: Path, common: Common) -> None:
    """Write what `load_consensus` reads."""
    folder.mkdir()
    np.save(folder / "transform.npy", common.transform)
    np.save(folder / "weight.npy", common.weight)
    np.save(folder / "noise.npy", common.noise)
    np.save(folder / "scale.npy", common.particles.scale)


def load_consensus(folder: Path, particles: Particles) -> Common:
    """Read what particles have in common, and cut them into blocks of what it leaves of them."""
    transform, noise = np.load(folder / "transform.npy"), np.load(folder / "noise.npy")
    owned = replace(particles, scale=np.load(folder / "scale.npy"))
    key = hashlib.blake2b(transform.tobytes() + noise.tobytes()).hexdigest()
    consensus = Consensus(str(folder / "transform.npy"), noise, key)
    blocks = cut_blocks(owned, consensus)
    weight = np.load(folder / "weight.npy")
    return Common(owned, blocks, transform, weight, noise, consensus=consensus)


def _noise_table(common: Common) -> pd.DataFrame:
    group, shell = np.indices(common.noise.shape)
    return pd.DataFrame(
        {
            "group": np.array(common.particles.names)[group.ravel()],
            "amplitude": common.particles.scale[group.ravel()],
            "shell": shell.ravel(),
            "noise_variance": np.square(common.noise).ravel(),
        }
    )
