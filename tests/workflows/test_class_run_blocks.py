"""Blocks of particle images: how they are cut, what is kept of them, and where they go."""

import dask
import numpy as np
import pytest

from emhet_dask.analysis.image_blocks import run_pass
from emhet_dask.analysis.projection import plan_slices, pose_matrices, slice_operator
from emhet_dask.formats.particle_images import open_images
from emhet_dask.formats.star import read_particles
from emhet_dask.workflows.stages import class_run_blocks
from emhet_dask.workflows.stages.class_run_blocks import ImageBlock, Placed, _Kept, block_rows
from tests.fake_particles import fake_particles, fake_sources, write_particles


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    star = write_particles(tmp_path_factory.mktemp("blocks"), fake_particles(300, seed=1))
    return open_images(read_particles(star))


@pytest.mark.parametrize("radius", [None, 1, 4, 16])
def test_blocks_are_all_rows_once_and_begin_with_an_even_one(images, radius):
    rows = block_rows(images, radius=radius)
    every = np.concatenate([np.arange(300)[each] for each in rows])
    np.testing.assert_array_equal(every, np.arange(300))
    assert all(each.start % 2 == 0 for each in rows)
    # A block of few shells is several of those that are stored together.
    stored = block_rows(images)[0].stop
    assert all(each.start % stored == 0 for each in rows)
    assert len(rows) <= len(block_rows(images))


def test_fewer_shells_make_larger_blocks(images, monkeypatch):
    monkeypatch.setattr(class_run_blocks, "_WORTH_A_TASK", 150 * plan_slices(32, radius=2).n_pixels)
    sizes = [block_rows(images, radius=radius)[0].stop for radius in (16, 6, 2)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


def _block(count: int) -> ImageBlock:
    grid = plan_slices(8)
    operator = slice_operator(pose_matrices(np.zeros((count, 3))), grid)
    transfer = np.ones((count, grid.n_pixels), dtype=np.float32)
    return ImageBlock(operator, transfer.astype(np.complex64), transfer)


def test_what_came_first_stays_until_other_passes_begin(monkeypatch):
    one = class_run_blocks._bytes_of(_block(4))
    monkeypatch.setattr(class_run_blocks, "_KEPT_BYTES", int(2.5 * one))
    kept, made = _Kept(), []

    def get(kind, place):
        def make():
            made.append((kind, place))
            return _block(4)

        return kept.get(kind, place, make)

    for _ in range(3):
        for place in range(4):
            get("first", place)
    # Two fit; the other two are made in every round.
    assert made.count(("first", 0)) == made.count(("first", 1)) == 1
    assert made.count(("first", 2)) == made.count(("first", 3)) == 3
    made.clear()
    for _ in range(2):
        for place in range(2):
            get("second", place)
    assert made == [("second", 0), ("second", 1)]
    assert get("second", 1) is get("second", 1)


class _Client:
    def nthreads(self):
        return {"tcp://b": 1, "tcp://a": 2}


def _count(block, _):
    return (np.array([len(block.slices)]),), ()


def test_parts_of_a_pass_have_a_home():
    homes = {}

    def compute(*collections):
        for each in collections:
            for layer in each.dask.layers.values():
                workers = (layer.annotations or {}).get("workers")
                for key in layer if workers else ():
                    homes[key] = workers(key) if callable(workers) else workers
                assert not workers or layer.annotations["allow_other_workers"]
        return dask.compute(*collections, scheduler="sync")

    placed = Placed(compute, _Client())
    assert placed.homes == ["tcp://a", "tcp://a", "tcp://b"]
    sources = fake_sources(fake_particles(60, seed=2), blocks=6)
    (total,), _ = run_pass(sources, _count, radius=4, compute=placed)
    assert total == 60
    found = [each[0] for each in homes.values() if isinstance(each, list)]
    assert sorted(found) == ["tcp://a"] * 4 + ["tcp://b"] * 2
