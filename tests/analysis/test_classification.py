"""Classes by maximum likelihood: leave-one-out against leaving out, and states that are known."""

import dask
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from emhet_dask.analysis.classification import (
    ClassSums,
    add_up,
    classes_of,
    informative_shell,
    judge,
    next_prior,
)
from emhet_dask.analysis.common_map import consensus_and_noise
from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.projection import plan_slices
from emhet_dask.analysis.seeding import find_start
from emhet_dask.analysis.subspace import fit_subspace, held_out
from emhet_dask.analysis.support import sphere, support_of
from tests.fake_particles import FakeSource, fake_particles, fake_sources

GRID = plan_slices(32, radius=8)
FULL = plan_slices(32)


def compute(*collections):
    return dask.compute(*collections, scheduler="sync")


def prepared(particles, *, blocks=3):
    sources = fake_sources(particles, blocks=blocks)
    groups = [np.zeros(source.n_particles, dtype=np.int64) for source in sources]
    transform, weight, noise = consensus_and_noise(
        sources, groups, n_groups=1, grid=FULL, compute=compute
    )

    def mean(grid):
        cut = FULL.reach - grid.reach
        ends = slice(cut, FULL.shape[0] - cut)
        cube = transform.reshape(FULL.shape)[ends, ends, : grid.reach + 1]
        return np.where(grid.voxel_radius <= grid.radius + 1, cube.reshape(-1), 0)

    return fake_sources(particles, blocks=blocks, mean=mean, noise=noise[0]), mean, noise, weight


@pytest.fixture(scope="module")
def two_states():
    particles = fake_particles(600, snr=0.3, seed=11, shifted=True)
    return particles, *prepared(particles)


def test_noise_is_that_of_the_images():
    particles = fake_particles(500, snr=0.05, shares=(1.0,), seed=2)
    _, _, noise, weight = prepared(particles)
    # White noise of known variance: 32² times it in each coefficient.
    outside = particles.images[:, :3].astype(np.float64)
    expected = 32 * outside.std()
    np.testing.assert_allclose(noise[0, 4:14], expected, rtol=0.06)
    assert weight.shape == (FULL.n_voxels,)


def test_consensus_is_the_map_of_the_particles():
    particles = fake_particles(500, snr=5.0, shares=(1.0,), seed=3)
    sources, mean, _, _ = prepared(particles)
    plain = FakeSource(particles, np.arange(40)).load(8)
    seen = plain.predict(mean(GRID)[:, None])[..., 0]
    alike = np.vdot(seen, plain.slices).real / (np.linalg.norm(seen) * np.linalg.norm(plain.slices))
    assert alike > 0.97
    assert len(sources) == 3


def test_without_an_image_is_without_it(two_states):
    particles, sources, *_ = two_states
    prior = np.full(9, 2.0)
    rows = np.arange(len(particles))
    weights = np.stack([particles.states == 0, particles.states == 1], 1).astype(np.float32)
    noise = np.ones(9)
    classes = classes_of(add_up(sources, weights, grid=GRID, noise=noise, compute=compute), prior)
    found = judge(sources, classes, weights, noise=noise, compute=compute)
    for row in (0, 7, 333):
        others = [FakeSource(particles, rows[rows != row], sources[0].mean, sources[0].noise)]
        alone = [FakeSource(particles, rows[[row]], sources[0].mean, sources[0].noise)]
        left = weights[rows != row]
        without = classes_of(add_up(others, left, grid=GRID, noise=noise, compute=compute), prior)
        # An image that is in no class has weight 0, and nothing is taken out.
        expected = judge(alone, without, np.zeros((1, 2), np.float32), noise=noise, compute=compute)
        included = judge(alone, classes, np.zeros((1, 2), np.float32), noise=noise, compute=compute)
        error = abs(found.log_likelihood[row] - expected.log_likelihood[0])
        uncorrected = abs(included.log_likelihood[0] - expected.log_likelihood[0])
        assert error < 0.2 * uncorrected


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_any_cut_into_blocks_gives_the_same(two_states, blocks):
    particles, sources, *_ = two_states
    others = fake_sources(particles, blocks=blocks, mean=sources[0].mean, noise=sources[0].noise)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet([1, 1], len(particles)).astype(np.float32)
    results = []
    for each in (sources, others):
        sums = add_up(each, weights, grid=GRID, noise=np.ones(9), compute=compute)
        classes = classes_of(sums, next_prior(sums) + 1.0)
        results.append(judge(each, classes, weights, noise=np.ones(9), compute=compute))
    np.testing.assert_allclose(results[0].posteriors, results[1].posteriors, atol=2e-3)
    np.testing.assert_allclose(
        results[0].log_likelihood, results[1].log_likelihood, rtol=1e-3, atol=1e-2
    )
    np.testing.assert_allclose(results[0].noise, results[1].noise, rtol=1e-4)


def test_states_are_found_from_two_halves(two_states):
    particles, sources, mean, *_ = two_states
    halves = tuple(
        [
            FakeSource(particles, source.rows[parity::2], source.mean, source.noise)
            for source in sources
        ]
        for parity in (0, 1)
    )
    grid = plan_slices(32, radius=6)
    power = shell_mean(np.square(np.abs(mean(grid))), grid)
    start = find_start(
        halves,
        0.1 * power,
        grid=grid,
        n_classes=None,
        most=3,
        n_components=3,
        restarts=2,
        seed=0,
        compute=compute,
    )
    assert start.n_supported == 2
    assert start.log_likelihood[0] == 0
    assert start.posteriors.shape == (600, 2)
    posteriors, noise = start.posteriors, np.ones(9)
    support = support_of(sphere(32, diameter=28), GRID)
    for _ in range(2):
        sums = add_up(sources, posteriors, grid=GRID, noise=noise, compute=compute)
        prior = next_prior(sums)
        found = judge(
            sources,
            classes_of(sums, 4 * prior, support=support),
            posteriors,
            noise=noise,
            compute=compute,
        )
        posteriors, noise = found.posteriors, found.noise
    assert adjusted_rand_score(particles.states, posteriors.argmax(axis=1)) > 0.97
    assert informative_shell(sums, prior) >= 4
    # What the states differ by was noise to the consensus.
    assert (noise[1:] < 1.05).all()
    np.testing.assert_allclose(noise[6:], 1.0, atol=0.05)


def test_components_of_noise_say_nothing_of_images_not_seen():
    particles = fake_particles(400, snr=0.1, shares=(1.0,), seed=5)
    sources, mean, *_ = prepared(particles, blocks=4)
    grid = plan_slices(32, radius=5)
    prior = 0.1 * shell_mean(np.square(np.abs(mean(grid))), grid)
    space = fit_subspace(
        sources[:2], prior, grid=grid, n_components=2, iterations=6, compute=compute
    )
    assert (np.diff(space.power) <= 0).all()
    unseen = held_out(sources[2:], space.components, grid=grid, compute=compute)
    own = np.einsum("naa->na", unseen.precision)
    # Coefficients of 0, seen through noise: the mean square of the pull is the precision.
    np.testing.assert_allclose(np.square(unseen.pull).sum(0) / own.sum(0), 1.0, atol=0.35)


def test_a_shell_of_noise_has_no_variance():
    rng = np.random.default_rng(0)
    weight = np.full((GRID.n_voxels, 2), 50.0, dtype=np.float32)
    noise = rng.normal(size=(2, GRID.n_voxels, 2)) * np.sqrt(0.5 * 50.0 * 8 / 27)
    data = (noise[0] + 1j * noise[1]).astype(np.complex64)
    data[GRID.voxel_shell == 3] *= 4
    found = next_prior(ClassSums(GRID, data, weight, np.array([0.5, 0.5])))
    assert found[3] == pytest.approx(15 * 8 / 27 / 50, rel=0.2)
    assert (np.delete(found, 3) < 0.1 * found[3]).all()
