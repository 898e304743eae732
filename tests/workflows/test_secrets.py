"""Keys of object stores are in nothing that commands write or print."""

from pathlib import Path

import pytest
import s3fs

import emhet_dask
from emhet_dask.cli.main import main
from emhet_dask.runtime.publishing import STAGING_VARIABLE

pytestmark = pytest.mark.slow
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAKEYTHATNOBODYMAYSEE",
    "AWS_SECRET_ACCESS_KEY": "secret/that+nobody/may+see",
    "AWS_SESSION_TOKEN": "token-that-nobody-may-see",
}
GIVEN = "password-that-nobody-may-see"  # in a URL


@pytest.fixture
def say(bucket, tmp_path, monkeypatch, capfd):
    """Return what types a command, and gives its status and all that it and workers printed."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(STAGING_VARIABLE, str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def typed(*words):
        status = 0
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            status = ended.code or 0
        return status, "".join(capfd.readouterr())

    return typed


def test_no_key_is_in_results_or_said(say, bucket, tmp_path):
    emhet_dask.simulate_assembly(output=str(tmp_path / "maps"), n=12, box=16, quiet=True)
    store, there = f"{bucket}/ens.zarr", f"{bucket}/landscape"
    landscape = ["landscape", store, "--n-clusters", "2", "--plot-dim", "1"]
    with_key = store.replace("s3://", f"s3://{KEYS['AWS_ACCESS_KEY_ID']}:{GIVEN}@")
    told = [
        say("ingest", "maps", "-o", store, "--cluster", "local:2"),
        say(*landscape, "-o", "here", "--cluster", "local:2"),
        say(*landscape, "-o", there),
        say("info", store, "--json"),
        say("select", there, "--clusters", "0", "-o", "volumes.csv"),
        # What is refused may be typed with a key in it.
        say("landscape", with_key, "-o", "other"),
        say("landscape", store, "-o", "other", "--keep", f"{with_key}:0"),
        say("landscape", store, "-o", with_key),
        say("ingest", "maps", "-o", f"{store}?X-Amz-Signature={GIVEN}"),
        say("ingest", with_key, "-o", "other.zarr"),
        say("select", with_key, "--clusters", "0", "-o", "x.csv"),
        say("landscape", store, "-o", "other", "--cluster", f"tcp://user:{GIVEN}@127.0.0.1:9"),
    ]
    assert [status for status, _ in told] == [0] * 5 + [2] * 7, told
    printed = [text.encode() for _, text in told]

    secrets = [text.encode() for text in (*KEYS.values(), GIVEN)]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    on_disk = {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}
    bucket_files = s3fs.S3FileSystem(use_listings_cache=False)
    found = bucket_files.find(bucket.removeprefix("s3://"))
    in_bucket = {name: bucket_files.cat_file(name) for name in found}
    assert {"here/run.json", "here/report.html", "here/explore.ipynb"} <= set(on_disk)
    assert [name for name in in_bucket if Path(name).name == "run.json"]
    for secret in secrets:
        for name, data in (on_disk | in_bucket).items():
            assert secret not in data, (name, secret)
        for text in printed:
            assert secret not in text, text
