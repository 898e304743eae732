"""All ranks of a real ``mpirun`` run one command line: it is done once, and gives the same."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from emhet_dask import ingest, simulate_assembly

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mpirun():
    """Return what runs ``emhet …`` as four ranks of this machine."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    command = shutil.which("mpirun")
    if command is None:
        pytest.skip("mpirun is not installed")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    if "Open MPI" not in version.stdout:
        pytest.skip(f"the options of this test are Open MPI's; found {version.stdout[:80]!r}")
    outside = ("SLURM", "OMPI", "PMIX")
    environment = {name: v for name, v in os.environ.items() if not name.startswith(outside)}

    def run(folder, *words):
        ranks = [command, "-n", "4", "--oversubscribe", "--allow-run-as-root"]
        return subprocess.run(
            [*ranks, sys.executable, "-m", "emhet_dask", *map(str, words), "--cluster", "runner"],
            cwd=folder,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def test_ranks_of_mpirun_give_what_one_process_gives(mpirun, tmp_path):
    simulate_assembly(output=tmp_path / "maps", n=12, box=16, quiet=True)
    done = mpirun(tmp_path, "ingest", "maps", "-o", "mpi.zarr", "-q")
    # Once, by the rank that did the work; those that served had nothing to say.
    assert (done.returncode, done.stdout) == (0, "mpi.zarr: 12 volumes of 16³ at 3 Å\n"), done
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "mpi.zarr"]
    ingest([tmp_path / "maps"], output=tmp_path / "here.zarr", quiet=True)
    there, here = (zarr.open_group(tmp_path / name) for name in ("mpi.zarr", "here.zarr"))
    assert there.attrs["fingerprint"] == here.attrs["fingerprint"]
    np.testing.assert_array_equal(there["volumes"][:], here["volumes"][:])


def test_what_is_wrong_is_said_once_and_all_ranks_end(mpirun, tmp_path):
    done = mpirun(tmp_path, "ingest", "no", "-o", "e.zarr")
    assert done.returncode == 2
    assert done.stderr.count("emhet: no: no such file or folder") == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
