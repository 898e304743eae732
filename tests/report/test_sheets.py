from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from emhet_dask.report.palette import state_colour
from emhet_dask.report.sheets import component_sheet, slice_sheet, state_sheet


class AskedFor(Sequence):
    """Maps that remember which of them were looked at."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, state):
        self.asked.append(state)
        return np.random.default_rng(state).normal(size=(12, 12, 12))


def _texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _image(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def test_every_state_is_named_with_its_counts_and_colour(small) -> None:
    figure = state_sheet(small.means, states=small.states, voxel_size_angstrom=3.0, mask=small.mask)
    assert "state 0 · 16 volumes · 1,600 particles" in _texts(figure)
    assert "state 3 · 4 volumes · 400 particles" in _texts(figure)
    assert figure.get_suptitle() == "Mean maps of 4 states"
    strips = [line.get_color() for line in figure.axes[0].lines]
    assert strips[:4] == [state_colour(k) for k in range(4)]


def test_clusters_that_are_no_states_are_not_called_so(small) -> None:
    figure = state_sheet(small.means, states=small.states, voxel_size_angstrom=3.0, noun="cluster")
    assert "state" not in " ".join([*_texts(figure), figure.get_suptitle()])


def test_particles_are_left_out_where_they_are_unknown(small) -> None:
    states = small.states.drop(columns="particles")
    figure = state_sheet(small.means, states=states, voxel_size_angstrom=3.0)
    assert "state 0 · 16 volumes" in _texts(figure)


def test_of_many_states_the_largest_are_drawn_and_only_these_are_read() -> None:
    sizes = np.random.default_rng(0).permutation(150) + 1
    states = pd.DataFrame({"cluster": np.arange(150), "volumes": sizes})
    maps = AskedFor(150)
    figure = state_sheet(maps, states=states, voxel_size_angstrom=3.0)
    largest = sorted(np.argsort(sizes)[-30:].tolist())
    assert maps.asked == largest
    assert figure.get_suptitle() == "Mean maps of the 30 largest of 150 states"
    assert sum(" volume" in text for text in _texts(figure)) == 30


def test_up_is_up_and_right_is_right() -> None:
    # One bright blob at high x and high y: the upper right of the slice across z.
    volume = np.zeros((16, 16, 16))
    volume[6:10, 11:14, 11:14] = 1
    figure = slice_sheet([volume], titles=["blob"], voxel_size_angstrom=1.0)
    image = _image(figure)
    opaque = np.flatnonzero(image[..., 3].any(axis=1))
    third = image.shape[1] // 3
    tile = image[opaque[0] : opaque[-1], :third, 0]
    rows, columns = np.nonzero(tile > 128)
    assert columns.mean() > 0.6 * tile.shape[1]
    assert rows.mean() < 0.4 * tile.shape[0]


def test_maps_share_their_grey_values() -> None:
    ball = ((np.indices((16, 16, 16)) - 7.5) ** 2).sum(axis=0) < 30
    figure = slice_sheet(
        [1.0 * ball, 2.0 * ball], titles=["faint", "bright"], voxel_size_angstrom=1.0
    )
    image = _image(figure)[..., 0]
    half = image.shape[1] // 2
    faint, bright = np.percentile(image[:, :half], 90), np.percentile(image[:, half:], 90)
    assert bright == 255
    assert faint == pytest.approx(128, abs=20)


@pytest.mark.parametrize(
    ("voxel_size", "expected"), [(1.0, "5 Å"), (3.0, "10 Å"), (10.0, "50 Å"), (0.5, "2 Å")]
)
def test_scale_bar_has_the_length_that_it_says(voxel_size: float, expected: str) -> None:
    figure = slice_sheet(
        [np.eye(16)[None] * np.ones((16, 1, 1))], titles=["a"], voxel_size_angstrom=voxel_size
    )
    axes = figure.axes[0]
    assert expected in _texts(figure)
    bar = axes.lines[-1].get_xdata()
    slice_inches = axes.get_xlim()[1] / 3
    drawn = (bar[1] - bar[0]) / slice_inches * 16 * voxel_size
    assert drawn == pytest.approx(float(expected.removesuffix(" Å")))


def test_components_show_gain_in_orange_and_loss_in_blue() -> None:
    component = np.zeros((16, 16, 16))
    component[:, :, :6] = 1
    component[:, :, 10:] = -1
    figure = component_sheet(
        [component],
        mean_map=np.random.default_rng(0).normal(size=(16, 16, 16)),
        voxel_size_angstrom=2.0,
        ratios=[0.25],
    )
    assert "PC1 · 25.0% of the variance" in _texts(figure)
    image = _image(figure).astype(float)
    row = image[image.shape[0] // 2, :, :3]
    third = len(row) // 3
    left, right = row[third // 8], row[third - third // 8]
    assert left[0] > left[2] + 100
    assert right[2] > right[0] + 100


def test_constant_maps_and_boxes_that_are_no_cubes_can_be_drawn() -> None:
    slice_sheet([np.zeros((5, 5, 5))], titles=["nothing"], voxel_size_angstrom=1.0)
    slice_sheet([np.ones((4, 9, 12))], titles=["flat"], voxel_size_angstrom=1.0)
