"""The stage ``subtracted`` of ``emhet class3d run``: images of what is inside a mask."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr

from emhet_dask.analysis.projection import plan_slices, volume_transform
from emhet_dask.analysis.support import map_of
from emhet_dask.runtime import Progress, ResultsFolder
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import (
    Particles,
    StoredBlock,
    cut_blocks,
    radial_order,
)
from emhet_dask.workflows.stages.class_run_images import Common, create_transforms

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["subtracted_stage"]

SUBTRACTED = "subtracted.zarr"


def subtracted_stage(
    common: Common,
    mask: np.ndarray,
    *,
    mask_key: str,
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> Particles:
    """Run the stage, or find it done.

    Parameters
    ----------
    common : Common
        Of the images as they are, from the stage ``whole``.
    mask : ndarray (z, y, x)
    mask_key : str
        Of its file.
    results, client, progress
        Where results go and work runs.

    Returns
    -------
    Particles
        Of images less the projection, with CTF, of what the consensus has outside the mask.
    """
    particles = common.particles
    grid = plan_slices(particles.images.box)

    def build(workspace: Path) -> None:
        results.state(Imaging.on(client, particles.images).subtracted())
        path = create_transforms(workspace / SUBTRACTED, particles.images)
        rest = volume_transform(map_of(common.transform, grid) * (1.0 - mask), grid)
        write = partial(_write_block, path, rest)
        blocks = cut_blocks(particles)
        for _ in progress.map(client, write, blocks, label="subtracted", unit="blocks"):
            pass

    record = results.stage(
        "subtracted", parameters={"mask": mask_key}, after=("whole",), build=build
    )
    return replace(
        particles,
        path=str(results.path(SUBTRACTED)),
        key=record.key,
        scale=np.ones(particles.n_groups),
    )


def _write_block(path: str, rest: np.ndarray, block: StoredBlock) -> None:
    images = block.particles.images
    grid = plan_slices(images.box)
    whole = block.load(grid.radius)
    slices = whole.slices - whole.predict(rest[:, None])[..., 0]
    stored = zarr.open_array(path, mode="r+")
    stored[block.start : block.start + len(images)] = slices[:, radial_order(grid)]
