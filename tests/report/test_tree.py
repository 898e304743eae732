from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from scipy.cluster import hierarchy

from emhet_dask.report.palette import state_colour
from emhet_dask.report.tree import dendrogram


def _lines(figure) -> LineCollection:
    (found,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    return found


def _scipy(linkage: np.ndarray, leaves: int) -> np.ndarray:
    """SciPy's picture of the upper part of a tree, its leaves at 0, 1, 2, …."""
    found = hierarchy.dendrogram(linkage, p=leaves, truncate_mode="lastp", no_plot=True)
    x = (np.array(found["icoord"]) - 5) / 10
    return np.stack([x, np.array(found["dcoord"])], axis=2)


def _sorted(lines: np.ndarray) -> np.ndarray:
    return lines[np.lexsort((lines[:, 0, 0], lines[:, 1, 1]))]


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(3, 40),
    leaves=st.integers(2, 45),
    method=st.sampled_from(["ward", "average", "single", "complete"]),
    seed=st.integers(0, 99),
)
def test_lines_are_those_of_scipy(n: int, leaves: int, method: str, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    linkage = hierarchy.linkage(points, method=method)
    figure = dendrogram(linkage, states=np.zeros(n, int), most_leaves=leaves)
    ours = np.array(_lines(figure).get_segments())
    np.testing.assert_allclose(_sorted(ours), _sorted(_scipy(linkage, min(leaves, n))))


def test_cut_lies_between_the_merges_that_it_keeps_and_undoes(small) -> None:
    figure = dendrogram(small.linkage, states=small.labels)
    axes = figure.axes[0]
    height = axes.lines[0].get_ydata()[0]
    assert np.sum(small.linkage[:, 2] > height) == 3
    assert "cut:\n4 states" in [text.get_text() for text in axes.texts]
    assert axes.get_ylabel() == "distance between merged clusters"


def test_branches_below_the_cut_have_the_colour_of_their_state(small) -> None:
    figure = dendrogram(small.linkage, states=small.labels)
    cut = figure.axes[0].lines[0].get_ydata()[0]
    drawn = _lines(figure)
    colours = {to_rgb(state_colour(k)) for k in range(4)}
    for segment, colour in zip(drawn.get_segments(), drawn.get_colors(), strict=True):
        assert (tuple(colour[:3]) in colours) == (segment[1][1] < cut)


def test_every_state_is_numbered_below_its_leaves(small) -> None:
    figure = dendrogram(small.linkage, states=small.labels, names=small.names)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"0", "1", "2", "3"} <= set(texts)
    assert set(small.names) <= set(texts)


def test_a_large_tree_shows_a_leaf_per_state_and_says_that_it_is_cut() -> None:
    rng = np.random.default_rng(0)
    states = np.repeat(np.arange(150), 4)
    points = 100 * rng.normal(size=(150, 5))[states] + rng.normal(size=(600, 5))
    figure = dendrogram(hierarchy.linkage(points, "ward"), states=states)
    assert len(_lines(figure).get_segments()) == 149
    assert any("upper 149 merges" in text.get_text() for text in figure.texts)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {str(k) for k in range(150)} <= texts


def test_deep_chains_do_not_exhaust_the_stack() -> None:
    n = 3000
    height = np.arange(1.0, n)
    chain = np.stack([np.arange(n - 2, 2 * n - 3), np.arange(1, n), height, height + 1], axis=1)
    chain[0, 0] = 0
    chain[1:, 0] = n + np.arange(n - 2)
    figure = dendrogram(chain, states=np.zeros(n, int))
    assert len(_lines(figure).get_segments()) == 99


@pytest.mark.parametrize("n", [1, 2])
def test_smallest_trees(n: int) -> None:
    linkage = np.empty((0, 4)) if n == 1 else [[0, 1, 2.0, 2]]
    figure = dendrogram(linkage, states=np.zeros(n, int), noun="cluster")
    assert "cut into 1 cluster" in figure.get_suptitle()
    assert len(_lines(figure).get_segments()) == n - 1


def test_leaves_may_stand_for_several_volumes(small) -> None:
    figure = dendrogram(small.linkage, states=small.labels, sizes=np.full(40, 25))
    assert figure.get_suptitle() == "Tree of 1,000 volumes, cut into 4 states"


def test_long_names_stay_within_the_figure() -> None:
    rng = np.random.default_rng(0)
    linkage = hierarchy.linkage(rng.normal(size=(30, 3)), "average")
    names = [f"run_it025_class{k:03d}_sharpened_and_masked_and_filtered" for k in range(30)]
    figure = dendrogram(linkage, states=np.zeros(30, int), names=names)
    figure.draw_without_rendering()
    bottoms = [text.get_window_extent().y0 for text in figure.axes[0].texts]
    assert min(bottoms) >= 0
    written = {text.get_text() for text in figure.axes[0].texts if "…" in text.get_text()}
    assert len(written) == 30


def test_leaves_may_begin_above_zero() -> None:
    linkage = [[0, 1, 8.0, 2], [2, 3, 11.0, 3]]
    figure = dendrogram(linkage, states=[0, 0, 1], leaf_height=6.0)
    assert figure.axes[0].get_ylim()[0] == 6.0
    assert min(point[1] for line in _lines(figure).get_segments() for point in line) == 6.0
