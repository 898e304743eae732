"""Bad jobs are one message, and so are jobs that cannot go together."""

import pytest

import emhet_dask
from emhet_dask.cli import main
from emhet_dask.errors import InputError
from tests.workflows.class3d_summary.fake_job import EVEN, make_job, write_iteration


def make_empty(folder):
    folder.mkdir()


def make_only_input(folder):
    write_iteration(folder, 0, EVEN)


def make_truncated(folder):
    make_job(folder)
    path = folder / "run_it004_model.star"
    path.write_text(path.read_text()[:-20])


def make_windows(folder):
    make_job(folder)
    path = folder / "run_it006_data.star"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def make_two_dimensional(folder):
    make_job(folder)
    path = folder / "run_it001_model.star"
    path.write_text(path.read_text().replace("_class001.mrc", "_classes.mrcs"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_empty, "not a RELION classification job"),
        (make_only_input, "has no finished iteration; expected files such as run_it001_model.star"),
        (make_truncated, "run_it004_model.star: line"),
        (make_windows, "has Windows line ends"),
        (make_two_dimensional, "(of a 3D classification)"),
        (lambda folder: folder.write_text("no folder"), "a file, expected the folder of a job"),
        (lambda folder: None, "no such folder"),
    ],
)
def test_bad_jobs_are_one_line_and_status_2(tmp_path, capsys, make, message):
    job = tmp_path / "job001"
    make(job)
    with pytest.raises(SystemExit) as left:
        main(["class3d", "summary", str(job), "-o", str(tmp_path / "out"), "-q"])
    assert left.value.code == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert str(job) in said
    assert not (tmp_path / "out/classes.csv").exists()


def test_a_job_given_twice_is_refused(tmp_path):
    job = make_job(tmp_path / "job001")
    with pytest.raises(InputError, match="given twice"):
        emhet_dask.class3d_summary([str(job), f"{job}/"], output=tmp_path / "out")


def test_other_jobs_into_the_same_folder_are_refused(tmp_path, summarise):
    jobs = [make_job(tmp_path / name) for name in ("job001", "job002")]
    summarise(jobs[0], output=tmp_path / "out")
    with pytest.raises(InputError, match="holds results of other input"):
        summarise(jobs[1], output=tmp_path / "out")
    summarise(jobs[1], output=tmp_path / "out", overwrite=True)
