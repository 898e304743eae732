"""The clustermap: every value in its place, means over columns, trees, and all sizes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from scipy.cluster import hierarchy

from emhet_dask.report.clustermap import _grouped, _volume_tree, occupancy_clustermap
from emhet_dask.report.style import to_png


def made(n_volumes, n_parts, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((n_volumes, n_parts)) < 0.5
    values = np.where(present, 0.9, 0.1) + rng.uniform(-0.05, 0.05, present.shape)
    names = [f"block_{part:03d}" for part in range(1, n_parts + 1)]
    return pd.DataFrame(values, columns=names), present


def meshes(figure):
    """Return the meshes of values; the bar of colours is one of 256 × 1, the states are colours."""
    found = [
        mesh for axes in figure.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)
    ]
    return [mesh for mesh in found if mesh.get_array().ndim == 2 and len(mesh.get_array()) != 256]


def matrix(figure):
    """Return the drawn values (part, column)."""
    return meshes(figure)[0].get_array()


def test_every_value_is_drawn_in_the_order_of_the_trees():
    table, _ = made(20, 6)
    drawn = matrix(occupancy_clustermap(table))
    columns = hierarchy.leaves_list(hierarchy.linkage(table.to_numpy(), "ward"))
    rows = hierarchy.leaves_list(hierarchy.linkage(table.to_numpy().T, "ward"))
    assert drawn.shape == (6, 20)
    found = {tuple(np.sort(column).round(9)) for column in drawn.T}
    assert found == {tuple(np.sort(row).round(9)) for row in table.to_numpy()}
    # The same neighbours as in SciPy's order, which numbers the volumes otherwise.
    expected = table.to_numpy()[columns][:, rows].T
    np.testing.assert_allclose(np.sort(drawn, axis=1), np.sort(expected, axis=1))


def test_columns_are_means_of_neighbours():
    table, present = made(5000, 3)
    figure = occupancy_clustermap(table, presence=present)
    drawn = matrix(figure)
    assert drawn.shape == (3, 640)
    np.testing.assert_allclose(np.sort(drawn.mean(axis=1)), np.sort(table.mean()), atol=1e-3)
    assert "mean of about 8 volumes" in figure.texts[-1].get_text()
    # Alike ones come together: of so many volumes of eight kinds few columns are mixed.
    assert ((drawn > 0.2) & (drawn < 0.8)).any(axis=0).mean() < 0.05


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 4), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_groups_hold_like_volumes_and_every_volume(seed, n_volumes, n_parts, most):
    values = np.random.default_rng(seed).integers(0, 4, (n_volumes, n_parts)).astype(float)
    group = _grouped(values, most=most)
    distinct = len(np.unique(values, axis=0))
    assert len(np.unique(group)) == min(most, distinct)
    assert set(group) == set(range(min(most, distinct)))
    if distinct <= most:  # then equal volumes, and only they, are together
        for number in set(group):
            assert len(np.unique(values[group == number], axis=0)) == 1


def test_volumes_of_few_kinds_are_one_leaf_each():
    leaf, merges = _volume_tree(np.repeat(np.eye(3), 4000, axis=0))
    assert np.bincount(leaf).tolist() == [4000] * 3
    assert merges.shape == (2, 4)


@pytest.mark.parametrize(
    ("n_volumes", "n_parts"), [(1, 1), (2, 1), (20, 3), (300, 40), (1200, 120)]
)
def test_any_size_can_be_drawn(n_volumes, n_parts):
    table, present = made(n_volumes, n_parts)
    states = np.arange(n_volumes) % 3
    figure = occupancy_clustermap(table, presence=present, states=states, title="Of these")
    assert to_png(figure, dpi=30).startswith(b"\x89PNG")
    width, height = figure.get_size_inches()
    assert width < 11
    assert height < 20
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert "occupancy" in labels


def test_names_stand_at_their_rows_with_their_colours():
    table, _ = made(30, 4)
    figure = occupancy_clustermap(table)
    names = {
        text.get_text(): round(text.get_position()[1] - 0.5)
        for axes in figure.axes
        for text in axes.texts
        if text.get_text().startswith("block")
    }
    drawn = matrix(figure)
    for name, row in names.items():
        np.testing.assert_allclose(np.sort(drawn[row]), np.sort(table[name]))


def test_what_is_not_known_and_what_is_no_fraction():
    table, _ = made(30, 3)
    table.iloc[3, 1] = np.nan
    drawn = occupancy_clustermap(table * 500, label="density")
    assert np.ma.count_masked(matrix(drawn)) == 1
    (norm,) = {(m.norm.vmin, m.norm.vmax) for m in meshes(drawn)}
    assert norm[1] > 400
    assert occupancy_clustermap(pd.DataFrame(np.zeros((5, 2)), columns=["a", "b"])) is not None
