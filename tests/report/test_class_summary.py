"""Words and figures of classifications."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

from emhet_dask.report.class_sheet import class_sheet
from emhet_dask.report.class_verdict import class_verdict
from emhet_dask.report.class_views import VIEW_BINS, views_figure
from emhet_dask.report.convergence import (
    class_colour,
    class_handles,
    convergence_figure,
    spectrum_figure,
)
from emhet_dask.report.style import to_png

SETTLED = {"state": "settled", "recent": 0.002, "earlier": 0.01, "limit": 0.01}
GOOD = {"sampling_factor": 0.97, "unsampled": 0.0, "poor": False}
POOR = {"sampling_factor": 0.31, "unsampled": 0.2, "poor": True}
FACTS = {
    "classes": SETTLED,
    "orientations": None,
    "offsets": None,
    "window": 3,
    "last_iteration": 25,
    "aligned": False,
    "distribution": {1: 0.02, 2: 0.38, 3: 0.6},
    "collapsed": [],
    "collapsed_share": 0.033,
    "coverage": {1: GOOD, 2: GOOD, 3: GOOD},
    "least_sampling_factor": 0.5,
    "most_unsampled": 0.05,
    "coverage_unknown": "",
}


def verdict(**changes):
    return class_verdict({**copy.deepcopy(FACTS), **changes})


def test_a_good_job():
    found = verdict()
    assert found.good
    assert found.words == "converged"
    said = " ".join(found.reasons)
    assert "up to 25, 0.20% of the particles changed class" in said
    assert "Orientations were not searched." in said
    assert "of the angles that the job was given" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": {**SETTLED, "state": "moving", "recent": 0.2}}, "still moving"),
        ({"classes": {**SETTLED, "state": "level", "recent": 0.2}}, "not settling"),
        ({"classes": {**SETTLED, "state": "unknown"}}, "too few iterations to tell"),
        ({"collapsed": [1]}, "converged; class 1 collapsed"),
        ({"collapsed": [1, 2]}, "converged; classes 1, 2 collapsed"),
        (
            {"coverage": {1: GOOD, 2: POOR, 3: POOR}},
            "converged; orientation coverage poor in classes 2, 3",
        ),
        # That few particles have few views says nothing new of a collapsed class.
        ({"collapsed": [1], "coverage": {1: POOR, 2: GOOD}}, "converged; class 1 collapsed"),
        (
            {"aligned": True, "orientations": {**SETTLED, "state": "moving", "recent": 3.0}},
            "still moving",
        ),
        ({"aligned": True, "orientations": {**SETTLED, "state": "level"}}, "converged"),
    ],
)
def test_words(changes, words):
    found = verdict(**changes)
    assert found.words.startswith(words)
    assert found.good == (words == "converged")


def test_what_is_not_known_is_said():
    nothing = {"state": "unknown", "recent": np.nan, "earlier": np.nan, "limit": 0.01}
    found = verdict(classes=nothing, coverage={}, coverage_unknown="iteration 9 has no _data.star")
    assert found.reasons[0] == "No optimiser file says how many particles changed class."
    assert "not judged: iteration 9 has no _data.star" in found.reasons[-1]


def test_reasons_hold_the_numbers():
    found = verdict(collapsed=[1], coverage={1: GOOD, 2: POOR, 3: GOOD})
    said = " ".join(found.reasons)
    assert "Class 1 holds 2.0% of the particles, less than 3.3%." in said
    assert "0.31, of class 2, with 20.0% of its Fourier shell empty" in said


def tables(n_classes=3, n_iterations=8, aligned=True):
    iterations = np.arange(1, n_iterations + 1)
    convergence = pd.DataFrame(
        {
            "iteration": iterations,
            "changes_classes": [1.0, *(0.5 ** iterations[1:-1]), 0.0][:n_iterations],
            "changes_orientations_deg": 10.0 / iterations if aligned else 2.7e-7,
            "changes_offsets_A": 2.0 / iterations if aligned else 0.0,
            "log_likelihood": 1e6 * iterations,
            "average_pmax": 0.8,
            "resolution_A": 12.0,
        }
    )
    classes = pd.DataFrame(
        {
            "iteration": np.repeat(iterations, n_classes),
            "class": np.tile(np.arange(1, n_classes + 1), n_iterations),
            "distribution": 1 / n_classes,
            "resolution_A": np.repeat(30.0 / iterations**0.3, n_classes),
        }
    )
    return classes, convergence


def test_convergence_panels():
    classes, convergence = tables()
    figure = convergence_figure(classes, convergence, job="job001", limit=0.01)
    shares, changes, moves, *_ = figure.axes
    assert len(shares.patches) == 3 * 8
    assert np.sum([bar.get_height() for bar in shares.patches]) == pytest.approx(8)
    assert changes.get_lines()[0].get_ydata().tolist() == convergence["changes_classes"].tolist()
    assert changes.get_yticklabels()[0].get_text() == "none"
    assert len(figure.axes) == 7  # offsets have an axis of their own
    assert "orientations" in moves.get_ylabel()
    assert to_png(figure).startswith(b"\x89PNG")


def test_what_is_not_there_is_said():
    classes, convergence = tables(aligned=False)
    convergence["changes_classes"] = np.nan
    convergence["log_likelihood"] = np.nan
    classes["resolution_A"] = np.nan
    figure = convergence_figure(classes, convergence, job="job001")
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [[], ["not known"], ["orientations were not searched"], [], ["not known"], []]
    to_png(figure)


def test_one_iteration_and_many_classes_draw():
    classes, convergence = tables(n_classes=60, n_iterations=1)
    to_png(convergence_figure(classes, convergence, job="job001"))
    assert len(class_handles(range(1, 61))) == 24
    assert class_colour(1) != class_colour(2)


def test_spectra_are_the_fsc_they_stand_for():
    shells = pd.DataFrame(
        {
            "class": [1, 1, 1, 1],
            "shell": [0, 1, 2, 3],
            "resolution_A": [np.inf, 60, 30, 20],
            "ssnr": [1e3, 9.0, 1.0, 0.0],
        }
    )
    figure = spectrum_figure(shells, job="job001", iteration=7)
    left, right = figure.axes
    assert left.get_lines()[0].get_ydata().tolist() == [9.0, 1.0]
    assert right.get_lines()[0].get_ydata().tolist() == pytest.approx([0.9, 0.5])
    assert right.get_lines()[0].get_xdata().tolist() == pytest.approx([1 / 60, 1 / 30])
    to_png(figure)


def test_views_of_few_particles_are_drawn_in_larger_bins():
    counts = np.zeros((2, *VIEW_BINS))
    counts[0] = 5
    counts[1, 0, 0] = 40
    figure = views_figure(counts, numbers=[2, 1], titles=["class 2", "class 1"], job="job001")
    fine, coarse = (axes.get_images()[0].get_array() for axes in figure.axes[:2])
    assert fine.shape == VIEW_BINS[::-1]
    assert coarse.shape == (4, 8)
    assert np.all(fine == 1)
    assert coarse.max() == 32  # all in one of 32 bins
    to_png(figure)


def test_class_maps_are_sorted_by_share():
    maps = {k: np.full((8, 8, 8), float(k), "f4") for k in (1, 2, 4)}
    maps[2][4, 4, 4] = 30
    classes = pd.DataFrame(
        {
            "class": [1, 2, 3, 4],
            "distribution": [0.1, 0.6, 0.0, 0.3],
            "resolution_A": [20.0, 10.0, np.nan, np.nan],
        }
    )
    figure = class_sheet(maps, classes=classes, voxel_size_angstrom=3.0, job="job001")
    titles = [text.get_text() for text in figure.axes[0].texts if "class" in text.get_text()]
    assert titles == ["class 2 · 60.0% · 10.0 Å", "class 4 · 30.0%", "class 1 · 10.0% · 20.0 Å"]
    to_png(figure)
