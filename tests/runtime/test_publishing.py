import json
import re
from contextlib import suppress

import fsspec
import pytest

from emhet_dask.errors import InputError
from emhet_dask.runtime import lock
from emhet_dask.runtime.progress import Progress
from emhet_dask.runtime.publishing import STAGING_VARIABLE
from emhet_dask.runtime.results import ResultsFolder
from emhet_dask.urls import UrlPlace, check_url, words_for_url

URL = "memory://bucket/results"
BASE = {"mask": 1, "clusters": 2}


class Killed(BaseException):
    """Nobody catches it."""


@pytest.fixture
def store():
    """Return an empty object store in the memory of this process."""
    files = fsspec.filesystem("memory", use_listings_cache=False)
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Return what makes this process one on another machine, whose staging is empty."""
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0)

    def be(name):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv(STAGING_VARIABLE, str(tmp_path / name))
        return tmp_path / name

    be("here")
    return be


def run(url=URL, *, mask=1, clusters=2, built=None, **options):
    """Run mask → clusters; files tell what they were made with. Return the stages built."""
    built = [] if built is None else built

    def builder(name, files):
        def build(workspace):
            built.append(name)
            for file, text in files.items():
                (workspace / file).parent.mkdir(parents=True, exist_ok=True)
                (workspace / file).write_text(text)

        return build

    with ResultsFolder.open(url, command="landscape", inputs={}, **options) as results:
        results.stage(
            "mask",
            parameters={"mask": mask},
            build=builder("mask", {"mask.mrc": f"{mask}", "results.zarr/mask/c/0": f"{mask}"}),
        )
        results.stage(
            "clusters",
            parameters={"k": clusters},
            after=("mask",),
            build=builder(
                "clusters", {"clusters/labels.csv": f"{clusters}", f"of_{clusters}.csv": ""}
            ),
            replaceable=True,
            keep_as="clusters_{k}",
        )
    return built


def seen(files, root="/bucket/results"):
    """Return the objects, without the record; and what a reader of that record may rely on."""
    found = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    entry = json.loads(found.pop("run.json", b'{"stages": {}, "kept": {}}'))
    return found, entry


def assert_nothing_is_half_there(files):
    found, entry = seen(files)
    for name, stage in entry["stages"].items():
        value = str(stage["parameters"]["mask" if name == "mask" else "k"]).encode()
        for unit in stage["files"]:
            inside = [n for n in found if n == unit or (unit.endswith("/") and n.startswith(unit))]
            assert inside, (name, unit)
            assert all(found[n] in {value, b""} for n in inside), (name, unit)
    for folder in entry["kept"]:
        assert found[f"{folder}/labels.csv"]


def test_finished_stages_are_published_and_nothing_is_left_here(store, machine):
    assert run() == ["mask", "clusters"]
    found, entry = seen(store)
    assert set(found) == {
        "mask.mrc",
        "results.zarr/zarr.json",
        "results.zarr/mask/c/0",
        "clusters/labels.csv",
        "of_2.csv",
    }
    assert list(entry["stages"]) == ["mask", "clusters"]
    assert "publishing" not in entry
    assert list(machine("here").iterdir()) == []


def test_another_machine_finds_everything_done(store, machine):
    run()
    machine("there")
    assert run() == []
    assert run(clusters=3) == ["clusters"]
    found, entry = seen(store)
    assert found["clusters/labels.csv"] == b"3"
    assert found["clusters_2/labels.csv"] == b"2"
    assert "of_2.csv" not in found
    assert list(entry["kept"]) == ["clusters_2"]


def test_other_upstream_settings_are_refused_at_a_url_too(store):
    run()
    before = seen(store)
    with pytest.raises(InputError, match="--overwrite"):
        run(mask=5)
    assert seen(store) == before
    assert run(mask=5, overwrite=True) == ["mask", "clusters"]


@pytest.mark.parametrize("afterwards", ["here", "there"])
@pytest.mark.parametrize("earlier", [None, BASE])
def test_killed_before_any_change_no_half_stage_is_seen(
    store, machine, monkeypatch, earlier, afterwards
):
    now = {"mask": 1, "clusters": 3}
    machine("undisturbed")
    if earlier is not None:
        run(**earlier)
    run(**now)
    expected, _ = seen(store)
    for number in range(100):
        store.store.clear()
        machine(f"here{number}")
        if earlier is not None:
            run(**earlier)
        with monkeypatch.context() as doomed:
            killed = _die_before_change(doomed, store, number)
            with suppress(Killed):
                run(**now)
        assert_nothing_is_half_there(store)
        machine(f"{afterwards}{number}")
        run(**now)
        found, entry = seen(store)
        assert found == expected
        assert "publishing" not in entry
        if not killed():
            break
    assert 5 < number < 100


def _die_before_change(monkeypatch, files, number):
    """Raise at that change of the store, and let nothing be changed any more."""
    changes = []

    def doomed(name):
        change = getattr(type(files), name)

        def do(self, *arguments, **options):
            changes.append(name)
            if len(changes) > number:
                raise Killed
            return change(self, *arguments, **options)

        return do

    for name in ("pipe_file", "put_file", "rm_file"):
        monkeypatch.setattr(type(files), name, doomed(name))
    # The lock is no part of what is looked at; of a killed run it is taken over.
    for name in ("_create", "_rewrite", "_remove"):
        monkeypatch.setattr(lock.ObjectLock, name, lambda self, *_: True)
    monkeypatch.setattr(lock.ObjectLock, "_is_ours", lambda self: True)
    return lambda: len(changes) > number


def test_a_place_has_one_run_at_a_time(store, machine):
    with ResultsFolder.open(URL, command="landscape", inputs={}):
        machine("there")
        said = rf"^{URL}: another run \(emhet landscape, process \d+ on .+\) is writing there"
        with pytest.raises(InputError, match=said):
            run()
        owner = json.loads(store.cat_file("/bucket/results/.lock"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", owner["since"])
    assert not store.exists("/bucket/results/.lock")


def test_the_lock_of_a_run_that_is_gone_is_taken_over(store):
    run()
    gone = lock.ObjectLock(store, "/bucket/results", where=URL, command="emhet x")
    gone._owner["pid"], gone._owner["started"] = 2**22 + 1, 0.0
    assert gone._create()
    assert run(clusters=3) == ["clusters"]
    assert not store.exists("/bucket/results/.lock")


def test_a_place_with_other_things_is_left_alone(store):
    store.pipe_file("/bucket/results/thesis.tex", b"years of work")
    with pytest.raises(InputError, match="is not empty and holds no results"):
        run()
    assert seen(store)[0] == {"thesis.tex": b"years of work"}


def test_what_a_person_put_there_stays(store):
    run()
    store.pipe_file("/bucket/results/notes.txt", b"mine")
    run(clusters=3)
    assert seen(store)[0]["notes.txt"] == b"mine"


@pytest.mark.parametrize(
    "url", ["s3://k:SECRET@bucket/x", "s3://bucket/x?AWSAccessKeyId=SECRET", "s3://SECRET@bucket/x"]
)
def test_credentials_in_a_url_are_refused_without_repeating_them(url):
    with pytest.raises(InputError, match=r"^s3://bucket/x: was given with") as refused:
        check_url(url)
    assert "SECRET" not in str(refused.value)


def test_trouble_with_a_store_is_said_in_one_line():
    said = r"^s3://b/x: permission denied \(Forbidden\)"
    with pytest.raises(InputError, match=said), words_for_url("s3://b/x"):
        raise PermissionError("Forbidden")
    with pytest.raises(ZeroDivisionError), words_for_url("s3://b/x"):
        raise ZeroDivisionError
    with pytest.raises(PermissionError), words_for_url("/a/folder"):
        raise PermissionError


def test_a_place_is_joined_and_printed_as_a_path_is():
    place = UrlPlace("s3://bucket/out") / "results.zarr" / "mask"
    assert f"{place}" == "s3://bucket/out/results.zarr/mask"
    assert place.name == "mask"


def test_results_go_to_a_bucket(bucket, machine, capsys):
    url = f"{bucket}/results"
    assert run(url, progress=Progress()) == ["mask", "clusters"]
    machine("there")
    assert run(url, progress=Progress()) == []
    assert "mask: done before" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"^s3://no-such-bucket-here"):
        run("s3://no-such-bucket-here/results")
