"""Figures and page of a landscape: what is in them, and what they leave out."""

import numpy as np
import pandas as pd
import pytest

from emhet_dask.report.energy_chimerax import write_path_chimerax
from emhet_dask.report.energy_figures import (
    EnergyPlane,
    energy_errors,
    energy_landscape,
    energy_profile,
)
from emhet_dask.report.energy_page import PageContents, write_energy_page
from emhet_dask.report.style import to_png

BASINS = pd.DataFrame(
    {
        "basin": [0, 1],
        "share": [0.6, 0.4],
        "free_energy_kT": [0.0, 0.5],
        "error_kT": [0.0, 0.1],
        "pc1": [-2.0, 2.0],
        "pc3": [0.0, 0.0],
    }
)
SADDLES = pd.DataFrame(
    {
        "basin_a": [0, 0],
        "basin_b": [1, 1],
        "free_energy_kT": [2.0, 2.2],
        "error_kT": [0.2, 0.2],
        "pc1": [0.0, 0.05],
        "pc3": [0.0, 0.02],
    }
)


@pytest.fixture
def plane():
    x, y = np.linspace(-4, 4, 41), np.linspace(-3, 3, 31)
    middle = np.meshgrid((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2, indexing="ij")
    density = np.exp(-((np.abs(middle[0]) - 2) ** 2) - middle[1] ** 2)
    values = -np.log(density / density.max())
    values[values > 5] = np.nan
    return EnergyPlane(
        x="pc1",
        y="pc3",
        x_label="PC1",
        y_label="PC3",
        x_edges=x,
        y_edges=y,
        free_energy=values,
        error=0.1 + 0 * values,
        weight=np.round(100 * density),
    )


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_landscape_names_basins_and_saddles(plane):
    figure = energy_landscape([plane], basins=BASINS, saddles=SADDLES, n_points=1234)
    assert "1,234 particles" in figure.get_suptitle()
    found = texts(figure)
    assert {"0", "1", "2.0 ± 0.2"} <= set(found)
    # The second would cover the first.
    assert "2.2 ± 0.2" not in found
    assert "Free-energy-like" in figure.texts[-1].get_text()
    assert to_png(figure) == to_png(figure)


def test_three_planes_have_three_panels_and_one_bar(plane):
    planes = [plane, plane, plane]
    figure = energy_landscape(planes, basins=BASINS, saddles=SADDLES.iloc[:0], n_points=9)
    assert len(figure.axes) == 4
    assert "lowest along the third component" in figure.get_suptitle()
    assert "saddle" not in figure.texts[-1].get_text()
    assert len(energy_errors([plane], basins=BASINS, n_bootstrap=7).axes) == 2


def test_the_profile_says_how_high_it_goes():
    path = pd.DataFrame(
        {"length": [0, 1, 2, 3], "free_energy_kT": [0, 1, 3, 0.5], "error_kT": [0, 0.1, 0.2, 0.1]}
    )
    figure = energy_profile(path, ends=("basin 0", "basin 1"), frames=[0, 1.5, 3])
    assert "3.00 kT above basin 0\n2.50 kT above basin 1" in texts(figure)
    assert "3 maps" in figure.texts[-1].get_text()
    flat = path.assign(free_energy_kT=0.0, error_kT=0.0)
    to_png(energy_profile(flat, ends=("a", "b"), frames=[]))


def test_the_page_escapes_what_it_is_given(plane, tmp_path):
    points = pd.DataFrame({"point": [5, 8], "pc1": [0.0, 1.0], "pc3": [0.0, 1.0], "state": [0, -1]})
    sketch = pd.DataFrame({"name": ["<b>vol"], "pc1": [0.0], "pc3": [0.0]})
    write_energy_page(
        tmp_path / "p.html",
        plane,
        PageContents(BASINS, SADDLES, points, n_points=2, sketch=sketch),
        title="<i>run",
        headline="two & more",
        folder="full folder",
    )
    page = (tmp_path / "p.html").read_text()
    assert "&lt;i&gt;run" in page
    assert "<i>run" not in page
    assert "two &amp; more." in page
    assert "<b>vol" not in page
    assert "emhet select full folder --region region.json" in page
    assert '"axes": ["PC1", "PC3"]' in page
    assert "no state" in page


def test_a_script_that_nothing_breaks_out_of(tmp_path):
    write_path_chimerax(
        tmp_path / "o.cxc", n_maps=7, level=0.25, ends=("basin 0;\nexit", "state 1")
    )
    script = (tmp_path / "o.cxc").read_text()
    assert script.splitlines()[0].endswith("from basin 0  exit to state 1, for UCSF ChimeraX.")
    assert "level 0.25" in script
    assert "volume morph #1-7" in script
    assert script.splitlines()[-1].startswith("vseries play #1")
