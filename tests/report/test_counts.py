from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from emhet_dask.report.counts import state_counts
from emhet_dask.report.palette import state_colour


def test_volumes_and_particles_of_each_state(small) -> None:
    figure = state_counts(small.states)
    volumes, particles = figure.axes
    assert [bar.get_height() for bar in volumes.patches] == [16, 12, 8, 4]
    assert [bar.get_height() for bar in particles.patches] == [1600, 1200, 800, 400]
    assert (volumes.get_ylabel(), particles.get_ylabel()) == ("volumes", "particles")
    assert particles.get_xlabel() == "state"
    assert figure.get_suptitle() == "4 states: 40 volumes and 4,000 particles"
    for k, bar in enumerate(volumes.patches):
        np.testing.assert_allclose(bar.get_facecolor()[:3], to_rgb(state_colour(k)))
    assert [text.get_text() for text in particles.texts] == ["1,600", "1,200", "800", "400"]


def test_unknown_particles_have_no_panel(small) -> None:
    states = small.states.assign(particles=np.nan)
    assert len(state_counts(states).axes) == 1
    assert len(state_counts(states.drop(columns="particles")).axes) == 1


def test_many_states_have_bars_without_numbers() -> None:
    states = pd.DataFrame({"cluster": np.arange(150), "volumes": np.arange(150, 0, -1)})
    (axes,) = state_counts(states, noun="cluster").axes
    assert len(axes.patches) == 150
    assert not axes.texts
    assert axes.get_xlabel() == "cluster"
