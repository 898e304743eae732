"""Figures of particles on a landscape: what is drawn is what was given."""

import json

import numpy as np
import pytest

from emhet_dask.report import to_png
from emhet_dask.report.map_figures import particle_density, score_errors, state_confidence
from emhet_dask.report.map_notebook import map_cells
from emhet_dask.report.notebook import write_notebook


@pytest.fixture
def points():
    return np.random.default_rng(0).standard_normal((500, 3))


def test_every_particle_is_counted_once(points):
    figure = particle_density(points, sketch=points[:20], states=np.arange(20) % 3)
    counts = figure.axes[0].images[0].get_array()
    assert counts.filled(0).sum() == 500
    assert len(figure.axes[0].collections[0].get_offsets()) == 20
    assert figure.axes[0].get_xlabel() == "PC1"
    assert to_png(figure).startswith(b"\x89PNG")


def test_other_components(points):
    figure = particle_density(
        points,
        sketch=points[:5],
        states=np.zeros(5, int),
        components=(0, 2),
        ratios=[0.5, 0.3, 0.1],
    )
    assert figure.axes[0].get_ylabel() == "PC3 (10.0% of variance)"


def test_bars_add_up_to_the_particles():
    states = np.array([0] * 10 + [1] * 5)
    sure = np.array([0.9] * 4 + [0.6] * 3 + [0.2] * 3 + [1.0] * 5)
    bars = state_confidence(states, sure).axes[0].patches
    assert [bar.get_height() for bar in bars] == [4, 5, 3, 0, 3, 0]


def test_many_states_are_told_of():
    figure = state_confidence(np.arange(100), np.ones(100))
    assert any("40 smaller states are left out" in text.get_text() for text in figure.texts)
    to_png(figure)


def test_errors_of_each_component_are_points():
    figure = score_errors({"sketch": [0.001, 0.01], "full decode": [0.0, 1e-5]})
    axes = figure.axes[0]
    assert [len(group.get_offsets()) for group in axes.collections] == [2, 2]
    assert axes.get_yscale() == "log"
    to_png(figure)


def test_the_notebook_is_one_that_python_can_read(tmp_path):
    write_notebook(tmp_path / "n.ipynb", map_cells(folder=tmp_path, sketch="a 'b'"))
    cells = json.loads((tmp_path / "n.ipynb").read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("%matplotlib inline", "")
            compile(source, "cell", "exec")
