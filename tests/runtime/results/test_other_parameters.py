"""Results of other parameters are kept, replaced or refused; what a person wrote stays."""

import pytest

from emhet_dask.errors import InputError
from emhet_dask.runtime.record import read_run
from tests.runtime.results.folder import ALL, FILES


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
