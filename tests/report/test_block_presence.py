from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from emhet_dask.report.block_parts import block_colour
from emhet_dask.report.block_presence import block_histograms
from emhet_dask.report.palette import NO_STATE
from emhet_dask.report.style import to_png


def tables(n_blocks: int, n_volumes: int = 60) -> tuple[pd.DataFrame, ...]:
    rng = np.random.default_rng(n_blocks)
    names = [f"block_{k + 1:03d}" for k in range(n_blocks)]
    here = rng.random((n_volumes, n_blocks)) < 0.4
    occupancy = np.where(here, 0.9, 0.1) + rng.uniform(-0.1, 0.1, here.shape)
    density = np.where(here, 2e-3, 1e-4) + rng.normal(scale=1e-5, size=here.shape)
    who = {"volume": np.arange(n_volumes), "name": [f"vol_{k}" for k in range(n_volumes)]}
    return tuple(
        pd.DataFrame({**who, **dict(zip(names, values.T, strict=True))})
        for values in (occupancy, here.astype(int), density)
    )


def counts(axes, colour: str) -> float:
    (steps,) = [steps for steps in axes.patches if to_hex(steps.get_facecolor()) == colour]
    top, _, below = steps.get_data()
    return (top - below).sum()


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_each_volume_is_counted_once_in_the_colour_of_its_presence() -> None:
    occupancy, presence, density = tables(2)
    cuts = {"block_001": 0.45, "block_002": 0.55}
    figure = block_histograms(occupancy, presence=presence, cuts=cuts, density=density)
    assert len(figure.axes) == 4
    for k, axes in enumerate(figure.axes):
        block = k // 2 + 1
        present = presence[f"block_{block:03d}"].sum()
        assert counts(axes, block_colour(block)) == present
        assert counts(axes, NO_STATE) == 60 - present
    first = figure.axes[0]
    assert first.get_title(loc="left").startswith("block 1 · present in ")
    assert first.lines[0].get_xdata()[0] == 0.45
    assert "0.45" in texts(first)
    # What is present lies right of the cut.
    (right,) = [
        steps for steps in first.patches if to_hex(steps.get_facecolor()) == block_colour(1)
    ]
    top, edges, below = right.get_data()
    assert edges[:-1][top > below].min() >= 0.45


def test_a_block_without_a_cut_says_so() -> None:
    occupancy, presence, _ = tables(2)
    figure = block_histograms(occupancy, presence=presence, cuts={"block_001": np.nan})
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert "no cut" in texts(axes)
        assert not axes.lines


def test_of_many_blocks_the_first_are_drawn_and_the_rest_counted() -> None:
    occupancy, presence, density = tables(30)
    figure = block_histograms(occupancy, presence=presence, cuts={}, density=density)
    assert len(figure.axes) == 48
    assert "6 smaller blocks not drawn" in " ".join(figure.texts[-1].get_text().split())


def test_values_at_the_ends_and_unknown_ones() -> None:
    occupancy, presence, density = tables(1)
    occupancy.loc[:2, "block_001"] = [0.0, 1.0, np.nan]
    presence.loc[:2, "block_001"] = [0, 1, 0]
    density["block_001"] = 0.5
    figure = block_histograms(
        occupancy, presence=presence, cuts={"block_001": 0.5}, density=density
    )
    total = sum(counts(figure.axes[0], colour) for colour in (block_colour(1), NO_STATE))
    assert total == 59
    assert len(to_png(figure)) > 1000


@pytest.mark.parametrize("n_volumes", [0, 5])
def test_nothing_to_draw(n_volumes: int) -> None:
    occupancy = pd.DataFrame({"volume": range(n_volumes), "name": "a"})
    figure = block_histograms(occupancy, presence=occupancy, cuts={})
    assert "no block was found" in texts(figure.axes[0])
