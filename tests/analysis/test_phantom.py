"""Rendered atoms are Gaussians where they should be, and packed bodies keep apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from emhet_dask.analysis.phantom import Grid, ellipsoid_atoms, label_map, packed_bodies
from emhet_dask.errors import InputError


def gaussians(grid: Grid, atoms: np.ndarray) -> np.ndarray:
    """Sum unit-mass Gaussians directly; sigma of exp(-(s d)^2) is d / (pi sqrt 2)."""
    sigma = grid.resolution_angstrom / (np.pi * np.sqrt(2.0))
    axis = (np.arange(grid.box) - grid.box // 2) * grid.voxel_size_angstrom
    density = np.zeros(grid.shape)
    for z, y, x in atoms:
        along = [np.exp(-((axis - c) ** 2) / (2 * sigma**2)) for c in (z, y, x)]
        density += along[0][:, None, None] * along[1][None, :, None] * along[2][None, None, :]
    return density * grid.voxel_size_angstrom**3 / (2 * np.pi * sigma**2) ** 1.5


@pytest.mark.parametrize("resolution", [10.0, 15.0])
def test_rendered_atoms_equal_sums_of_gaussians(resolution):
    grid = Grid(24, 3.0, resolution)
    atoms = np.random.default_rng(0).uniform(-15, 15, size=(7, 3))
    direct = gaussians(grid, atoms)
    # What is left is the spectrum beyond Nyquist, which the grid cannot hold.
    assert np.abs(grid.render(atoms) - direct).max() < 0.03 * direct.max()


def test_noise_has_unit_variance_and_the_spectrum_of_the_filter():
    grid = Grid(32, 3.0, 12.0)
    rng = np.random.default_rng(1)
    noise = np.stack([grid.noise(rng) for _ in range(40)])
    assert noise.var() == pytest.approx(1.0, rel=0.02)
    sigma = 12.0 / (np.pi * np.sqrt(2.0)) / 3.0
    white = np.random.default_rng(2).standard_normal((40, 32, 32, 32))
    smooth = np.stack([gaussian_filter(w, sigma, mode="wrap", truncate=6.0) for w in white])
    smooth /= smooth.std()
    neighbours = [np.mean(v[:, :-1] * v[:, 1:]) for v in (noise, smooth)]
    assert neighbours[0] == pytest.approx(neighbours[1], abs=0.02)


def test_bodies_keep_the_gap_and_stay_in_the_sphere():
    bodies = packed_bodies(
        np.random.default_rng(3), n_bodies=6, radius_angstrom=60.0, gap_angstrom=10.0
    )
    assert len(bodies) == 6
    for k, body in enumerate(bodies):
        assert np.linalg.norm(body, axis=1).max() <= 60.0
        others = np.concatenate(bodies[:k] + bodies[k + 1 :])
        assert cKDTree(others).query(body)[0].min() >= 10.0
    distances = [np.linalg.norm(body.mean(axis=0)) for body in bodies]
    assert int(np.argmin(distances)) == 0


def test_touching_bodies_leave_no_gap():
    bodies = packed_bodies(
        np.random.default_rng(3), n_bodies=6, radius_angstrom=60.0, gap_angstrom=0.0
    )
    nearest = [
        cKDTree(np.concatenate(bodies[:k] + bodies[k + 1 :])).query(body)[0].min()
        for k, body in enumerate(bodies)
    ]
    assert max(nearest) < 10.0


def test_labels_follow_the_densest_body():
    grid = Grid(32, 4.0, 12.0)
    rng = np.random.default_rng(4)
    left = ellipsoid_atoms(rng, np.array([15.0, 15.0, 15.0])) - np.array([0.0, 0.0, 25.0])
    right = ellipsoid_atoms(rng, np.array([12.0, 12.0, 12.0])) + np.array([0.0, 0.0, 25.0])
    labels = label_map(np.stack([grid.render(left), grid.render(right)]))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert not np.any(labels[:, :, 16:] == 1)
    assert not np.any(labels[:, :, :16] == 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((8, 3.0, 12.0), "box: found 8"), ((32, 0.0, 12.0), "voxel size"), ((32, 3.0, -1.0), "resol")],
)
def test_impossible_grids_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Grid(*arguments)
