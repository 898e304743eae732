"""Passes over blocks: sums and rows are those of a loop, and memory that of a block."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import dask
import numpy as np
import pytest

from emhet_dask.analysis import image_blocks
from emhet_dask.analysis.classification import add_up, classes_of, judge
from emhet_dask.analysis.image_blocks import ImageBlock, Pass, run_pass, run_passes, spread
from emhet_dask.analysis.projection import (
    particles_per_operator,
    plan_slices,
    pose_matrices,
    slice_operator,
)
from emhet_dask.analysis.seeding import find_start


def compute(*collections):
    return dask.compute(*collections, scheduler="sync")


@dataclass(frozen=True)
class Noise:
    """Images of noise, made when they are loaded: nothing of them is kept."""

    start: int
    n_particles: int
    box: int = 32

    def load(self, radius: int) -> ImageBlock:
        rng = np.random.default_rng(self.start)
        grid = plan_slices(self.box, radius=radius)
        angles = rng.uniform(-180, 180, (self.n_particles, 3))
        shape = (self.n_particles, grid.n_pixels)
        slices = rng.normal(size=(2, *shape)).astype(np.float32)
        transfer = rng.uniform(-1, 1, shape).astype(np.float32)
        operator = slice_operator(pose_matrices(angles), grid)
        return ImageBlock(operator, (slices[0] + 1j * slices[1]).astype(np.complex64), transfer)


def _moments(block, own, factor):
    power = np.square(np.abs(block.slices)).sum(axis=1, dtype=np.float64)
    return (np.array([power.sum(), own.sum()]), power[:2].copy()), (factor * power, own)


@pytest.mark.parametrize("most_tasks", [1, 3, 128])
def test_sums_and_rows_are_those_of_a_loop(monkeypatch, most_tasks):
    monkeypatch.setattr(image_blocks, "MOST_TASKS", most_tasks)
    sources = [Noise(at, 3 + at % 2) for at in range(7)]
    values = np.arange(sum(source.n_particles for source in sources), dtype=np.float64)
    owned = spread(values, sources)
    (sums, heads), (rows, own) = run_pass(
        sources, _moments, 2.0, radius=4, own=owned, compute=compute
    )
    each = [np.square(np.abs(source.load(4).slices)).sum(axis=1) for source in sources]
    np.testing.assert_allclose(rows, 2.0 * np.concatenate(each), rtol=1e-5)
    np.testing.assert_array_equal(own, values)
    np.testing.assert_allclose(sums, [np.concatenate(each).sum(), values.sum()], rtol=1e-5)
    np.testing.assert_allclose(heads, sum(one[:2] for one in each), rtol=1e-5)


def test_passes_together_are_passes_one_by_one():
    passes = [
        Pass([Noise(at, 4) for at in range(first, first + count)], _moments, (3.0,), own)
        for first, count in ((0, 1), (10, 5))
        for own in ([np.ones(4)] * count,)
    ]
    together = run_passes(passes, radius=4, compute=compute)
    for each, (sums, rows) in zip(passes, together, strict=True):
        alone = run_pass(each.sources, _moments, 3.0, radius=4, own=each.own, compute=compute)
        for one, other in zip((*sums, *rows), (*alone[0], *alone[1]), strict=True):
            np.testing.assert_array_equal(one, other)


def _peak_bytes(count: int) -> int:
    """Return what a start and an iteration take at most, beside probabilities."""
    grid = plan_slices(32, radius=6)
    sources = [Noise(at, 50) for at in range(0, count, 50)]
    halves = (
        [Noise(at + 1, 25) for at in range(0, count, 50)],
        [Noise(at + 2, 25) for at in range(0, count, 50)],
    )
    posteriors = np.full((count, 2), 0.5, dtype=np.float32)
    tracemalloc.start()
    try:
        find_start(
            halves,
            np.ones(7),
            grid=grid,
            n_classes=2,
            most=2,
            n_components=3,
            restarts=0,
            seed=0,
            compute=compute,
        )
        noise = np.ones(7)
        sums = add_up(sources, posteriors, grid=grid, noise=noise, compute=compute)
        judge(sources, classes_of(sums, np.ones(7)), posteriors, noise=noise, compute=compute)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_is_that_of_blocks_however_many_images_there_are(monkeypatch):
    # As with many images: tasks go through several blocks, and the mixture is of some images.
    monkeypatch.setattr(image_blocks, "MOST_TASKS", 4)
    few, many = 400, 1600
    _peak_bytes(100)  # what is cached once
    grown = (_peak_bytes(many) - _peak_bytes(few)) / (many - few)
    grid = plan_slices(32, radius=6)
    image = (64 << 20) / particles_per_operator(grid, nbytes=64 << 20)
    # Of each image there is what it says of a few coefficients and classes, not the image.
    assert grown < 0.1 * image, (grown, image)
