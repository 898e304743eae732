"""The graph of assembly: what is drawn, what follows and is not, and where it stands."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from emhet_dask.report.graph import _Assembly, relation_graph
from emhet_dask.report.style import to_png


def table(*rows):
    return pd.DataFrame(rows, columns=["block_a", "block_b", "relation"])


def blocks(names, **columns):
    return pd.DataFrame({"block": list(names), **columns})


def needs(found):
    return {(found.groups[a][0], found.groups[b][0]) for a, b in found.needs}


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


CHAIN = table((2, 1, "requires"), (3, 2, "requires"), (3, 1, "requires"))


def test_what_follows_is_left_out():
    found = _Assembly(CHAIN, [1, 2, 3])
    assert needs(found) == {(1, 2), (2, 3)}
    assert found.layers == [[0], [1], [2]]


def test_what_excludes_one_excludes_all_that_require_it():
    relations = pd.concat([CHAIN, table(*[(a, 4, "excludes") for a in (1, 2, 3)])])
    found = _Assembly(relations, [1, 2, 3, 4])
    assert [(found.groups[a], found.groups[b]) for a, b in found.apart] == [([1], [4])]


def test_two_that_come_together_are_one():
    relations = table((1, 3, "together"), (2, 1, "requires"), (2, 3, "requires"))
    found = _Assembly(relations, [1, 2, 3])
    assert found.groups == [[1, 3], [2]]
    assert needs(found) == {(1, 2)}


def test_a_circle_of_requirements_is_a_group():
    found = _Assembly(table((1, 2, "requires"), (2, 3, "requires"), (3, 1, "requires")), [1, 2, 3])
    assert found.groups == [[1, 2, 3]]
    assert found.needs == []


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(deadline=None, max_examples=40)
def test_arrows_lead_to_the_right_and_keep_what_was_said(seed, n):
    rng = np.random.default_rng(seed)
    pairs = [(int(b), int(a)) for a in range(n) for b in range(a + 1, n) if rng.random() < 0.3]
    found = _Assembly(table(*[(b, a, "requires") for b, a in pairs]), list(range(n)))
    layer = {found.groups[g][0]: depth for depth, part in enumerate(found.layers) for g in part}
    assert all(layer[a] < layer[b] for a, b in needs(found))
    reached = np.zeros((n, n), dtype=bool)
    for a, b in needs(found):
        reached[a, b] = True
    for _ in range(n):
        reached |= reached @ reached
    assert all(reached[a, b] for b, a in pairs)


def test_every_block_and_relation_is_drawn():
    relations = pd.concat([CHAIN, table((1, 5, "excludes"), (4, 6, "together"), (2, 4, "opposed"))])
    shown = blocks(range(1, 8), voxels=[700, 600, 500, 400, 300, 200, 100], fraction=[0.5] * 7)
    figure = relation_graph(relations, shown)
    patches = figure.axes[0].patches
    assert sum(isinstance(patch, Circle) for patch in patches) == 7
    assert sum(isinstance(patch, FancyArrowPatch) for patch in patches) == 3
    assert sum(isinstance(patch, FancyBboxPatch) for patch in patches) == 1
    assert {str(number) for number in range(1, 8)} <= set(texts(figure))
    assert texts(figure).count("50%") == 7
    assert "no such relation to another block" in texts(figure)
    assert "1 pair is together more or less often" in figure.texts[-1].get_text()
    radii = dict.fromkeys("17", 0.0)
    for patch, number in zip([p for p in patches if isinstance(p, Circle)], "1234567", strict=True):
        radii[number] = patch.radius
    assert radii["1"] > radii["7"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["A → B: B only where A is", "always together", "never together"]


def test_arrows_end_at_what_requires():
    figure = relation_graph(CHAIN, blocks([1, 2, 3]))
    patches = figure.axes[0].patches
    centre = {
        n: p.center
        for n, p in zip((1, 2, 3), (p for p in patches if isinstance(p, Circle)), strict=True)
    }
    arrows = [patch for patch in patches if isinstance(patch, FancyArrowPatch)]
    assert centre[1][0] < centre[2][0] < centre[3][0]
    assert [arrow.get_arrowstyle().arrow for arrow in arrows] == ["-|>"] * 2
    assert {(arrow.patchA.center, arrow.patchB.center) for arrow in arrows} == {
        (centre[1], centre[2]), (centre[2], centre[3]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("relations", "names", "said"),
    [
        (table(), ["only"], "One block: there is nothing"),
        (table((1, 2, "independent")), [1, 2], "No block requires, excludes or always"),
        (table((1, 2, "associated")), [1, 2], "No block requires, excludes or always"),
    ],
)
def test_no_relation_is_said(relations, names, said):
    figure = relation_graph(relations, blocks(names, voxels=[9] * len(names)))
    assert any(said in text for text in texts(figure))
    assert not figure.legends
    assert to_png(figure, dpi=30).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [25, 60])
def test_blocks_do_not_overlap_however_many(count):
    star = table(*[(number, 1, "requires") for number in range(2, count)])
    figure = relation_graph(star, blocks(range(1, count + 1), voxels=[100] * count))
    centres = np.array([p.center for p in figure.axes[0].patches if isinstance(p, Circle)])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 9 * np.eye(count)
    assert apart.min() > 0.54  # inches; the largest radius is 0.27
    low, high = centres.min(axis=0), centres.max(axis=0)
    assert (low > 0.27).all()
    assert high[0] < figure.axes[0].get_xlim()[1]
    assert high[1] < figure.axes[0].get_ylim()[0]


def test_names_and_colours_of_parts():
    names = ["RNA_5S", "L1-stalk", "a_very_long_name_of_a_part"]
    figure = relation_graph(
        table(("L1-stalk", "RNA_5S", "requires")), blocks(names, fraction=[0.9, 0.4, 0.25]),
        colours=["#000000", "#ffffff", "#ff0000"], noun="part",
    )  # fmt: skip
    assert "RNA_5S\n90%" in texts(figure)
    assert (
        max(len(line) for text in texts(figure) for line in text.split("\n")[:1] if "%" in text)
        <= 14
    )
    circles = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    assert [circle.get_facecolor()[:3] for circle in circles] == [(0, 0, 0), (1, 1, 1), (1, 0, 0)]


def test_a_figure_is_as_wide_as_it_needs():
    related = [table(*[(k + 1, k, "requires") for k in range(1, n)]) for n in (2, 4, 9)]
    few, some, many = (
        relation_graph(relations, blocks(range(1, 10))).get_size_inches()[0]
        for relations in related
    )
    assert few <= 6.0 < some <= 10.6 < many
    for n, relations in zip((2, 4, 9), related, strict=True):
        figure = relation_graph(relations, blocks(range(1, n + 1)))
        (axes,) = figure.axes
        right = max(circle.center[0] + circle.radius for circle in axes.patches[:n])
        assert 0.6 * axes.get_xlim()[1] <= right < axes.get_xlim()[1]


def test_a_long_note_is_in_several_lines_and_inside():
    relations = table((1, 2, "associated"), (1, 3, "requires"), (2, 3, "opposed"))
    figure = relation_graph(relations, blocks([1, 2, 3]))
    (note,) = [text for text in figure.texts if "not drawn" in text.get_text()]
    assert note.get_text().count("\n") == 1
    assert note.get_window_extent(dpi=figure.dpi).x1 < figure.bbox.x1
