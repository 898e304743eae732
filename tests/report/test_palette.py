from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from emhet_dask.report.palette import (
    MARKERS,
    STATE_COLOURS,
    state_colour,
    state_colours,
    state_marker,
)

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}


def oklab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """Coordinates in which equal distances look equal (Ottosson 2020)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ vision.T, 0, 1)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(seen @ to_lms.T) @ to_lab.T


# 0.02 is what an attentive eye just tells apart.
@pytest.mark.parametrize(("vision", "least"), [("normal", 0.08), ("deuteranopia", 0.06)])
def test_every_pair_of_colours_can_be_told_apart(vision: str, least: float) -> None:
    seen = oklab(np.array([to_rgb(code) for code in STATE_COLOURS]), VISION[vision])
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > least


def test_protanopic_readers_tell_the_first_dozen_apart() -> None:
    seen = oklab(np.array([to_rgb(code) for code in STATE_COLOURS[:12]]), VISION["protanopia"])
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.08


def test_no_colour_is_lost_on_white_paper_or_taken_for_black() -> None:
    lightness = oklab(np.array([to_rgb(code) for code in STATE_COLOURS]), VISION["normal"])[:, 0]
    assert 0.3 < lightness.min() < lightness.max() < 0.87


def test_colour_and_marker_together_are_unique() -> None:
    n = len(STATE_COLOURS) * len(MARKERS)
    assert n >= 120
    assert len({(state_colour(k), state_marker(k)) for k in range(n)}) == n


def test_arrays_of_states_get_the_same_colours_as_single_ones() -> None:
    states = np.array([0, 5, 23, 24, 100, -1, -7])
    found = state_colours(states)
    np.testing.assert_allclose(found, [to_rgb(state_colour(int(k))) for k in states])
