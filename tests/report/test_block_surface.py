from __future__ import annotations

import colorsys

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from emhet_dask.report import block_surface
from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.block_surface import block_surfaces
from emhet_dask.report.shading import VIEWS, glass, shaded_blocks, shaded_view
from emhet_dask.report.surface import Frame


def ball(n: int, centre, radius: float) -> np.ndarray:
    grid = np.indices((n, n, n)) - np.reshape(centre, (3, 1, 1, 1))
    return np.sqrt((grid**2).sum(axis=0)) <= radius


def table(labels: np.ndarray) -> pd.DataFrame:
    sizes = np.bincount(labels.ravel())[1:]
    return pd.DataFrame({"block": np.arange(1, len(sizes) + 1), "voxels": sizes, "fraction": 0.25})


def picture(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array()) / 255


def of_block(image: np.ndarray, block: int) -> np.ndarray:
    """Return which pixels have the hue of a block."""
    hue = colorsys.rgb_to_hsv(*to_rgb(block_colour(block)))[0]
    low, high = image[..., :3].min(axis=-1), image[..., :3].max(axis=-1)
    coloured = (image[..., 3] > 0.9) & (high - low > 0.25 * np.maximum(high, 1e-6))
    hues = np.apply_along_axis(lambda rgb: colorsys.rgb_to_hsv(*rgb)[0], -1, image[..., :3])
    away = np.abs(hues - hue)
    return coloured & (np.minimum(away, 1 - away) < 0.04)


def note(figure) -> str:
    return " ".join(figure.texts[-1].get_text().split())


@pytest.fixture(autouse=True, scope="module")
def _small_pictures():
    """Draw a sixth of the pixels, which are what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_surface, "DPI", 50)
        yield


@pytest.fixture(scope="module")
def two() -> tuple[np.ndarray, np.ndarray]:
    """Two balls along x within a larger ball of density."""
    labels = np.zeros((40, 40, 40), dtype=int)
    labels[ball(40, (20, 20, 12), 6)] = 1
    labels[ball(40, (20, 20, 28), 5)] = 2
    mean = ball(40, (20, 20, 20), 17).astype(np.float32)
    return labels, mean


@pytest.fixture(scope="module")
def figure(two):
    labels, mean = two
    return block_surfaces(
        labels,
        mean_map=mean,
        level=0.5,
        blocks=table(labels),
        voxel_size_angstrom=2.0,
        level_name="half",
    )


def test_all_blocks_from_three_sides_and_each_alone(figure) -> None:
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split(",")[0] for title in titles[:3]] == list(VIEWS)
    assert titles[3].startswith("block 1 · ")
    assert titles[3].endswith("in 25% of volumes")
    assert titles[4].startswith("block 2 · ")
    assert "density 0.5 (half)" in note(figure)
    for k, expected in ((0, {1, 2}), (1, {1, 2}), (3, {1}), (4, {2})):
        image = picture(figure.axes[k])
        assert {block for block in (1, 2) if of_block(image, block).sum() > 15} == expected


def test_blocks_lie_where_they_are_and_hide_what_is_behind(figure) -> None:
    front = picture(figure.axes[1])
    left, right = (np.nonzero(of_block(front, block))[1].mean() for block in (1, 2))
    assert left < 0.5 * front.shape[1] < right
    # From +x the second lies before the first: what is seen of the first is its rim.
    side = picture(figure.axes[2])
    assert of_block(side, 2).sum() > of_block(side, 1).sum()
    middle = side[len(side) // 2 - 2 : len(side) // 2 + 2, len(side) // 2 - 2 : len(side) // 2 + 2]
    assert of_block(middle, 2).mean() > 0.9


def test_a_small_block_is_still_seen_wherever_it_is(two) -> None:
    labels, mean = two
    labels = np.where(labels == 2, 0, labels)
    labels[38, 1, 38] = 2
    figure = block_surfaces(
        labels, mean_map=mean, level=0.5, blocks=table(labels), voxel_size_angstrom=2.0
    )
    assert of_block(picture(figure.axes[4]), 2).sum() > 0


def test_of_many_blocks_the_largest_are_drawn_alone(two) -> None:
    labels, mean = two
    figure = block_surfaces(
        labels, mean_map=mean, level=0.5, blocks=table(labels), voxel_size_angstrom=2.0, most=1
    )
    assert len(figure.axes) == 4
    assert "1 smaller block drawn only above" in note(figure)


def test_no_block_at_all_and_a_level_above_all_density() -> None:
    labels = np.zeros((12, 12, 12), dtype=int)
    figure = block_surfaces(
        labels,
        mean_map=np.zeros((12, 12, 12)),
        level=1.0,
        blocks=pd.DataFrame({"block": [], "voxels": []}),
        voxel_size_angstrom=2.0,
    )
    assert not any(picture(axes)[..., 3].any() for axes in figure.axes[:3])


def test_blocks_within_no_glass_look_as_one_surface_does() -> None:
    volume = ball(24, (11, 12, 10), 7).astype(np.float32)
    nothing = glass(np.zeros_like(volume), level=1.0, view="front", pixels=60)
    drawn = shaded_blocks(
        volume,
        level=0.5,
        labels=np.ones(volume.shape, int),
        colours=[(0, 0, 0), to_rgb("#4477aa")],
        view="front",
        within=nothing,
    )
    alone = shaded_view(volume, level=0.5, view="front", pixels=60, colour="#4477aa")
    np.testing.assert_allclose(drawn, alone, atol=1e-6)


def test_glass_is_seen_before_a_block_and_not_behind_it() -> None:
    n = 32
    near, far = ball(n, (16, 8, 16), 5).astype(np.float32), ball(n, (16, 24, 16), 5)
    views = {"view": "front", "pixels": 64}
    colours = [(0, 0, 0), (0.0, 0.0, 1.0)]
    ones = np.ones((n, n, n), int)

    def middle(block, pane) -> np.ndarray:
        drawn = shaded_blocks(
            block.astype(np.float32),
            level=0.5,
            labels=ones,
            colours=colours,
            view="front",
            within=glass(pane.astype(np.float32), level=0.5, **views),
        )
        return drawn[20:44, 20:44, :3].mean(axis=(0, 1))

    bare = np.zeros((n, n, n))
    # The eye is at -y.
    np.testing.assert_allclose(middle(near, far), middle(near, bare), atol=1e-6)
    assert np.abs(middle(far, near) - middle(far, bare)).max() > 0.01


def test_borders_between_parts_lie_halfway() -> None:
    n = 24
    volume = ball(n, (11.5, 11.5, 11.5), 9).astype(np.float32)
    labels = np.where(np.arange(n) < 10, 1, 2) * np.ones((n, n, n), int)
    drawn = shaded_blocks(
        volume,
        level=0.5,
        labels=labels,
        colours=[(0, 0, 0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)],
        view="front",
        within=glass(np.zeros_like(volume), level=1.0, view="front", pixels=120),
    )
    row = drawn[60]
    inside = row[:, 3] > 0.99
    red = inside & (row[:, 0] > row[:, 2])
    # Voxels 0 to 9 are red, so the border is at 10 of 24.
    assert (np.flatnonzero(red).max() + 1) / 120 * n == pytest.approx(10, abs=0.25)


def test_in_large_boxes_a_block_keeps_its_size_and_a_tiny_one_is_not_lost() -> None:
    n = 200
    labels = np.zeros((n, n, n), dtype=np.int16)
    labels[ball(n, (100, 100, 100), 60)] = 1
    labels[100, 100, 190] = 2
    frame = Frame.around((labels > 0).astype(np.float32), 0.5)
    cut = frame.cut_labels(labels)
    step = frame.side // len(cut)
    assert step > 1
    assert (cut == 1).sum() * step**3 == pytest.approx((labels == 1).sum(), rel=0.02)
    # Cut on its own, as the one-voxel block lies beyond the frame of what is no speck.
    whole = Frame((0, 0, 0), n + n % 3).cut_labels(labels)
    assert (whole == 2).sum() == 1
