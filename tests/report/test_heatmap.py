from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from emhet_dask.report.heatmap import similarity_heatmap
from emhet_dask.report.palette import state_colour
from emhet_dask.report.quantities import quantity
from emhet_dask.report.style import to_png

CORRELATION = quantity("correlation")


def _note(figure) -> str:
    return " ".join(figure.texts[1].get_text().split())


def _maps(n: int, *, groups: int = 3, seed: int = 0):
    """Correlations of maps in groups, their tree, and the cut of it into as many clusters."""
    rng = np.random.default_rng(seed)
    rows = 3 * rng.normal(size=(groups, 20))[rng.integers(groups, size=n)]
    matrix = np.corrcoef(rows + rng.normal(size=(n, 20)))
    linkage = hierarchy.linkage(squareform(1 - matrix, checks=False), "average")
    states = hierarchy.fcluster(linkage, groups, "maxclust") - 1
    return matrix, linkage, states


def _draw(n: int, **options):
    matrix, linkage, states = _maps(n)
    options = {"linkage": linkage, "states": states, "quantity": CORRELATION} | options
    return similarity_heatmap(matrix, **options)


def _image(figure):
    return figure.axes[0].images[0]


def _words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_rows_and_columns_are_in_the_order_of_the_tree() -> None:
    matrix, linkage, states = _maps(12)
    figure = similarity_heatmap(matrix, quantity=CORRELATION, linkage=linkage, states=states)
    order = hierarchy.leaves_list(linkage)
    drawn = _image(figure).get_array()
    off = ~np.eye(12, dtype=bool)
    np.testing.assert_allclose(drawn[off], matrix[np.ix_(order, order)][off])
    assert drawn.mask[~off].all()


def test_the_tree_above_is_that_of_scipy_over_the_middles_of_the_columns() -> None:
    _, linkage, _ = _maps(12)
    figure = _draw(12)
    above = figure.axes[-1]
    (lines,) = (c for c in above.collections if isinstance(c, LineCollection))
    found = hierarchy.dendrogram(linkage, no_plot=True)
    expected = np.stack([np.array(found["icoord"]) / 10, np.array(found["dcoord"])], axis=2)
    ours = np.array(lines.get_segments())
    for segments in (ours, expected):
        segments[:] = segments[np.lexsort((segments[:, 0, 0], segments[:, 1, 1]))]
    np.testing.assert_allclose(ours, expected)
    assert above.get_xlim() == figure.axes[0].get_xlim()
    cut = above.lines[0].get_ydata()[0]
    assert np.sum(linkage[:, 2] > cut) == 2
    assert above.get_ylabel() == "1 − correlation"


def test_colours_come_from_the_pairs_and_not_from_the_diagonal() -> None:
    matrix = np.array([[1.0, 0.31, 0.30], [0.31, 1.0, 0.32], [0.30, 0.32, 1.0]])
    linkage = hierarchy.linkage(squareform(1 - matrix), "average")
    figure = similarity_heatmap(matrix, quantity=CORRELATION, linkage=linkage, states=[0, 0, 0])
    assert _image(figure).get_clim() == pytest.approx((0.30, 0.32))


def test_one_odd_map_among_many_does_not_take_the_colours() -> None:
    matrix, _, _ = _maps(300)
    matrix[7, :] = matrix[:, 7] = -0.99
    linkage = hierarchy.linkage(squareform(1 - matrix, checks=False), "average")
    figure = similarity_heatmap(
        matrix, quantity=CORRELATION, linkage=linkage, states=np.zeros(300, int)
    )
    assert _image(figure).get_clim()[0] > -0.9
    assert "1st to the 99th percentile" in _note(figure)


def test_names_stand_on_both_axes_in_the_order_of_the_tree() -> None:
    _, linkage, _ = _maps(12)
    names = [f"map {k}" for k in range(12)]
    figure = _draw(12, names=names)
    expected = [names[k] for k in hierarchy.leaves_list(linkage)]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == expected


def test_names_are_thinned_where_they_would_touch_and_left_out_of_many() -> None:
    names = [f"map {k}" for k in range(700)]
    some = _draw(200, names=names[:200])
    assert 40 <= len(some.axes[0].get_yticklabels()) <= 80
    assert "One in 3 names is written." in _note(some)
    assert not _draw(700, names=names).axes[0].get_yticklabels()


def test_values_stand_in_their_cells_where_they_can_be_read() -> None:
    matrix, linkage, _ = _maps(8)
    figure = _draw(8)
    order = hierarchy.leaves_list(linkage)
    for text in figure.axes[0].texts:
        column, row = (int(np.floor(x)) for x in text.get_position())
        if 0 <= column < 8 and 0 <= row < 8:
            expected = matrix[order[row], order[column]]
            assert float(text.get_text()) == pytest.approx(expected, abs=0.006)
    assert sum("." in word for word in _words(figure)) == 8 * 7
    assert not any("." in word for word in _words(_draw(60)))


@pytest.mark.parametrize("metric", ["correlation", "l2"])
def test_values_stand_out_from_their_cells(metric: str) -> None:
    """WCAG 2.1 asks for a contrast of 4.5 for text."""
    figure = _draw(12, quantity=quantity(metric))
    image = _image(figure)
    shades = image.to_rgba(image.get_array())[..., :3]

    def luminance(colour):
        colour = np.asarray(colour)
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for text in figure.axes[0].texts:
        if "." not in text.get_text():
            continue
        column, row = (int(x) for x in text.get_position())
        pair = sorted([luminance(to_rgb(text.get_color())), luminance(shades[row, column])])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_small_differences_get_more_digits() -> None:
    matrix = np.array([[1.0, 0.971, 0.972], [0.971, 1.0, 0.974], [0.972, 0.974, 1.0]])
    linkage = hierarchy.linkage(squareform(1 - matrix), "average")
    figure = similarity_heatmap(matrix, quantity=CORRELATION, linkage=linkage, states=[0, 0, 0])
    assert {float(word) for word in _words(figure) if "." in word} == {0.971, 0.972, 0.974}


def test_dark_means_alike_for_similarities_and_for_distances() -> None:
    for name, alike in (("correlation", 1.0), ("fsc-resolution", 0.0)):
        image = _image(_draw(12, quantity=quantity(name)))
        dark = sum(image.cmap(alike)[:3])
        assert dark < sum(image.cmap(1 - alike)[:3]) - 1


def test_bar_of_colours_has_the_metric_and_its_unit_and_ends_alike() -> None:
    for name in ("correlation", "fsc-resolution"):
        figure = _draw(12, quantity=quantity(name))
        bar = figure.axes[1]
        assert bar.get_ylabel() == quantity(name).label
        low, high = bar.get_ylim()
        assert (high > low) == quantity(name).larger_is_closer
        assert "alike" in [text.get_text() for text in figure.texts]


def test_clusters_have_their_colours_numbers_and_borders() -> None:
    _, linkage, states = _maps(12)
    figure = _draw(12)
    axes = figure.axes[0]
    in_order = states[hierarchy.leaves_list(linkage)]
    edges = set((np.flatnonzero(np.diff(in_order)) + 1).tolist())
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    horizontal = {line[0][1] for line in lines.get_segments() if line[0][1] == line[1][1]}
    assert horizontal == edges
    assert {"0", "1", "2", "cluster"} <= set(_words(figure))
    bands = {
        (patch.get_x(), patch.get_width(), tuple(patch.get_facecolor()[:3]))
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_y() < 0 and patch.get_height() < 1
    }
    assert bands == {
        (np.flatnonzero(in_order == k)[0], np.sum(in_order == k), to_rgb(state_colour(k)))
        for k in range(3)
    }


def test_maps_without_values_come_last_hatched_and_named() -> None:
    matrix, linkage, states = _maps(9)
    full = np.full((10, 10), np.nan)
    kept = np.delete(np.arange(10), 4)
    full[np.ix_(kept, kept)] = matrix
    names = [f"map {k}" for k in range(10)]
    figure = similarity_heatmap(
        full,
        quantity=CORRELATION,
        linkage=linkage,
        states=np.insert(states, 4, 0),
        names=names,
    )
    axes = figure.axes[0]
    assert axes.get_yticklabels()[-1].get_text() == "map 4"
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert {(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in hatched} == {
        (9, 0, 1, 10),
        (0, 9, 9, 1),
    }
    assert "Hatched: a map that has no values (map 4)" in _note(figure)
    assert "10 maps in 3 clusters" in figure.get_suptitle()


def test_leaves_may_begin_above_zero() -> None:
    matrix = 6 + 20 * (1 - _maps(9)[0])
    linkage = hierarchy.linkage(squareform(matrix * (1 - np.eye(9)), checks=False), "average")
    figure = similarity_heatmap(
        matrix,
        quantity=quantity("fsc-resolution"),
        linkage=linkage,
        states=np.zeros(9, int),
        leaf_height=6.0,
    )
    assert figure.axes[-1].get_ylim()[0] == 6.0


def test_too_many_maps_and_trees_of_other_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="2,001 maps are too many"):
        similarity_heatmap(
            np.zeros((2001, 2001)), quantity=CORRELATION, linkage=[], states=np.zeros(2001)
        )
    matrix, linkage, states = _maps(9)
    with pytest.raises(ValueError, match="a tree of 8 leaves for 9 maps"):
        similarity_heatmap(matrix, quantity=CORRELATION, linkage=linkage[:-1], states=states)


@pytest.mark.parametrize("n", [1, 2])
def test_smallest_matrices(n: int) -> None:
    linkage = np.empty((0, 4)) if n == 1 else [[0, 1, 0.5, 2]]
    figure = similarity_heatmap(
        np.full((n, n), 0.5), quantity=CORRELATION, linkage=linkage, states=np.zeros(n, int)
    )
    to_png(figure)
    assert f"{n} map" in figure.get_suptitle()
