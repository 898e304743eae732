"""A disk that is full, and files on it that were cut short."""

import re
import shutil
import subprocess

import pytest

import emhet_dask
from emhet_dask.errors import InputError
from tests.faults.conftest import SETTINGS
from tests.faults.endings import assert_same, emhet, end, written

pytestmark = pytest.mark.slow
# Of so many kB, which is full when some of the work is done.
DISKS = [
    ("ingest", "local:2", 1000),
    ("landscape", "local", 600),
    ("similarity", "local", 600),
    ("blocks", "local", 1500),
]


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of so many kB; ``size(kB)`` makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(kilobytes):
        mounted = "remount," if folder.is_mount() else ""
        options = f"{mounted}size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", folder],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        return folder

    try:
        yield size
    finally:
        if folder.is_mount():
            subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(("name", "cluster", "kilobytes"), DISKS)
def test_a_full_disk(name, cluster, kilobytes, command, undisturbed, disk):
    out = disk(kilobytes) / name
    words = command(name, out, "--cluster", cluster)
    full = end(emhet(*words, times=0))
    assert full.status == 2, full.err
    assert re.fullmatch(rf"emhet: .*{re.escape(str(out))}.*", full.err.splitlines()[-1])
    assert "no space left" in full.err
    assert "Traceback" not in full.err
    assert full.left == []
    before = written(out)
    disk(100_000)
    ended = end(emhet(*words, times=0))
    assert ended.status == 0, ended.err
    assert_same(out, undisturbed / name)
    if name != "ingest":  # stages that were finished
        after = written(out)
        kept = [part for part in before if not part.startswith(".staging")]
        assert kept
        assert [part for part in kept if after[part] != before[part]] == []


def cut_short(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.fixture
def out(tmp_path, undisturbed):
    shutil.copytree(undisturbed / "ingest", tmp_path / "ingest")
    return tmp_path


def test_a_shard_of_a_store_cut_short(out, undisturbed, sources, small):
    store = out / "ingest"
    cut_short(store / "volumes" / "c" / "1" / "0" / "0" / "0")
    with pytest.raises(InputError) as caught:
        emhet_dask.landscape(str(store), output=str(out / "l"), quiet=True, **SETTINGS["landscape"])
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith(f"{store}: damaged, c/1/0/0/0")
    assert "ingest --overwrite mends it" in told
    maps = [str(sources / "maps")]
    emhet_dask.ingest(maps, output=str(store), overwrite=True, quiet=True)
    assert_same(store, undisturbed / "ingest")
    emhet_dask.landscape(str(store), output=str(out / "l"), quiet=True, **SETTINGS["landscape"])
    assert_same(out / "l", undisturbed / "landscape")


# What is made of the matrix first; it is gone too, so that the matrix is read again.
AFTER_MATRIX = {
    "landscape": "results.zarr/pca",
    "similarity": "similarity.zarr",
    "blocks": "results.zarr/thresholds",
}


@pytest.mark.parametrize("name", AFTER_MATRIX)
def test_a_band_of_a_matrix_cut_short(name, undisturbed, tmp_path, small):
    shutil.copytree(undisturbed / name, tmp_path / name)
    matrix = tmp_path / name / "results.zarr" / "matrix"
    cut_short(matrix / "matrix" / "c" / "1" / "0")
    shutil.rmtree(tmp_path / name / AFTER_MATRIX[name])

    def again():
        call, output = getattr(emhet_dask, name), str(tmp_path / name)
        call(str(undisturbed / "ingest"), output=output, quiet=True, **SETTINGS[name])

    with pytest.raises(InputError) as caught:
        again()
    told = str(caught.value)
    assert "\n" not in told
    assert "damaged, c/1/0" in told
    assert f"{matrix}: " in told
    assert told.endswith("remove that folder, and the same command makes it again")
    shutil.rmtree(matrix)
    again()
    assert_same(tmp_path / name, undisturbed / name)
