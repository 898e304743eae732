from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from emhet_dask.report.shading import VIEWS, shaded_view
from emhet_dask.report.surface import surface_sheet, surface_views


def _note(figure) -> str:
    return " ".join(figure.texts[-1].get_text().split())


def _ball(n: int, *, centre, radius: float) -> np.ndarray:
    """A ball that is 0.5 at its radius, with a soft edge."""
    grid = np.indices((n, n, n)) - np.reshape(centre, (3, 1, 1, 1))
    distance = np.sqrt((grid**2).sum(axis=0))
    return (1 / (1 + np.exp(distance - radius))).astype(np.float32)


def _picture(figure, k: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[k].images[0].get_array()) / 255


def _centre(opacity: np.ndarray) -> tuple[float, float]:
    """Return how far to the right and up, 0 to 1, the middle of what is drawn lies."""
    row, column = ndimage.center_of_mass(opacity)
    return (column + 0.5) / opacity.shape[1], 1 - (row + 0.5) / opacity.shape[0]


@pytest.mark.parametrize(("radius", "level"), [(9.0, 0.5), (6.0, 0.5), (9.0, 0.2689)])
@pytest.mark.parametrize("view", VIEWS)
def test_outline_of_a_ball_has_its_area(view: str, radius: float, level: float) -> None:
    volume = _ball(32, centre=(15.5, 15.5, 15.5), radius=radius)
    picture = shaded_view(volume, level=level, view=view, pixels=160, colour="#888888")
    # 1 / (1 + exp(x)) is 0.2689 at x = 1.
    expected = radius + (1.0 if level < 0.4 else 0.0)
    assert picture[..., 3].sum() * (32 / 160) ** 2 == pytest.approx(np.pi * expected**2, rel=0.015)


@pytest.mark.parametrize(
    ("view", "right", "up", "near"),
    [("top", 2, 1, (0, 1)), ("front", 2, 0, (1, -1)), ("side", 1, 0, (2, 1))],
)
def test_views_show_the_right_hand(view: str, right: int, up: int, near) -> None:
    # Off the middle towards the right and up, it must be drawn there; of two balls the one at the
    # eye's end must hide the other.
    n = 32
    centre = np.full(3, 15.5)
    centre[right], centre[up] = 22, 25
    picture = shaded_view(
        _ball(n, centre=centre, radius=4), level=0.5, view=view, pixels=96, colour="#888888"
    )
    expected = ((22 + 0.5) / n, (25 + 0.5) / n)
    assert _centre(picture[..., 3]) == pytest.approx(expected, abs=0.01)
    axis, sign = near
    close, far = np.full(3, 15.5), np.full(3, 15.5)
    close[axis] += 9 * sign
    far[axis] -= 9 * sign
    close[right], far[right] = 9, 22
    both = shaded_view(
        _ball(n, centre=close, radius=4) + _ball(n, centre=far, radius=4),
        level=0.5,
        view=view,
        pixels=96,
        colour="#0040a0",
    )
    # What is far fades towards the paper.
    strength = 1 - both[..., 0]
    left_half, right_half = both[:, :48, 3] > 0.99, both[:, 48:, 3] > 0.99
    assert np.median(strength[:, :48][left_half]) > np.median(strength[:, 48:][right_half]) + 0.1


def test_light_comes_from_above() -> None:
    picture = shaded_view(
        _ball(32, centre=(15.5, 15.5, 15.5), radius=10),
        level=0.5,
        view="front",
        pixels=96,
        colour="#888888",
    )
    column = picture[:, 48, 0][picture[:, 48, 3] > 0.99]
    quarter = len(column) // 4
    assert column[quarter] > column[-quarter] + 0.1


def test_surface_does_not_depend_on_the_scale_of_the_density() -> None:
    volume = _ball(24, centre=(11, 12, 10), radius=6)
    one, other = (
        shaded_view(scale * volume, level=scale * 0.5, view="top", pixels=60, colour="#4477aa")
        for scale in (1.0, 1e-4)
    )
    np.testing.assert_allclose(one, other, atol=0.01)


def test_figure_has_three_views_a_level_and_a_scale_bar() -> None:
    volume = _ball(40, centre=(20, 20, 20), radius=8)
    figure = surface_views(
        volume,
        level=0.5,
        voxel_size_angstrom=2.0,
        title="Cluster 3",
        level_name="half of the 99.99th percentile",
    )
    assert [axes.get_title(loc="left").split(",")[0] for axes in figure.axes] == list(VIEWS)
    assert figure.get_suptitle() == "Cluster 3"
    note = _note(figure)
    assert "density 0.5 (half of the 99.99th percentile)" in note
    enclosed = float(note.split("enclosing ")[1].split(" Å³")[0].replace(",", ""))
    assert enclosed == pytest.approx((volume >= 0.5).sum() * 8, rel=0.01)
    # The bar against the ball, whose diameter is 32 Å.
    axes = figure.axes[0]
    (words,) = (text.get_text() for text in axes.texts)
    bar = np.ptp(axes.lines[0].get_xdata())
    width = (_picture(figure)[..., 3] > 0.5).any(axis=0).mean()
    assert bar / width * 32 == pytest.approx(float(words.removesuffix(" Å")), rel=0.03)


def test_specks_are_left_out_counted_and_do_not_set_the_frame() -> None:
    volume = _ball(48, centre=(14, 14, 14), radius=8)
    clean = _picture(surface_views(volume, level=0.5, voxel_size_angstrom=1.0))
    volume[40, 40, 40] = volume[44, 8, 30] = 3.0
    figure = surface_views(volume, level=0.5, voxel_size_angstrom=1.0)
    np.testing.assert_allclose(_picture(figure), clean, atol=0.02)
    assert "enclosing" in _note(figure)


def test_specks_within_the_frame_are_counted() -> None:
    volume = _ball(48, centre=(24, 24, 24), radius=14)
    volume[24, 24, 24 - 14 : 24 + 14] = 0
    volume[35, 35, 35] = 3.0
    figure = surface_views(volume, level=0.5, voxel_size_angstrom=1.0)
    assert "1 piece below 0.5% of its volume left out" in _note(figure)


def test_large_boxes_are_reduced_to_the_same_picture() -> None:
    small = _ball(40, centre=(20, 20, 20), radius=12)
    large = ndimage.zoom(small, 4, order=1, grid_mode=True, mode="nearest")
    areas = []
    for volume, voxel_size in ((small, 4.0), (large, 1.0)):
        figure = surface_views(volume, level=0.5, voxel_size_angstrom=voxel_size)
        axes = figure.axes[0]
        length = float(axes.texts[0].get_text().removesuffix(" Å"))
        scale = length / np.ptp(axes.lines[0].get_xdata())
        areas.append(_picture(figure)[..., 3].mean() * scale**2)
    assert areas == pytest.approx([np.pi * 48**2] * 2, rel=0.01)


def test_thin_parts_lie_within_the_frame() -> None:
    volume = _ball(150, centre=(75, 75, 75), radius=20)
    volume[73:77, 73:77, 75:140] = 1
    picture = _picture(surface_views(volume, level=0.5, voxel_size_angstrom=1.0))[..., 3]
    edges = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert not edges.any()
    # From the left of the ball, 20 before its middle, to the end of the rod, 64 behind it.
    width = (picture > 0.5).any(axis=0).sum()
    height = (picture > 0.5).any(axis=1).sum()
    assert width / height == pytest.approx(84 / 40, rel=0.03)


def test_a_level_above_all_density_says_so() -> None:
    figure = surface_views(np.zeros((12, 12, 12)), level=1.0, voxel_size_angstrom=1.0)
    assert "no density reaches the level" in [text.get_text() for text in figure.axes[1].texts]


def test_density_that_is_cut_by_the_box_and_nan_can_be_drawn() -> None:
    volume = _ball(20, centre=(0, 10, 19), radius=7)
    volume[18:, 2, 2] = np.nan
    picture = _picture(surface_views(volume, level=0.5, voxel_size_angstrom=1.0))
    assert np.isfinite(picture).all()
    assert 0.1 < picture[..., 3].mean() < 0.95


def test_sheet_has_a_surface_per_map_in_its_colour_on_one_scale() -> None:
    maps = [_ball(32, centre=(16, 16, 16), radius=radius) for radius in (4, 8, 8)]
    figure = surface_sheet(
        maps,
        levels=[0.5, 0.5, 0.5],
        titles=["small", "large", "blue"],
        colours=["#888888", "#888888", "#0000ff"],
        voxel_size_angstrom=1.0,
        title="Three",
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["small", "large", "blue"]
    areas = [_picture(figure, k)[..., 3].sum() for k in range(3)]
    assert areas[1] / areas[0] == pytest.approx(4, rel=0.1)
    blue = _picture(figure, 2)
    inside = blue[..., 3] > 0.99
    assert np.median(blue[inside][:, 2] - blue[inside][:, 0]) > 0.3
