"""Stages are built once, one after another, and recorded."""

import json

import pytest

from emhet_dask.runtime.progress import Progress
from emhet_dask.runtime.record import read_run
from tests.runtime.results.folder import ALL, FILES, INPUTS


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


def test_a_stage_cannot_come_after_what_has_not_been_done(folder):
    with pytest.raises(ValueError, match="pca comes after mask"), folder.open() as results:
        results.stage("pca", parameters={}, after=["mask"], build=folder.builder("pca", {}))


def test_two_stages_cannot_write_one_file(folder):
    stages = [(name, {}, folder.builder(name, {"m.mrc": name})) for name in "ab"]
    with pytest.raises(ValueError, match=r"b and a both write m\.mrc"):
        folder.run_stages(*stages)
    assert folder.text("m.mrc") == "a"
