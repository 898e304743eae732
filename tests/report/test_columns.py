"""Columns of a table as lines."""

import numpy as np
import pytest

from emhet_dask.report import column_lines


def test_lines_hold_the_values_over_the_first_column():
    x, y, z = np.array([0.0, 0.5, 2.0]), np.array([3.0, 1.0, 2.0]), np.array([1.0, np.nan, 0.0])
    (axes,) = column_lines({"y": y, "z": z}, x=x, x_label="x").axes
    for line, values in zip(axes.lines, (y, z), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([x, values]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["y", "z"]
    assert axes.get_xlabel() == "x"


def test_rows_are_counted_from_one_where_nothing_else_is_given():
    (axes,) = column_lines({"y": np.array([3.0, 1.0])}).axes
    assert list(axes.lines[0].get_xdata()) == [1, 2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("row", "y")
    assert axes.get_legend() is None


@pytest.mark.parametrize(("n", "named"), [(3, True), (300, False)])
def test_texts_name_the_rows_as_long_as_they_can_be_read(n, named):
    names = np.array([f"job/{'x' * 30}{row}" for row in range(n)], dtype=object)
    (axes,) = column_lines({"y": np.arange(n, dtype=float)}, x=names).axes
    texts = [text.get_text() for text in axes.get_xticklabels()]
    assert texts == ["…" + name[-24:] for name in names] if named else len(texts) < 40
    assert list(axes.lines[0].get_xdata()) == list(range(1, n + 1))
