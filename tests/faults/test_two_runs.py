"""Two runs with the same output: one works, the other is told in one line."""

import pytest

import emhet_dask
from emhet_dask.errors import InputError
from tests.faults.endings import assert_same, emhet, end, wait_until

pytestmark = pytest.mark.slow


def test_two_runs_that_make_one_store(sources, command, undisturbed, tmp_path, small):
    out = tmp_path / "decode"
    first = emhet(*command("decode", out), times=0, SECONDS_PER_VOLUME="0.2")
    wait_until((out / "ingest_record" / "c").exists)
    with pytest.raises(InputError) as caught:
        emhet_dask.decode(str(sources / "run"), 3, output=str(out), n=40, overwrite=True)
    told = str(caught.value)
    assert told.startswith(f"{out}: another run (emhet decode, process {first.pid} on ")
    assert "\n" not in told
    ended = end(first)
    assert (ended.status, ended.left) == (0, []), ended.err
    assert_same(out, undisturbed / "decode")
    assert [path.name for path in tmp_path.iterdir()] == ["decode"]


def test_a_store_whose_maker_was_killed_is_taken_over(command, undisturbed, tmp_path):
    out = tmp_path / "decode"
    words = command("decode", out)
    first = emhet(*words, times=0, SECONDS_PER_VOLUME="0.2")
    wait_until((out / "ingest_record" / "c").exists)
    first.kill()
    assert end(first).left == []
    assert (tmp_path / ".decode.lock").exists()
    assert end(emhet(*words, times=0)).status == 0
    assert_same(out, undisturbed / "decode")
    assert [path.name for path in tmp_path.iterdir()] == ["decode"]
