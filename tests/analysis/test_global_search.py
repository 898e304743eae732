"""Poses that are looked for among all: those that images were made with come back."""

import dask
import numpy as np
import pytest

from emhet_dask.analysis.global_search import (
    Scan,
    coarse_radius,
    orientations,
    search_everywhere,
)
from emhet_dask.analysis.local_search import Poses, angles_between
from emhet_dask.analysis.projection import plan_slices
from emhet_dask.analysis.rotations import angle_between, even_rotations, rotation_count
from emhet_dask.analysis.symmetry import symmetry_operators
from tests.analysis.test_classification import prepared
from tests.fake_particles import FakeParticles, fake_particles, fake_sources

COUNT = 60
GRID = plan_slices(32, radius=8)


def compute(*collections):
    return dask.compute(*collections, scheduler="sync")


@pytest.mark.parametrize("group", ["C1", "C4", "D2"])
def test_every_view_is_near_one_of_the_grid(group):
    operators = symmetry_operators(group)
    turns = orientations(20.0, operators)
    whole = rotation_count(20.0)
    assert len(turns) == pytest.approx(whole / len(operators), rel=0.06)
    anywhere = even_rotations(97)
    same = np.einsum("nij,ojk->noik", anywhere, operators)
    away = angle_between(same[:, :, None], turns).min(axis=(1, 2))
    assert away.max() < 20.0


def test_shells_of_the_coarse_grid_follow_its_spacing():
    assert coarse_radius(7.5) == 8
    assert coarse_radius(15.0) == 4
    assert coarse_radius(60.0) == 1


@pytest.fixture(scope="module")
def lost():
    """Particles, their map, and their images with nothing known of poses but rough shifts."""
    particles = fake_particles(COUNT, snr=4.0, shares=(1.0,), seed=3, shifted=True)
    _, mean, noise, _ = prepared(particles)
    rng = np.random.default_rng(5)
    nothing = FakeParticles(
        particles.images,
        np.zeros((COUNT, 3)),
        particles.shifts + rng.uniform(-1.5, 1.5, (COUNT, 2)),
        particles.defocus,
        particles.states,
        particles.bodies,
    )
    return particles, nothing, mean, noise


def found(lost, maps, *, blocks=2, shares=None, **scan):
    _, nothing, _, noise = lost
    sources = fake_sources(nothing, blocks=blocks)
    return search_everywhere(
        sources,
        [np.zeros(source.n_particles, dtype=np.int64) for source in sources],
        noise,
        maps,
        given=Poses(nothing.angles, nothing.shifts),
        scan=Scan(spacing_degrees=12.0, reach_pixels=3.0, **scan),
        grid=GRID,
        shares=shares,
        compute=compute,
    )


@pytest.mark.parametrize(("free_scale", "factor"), [(False, 1.0), (True, 40.0)])
def test_poses_come_back_whatever_the_grey_scale_where_it_is_free(lost, free_scale, factor):
    particles, _, mean, _ = lost
    poses, scores = found(lost, factor * mean(GRID)[:, None], free_scale=free_scale)
    away = angles_between(poses.angles, particles.angles)
    assert np.median(away) < 3.0
    assert (away < 12.0).mean() > 0.9
    right = away < 12.0
    assert np.median(np.abs(poses.shifts - particles.shifts)[right]) < 0.25
    assert (scores > 0).all()


def test_blocks_do_not_matter(lost):
    maps = lost[2](GRID)[:, None]
    one, other = (found(lost, maps, blocks=blocks)[0] for blocks in (1, 4))
    assert np.median(angles_between(one.angles, other.angles)) < 1e-6


def test_images_are_compared_with_all_maps(lost):
    particles, _, mean, _ = lost
    true = mean(GRID)
    # Another map, of which the first has nothing: its slices, at random phases.
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, len(true))
    other = (true * np.exp(1j * phases)).astype(np.complex64)
    poses, scores = found(lost, np.stack([other, true], axis=1))
    assert np.median(angles_between(poses.angles, particles.angles)) < 3.0
    _, alone = found(lost, other[:, None])
    assert (scores > alone - np.log(2)).mean() > 0.95
    one, two = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    maps = np.stack([other, true], axis=1)
    rare, common = (found(lost, maps, shares=shares)[1] for shares in (one, two))
    assert np.median(common - rare) == pytest.approx(np.log(9.0), abs=1e-3)
