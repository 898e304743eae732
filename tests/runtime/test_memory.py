import platform
from dataclasses import replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import InputError
from emhet_dask.runtime import Progress, ResultsFolder, connect, read_run, state_plan
from emhet_dask.runtime.memory import (
    WORKER_BYTES,
    Plan,
    Work,
    check_plan,
    parse_bytes,
    task_memory_bytes,
)


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


def test_what_may_be_counted_on_leaves_room_for_the_process_itself():
    assert task_memory_bytes(None) == 2 * 2**30
    assert task_memory_bytes("4GB") * 1.15 + WORKER_BYTES == pytest.approx(4e9)
    assert task_memory_bytes("200MB") == 10**8


def test_work_becomes_a_plan_for_the_threads_that_a_worker_has():
    work = Work("mask", 3, 10, 20, task_bytes=100 << 20, held_bytes=50 << 20, client_bytes=7 << 20)

    def data(threads, **options):
        return (work.on(threads, **options).peak_bytes_per_worker - WORKER_BYTES) / 2**20

    assert data(1) == pytest.approx(1.15 * 150)
    assert data(3) == data(16) == pytest.approx(1.15 * 350)  # there are no more tasks
    assert data(1, in_client=True) == pytest.approx(1.15 * 157)


def test_a_large_stage_says_its_plan_and_one_that_cannot_fit_says_so_alone(capsys):
    with connect("local:1", memory_limit="700MB") as client:
        small = Work("mask", 2, 10**9, 0, task_bytes=10**8)
        large = replace(small, stage="pairs", read_bytes=3 << 30)
        state_plan(small, client, Progress())
        assert capsys.readouterr().err == ""
        plan = state_plan(large, client, Progress())
        assert capsys.readouterr().err == f"{plan.format()}\n"
        with pytest.raises(InputError, match=r"^pairs needs .* but a worker has 667\.57 MiB"):
            state_plan(replace(large, task_bytes=6 * 10**8), client, Progress())
        assert capsys.readouterr().err == ""


KEPT = []


def leave_free_memory():
    """Free 60 MB below an object that lives on."""
    many = [bytes(1000) for _ in range(60_000)]
    KEPT.append(many[-1])


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU library gives it back")
def test_workers_give_back_what_lies_free_before_a_stage():
    with connect("local:1") as client:
        client.run(leave_free_memory)
        (before,) = client.run(resident).values()
        state_plan(Work("mask", 1, 0, 0, task_bytes=1), client, Progress())
        (after,) = client.run(resident).values()
    assert before - after > 40 * 10**6


def test_a_stage_records_what_it_stated(tmp_path):
    work = Work("pca", 2, 10, 20, task_bytes=10**6)
    options = {"command": "x", "inputs": {}}
    with (
        connect("local:1") as client,
        ResultsFolder.open(tmp_path / "out", client=client, **options) as results,
    ):
        first = results.stage("pca", parameters={}, build=lambda _: results.state(work))
        second = results.stage("report", parameters={}, build=lambda _: None)
    assert [plan["stage"] for plan in first.plans] == ["pca"]
    assert second.plans == ()
    assert read_run(tmp_path / "out").stages == {"pca": first, "report": second}
