"""Ribbons between columns of classes: counted as pandas counts, drawn where they belong."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import PathPatch, Rectangle

from emhet_dask.report.sankey import class_flow, sankey
from emhet_dask.report.sankey_page import write_sankey_page

CLASSES = [(1, 2, 3, 4), (1, 2, 3)]


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 500)
    one = np.array([2, 4, 1])[truth]  # class 3 is empty
    two = np.where(rng.random(500) < 0.2, rng.integers(1, 4, 500), truth + 1)
    return np.stack([one, two]), np.where(rng.random(500) < 0.1, 0, truth + 1)


@pytest.fixture
def flow(labels):
    return class_flow(*labels, names=["job085", "job086"], classes=CLASSES)


def test_ribbons_are_the_counts(flow, labels):
    table, final = labels
    assert flow.titles == ("job085", "job086", "consensus")
    oracle = pd.crosstab(table[0], table[1])
    for i, one in enumerate(flow.labels[0]):
        for j, two in enumerate(flow.labels[1]):
            assert flow.counts[0][i, j].sum() == oracle.loc[int(one), int(two)]
    for j, two in enumerate(flow.labels[1]):
        for k, name in enumerate(flow.labels[2]):
            number = 0 if name == "unresolved" else int(name)
            inside = np.count_nonzero((table[1] == int(two)) & (final == number))
            assert flow.counts[1][j, k, number] == inside
            assert flow.counts[1][j, k].sum() == inside
    assert sorted(flow.labels[0]) == ["1", "2", "4"]
    assert flow.labels[2][-1] == "unresolved"


def test_classes_that_hold_the_same_lie_side_by_side():
    truth = np.repeat([0, 1, 2, 3], 50)
    flow = class_flow([truth, 3 - truth], truth + 1, names=["a", "b"], classes=[range(4), range(4)])
    assert flow.labels[1] == [str(3 - int(name)) for name in flow.labels[0]]
    assert flow.labels[2] == [str(int(name) + 1) for name in flow.labels[0]]


@pytest.mark.parametrize("fractions", [False, True])
def test_boxes_are_as_high_as_classes(flow, fractions):
    axes = sankey(flow, fractions=fractions).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    heights = np.array([box.get_height() for box in boxes])
    sizes = np.concatenate(flow.sizes)
    first = len(flow.sizes[0])
    expected = np.ones(first) if fractions else sizes[:first]
    np.testing.assert_allclose(heights[:first] / heights[0], expected / expected[0])
    ribbons = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert len(ribbons) == sum(np.count_nonzero(table) for table in flow.counts)
    # The ribbons that leave a class fill its side.
    left = sum(r.get_path().vertices[7, 1] - r.get_path().vertices[0, 1] for r in ribbons)
    assert left == pytest.approx(heights[: first + len(flow.sizes[1])].sum())


def test_page_opens_offline_and_holds_every_ribbon(flow, tmp_path):
    write_sankey_page(tmp_path / "a.html", flow, title="Classes of job085, job086")
    html = (tmp_path / "a.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)
    assert "plotly.js v" in html
    data = json.JSONDecoder().raw_decode(html, html.index("[", html.rindex("Plotly.newPlot(")))[0]
    assert data[0]["type"] == "sankey"
    nodes = data[0]["node"]["label"]
    assert {"job085 class 1", "job086 class 3", "consensus unresolved"} <= set(nodes)
    link = data[0]["link"]
    assert sum(link["value"]) == 1000  # every particle, between each two of three columns
    away = sum(
        value
        for source, value in zip(link["source"], link["value"], strict=True)
        if nodes[source] == "job085 class 1"
    )
    assert away == flow.sizes[0][flow.labels[0].index("1")]
    write_sankey_page(tmp_path / "b.html", flow, title="Classes of job085, job086")
    assert (tmp_path / "b.html").read_text() == html


def test_twelve_classes_and_five_jobs_have_room():
    rng = np.random.default_rng(1)
    truth = rng.integers(1, 13, 300)
    table = np.where(rng.random((5, 300)) < 0.05, rng.integers(1, 13, (5, 300)), truth)
    flow = class_flow(
        table, truth, names=[f"job{i:03d}" for i in range(5)], classes=[range(1, 13)] * 5
    )
    figure = sankey(flow)
    width, height = figure.get_size_inches()
    assert width < 14
    assert height < 10
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
