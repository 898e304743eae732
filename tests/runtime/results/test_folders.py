"""Which folders results go into, and which are refused."""

import json
import os
from pathlib import Path

import pytest

from emhet_dask.errors import InputError
from emhet_dask.runtime.record import read_run
from emhet_dask.runtime.results import ResultsFolder


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_things_is_refused(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(InputError, match="not empty and not a results folder"),
        ResultsFolder.open(tmp_path, command="x", inputs={}, overwrite=overwrite),
    ):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("file", "is a file, expected a folder"),
        ("file/out", "cannot be made"),
        ("s3://key:secret@bucket/out", "s3://bucket/out: was given with a user, password"),
    ],
)
def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(InputError, match=said), ResultsFolder.open(path, command="x", inputs={}):
        pass
    assert list(Path().iterdir()) == [Path("file")]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": "x"}', "\udcff"])
def test_a_run_file_of_something_else_is_refused(folder, text):
    folder.path.mkdir()
    (folder.path / "run.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match="not a record of emhet"):
        folder.run()
    with pytest.raises(InputError, match="not a record of emhet"):
        read_run(folder.path)
    assert folder.files() == ["run.json"]


def test_a_record_of_a_later_version_is_refused(folder):
    folder.run()
    later = json.loads(folder.text("run.json")) | {"schema": 2}
    (folder.path / "run.json").write_text(json.dumps(later))
    with pytest.raises(InputError, match="later version"):
        folder.run()


def test_reading_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a results folder"):
        read_run(tmp_path)


def test_a_run_that_comes_to_nothing_leaves_nothing(folder):
    def fail(workspace):
        raise InputError("mask.mrc: not there")

    with pytest.raises(InputError), folder.open() as results:
        results.stage("mask", parameters={}, build=fail)
    assert not folder.path.exists()


def test_two_runs_in_one_folder_are_not_possible(folder):
    with (
        folder.open(),
        pytest.raises(InputError, match=rf"process {os.getpid()} on"),
        folder.open(),
    ):
        pass
    folder.run()
