"""Ensembles and results in an object store: a server on loopback that speaks S3."""

import os
import subprocess
import sys

import numpy as np
import pytest

import emhet_dask
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.runtime.making import making_store
from emhet_dask.runtime.publishing import STAGING_VARIABLE

CALM = {"quiet": True, "cluster": "local"}


@pytest.fixture
def maps(tmp_path):
    """Return a folder with 24 maps of two states."""
    folder = tmp_path / "maps"
    emhet_dask.simulate_assembly(output=str(folder), n=24, box=24, seed=3, **CALM)
    return folder


@pytest.fixture
def staging(tmp_path, monkeypatch):
    folder = tmp_path / "staging"
    folder.mkdir()
    monkeypatch.setenv(STAGING_VARIABLE, str(folder))
    return folder


def stored(url):
    """Return every object of a place, and when it was written."""
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    root = url.removeprefix("s3://")
    found = files.find(root, detail=True)
    return {
        name.removeprefix(f"{root}/"): (files.cat_file(name), facts["LastModified"])
        for name, facts in found.items()
    }


@pytest.mark.slow
def test_from_maps_to_states_in_a_bucket(bucket, maps, staging, capfd):
    ensemble, results = f"{bucket}/ens.zarr", f"{bucket}/runs/landscape"
    ingested = emhet_dask.ingest(str(maps), output=ensemble, cluster="local:2")
    assert ingested.written == 24
    assert emhet_dask.ingest(str(maps), output=ensemble, **CALM).written == 0
    assert emhet_dask.info(ensemble).whole
    here = str(staging.parent / "ens.zarr")
    emhet_dask.ingest(str(maps), output=here, **CALM)
    there = open_ensemble(ensemble)
    assert there.fingerprint == open_ensemble(here).fingerprint
    np.testing.assert_array_equal(there.volumes[5], open_ensemble(here).volumes[5])

    found = emhet_dask.landscape(ensemble, output=results, n_clusters=3, cluster="local:2")
    local = staging.parent / "landscape"
    same = emhet_dask.landscape(here, output=str(local), n_clusters=3, **CALM)
    np.testing.assert_array_equal(found.labels, same.labels)
    np.testing.assert_array_equal(found.scores, same.scores)
    assert f"Report: {results}/report.html" in found.describe()
    first = stored(results)
    files = {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()}
    assert set(first) == files
    assert list(staging.iterdir()) == []

    again = emhet_dask.landscape(ensemble, output=results, n_clusters=2, **CALM)
    assert again.n_clusters == 2
    second = stored(results)
    assert "clusters_ward_3/cluster_labels.csv" in second
    untouched = [name for name in first if name.startswith(("results.zarr/matrix/", "pcs/"))]
    assert untouched
    assert all(first[name] == second[name] for name in untouched)

    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    told = "".join(capfd.readouterr())
    assert "ingest" in told or "mask" in told
    assert secret not in told
    for objects in (second, stored(ensemble)):
        assert not [name for name, (data, _) in objects.items() if secret.encode() in data]


def test_credentials_in_a_url_are_refused_before_anything_is_done(bucket, maps, tmp_path):
    url = bucket.replace("s3://", "s3://AKIA:hunter2@")
    tries = (
        lambda: emhet_dask.ingest(str(maps), output=f"{url}/e.zarr", **CALM),
        lambda: emhet_dask.info(f"{url}/e.zarr"),
        lambda: emhet_dask.landscape(f"{url}/e.zarr", output=str(tmp_path / "out"), **CALM),
        lambda: emhet_dask.info(f"{bucket}/e.zarr?secret=hunter2"),
    )
    for attempt in tries:
        with pytest.raises(InputError, match=f"^{bucket}/e.zarr: was given with a user") as refused:
            attempt()
        assert "hunter2" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_is_not_there_is_named(bucket, maps):
    with pytest.raises(InputError, match=r"^s3://no-such-bucket-here/e\.zarr: "):
        emhet_dask.ingest(str(maps), output="s3://no-such-bucket-here/e.zarr", **CALM)
    with pytest.raises(InputError, match=r"^s3://no-such-bucket-here/e\.zarr: "):
        emhet_dask.info("s3://no-such-bucket-here/e.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("output", ["e.zarr", "results"])
def test_a_store_that_does_not_answer_is_one_line_and_status_2(bucket, maps, tmp_path, output):
    command = ["ingest", str(maps), "-o", f"{bucket}/e.zarr"]
    if output == "results":
        emhet_dask.ingest(str(maps), output=str(tmp_path / "e.zarr"), **CALM)
        command = ["landscape", str(tmp_path / "e.zarr"), "-o", f"{bucket}/results"]
    ended = subprocess.run(
        [sys.executable, "-m", "emhet_dask", *command, "-q"],
        env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"emhet: {bucket}/{output}: cannot be reached (Could not connect")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in ended.stderr + ended.stdout


def test_a_store_in_a_bucket_has_one_maker_at_a_time(bucket, maps):
    url = f"{bucket}/e.zarr"
    with making_store(url, command="emhet decode"):
        said = (
            rf"^{url}: another run \(emhet decode, process {os.getpid()} on .+\) is writing there"
        )
        with pytest.raises(InputError, match=said):
            emhet_dask.ingest(str(maps), output=url, **CALM)
        assert list(stored(bucket)) == [".e.zarr.lock"]
        emhet_dask.ingest(str(maps), output=f"{bucket}/other.zarr", **CALM)
    emhet_dask.ingest(str(maps), output=url, **CALM)
    assert not [name for name in stored(bucket) if name.endswith(".lock")]


def test_a_store_in_a_bucket_whose_maker_was_killed_is_taken_over(bucket, maps):
    url = f"{bucket}/e.zarr"
    code = (
        "import os, sys; from emhet_dask.runtime.making import making_store\n"
        "with making_store(sys.argv[1], command='emhet ingest'): os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, url], check=False, timeout=60)
    assert killed.returncode == 9
    assert list(stored(bucket)) == [".e.zarr.lock"]
    emhet_dask.ingest(str(maps), output=url, **CALM)
    assert emhet_dask.info(url).whole
    assert not [name for name in stored(bucket) if name.endswith(".lock")]


def test_a_whole_bucket_is_no_place_for_a_store(bucket, maps):
    with pytest.raises(InputError, match=rf"^{bucket}: is a whole bucket; expected a place in it"):
        emhet_dask.ingest(str(maps), output=bucket, **CALM)
