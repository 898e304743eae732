from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.report.names import shortened


@given(
    names=st.lists(st.text("ab_/", min_size=1, max_size=40), max_size=8), most=st.integers(4, 30)
)
def test_no_name_is_too_long_and_short_ones_stay(names: list[str], most: int) -> None:
    found = shortened(names, most=most)
    assert len(found) == len(names)
    for name, short in zip(names, found, strict=True):
        assert len(short) == min(len(name), most)
        assert short == name if len(name) <= most else "…" in short


def test_names_that_differ_stay_apart_wherever_they_differ() -> None:
    filler = "x" * 60
    for names in (
        [f"class{k}_{filler}" for k in range(9)],
        [f"{filler}_class{k}" for k in range(9)],
        [f"{filler[:9]}{k}{filler}" for k in range(9)],
    ):
        assert len(set(shortened(names, most=24))) == 9
