import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.runtime.memory import Plan, check_plan, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2 * 10**9),
        ("2g", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("4gi", 4 * 2**30),
        ("1e9", 10**9),
        ("300M", 3 * 10**8),
        (123_456_789, 123_456_789),
    ],
)
def test_amounts_are_read_as_people_write_them(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "GB", "-2GB", "2 parsecs", "4GBps", "nan", None])
def test_what_is_no_amount_is_refused_with_the_option(text):
    with pytest.raises(InputError, match=r"^--memory-limit: got .*expected an amount of memory"):
        parse_bytes(text)


def test_a_forgotten_unit_is_noticed():
    with pytest.raises(InputError, match=r"--cache: got '4', 4 bytes; expected at least 100MB"):
        parse_bytes("4", option="--cache")


@given(st.integers(100 * 10**6, 2**50))
def test_bytes_come_back_as_they_are(amount):
    assert parse_bytes(amount) == parse_bytes(f"{amount}B") == amount


def test_a_plan_is_said_in_one_line():
    plan = Plan("pca", 1200, 3 * 2**30, 5 * 2**20, 700 * 2**20)
    assert plan.format() == (
        "pca: 1,200 tasks, reads 3.00 GiB, writes 5.00 MiB, at most 700.00 MiB per worker"
    )


def test_a_plan_that_fits_to_the_byte_is_accepted_and_one_byte_more_is_refused():
    plan = Plan("pca", 1, 0, 0, 2**30, remedy="--n-components")
    check_plan(plan, 2**30)
    with pytest.raises(InputError) as refused:
        check_plan(plan, 2**30 - 1)
    message = str(refused.value)
    assert message.startswith("pca needs 1.00 GiB per worker")
    assert "--n-components" in message
    assert "--memory-limit" in message
    assert "\n" not in message
