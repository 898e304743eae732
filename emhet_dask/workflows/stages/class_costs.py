"""What tasks of `class3d` take: passes over particle images, what is made of them, STAR files.

Upper bounds, as in `costs`. A pass holds blocks that were loaded before, sums that wait for others,
and what all blocks are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emhet_dask.analysis.global_search import Scan, search_bytes
from emhet_dask.analysis.image_blocks import MOST_TASKS
from emhet_dask.analysis.projection import SliceGrid, plan_slices
from emhet_dask.formats.particle_images import ParticleImages
from emhet_dask.runtime import Work
from emhet_dask.runtime.memory import waiting
from emhet_dask.workflows.stages.class_run_blocks import block_rows, kept_bytes

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Imaging", "kept_by_workers", "texts_work"]

# Of a pixel in a block: its eight voxels with their weights, its coefficient and its CTF.
_BLOCK_BYTES = 84
# What it takes besides while the block is made: its transforms as stored, CTFs in double precision.
_LOADING_BYTES = 128
# Numbers of single precision per voxel of a map that is added up: complex sum and weight.
_MAP_COLUMNS = 3
# Rotations that a local search tries of an image at once, and the matrix of their slices.
_ROTATIONS = 81
_SEARCH_BYTES = 64 << 20
_LOOK_UP_BYTES = 160
_PAGE_BYTES = 4096
# A table that was read, and its text as a whole and in cells, over the bytes of its file.
_PARSED = 16
_COARSER = "--limit-resolution (coarser)"


@dataclass(frozen=True, eq=False)
class Imaging:
    """What decides how much memory passes over particle images take.

    Attributes
    ----------
    images : ParticleImages
        All of them.
    kept_bytes : int
        What a worker keeps of blocks.
    """

    images: ParticleImages
    kept_bytes: int

    @classmethod
    def on(cls, client: Client, images: ParticleImages) -> Imaging:
        """Return those of images on the workers of a client."""
        return cls(images, kept_by_workers(client))

    @property
    def full(self) -> SliceGrid:
        """Return all pixels and voxels."""
        return plan_slices(self.images.box)

    def transforms(self, *, filled: bool) -> Work:
        """Read images and write their transforms."""
        image, pixels = 4 * self.images.box**2, 8 * self.full.n_pixels
        blocks = block_rows(self.images)
        # As read and as they are checked, their transforms; the disc, the noise and its transform.
        each = (4 + 8 * filled) * image + 4 * pixels
        count = len(self.images)
        return Work("images", len(blocks), count * image, count * pixels, blocks[0].stop * each)

    def consensus(self, *, stage: str) -> Work:
        """Reconstruct all particles together."""
        return self._pass(stage, None, columns=_MAP_COLUMNS, shared=2, pixel_bytes=64)

    def subtracted(self) -> Work:
        """Take a map off all images, and write their transforms."""
        return self._pass("subtracted", None, columns=0, shared=2, pixel_bytes=48)

    def start(self, *, radius: int, components: int) -> Work:
        """Find components of both halves of the images."""
        q = components
        upper = q * (q + 1) // 2
        return self._pass(
            "start",
            radius,
            columns=2 * q + upper,
            # Components before and after the last step, and the matrices that were solved.
            shared=4 * q + upper,
            # Components as seen in the images, six at a time, and a matrix for every pixel.
            pixel_bytes=max(56 * q + 6 * q**2, 28 * q + 4 * upper + 40),
            sets=2,
            rows=4 * (q**2 + q),
            remedy="--components (fewer) or --ini-high (coarser)",
        )

    def iteration(
        self, stage: str, *, radius: int, classes: int, written: int, searched: bool
    ) -> list[Work]:
        """Make classes, compare every image with them, and write their maps.

        Parameters
        ----------
        stage : str
        radius : int
        classes, written : int
            That are in use, and of which there are maps.
        searched : bool
            Whether poses are searched too.
        """
        works = [
            self.sums(stage=stage, radius=radius, classes=classes),
            self.comparison(stage=stage, radius=radius, classes=classes),
            self.maps(stage=stage, classes=written),
        ]
        if searched:
            works += [
                self.search(stage=stage, radius=radius, classes=classes),
                self.consensus(stage=f"{stage}: consensus"),
            ]
        return works

    def sums(self, *, stage: str, radius: int, classes: int) -> Work:
        """Add up the images of each class."""
        columns = _MAP_COLUMNS * classes
        return self._pass(f"{stage}: sums", radius, columns=columns, pixel_bytes=4 * columns + 40)

    def comparison(self, *, stage: str, radius: int, classes: int) -> Work:
        """Compare every image with every class."""
        return self._pass(
            f"{stage}: comparison",
            radius,
            columns=0,
            shared=_MAP_COLUMNS * classes,
            pixel_bytes=60 * classes,
            rows=8 * (classes + 1),
        )

    def search(self, *, stage: str, radius: int, classes: int) -> Work:
        """Search poses near the present ones."""
        pixels = plan_slices(self.images.box, radius=radius).n_pixels
        tried = max(_SEARCH_BYTES // 128, _ROTATIONS * pixels)
        return self._pass(
            f"{stage}: search",
            radius,
            columns=0,
            shared=2 * (classes + 1),
            pixel_bytes=24,
            extra=tried * (_LOOK_UP_BYTES + 8 * classes + 24),
            rows=8 * (10 + classes),
        )

    def search_everywhere(self, scan: Scan, *, stage: str, radius: int, maps: int) -> Work:
        """Search all poses."""
        table, scores = search_bytes(scan, box=self.images.box, radius=radius, n_maps=maps)
        near = self.search(stage=stage, radius=radius, classes=maps)
        return replace(
            near,
            stage=f"{stage}: global search",
            task_bytes=near.task_bytes + scores,
            held_bytes=near.held_bytes + table,
            remedy="--global-search (coarser)",
        )

    def maps(self, *, stage: str, classes: int) -> Work:
        """Write the maps of classes."""
        grid = self.full
        density = 4 * grid.box**3
        # Transform, weights, distances, and the padded transform with its density.
        each = 45 * grid.n_voxels + (8 * grid.padding**3 + 16) * grid.box**3
        read = 8 * grid.n_voxels
        return Work(f"{stage}: maps", classes, classes * read, classes * density, each)

    def _pass(
        self,
        stage: str,
        radius: int | None,
        *,
        columns: int,
        pixel_bytes: int,
        shared: int = 0,
        sets: int = 1,
        rows: int = 0,
        extra: int = 0,
        remedy: str = _COARSER,
    ) -> Work:
        """Return the plan of a pass over blocks of pixels up to a radius.

        Sums and what is shared are of so many `columns` and `shared` numbers per voxel; functions
        take `pixel_bytes` per pixel of an image, and leave `rows` bytes per image.
        """
        grid = self.full if radius is None else plan_slices(self.images.box, radius=radius)
        blocks = block_rows(self.images, radius=radius)
        tasks = -(-len(blocks) // -(-len(blocks) // MOST_TASKS))
        pixels = blocks[0].stop * grid.n_pixels
        sums = 4 * columns * grid.n_voxels
        # What is taken off all images: the pages of a file that hold it, and itself.
        mapped = (2 * grid.reach + 1) ** 2 * (8 * grid.reach + 2 * _PAGE_BYTES)
        mean = min(8 * self.full.n_voxels, mapped) + 24 * grid.n_voxels
        making = _LOADING_BYTES * pixels + mean
        using = pixel_bytes * pixels + 3 * sums + extra
        count = len(self.images)
        return Work(
            stage,
            sets * tasks,
            8 * count * grid.n_pixels,
            0,
            _BLOCK_BYTES * pixels + max(making, using),
            held_bytes=self.kept_bytes
            + sets * (sums * waiting(tasks) + 4 * shared * grid.n_voxels)
            + count * rows,
            client_bytes=8 * sets * sums + count * rows,
            remedy=remedy,
        )


def kept_by_workers(client: Client) -> int:
    """Return how much the worker that keeps most keeps of blocks."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    kept = [kept_bytes(worker["memory_limit"]) for worker in workers]
    return max(kept, default=kept_bytes(None))


def texts_work(sizes: Sequence[int], *, stage: str, held_bytes: int = 0) -> Work:
    """Read STAR files of so many bytes."""
    task = _PARSED * max(sizes, default=0)
    return Work(stage, len(sizes), sum(sizes), 0, task, held_bytes=held_bytes)
