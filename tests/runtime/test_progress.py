import io
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime import progress as progress_module
from emhet_dask.runtime import submit
from emhet_dask.runtime.clients import connect
from emhet_dask.runtime.progress import Progress, State, duration


@pytest.fixture(scope="module")
def client():
    with connect("local") as client:
        yield client


@pytest.fixture
def eager(monkeypatch):
    """Show everything at once, however short the work."""
    monkeypatch.setattr(progress_module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(progress_module, "LOG_LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress_module, "LOG_TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress_module._Log, "interval", 0.01)
    monkeypatch.setattr(progress_module._Terminal, "interval", 0.01)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def state(**changes):
    facts = {
        "label": "ingest",
        "note": "",
        "done": 250,
        "total": 1000,
        "unit": "volumes",
        "all_done": 150,
        "all_bytes": 300 * 2**20,
        "seconds": 10.0,
        "pass_seconds": 10.0,
        "done_before": 100,
    }
    return State(**facts | changes)


# --- what is said ---------------------------------------------------------------------------------


def test_the_rest_is_judged_by_what_this_run_has_done():
    assert state().fraction == 0.25
    assert state().seconds_left == pytest.approx(750 * 10 / 150)
    assert state(done=100, all_done=0).seconds_left is None
    assert state(total=None).fraction is None
    assert state(done=1200).fraction == 1.0


@pytest.mark.parametrize(
    ("given_state", "expected"),
    [
        (
            state(),
            "ingest: 25%, 250 of 1,000 volumes (10 s, 15/s, 30.00 MiB/s, about 50 s left)",
        ),
        (state(total=None, all_bytes=0), "ingest: 250 volumes (10 s, 15/s)"),
        (
            state(note="pass 3", done=0, all_done=0, all_bytes=0, total=None),
            "ingest, pass 3: (10 s)",
        ),
    ],
)
def test_a_log_line(given_state, expected):
    assert progress_module._running(given_state, bar=False) == expected


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (False, "ingest: 150 volumes in 10 s (15/s, 30.00 MiB/s)"),
        (True, "ingest: stopped after 150 volumes in 10 s (15/s, 30.00 MiB/s)"),
    ],
)
def test_a_last_line(failed, expected):
    assert progress_module._ended(state(), failed=failed) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_for_people(seconds, expected):
    assert duration(seconds) == expected


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 200), st.floats(0, 1e6))
def test_a_bar_is_always_as_wide_as_it_should_be(done, total, columns, seconds):
    line = progress_module._running(
        state(done=done, total=total, all_done=done, seconds=seconds), bar=True
    )
    assert line.index("]") - line.index("[") == progress_module.BAR_WIDTH + 1


# --- where and when it is said --------------------------------------------------------------------


def test_short_work_is_not_worth_a_word():
    for stream in (io.StringIO(), Terminal()):
        with Progress(stream=stream).task("mask", total=3) as task:
            task.update()
        assert stream.getvalue() == ""


def test_a_log_has_a_line_at_the_start_for_each_tenth_and_at_the_end(eager):
    stream = io.StringIO()
    with Progress(stream=stream).task("ingest", total=20, unit="volumes") as task:
        for _ in range(20):
            task.update()
            time.sleep(0.03)
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    percents = [int(line.split("%")[0].split()[-1]) for line in lines[:-1]]
    assert percents == sorted(percents)
    assert 5 <= len(percents) <= 11
    assert len({percent // 10 for percent in percents}) >= len(percents) - 1
    assert lines[-1].startswith("ingest: 20 volumes in 1 s")


def test_a_log_has_no_two_lines_within_ten_seconds(eager, monkeypatch):
    monkeypatch.setattr(progress_module, "LOG_LINE_SECONDS", 10.0)
    log = progress_module._Log(stream := io.StringIO())
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    for second in range(35):
        now[0] = 100.0 + second
        log.draw(state(done=second * 20, total=700, seconds=float(second)))
    assert len(stream.getvalue().splitlines()) == 4


def test_a_terminal_has_one_line_that_is_drawn_over_and_ends_as_a_summary(eager):
    stream = Terminal()
    with Progress(stream=stream).task("ingest", total=10, unit="volumes") as task:
        for _ in range(10):
            task.update()
            time.sleep(0.02)
    drawn, ended, rest = stream.getvalue().rpartition("\r\x1b[K")
    assert drawn.count("\r") >= 3
    assert "\n" not in drawn
    assert ended
    assert rest.startswith("ingest: 10 volumes in 0 s")
    assert rest.endswith("\n")


def test_what_is_said_meanwhile_does_not_mix_with_the_bar(eager):
    stream = Terminal()
    progress = Progress(stream=stream)
    with progress.task("pca", total=2) as task:
        task.update()
        time.sleep(0.05)
        progress.say("mask: done before")
    assert "\r\x1b[Kmask: done before\n" in stream.getvalue()


def test_quiet_is_quiet(eager, client, capfd):
    progress = Progress(quiet=True)
    progress.say("mask: done before")
    with progress.task("mask", total=1):
        time.sleep(0.05)
    assert list(progress.map(client, abs, [-1], label="abs")) == [1]
    assert capfd.readouterr() == ("", "")


def test_inner_work_is_what_is_shown(eager):
    stream = Terminal()
    progress = Progress(stream=stream)
    with progress.task("landscape"), progress.task("mask", total=4):
        time.sleep(0.05)
    assert stream.getvalue().count("mask: [") >= 1
    assert "landscape:" not in stream.getvalue().split("mask: 0 s")[0]


def test_a_listener_is_told_of_everything_even_in_silence(monkeypatch):
    monkeypatch.setattr(progress_module, "LOG_TICK_SECONDS", 0.02)
    told = []
    progress = Progress(quiet=True, listener=told.append)
    with progress.task("ingest", total=5, unit="volumes", done=2) as task:
        for _ in range(3):
            task.update(bytes=10)
            time.sleep(0.05)
    assert told[0].done == 2
    assert len(told) >= 4
    assert [s.done for s in told] == sorted(s.done for s in told)
    assert (told[-1].done, told[-1].all_done, told[-1].all_bytes) == (5, 3, 30)
    assert [s.ended for s in told].index(True) == len(told) - 1


def test_no_thread_is_left_when_work_has_ended_or_failed():
    with pytest.raises(ZeroDivisionError), Progress().task("x"):
        raise ZeroDivisionError
    assert "emhet-progress" not in {thread.name for thread in threading.enumerate()}


# --- computing ------------------------------------------------------------------------------------


def test_results_come_in_order_and_what_is_not_lazy_passes_through(client):
    array = da.arange(10, chunks=3)
    dataset = xr.Dataset({"a": ("x", da.ones(4, chunks=2))})
    total, same, computed, nested = Progress(quiet=True).compute(
        client, (array.sum(), "text", dataset, [array.max()]), label="x"
    )
    assert (total, same, nested) == (45, "text", [9])
    xr.testing.assert_identical(computed, dataset.compute())
    assert isinstance(computed["a"].data, np.ndarray)
    assert Progress(quiet=True).compute(client, (1, 2), label="x") == (1, 2)


def test_finished_tasks_are_counted(client, monkeypatch):
    monkeypatch.setattr(submit, "COUNT_INTERVAL", "20ms")
    monkeypatch.setattr(progress_module, "LOG_TICK_SECONDS", 0.02)
    told = []
    slow = [dask.delayed(time.sleep)(0.05, dask_key_name=f"sleep-{i}") for i in range(12)]
    Progress(quiet=True, listener=told.append).compute(
        client, [dask.delayed(list)(slow)], label="x"
    )
    counts = [s.done for s in told]
    assert {s.total for s in told} <= {None, 13}
    assert any(0 < count < 13 for count in counts)
    assert counts == sorted(counts)


def test_an_iterative_computation_is_one_piece_of_work_of_several_passes(client, eager):
    stream = io.StringIO()
    told = []
    progress = Progress(stream=stream, listener=told.append)
    with progress.computing(client, label="pca") as compute:
        for number in range(1, 4):
            assert compute(da.ones(4, chunks=2).sum() * number) == (4 * number,)
            time.sleep(0.05)
    assert {"", "pass 2", "pass 3"} >= {s.note for s in told} >= {"", "pass 3"}
    assert stream.getvalue().splitlines()[-1].startswith("pca: ")
    assert sum(s.ended for s in told) == 1


def test_what_a_task_raises_comes_through(client):
    def fail():
        raise InputError("a.mrc: truncated")

    with pytest.raises(InputError, match=r"^a\.mrc: truncated$"):
        Progress(quiet=True).compute(client, [dask.delayed(fail)()], label="x")
    with pytest.raises(InputError, match=r"^a\.mrc: truncated$"):
        list(Progress(quiet=True).map(client, lambda _: fail(), range(300), label="x"))
    assert idle(client)


def idle(client):
    """Wait until the scheduler knows of no task."""
    deadline = time.monotonic() + 10
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


# --- mapping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_item_once(client, batch, ordered):
    found = list(
        Progress(quiet=True).map(
            client, lambda x: x * x, range(300), label="a b", batch=batch, ordered=ordered
        )
    )
    expected = [x * x for x in range(300)]
    assert (found if ordered else sorted(found)) == expected


def test_no_items_no_results(client):
    assert list(Progress(quiet=True).map(client, abs, [], label="x")) == []


def test_order_holds_when_the_first_is_last(client):
    def slow_first(x):
        time.sleep(0.5 if x == 0 else 0)
        return x

    progress = Progress(quiet=True)
    assert list(progress.map(client, slow_first, range(100), label="x")) == list(range(100))
    as_they_come = list(progress.map(client, slow_first, range(100), label="x", ordered=False))
    assert as_they_come.index(0) > 0


def test_a_bounded_number_is_under_way(client, monkeypatch):
    monkeypatch.setattr(submit, "IN_FLIGHT_AT_LEAST", 8)
    taken = 0

    def items():
        nonlocal taken
        for number in range(200):
            taken = number + 1
            yield number

    results = Progress(quiet=True).map(client, abs, items(), label="x")
    most = 0
    for count, _ in enumerate(results, start=1):
        most = max(most, taken - count)
    window = submit._window(client)
    assert count == 200
    assert most <= window * (1 + submit.WINDOWS_WAITING)


def test_one_slow_item_does_not_let_results_pile_up(client, monkeypatch):
    monkeypatch.setattr(submit, "IN_FLIGHT_AT_LEAST", 2)
    monkeypatch.setattr(submit, "IN_FLIGHT_PER_THREAD", 1)
    taken = 0

    def items():
        nonlocal taken
        for number in range(60):
            taken = number + 1
            yield number

    def first_waits(x):
        until = time.monotonic() + 1.0
        while x == 0 and time.monotonic() < until:
            time.sleep(0.01)
        return x

    results = Progress(quiet=True).map(client, first_waits, items(), label="x")
    assert next(results) == 0
    assert 5 < taken <= submit._window(client) * (1 + submit.WINDOWS_WAITING) < 60
    assert list(results) == list(range(1, 60))


def test_bytes_and_counts_are_reported(client):
    told = []
    progress = Progress(quiet=True, listener=told.append)
    list(progress.map(client, abs, [1, 2, 3], label="x", done=4, bytes_of=lambda r: r * 10))
    last = told[-1]
    assert (last.done, last.total, last.all_bytes, last.ended) == (7, 7, 60, True)


def test_a_reader_who_stops_leaves_no_work_behind(client):
    results = Progress(quiet=True).map(client, time.sleep, [0.01] * 1000, label="x")
    next(results)
    results.close()
    assert idle(client)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_cancels(client):
    stopped = threading.Event()

    def press():
        """Press until it is felt: Python loses one that arrives in a weakref's callback."""
        wait = 0.5
        while not stopped.wait(wait):
            signal.raise_signal(signal.SIGINT)
            wait = 20

    presses = threading.Thread(target=press)
    presses.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(Progress(quiet=True).map(client, time.sleep, [0.05] * 10_000, label="x"))
    finally:
        stopped.set()
        presses.join()
    assert idle(client)


# --- workers that die -----------------------------------------------------------------------------


def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path):
    """Its work is done again, by others or by the process that takes its place."""

    def once_deadly(x):
        mark = tmp_path / "died"
        if x == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x * x

    with connect("local:2") as client:
        found = list(Progress(quiet=True).map(client, once_deadly, range(40), label="x"))
    assert found == [x * x for x in range(40)]
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_work_that_kills_every_worker_is_explained():
    def deadly(_):
        os.kill(os.getpid(), signal.SIGKILL)

    with connect("local:1") as client:
        with pytest.raises(EmhetError) as explained:
            list(Progress(quiet=True).map(client, deadly, [1], label="export"))
        with pytest.raises(EmhetError, match="pca: 4 workers in turn died"):
            Progress(quiet=True).compute(client, [dask.delayed(deadly)(1)], label="pca")
    message = str(explained.value)
    assert message.startswith("export: 4 workers in turn died at the same piece of work")
    assert "--memory-limit" in message
    assert "\n" not in message


def test_a_cancelled_computation_is_explained(client):
    def cancel():
        time.sleep(0.3)
        client.cancel(held, force=True)

    slow = dask.delayed(time.sleep)(1.5, dask_key_name="slow")
    held = [client.compute(slow)]
    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(EmhetError, match="x: the scheduler was lost, or the work cancelled"):
        Progress(quiet=True).compute(client, [slow], label="x")
    canceller.join()


@pytest.mark.slow
def test_a_scheduler_that_dies_is_explained_at_once_and_without_noise(tmp_path, capfd):
    file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", file, "--host", "127.0.0.1", "--no-dashboard"]

    def process(name, *options):
        command = [sys.executable, "-m", f"distributed.cli.{name}", *common, *options]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=tmp_path)

    with process("dask_scheduler", "--port", "0") as scheduler:
        while not file.exists():
            time.sleep(0.05)
        with process("dask_worker", "--nthreads", "1") as worker:
            killer = threading.Timer(1.0, scheduler.kill)
            with connect(f"scheduler-file:{file}") as client:
                killer.start()
                with pytest.raises(EmhetError, match="x: the scheduler was lost"):
                    list(Progress(quiet=True).map(client, time.sleep, [0.05] * 1000, label="x"))
            killer.join()
            worker.kill()
    assert capfd.readouterr() == ("", "")
