import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emhet_dask.errors import EmhetError, InputError
from emhet_dask.runtime.progress import Progress
from emhet_dask.runtime.record import read_run
from emhet_dask.runtime.results import ResultsFolder

INPUTS = {"store": "abc"}


class Folder:
    """A results folder in which a test runs stages that write what it says."""

    def __init__(self, path):
        self.path = path
        self.built = []

    def open(self, **options):
        return ResultsFolder.open(
            self.path, **{"command": "landscape", "inputs": INPUTS, **options}
        )

    def builder(self, name, files, facts=None):
        def build(workspace):
            self.built.append(name)
            for file, text in files.items():
                (workspace / file).parent.mkdir(parents=True, exist_ok=True)
                (workspace / file).write_text(text)
            return facts

        return build

    def run(self, *, mask=1, pca=20, clusters=2, **options):
        """Run mask → pca → clusters → report; return the names of the stages built."""
        self.built.clear()
        stages = (
            ("mask", {"threshold": mask}, {"mask.mrc": f"{mask}"}, None),
            (
                "pca",
                {"n_components": pca},
                {"results.zarr/pca/c": f"{pca}", "pcs/pc1.mrc": f"{pca}"},
                None,
            ),
            (
                "clusters",
                {"linkage": "ward", "k": clusters},
                {"clusters/labels.csv": f"{clusters}"},
                {"n_clusters": clusters},
            ),
            ("report", {}, {"report.html": f"{clusters}", "explore.ipynb": "report"}, None),
        )
        with self.open(**options) as results:
            after = ()
            for name, parameters, files, facts in stages:
                results.stage(
                    name,
                    parameters=parameters,
                    after=after,
                    build=self.builder(name, files, facts),
                    replaceable=name in {"clusters", "report"},
                    keep_as="clusters_{linkage}_{n_clusters}" if name == "clusters" else None,
                )
                after = (name,)
        return self.built[:]

    def run_stages(self, *stages, **options):
        """Run stages, each a name, parameters, and a builder; each after the one before."""
        with self.open(**options) as results:
            after = ()
            for name, parameters, build in stages:
                results.stage(
                    name, parameters=parameters, after=after, build=build, replaceable=True
                )
                after = (name,)

    def files(self):
        return sorted(
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()
        )

    def text(self, name):
        return (self.path / name).read_text()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "out")


ALL = ["mask", "pca", "clusters", "report"]
FILES = [
    "clusters/labels.csv",
    "explore.ipynb",
    "mask.mrc",
    "pcs/pc1.mrc",
    "report.html",
    "results.zarr/pca/c",
    "results.zarr/zarr.json",
    "run.json",
]


# --- finishing, and finding finished --------------------------------------------------------------


def test_stages_are_built_once(folder):
    assert folder.run() == ALL
    assert folder.files() == FILES
    record = (folder.path / "run.json").read_bytes()
    assert folder.run() == []
    assert (folder.path / "run.json").read_bytes() == record


def test_the_user_is_told_what_is_done_before(folder, capsys):
    folder.run()
    folder.run(progress=Progress())
    assert capsys.readouterr().err.splitlines() == [f"{name}: done before" for name in ALL]


def test_the_record_says_what_was_done_with_what(folder):
    folder.run(parameters={"output": "s3://key:secret@bucket/x", "n_components": 20})
    written = json.loads(folder.text("run.json"))
    assert "secret" not in folder.text("run.json")
    assert written["command"] == "landscape"
    assert written["parameters"]["n_components"] == 20
    assert written["inputs"] == INPUTS
    assert written["versions"]["numpy"]
    run = read_run(folder.path)
    pca = run.stages["pca"]
    assert pca.parameters == {"n_components": 20}
    assert pca.after == ("mask",)
    assert set(pca.files) == {"results.zarr/pca/", "pcs/pc1.mrc"}
    assert pca.path("pcs/pc1.mrc").read_text() == "20"
    assert pca.peak_memory_bytes > 10**6
    assert run.stages["clusters"].summary == {"n_clusters": 2}


def test_a_stage_returns_its_record_built_or_not(folder):
    def stage():
        with folder.open() as results:
            return results.stage(
                "mask", parameters={"a": 1}, build=folder.builder("mask", {"m": "x"}, {"voxels": 7})
            )

    first, second = stage(), stage()
    assert not first.done_before
    assert second.done_before
    assert first == second
    assert second.summary == {"voxels": 7}
    assert second.path("m").read_text() == "x"


def test_the_memory_of_workers_elsewhere_is_recorded_too(folder):
    class Elsewhere:
        def scheduler_info(self, n_workers):
            return {"workers": {"a": {"metrics": {"memory": 7 * 10**9}}}}

    folder.run(client=Elsewhere())
    assert read_run(folder.path).stages["mask"].worker_peak_memory_bytes == 7 * 10**9


def test_the_store_of_arrays_is_a_zarr_group(folder):
    folder.run()
    assert json.loads(folder.text("results.zarr/zarr.json")) == {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {},
    }


def test_a_file_that_somebody_deleted_is_made_again_and_nothing_else_is(folder):
    folder.run()
    (folder.path / "mask.mrc").unlink()
    assert folder.run() == ["mask"]
    assert folder.files() == FILES


# --- other parameters -----------------------------------------------------------------------------


def test_other_upstream_parameters_are_refused_and_nothing_is_touched(folder):
    folder.run()
    before = {f: (folder.path / f).stat().st_mtime_ns for f in folder.files()}
    with pytest.raises(InputError) as refused:
        folder.run(pca=10, clusters=3)
    message = str(refused.value)
    assert "pca made with other settings (n_components: 20 → 10)" in message
    assert "--overwrite" in message
    assert "\n" not in message
    assert {f: (folder.path / f).stat().st_mtime_ns for f in folder.files()} == before
    assert folder.run() == []


def test_another_cut_keeps_the_earlier_one_and_redoes_no_more_than_it_must(folder):
    folder.run()
    assert folder.run(clusters=3) == ["clusters", "report"]
    assert folder.text("clusters/labels.csv") == "3"
    assert folder.text("clusters_ward_2/labels.csv") == "2"
    assert folder.text("report.html") == "3"
    assert folder.run(clusters=4) == ["clusters", "report"]
    assert folder.run(clusters=3) == ["clusters", "report"]
    assert folder.run(clusters=5) == ["clusters", "report"]  # clusters_ward_3 is there already
    kept = sorted(p.name for p in folder.path.glob("clusters*"))
    assert kept == ["clusters", "clusters_ward_2", "clusters_ward_3", "clusters_ward_4"]
    assert [folder.text(f"{name}/labels.csv") for name in kept] == ["5", "2", "3", "4"]


def test_a_kept_cut_does_not_take_the_place_of_a_persons_folder(folder):
    folder.run()
    (folder.path / "clusters_ward_2").mkdir()
    (folder.path / "clusters_ward_2" / "notes.txt").write_text("mine")
    folder.run(clusters=3)
    assert folder.text("clusters_ward_2/notes.txt") == "mine"
    assert folder.text("clusters_ward_2_2/labels.csv") == "2"


def test_overwrite_replaces_what_differs_and_all_that_was_made_from_it(folder):
    folder.run()
    folder.run(clusters=3)
    (folder.path / "notes.txt").write_text("mine")
    assert folder.run(pca=10, overwrite=True) == ["pca", "clusters", "report"]
    assert folder.files() == sorted([*FILES, "notes.txt"])  # clusters_ward_2 was of another PCA
    assert folder.text("pcs/pc1.mrc") == "10"
    assert folder.run(pca=10, overwrite=True) == []


def test_downstream_results_are_gone_as_soon_as_upstream_ones_differ(folder):
    folder.run()

    def fail(workspace):
        raise RuntimeError

    mask = ("mask", {"threshold": 2}, folder.builder("mask", {"mask.mrc": "2"}))
    with pytest.raises(RuntimeError):
        folder.run_stages(mask, ("pca", {"n_components": 20}, fail), overwrite=True)
    assert list(read_run(folder.path).stages) == ["mask"]
    assert folder.files() == ["mask.mrc", "results.zarr/zarr.json", "run.json"]


def test_an_error_while_replacing_leaves_the_earlier_version(folder):
    folder.run()

    def fail(workspace):
        (workspace / "clusters").mkdir()
        (workspace / "clusters" / "labels.csv").write_text("half")
        raise InputError("--n-clusters: more than volumes")

    done = (("mask", {"threshold": 1}, fail), ("pca", {"n_components": 20}, fail))
    with pytest.raises(InputError, match="more than volumes"):
        folder.run_stages(*done, ("clusters", {"k": 9}, fail))
    assert folder.files() == FILES
    assert folder.run() == []


def test_what_a_person_has_edited_stays(folder):
    folder.run()
    (folder.path / "explore.ipynb").write_text("my own figures")
    folder.run(clusters=3)
    assert folder.text("explore_edited.ipynb") == "my own figures"
    assert folder.text("explore.ipynb") == "report"
    (folder.path / "explore.ipynb").write_text("more figures")
    folder.run(clusters=4)
    assert folder.text("explore_edited_2.ipynb") == "more figures"
    assert folder.text("explore_edited.ipynb") == "my own figures"


def test_a_persons_file_in_the_way_of_a_new_one_stays(folder):
    folder.run()
    (folder.path / "extra").write_text("mine")
    with folder.open() as results:
        results.stage("more", parameters={}, build=folder.builder("more", {"extra/a.csv": "new"}))
    assert folder.text("extra/a.csv") == "new"
    assert folder.text("extra_edited") == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": "similarity"}, "holds results of 'emhet landscape', not 'similarity'"),
        ({"inputs": {"store": "xyz"}}, r"holds results of other input \(store: abc → xyz\)"),
    ],
)
def test_other_data_or_another_command_is_refused_until_overwritten(folder, options, said):
    folder.run()
    with pytest.raises(InputError, match=said):
        folder.run(**options)
    assert folder.run() == []
    assert folder.run(overwrite=True, **options) == ALL
    assert folder.files() == FILES
    assert folder.run(**options) == []


# --- folders --------------------------------------------------------------------------------------


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


def test_a_stage_cannot_come_after_what_has_not_been_done(folder):
    with pytest.raises(ValueError, match="pca comes after mask"), folder.open() as results:
        results.stage("pca", parameters={}, after=["mask"], build=folder.builder("pca", {}))


def test_two_stages_cannot_write_one_file(folder):
    stages = [(name, {}, folder.builder(name, {"m.mrc": name})) for name in "ab"]
    with pytest.raises(ValueError, match=r"b and a both write m\.mrc"):
        folder.run_stages(*stages)
    assert folder.text("m.mrc") == "a"


# --- faults ---------------------------------------------------------------------------------------


def test_a_full_disk_is_said_in_words_and_the_run_can_go_on(folder):
    def full(workspace):
        raise OSError(errno.ENOSPC, "No space left on device")

    mask = ("mask", {"threshold": 1}, folder.builder("mask", {"mask.mrc": "1"}))
    with pytest.raises(EmhetError, match=r"pca: no space left for .*out; make some"):
        folder.run_stages(mask, ("pca", {}, full))
    assert folder.run() == ["pca", "clusters", "report"]


def test_a_disk_that_fills_up_while_files_are_moved_loses_nothing(folder, monkeypatch):
    folder.run()
    replace = Path.replace
    moved = []

    def fills_up(source, target):
        moved.append(target)
        if len(moved) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fills_up)
        with pytest.raises(EmhetError, match="clusters: no space left"):
            folder.run(clusters=3)
    assert folder.run(clusters=3) == ["report"]
    assert folder.files() == sorted([*FILES, "clusters_ward_2/labels.csv"])


def shards(folder, *, stop_after=None, resumable=True, key=1):
    """Run a stage of five shards that skips those it finds; return those it wrote."""
    written = []

    def build(workspace):
        target = workspace / "results.zarr" / "matrix"
        target.mkdir(parents=True, exist_ok=True)
        (target / "c.0.partial").write_text("cut short")
        for number in range(5):
            if not (target / f"{number}").exists():
                if len(written) == stop_after:
                    raise KeyboardInterrupt
                (target / f"{number}").write_text(f"{number}")
                written.append(number)

    with folder.open() as results:
        results.stage("matrix", parameters={"key": key}, build=build, resumable=resumable)
    return written


def test_a_long_stage_goes_on_inside_where_it_was_stopped(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=1)
    assert read_run(folder.path).stages == {}
    assert shards(folder) == [3, 4]
    assert folder.files() == [
        *(f"results.zarr/matrix/{n}" for n in range(5)),
        "results.zarr/zarr.json",
        "run.json",
    ]


def test_an_attempt_with_other_parameters_is_not_gone_on_from(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    assert shards(folder, key=2) == [0, 1, 2, 3, 4]
    assert not (folder.path / ".staging").exists()


def test_a_mistake_in_between_does_not_cost_the_attempt(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2)
    with pytest.raises(InputError), folder.open():
        raise InputError("--linkage: got 'wart'")
    assert shards(folder) == [2, 3, 4]


def test_a_stage_that_is_not_resumable_begins_with_nothing(folder):
    with pytest.raises(KeyboardInterrupt):
        shards(folder, stop_after=2, resumable=False)
    assert not folder.path.exists()
    assert shards(folder, resumable=False) == [0, 1, 2, 3, 4]


KILLED_RUNS = Path(__file__).with_name("killed_runs.py")


def kill_everywhere(tmp_path, scenario, *, stride):
    done = subprocess.run(
        [sys.executable, "-W", "error", KILLED_RUNS, tmp_path, scenario, str(stride)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("scenario", ["first", "recut", "overwrite"])
def test_a_kill_loses_nothing_finished_and_leaves_no_mixture(tmp_path, scenario):
    assert kill_everywhere(tmp_path, scenario, stride=7) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["first", "recut", "overwrite"])
def test_a_kill_before_any_change_of_the_disk_loses_nothing(tmp_path, scenario):
    assert kill_everywhere(tmp_path, scenario, stride=1) >= 45


def test_a_run_killed_by_the_queue_is_gone_on_with(tmp_path):
    code = f"""
import sys, time
from emhet_dask.runtime.results import ResultsFolder

def build(workspace):
    (workspace / "mask.mrc").write_text("half")
    print("building", flush=True)
    time.sleep(60)

with ResultsFolder.open({str(tmp_path / "out")!r}, command="x", inputs={{}}) as results:
    results.stage("mask", parameters={{}}, build=build)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"building\n"
        run.send_signal(signal.SIGKILL)
    assert (tmp_path / "out" / ".lock").exists()

    def build(workspace):
        assert list(workspace.iterdir()) == []
        (workspace / "mask.mrc").write_text("whole")

    started = time.monotonic()
    with ResultsFolder.open(tmp_path / "out", command="x", inputs={}) as results:
        results.stage("mask", parameters={}, build=build)
    assert time.monotonic() - started < 20
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mask.mrc", "run.json"]
    assert (tmp_path / "out" / "mask.mrc").read_text() == "whole"
