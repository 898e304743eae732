from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from emhet_dask.report.palette import state_colour
from emhet_dask.report.scatter import component_label, pc_pairs, pc_scatter, state_scatter


def _key(figure) -> list[str]:
    (key,) = (axes for axes in figure.axes if axes.get_label() == "key")
    return [text.get_text() for text in key.texts]


def _panels(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "key"]


def _n_points(axes) -> int:
    return sum(len(drawn.get_offsets()) for drawn in axes.collections)


def test_axes_say_which_component_and_how_much_variance(small) -> None:
    figure = pc_scatter(small.scores, states=small.labels, ratios=small.ratios, components=(2, 0))
    (axes,) = _panels(figure)
    assert axes.get_xlabel() == f"PC3 ({small.ratios[2]:.1%} of variance)"
    assert axes.get_ylabel() == f"PC1 ({small.ratios[0]:.1%} of variance)"
    assert component_label(1) == "PC2"


def test_every_volume_is_drawn_in_the_colour_of_its_state(small) -> None:
    figure = pc_scatter(small.scores, states=small.labels)
    (points,) = _panels(figure)[0].collections
    drawn = {
        tuple(xy): tuple(rgba[:3])
        for xy, rgba in zip(points.get_offsets(), points.get_facecolors(), strict=True)
    }
    assert len(drawn) == 40
    for xy, state in zip(small.scores[:, :2], small.labels, strict=True):
        np.testing.assert_allclose(drawn[tuple(xy)], to_rgb(state_colour(int(state))))


def test_key_names_states_with_their_sizes_and_outliers(small) -> None:
    figure = pc_scatter(small.scores, states=small.labels, outliers=small.outliers)
    assert _key(figure) == [
        "state (volumes)",
        "state 0 (16)",
        "state 1 (12)",
        "state 2 (8)",
        "state 3 (4)",
        "outlier (1)",
    ]
    ring = _panels(figure)[0].collections[-1]
    np.testing.assert_allclose(ring.get_offsets(), small.scores[small.outliers, :2])


def test_clusters_that_are_no_states_are_not_called_so(small) -> None:
    for draw in (pc_scatter, pc_pairs):
        figure = draw(small.scores, states=small.labels, noun="cluster")
        assert "state" not in " ".join([*_key(figure), figure.get_suptitle()])


@pytest.mark.parametrize("n_states", [2, 30, 150])
def test_key_has_every_state_and_stays_inside_of_the_figure(n_states: int) -> None:
    rng = np.random.default_rng(0)
    states = np.concatenate([np.arange(n_states), rng.integers(0, n_states, 500)])
    figure = pc_scatter(rng.normal(size=(len(states), 2)), states=states)
    entries = [text for text in _key(figure) if "(" in text][1:]
    assert len(entries) == n_states
    figure.draw_without_rendering()
    (key,) = (axes for axes in figure.axes if axes.get_label() == "key")
    boxes = [text.get_window_extent() for text in key.texts]
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert min(box.y0 for box in boxes) >= 0
    # No entry is written over another.
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_key_without_room_counts_the_states_left_out() -> None:
    states = np.repeat(np.arange(300), 2)
    states[:5] = 299
    figure = pc_pairs(np.random.default_rng(0).normal(size=(600, 5)), states=states)
    entries = [text for text in _key(figure) if "(" in text][1:]
    assert f"and {300 - len(entries)} smaller states" in _key(figure)
    assert any(text.startswith("299 (") for text in entries)


def test_numbers_of_states_stand_at_their_members(small) -> None:
    (axes,) = _panels(pc_scatter(small.scores, states=small.labels))
    numbers = {int(text.get_text()): text.xy for text in axes.texts}
    assert set(numbers) == {0, 1, 2, 3}
    for state, (x, y) in numbers.items():
        members = small.scores[small.labels == state, :2]
        assert np.all(members.min(axis=0) <= (x, y))
        assert np.all((x, y) <= members.max(axis=0))


def test_few_volumes_are_named_and_many_are_not(small) -> None:
    (axes,) = _panels(pc_scatter(small.scores, states=small.labels, names=small.names))
    assert {text.get_text() for text in axes.texts} >= set(small.names)
    scores, states = np.tile(small.scores, (3, 1)), np.tile(small.labels, 3)
    (axes,) = _panels(pc_scatter(scores, states=states, names=3 * small.names))
    assert not any(text.get_text() in small.names for text in axes.texts)


def test_past_a_size_the_density_is_drawn_in_the_colour_of_the_majority() -> None:
    rng = np.random.default_rng(0)
    states = np.repeat([0, 1], [300, 200])
    points = rng.normal(scale=0.01, size=(500, 2)) + 10 * states[:, None]
    points[:50], states[:50] = 10.0, 0  # a minority among the second state
    figure = state_scatter(
        points, states=states, x_label="a", y_label="b", title="Points", most_points=400
    )
    (axes,) = _panels(figure)
    assert not axes.collections
    image = np.asarray(axes.images[0].get_array())
    shown = image[..., 3] > 0
    colours = {tuple(rgb) for rgb in image[shown][:, :3]}
    assert colours <= {to_rgb(state_colour(0)), to_rgb(state_colour(1))}
    upper = image[110:, 110:][shown[110:, 110:]]
    assert np.mean(np.all(upper[:, :3] == to_rgb(state_colour(1)), axis=1)) > 0.9
    assert any("the colour of the state" in text.get_text() for text in figure.texts)


def test_every_pair_of_components_has_a_panel(small) -> None:
    figure = pc_pairs(small.scores, states=small.labels, ratios=small.ratios, n_components=4)
    panels = _panels(figure)
    assert len(panels) == 6
    assert all(_n_points(axes) == 40 for axes in panels)
    assert [axes.get_xlabel()[:3] for axes in panels if axes.get_xlabel()] == ["PC1", "PC2", "PC3"]
    assert [axes.get_ylabel()[:3] for axes in panels if axes.get_ylabel()] == ["PC2", "PC3", "PC4"]


def test_number_of_panels_is_bounded(small) -> None:
    scores = np.random.default_rng(0).normal(size=(40, 20))
    assert len(_panels(pc_pairs(scores, states=small.labels, n_components=20))) == 28


def test_a_single_component_is_drawn_against_the_number_of_the_volume() -> None:
    for draw in (pc_scatter, pc_pairs):
        (axes,) = _panels(draw(np.array([[1.0], [3.0], [2.0]]), states=[0, 0, 1], ratios=[1.0]))
        assert axes.get_ylabel() == "volume"
        assert axes.get_xlabel() == "PC1 (100.0% of variance)"


def test_points_of_no_state_and_points_that_are_not_finite() -> None:
    points = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 2.0], [3.0, 1.0]])
    figure = state_scatter(
        points,
        states=[0, 0, -1, -1],
        x_label="UMAP 1",
        y_label="UMAP 2",
        title="Particles",
        thing="particle",
        ticks=False,
    )
    (axes,) = _panels(figure)
    assert _n_points(axes) == 3
    assert "no state (2)" in _key(figure)
    assert figure.get_suptitle() == "Particles: 4 particles, 1 state"
    assert len(axes.get_xticks()) == 0
