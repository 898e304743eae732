"""Conditions on columns: what NumPy and pandas say, and nothing of Python beyond."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.formats.where import columns_of, rows_where

FRAME = pd.DataFrame(
    {
        "rlnClassNumber": [1, 2, 3, 2],
        "rlnOriginXAngst": [-7.5, 0.0, np.nan, 6.0],
        "rlnDefocusU": [1e4, 2e4, 3e4, 4e4],
        "rlnMicrographName": ["mic1.mrc", "mic2.mrc", "dir/mic12.mrc", "x.mrc"],
        "other": [1, 0, 1, 0],
    }
)


def where(expression):
    return rows_where(expression, columns_of(FRAME), source="a.star").tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ClassNumber == 2", [0, 1, 0, 1]),
        ("rlnClassNumber == 2", [0, 1, 0, 1]),
        ("_rlnClassNumber != 2", [1, 0, 1, 0]),
        ("ClassNumber in (1, 3)", [1, 0, 1, 0]),
        ("ClassNumber not in [1, 3]", [0, 1, 0, 1]),
        ("ClassNumber in ()", [0, 0, 0, 0]),
        ("abs(OriginXAngst) < 7", [0, 1, 0, 1]),
        ("not OriginXAngst >= 0", [1, 0, 1, 0]),
        ("OriginXAngst == OriginXAngst", [1, 1, 0, 1]),
        ("-1 < OriginXAngst <= 6 and other == 0", [0, 1, 0, 1]),
        ("1 < ClassNumber < 3 or DefocusU > 3.5e4", [0, 1, 0, 1]),
        ("DefocusU / 1e4 == ClassNumber", [1, 1, 1, 0]),
        ("ClassNumber ** 2 - 2 * ClassNumber + 1 == 0", [1, 0, 0, 0]),
        ("ClassNumber % 2 == 1", [1, 0, 1, 0]),
        ("DefocusU // 15000 == 1", [0, 1, 0, 0]),
        ("1 / other > 1", [0, 1, 0, 1]),
        ("MicrographName == 'x.mrc'", [0, 0, 0, 1]),
        ("'mic1' in MicrographName", [1, 0, 1, 0]),
        ("'mic1' not in MicrographName", [0, 1, 0, 1]),
        ("MicrographName in ('x.mrc', 'mic1.mrc')", [1, 0, 0, 1]),
        ("ClassNumber == 2\n and other == 0", [0, 1, 0, 1]),
    ],
)
def test_conditions(expression, expected):
    assert where(expression) == [bool(each) for each in expected]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("ClassNumbr == 2", r"a\.star has no column 'ClassNumbr'; did you mean rlnClassNumber\?"),
        ("zzz == 2", r"has no column 'zzz'; it has rlnClassNumber, rlnOriginXAngst"),
        ("ClassNumber = 2", r"cannot be understood .*; use == to compare"),
        ("ClassNumber == (2", "cannot be understood"),
        ("ClassNumber ==\x00 2", "cannot be understood"),
        ("ClassNumber", "is no condition on the rows"),
        ("1 < 2", "is no condition on the rows"),
        ("ClassNumber == 2 & other == 1", "use 'and' instead of '&'"),
        ("(ClassNumber == 2) | (other == 1)", "use 'or' instead of '|'"),
        ("~(ClassNumber == 2)", "use 'not' instead of '~'"),
        ("ClassNumber is 2", "use == instead of 'is'"),
        ("ClassNumber and other", "'ClassNumber' is no condition"),
        ("(ClassNumber == 2) + 1 > 0", "is no number to calculate with"),
        ("MicrographName + 1 > 0", "is no number to calculate with"),
        ("MicrographName == 2", "compares a text with a number"),
        ("MicrographName < 'a'", "compares texts; texts go with texts"),
        ("ClassNumber == (1, 2)", "a list is compared; expected 'in' before it"),
        ("ClassNumber in 2", "'in' needs a column before a list"),
        ("ClassNumber in MicrographName", "'in' needs a column before a list"),
        ("ClassNumber == None", "cannot hold 'None'"),
        ("ClassNumber == True", "cannot hold 'True'"),
        ("len(ClassNumber) > 2", "cannot hold 'len"),
        ("abs(ClassNumber, 2) > 2", "cannot hold 'abs"),
        ("__import__('os').system('true') == 0", "cannot hold .__import__"),
        ("ClassNumber.dtype == 2", r"cannot hold 'ClassNumber\.dtype'"),
        ("ClassNumber[0] == 2", "cannot hold"),
        ("(lambda: 1)() == 2", "cannot hold"),
        ("[x for x in ClassNumber] == 2", "cannot hold"),
        ("(ClassNumber := 2) == 2", "cannot hold"),
        ("f'{ClassNumber}' == 'a'", "cannot hold"),
        ("9" * 400 + " * ClassNumber > 2", "too large"),
        ("ClassNumber % " + "9" * 40 + " == 2", "too large"),
        ("ClassNumber == 1 or " * 200 + "ClassNumber == 2", "expected an expression of at most"),
        ("- " * 900 + "ClassNumber > 2", "nested too deeply|cannot be understood"),
        ("(" * 250 + "ClassNumber" + ")" * 250 + " > 2", "nested too deeply|cannot be understood"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(expression, message):
    with pytest.raises(InputError, match=message) as caught:
        where(expression)
    assert str(caught.value).startswith("--where")
    assert "\n" not in str(caught.value)


def test_names_with_slashes_are_columns():
    records = np.zeros(
        3, [("uid", "<u8"), ("ctf/df1_A", "<f4"), ("blob/path", "S5"), ("a/pose", "<f4", (3,))]
    )
    records["uid"] = [2**63, 2**63 + 1, 5]
    records["ctf/df1_A"] = [1, 2, 3]
    records["blob/path"] = [b"a/b", b"c", b"c"]
    columns = columns_of(records)
    assert list(columns) == ["uid", "ctf/df1_A", "blob/path"]

    def found(expression):
        return rows_where(expression, columns, source="a.cs").tolist()

    assert found("1 + ctf/df1_A / 2 >= 2") == [False, True, True]
    assert found(f"uid == {2**63 + 1}") == [False, True, False]
    assert found("uid % 2 == 1") == [False, True, True]
    assert found("'a/b' in blob/path") == [True, False, False]
    assert found("blob/path != 'blob/path'") == [True] * 3


def test_no_value_is_a_text_like_others():
    columns = columns_of(pd.DataFrame({"rlnGroupName": ["g1", np.nan, "g2"]}))
    assert rows_where("'g' in GroupName", columns, source="a").tolist() == [True, False, True]
    assert rows_where("GroupName == 'nan'", columns, source="a").tolist() == [False, True, False]


def test_bytes_that_are_no_text_are_replaced():
    records = np.array([(b"a\xff",), (b"b",)], dtype=[("blob/path", "S2")])
    found = rows_where("'a' in blob/path", columns_of(records), source="a.cs")
    assert found.tolist() == [True, False]


NUMBERS = st.floats(-100, 100).map(lambda value: round(value, 2))
TERMS = st.recursive(
    st.sampled_from(["a", "b"]) | NUMBERS.map(repr),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda parts: f"({' '.join(parts)})"
    ),
    max_leaves=5,
)
CONDITIONS = st.recursive(
    st.tuples(TERMS, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), TERMS).map(" ".join),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        )
        | inner.map(lambda one: f"not ({one})")
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(CONDITIONS, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_rows_are_those_python_finds_one_by_one(condition, rows):
    table = np.array(rows)
    columns = {"a": table[:, 0], "b": table[:, 1]}
    if not {"a", "b"} & set(condition.replace("and", "")):
        condition = f"a == a and ({condition})"  # only columns say how many rows there are
    found = rows_where(condition, columns, source="a.star")
    one_by_one = [bool(eval(condition, {"a": a, "b": b})) for a, b in table.tolist()]
    assert found.tolist() == one_by_one


@settings(deadline=None)
@given(st.text(st.sampled_from("ab1().,<>=~&|*/%-+'\"[]{}:\\ \n!@_;# innotandor"), max_size=30))
def test_any_text_is_a_condition_or_one_line(text):
    try:
        found = rows_where(text, {"a": np.arange(3), "b": np.arange(3.0)}, source="a.star")
    except InputError as error:
        found = str(error)
    assert "\n" not in found if isinstance(found, str) else found.shape == (3,)
