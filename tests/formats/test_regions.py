"""Regions: what the page saves, what plotly calls a lasso or a box, tables; and what is none."""

import json

import numpy as np
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.regions import read_region

TRIANGLE = [[0.0, 0.0], [2.0, 0.5], [1.0, 3.0]]
X, Y = ([p[k] for p in TRIANGLE] for k in (0, 1))


@pytest.mark.parametrize(
    ("content", "axes"),
    [
        ({"axes": ["PC1", "PC3"], "vertices": TRIANGLE}, (1, 3)),
        ({"axes": [2, 1], "vertices": TRIANGLE}, (2, 1)),
        (TRIANGLE, None),
        ({"lassoPoints": {"x": X, "y": Y}, "points": [1, 2]}, None),
        ({"lassoPoints": {"x2": X, "y2": Y}, "axes": ["pc02", "4"]}, (2, 4)),
        ({"x": X, "y": Y}, None),
    ],
)
def test_json(tmp_path, content, axes):
    (tmp_path / "region.json").write_text(json.dumps(content))
    region = read_region(tmp_path / "region.json")
    assert region.axes == axes
    np.testing.assert_array_equal(region.vertices, TRIANGLE)


def test_a_box(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"range": {"x": [1, 2], "y": [3, 5]}}))
    np.testing.assert_array_equal(
        read_region(tmp_path / "r.json").vertices, [[1, 3], [2, 3], [2, 5], [1, 5]]
    )


def test_a_table_names_its_components(tmp_path):
    (tmp_path / "r.csv").write_text("\ufeffpc2, PC1\n0,0\n2,0.5\n1,3\n", encoding="utf-8")
    region = read_region(tmp_path / "r.csv")
    assert region.axes == (2, 1)
    np.testing.assert_array_equal(region.vertices, TRIANGLE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", "{", "not JSON"),
        ("r.json", "[" * 100_000, "not JSON"),
        ("r.json", "3", "not pairs of numbers"),
        ("r.json", '{"axes": [1, 2]}', "no vertices"),
        ("r.json", "[[0, 0], [1, 1], [0, 0]]", "fewer than three different vertices"),
        ("r.json", "[[0, 0], [1, 1], [0, NaN]]", "not pairs of numbers"),
        ("r.json", '[[0, 0], [1, 1], [0, "a"]]', "not pairs of numbers"),
        ("r.json", "[[0, 0], [1, 1], [0]]", "not pairs of numbers"),
        ("r.json", '{"x": [1, 2, 3], "y": [1, 2]}', "not lists of one length"),
        ("r.json", '{"range": {"x": [1], "y": [1, 2]}}', "a range needs two numbers"),
        ("r.json", '{"axes": ["PC1"], "vertices": []}', "expected two components"),
        ("r.json", '{"axes": ["PC1", "PC1"], "vertices": []}', "expected two components"),
        ("r.json", '{"axes": "PC1,PC2", "vertices": []}', "expected two components"),
        ("r.csv", "x,y\n0,0\n", "expected two components"),
        ("r.csv", "pc1,pc2,pc3\n0,0,0\n", "expected two components"),
        ("r.csv", "", "not a table"),
        ("r.csv", "pc1,pc2\n0,a\n1,1\n2,0\n", "not pairs of numbers"),
    ],
)
def test_what_is_no_region(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        read_region(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_region(tmp_path / "none.json")
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not a text"):
        read_region(tmp_path / "r.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        read_region(tmp_path / "large.json")
