from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from emhet_dask.analysis.simulation import assembly_model
from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.block_sheets import block_sheet
from emhet_dask.report.palette import NO_STATE, STATE_COLOURS


def table(labels: np.ndarray) -> pd.DataFrame:
    sizes = np.bincount(labels.ravel())[1:]
    return pd.DataFrame({"block": np.arange(1, len(sizes) + 1), "voxels": sizes, "fraction": 0.5})


@pytest.fixture(scope="module")
def complex_() -> tuple[np.ndarray, np.ndarray]:
    """Labels and the mean map of a complex of six subunits."""
    model = assembly_model(box=32, voxel_size_angstrom=6, resolution_angstrom=24, n_subunits=6)
    weights = model.probability @ model.presence
    return model.labels.astype(int), np.tensordot(weights, model.densities, axes=1)


def everywhere(labels: np.ndarray) -> np.ndarray:
    """A map with density in all of the box, so that all of it is shown."""
    return np.random.default_rng(0).random(labels.shape)


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def picture(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def shown(axes, block: int) -> np.ndarray:
    """Where the outline of a block is drawn."""
    return (np.abs(picture(axes) - to_rgb(block_colour(block))) < 0.004).all(axis=-1)


def test_colours_of_blocks_start_with_block_1() -> None:
    assert [block_colour(k) for k in (0, 1, 2, 25)] == [
        NO_STATE,
        *STATE_COLOURS[:2],
        block_colour(1),
    ]


def test_every_block_is_in_the_legend_and_on_a_slice(complex_) -> None:
    labels, mean = complex_
    blocks = table(labels)
    figure = block_sheet(labels, mean_map=mean, blocks=blocks, voxel_size_angstrom=6.0)
    words = texts(figure)
    for row in blocks.to_dict("records"):
        assert f"{row['voxels']:,} voxels · in 50% of volumes" in words
    slices = [axes for axes in figure.axes if axes.images]
    assert len(slices) == 12
    for block in blocks["block"]:
        # Across each axis, at least once.
        for row in range(3):
            across = [axes for k, axes in enumerate(slices) if k % 3 == row]
            assert any(shown(axes, block).any() for axes in across)
    assert figure.get_suptitle().startswith(f"6 blocks, {np.count_nonzero(labels):,} voxels")


def test_up_is_up_right_is_right_and_positions_are_true() -> None:
    labels = np.zeros((32, 32, 32), dtype=int)
    labels[6:9, 20:23, 26:29] = 1
    figure = block_sheet(
        labels, mean_map=everywhere(labels), blocks=table(labels), voxel_size_angstrom=2.0
    )
    slices = [axes for axes in figure.axes if axes.images]
    # Middle of the block (z, y, x) as a share of the box.
    z, y, x = (7.5 / 32, 21.5 / 32, 27.5 / 32)
    for name, right, up, at in (
        ("z", x, y, range(12, 17, 2)),
        ("y", x, z, range(40, 45, 2)),
        ("x", y, z, range(52, 57, 2)),
    ):
        found = [axes for axes in slices if axes.get_title(loc="left").startswith(name)]
        with_block = [axes for axes in found if shown(axes, 1).any()]
        assert with_block
        for axes in with_block:
            assert int(axes.get_title(loc="left").split()[2]) in at
            rows, columns = np.nonzero(shown(axes, 1))
            size = len(picture(axes))
            assert axes.images[0].origin == "lower"
            middle = ((columns.mean() + 0.5) / size, (rows.mean() + 0.5) / size)
            assert middle == pytest.approx((right, up), abs=0.02)


def test_scale_bar_has_the_length_that_it_says(complex_) -> None:
    labels, _ = complex_
    figure = block_sheet(
        labels, mean_map=everywhere(labels), blocks=table(labels), voxel_size_angstrom=6.0
    )
    axes = figure.axes[0]
    (words,) = (text.get_text() for text in axes.texts if "Å" in text.get_text())
    # All of the box of 192 Å is shown, since all of it has density.
    assert np.ptp(axes.lines[0].get_xdata()) * 192 == pytest.approx(float(words.split()[0]))


@pytest.mark.parametrize("n_blocks", [0, 1, 45])
def test_legend_of_none_one_and_many(n_blocks: int) -> None:
    labels = np.zeros((12, 12, 12), dtype=int)
    labels.flat[: 4 * n_blocks] = np.repeat(np.arange(1, n_blocks + 1), 4)
    figure = block_sheet(
        labels,
        mean_map=np.random.default_rng(0).normal(size=labels.shape),
        blocks=table(labels),
        voxel_size_angstrom=3.0,
    )
    words = texts(figure)
    if n_blocks == 0:
        assert "no block was found" in words
    assert sum("4 voxels · in" in word for word in words) == min(n_blocks, 31)
    assert ("and 14 more, of up to 4 voxels" in words) == (n_blocks == 45)


def test_shares_are_not_rounded_to_none_or_all() -> None:
    labels = np.zeros((8, 8, 8), dtype=int)
    labels[:4, 0, 0], labels[:3, 2, 2] = 1, 2
    blocks = table(labels).assign(fraction=[0.001, 0.999])
    figure = block_sheet(
        labels, mean_map=np.ones((8, 8, 8)), blocks=blocks, voxel_size_angstrom=1.0
    )
    assert {"4 voxels · in <1% of volumes", "3 voxels · in >99% of volumes"} <= set(texts(figure))
    figure = block_sheet(
        labels,
        mean_map=np.ones((8, 8, 8)),
        blocks=blocks.drop(columns="fraction"),
        voxel_size_angstrom=1.0,
    )
    assert "4 voxels" in texts(figure)


def test_labels_of_another_box_are_refused() -> None:
    blocks = pd.DataFrame({"block": [1], "voxels": [8]})
    with pytest.raises(ValueError, match=r"labels are \(2, 2, 2\), the mean map is \(3, 3, 3\)"):
        block_sheet(
            np.ones((2, 2, 2), int),
            mean_map=np.ones((3, 3, 3)),
            blocks=blocks,
            voxel_size_angstrom=1.0,
        )
    with pytest.raises(ValueError, match="found -1"):
        block_sheet(
            -np.ones((3, 3, 3), int),
            mean_map=np.ones((3, 3, 3)),
            blocks=blocks,
            voxel_size_angstrom=1.0,
        )


def test_boxes_that_are_no_cubes_can_be_drawn() -> None:
    labels = np.zeros((6, 9, 14), dtype=int)
    labels[2:4, 3:5, 8:12] = 1
    mean = np.full(labels.shape, np.nan)
    mean[1:5, 1:8, 2:12] = 1.0
    figure = block_sheet(labels, mean_map=mean, blocks=table(labels), voxel_size_angstrom=1.0)
    assert sum(shown(axes, 1).any() for axes in figure.axes if axes.images) >= 3
