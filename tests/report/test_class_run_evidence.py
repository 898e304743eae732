"""The figure of how many classes there are."""

import pandas as pd

from emhet_dask.report.class_run_evidence import class_number_figure

EVIDENCE = pd.DataFrame({"n_classes": [1, 2, 3], "log_likelihood": [0.0, 250.0, 240.0]})
COMPONENTS = pd.DataFrame(
    {
        "half": [1, 1, 2, 2],
        "component": [1, 2, 1, 2],
        "power": [1.0, 0.2, 1.0, 0.1],
        "excess": [60.0, 3.0, 55.0, -1.0],
        "looked_at": [True, False, True, False],
    }
)


def test_the_figure_says_which_number_is_likeliest():
    figure = class_number_figure(EVIDENCE, COMPONENTS, used=2)
    words = [text.get_text() for text in figure.texts]
    assert any("likeliest with 2 class" in text for text in words)
    left, right = figure.axes
    points = left.collections[0].get_offsets()
    assert points.tolist() == [[1, 0], [2, 250], [3, 240]]
    colours = left.collections[0].get_facecolors()
    assert (colours[1] != colours[0]).any()
    assert (colours[0] == colours[2]).all()
    assert [bar.get_height() for bar in right.patches] == [60.0, 3.0, 55.0, -1.0]


def test_one_class_reads_as_one():
    flat = EVIDENCE.assign(log_likelihood=[0.0, -5.0, -9.0])
    figure = class_number_figure(flat, COMPONENTS, used=1)
    assert any("with one class" in text.get_text() for text in figure.texts)
