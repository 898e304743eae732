"""Point groups, and sums over them."""

import numpy as np
import pytest

from emhet_dask.analysis.projection import plan_slices, volume_transform
from emhet_dask.analysis.symmetry import symmetrise, symmetrise_columns, symmetry_operators
from emhet_dask.errors import InputError

ORDERS = {"C1": 1, "C5": 5, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I3": 60}


@pytest.mark.parametrize(("group", "order"), ORDERS.items())
def test_groups_are_groups(group, order):
    operators = symmetry_operators(group)
    assert len(operators) == order
    np.testing.assert_array_equal(operators[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(operators), 1.0)
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 9)
    apart = np.abs(products[:, None] - operators.reshape(1, -1, 9)).max(axis=2)
    assert apart.min(axis=1).max() < 1e-9
    assert len(np.unique(operators.reshape(-1, 9).round(6), axis=0)) == order


# Operators that `relion_refine --print_symmetry_ops` 3.1.3 lists.
@pytest.mark.parametrize(
    ("group", "row"),
    [
        ("D2", [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
        ("O", [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
        ("I", [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        (
            "I",
            [[0.30902, 0.5, -0.80902], [0.5, -0.80902, -0.30902], [-0.80902, -0.30902, -0.5]],
        ),
    ],
)
def test_settings_are_relions(group, row):
    assert np.abs(symmetry_operators(group) - np.array(row)).max(axis=(1, 2)).min() < 1e-5


@pytest.mark.parametrize("group", ["C0", "D", "I5", "C1000", "X", "", "C3v"])
def test_what_is_no_group_is_refused(group):
    with pytest.raises(InputError, match="--symmetry"):
        symmetry_operators(group)


def transform(volume, grid):
    return volume_transform(volume, grid), np.ones(grid.n_voxels, dtype=np.float32)


@pytest.mark.parametrize("group", ["C2", "C4", "D2"])
def test_sums_over_turns_that_keep_the_grid_are_exact(group):
    """The map turned in real space, where these turns permute the voxels."""
    grid = plan_slices(16, radius=7)
    volume = np.random.default_rng(0).standard_normal((16,) * 3).astype(np.float32)
    volume[0], volume[:, 0], volume[..., 0] = 0, 0, 0  # then the middle is a middle
    axis = np.arange(1, 16) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    total = np.zeros_like(volume)
    for turn in symmetry_operators(group):
        place = np.rint(np.einsum("ij,j...->i...", turn, np.stack([x, y, z]))).astype(int) + 8
        total[1:, 1:, 1:] += volume[place[2], place[1], place[0]]
    found, weight = symmetrise(*transform(volume, grid), grid, symmetry_operators(group))
    expected, _ = transform(total, grid)
    inside = grid.voxel_radius <= grid.radius - 1
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)
    heavy = weight.reshape(grid.shape)[1:-1, 1:-1, 1:-1].reshape(-1)
    within = inside.reshape(grid.shape)[1:-1, 1:-1, 1:-1].reshape(-1)
    np.testing.assert_allclose(heavy[within], len(symmetry_operators(group)), rtol=1e-5)


def test_a_ball_has_every_symmetry():
    grid = plan_slices(16)
    axis = np.arange(16) - 8
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    data, weight = transform(np.exp(-square / 6.0), grid)
    found, heavy = symmetrise(data, weight, grid, symmetry_operators("O"))
    inside = grid.voxel_radius <= grid.radius - 1
    np.testing.assert_allclose(
        found[inside], 24 * data[inside], atol=0.02 * np.abs(24 * data).max()
    )
    np.testing.assert_allclose(heavy[inside], 24, rtol=1e-4)


@pytest.mark.parametrize("group", ["C1", "C3", "D2", "T", "I"])
def test_many_sums_at_a_time_are_the_same(group):
    grid = plan_slices(16, radius=5)
    rng = np.random.default_rng(1)
    data = np.stack([volume_transform(rng.standard_normal((16,) * 3), grid) for _ in range(3)], 1)
    weight = rng.uniform(1, 2, (grid.n_voxels, 3)).astype(np.float32)
    operators = symmetry_operators(group)
    found = symmetrise_columns(data, grid, operators), symmetrise_columns(weight, grid, operators)
    for column in range(3):
        expected = symmetrise(data[:, column], weight[:, column], grid, operators)
        scale = np.abs(expected[0]).max()
        np.testing.assert_allclose(found[0][:, column], expected[0], atol=1e-5 * scale)
        np.testing.assert_allclose(found[1][:, column], expected[1], rtol=1e-5)
