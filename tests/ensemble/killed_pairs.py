"""Kill the comparison of all pairs before each of its changes to the file system, and continue.

Run by test_pairs.py as ``python killed_pairs.py FOLDER``, in a process of its own, since it forks.
Prints how many kills were survived; fails at the first that was not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parents[1]))

import dask
import numpy as np
import zarr
from killing import in_child, survive

from emhet_dask.analysis.similarity import pair_kernel
from emhet_dask.ensemble.pairs import PairsLayout, finish_pairs, write_pairs
from emhet_dask.ensemble.rows import StoredRows

STRIDE = 29


def compare(folder: Path, out: Path, key: str = "a") -> None:
    kernel = pair_kernel(np.load(folder / "x.npy"), compute=synchronous)
    tasks = write_pairs(
        str(out),
        StoredRows(str(folder / "m")),
        kernel=kernel,
        layout=PairsLayout(12, 9, 6, 0),
        key=key,
        keep="all",
        n_neighbours=3,
    )
    dask.compute(*tasks, scheduler="synchronous")
    finish_pairs(str(out), kernel=kernel)


def synchronous(*tasks: object) -> tuple:
    return dask.compute(*tasks, scheduler="synchronous")


def prepare(folder: Path) -> None:
    x = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    np.save(folder / "x.npy", x)
    zarr.create_group(str(folder / "m")).create_array(
        "matrix", shape=x.shape, chunks=(4, 9), dtype="float32"
    )[:] = x
    compare(folder, folder / "undisturbed")
    compare(folder, folder / "earlier", key="of something else")


if __name__ == "__main__":
    here = Path(sys.argv[1])
    # Forks come from a process that never used Zarr, whose threads they would lack.
    assert in_child(lambda: prepare(here)) == 0
    print(survive(here, lambda out: compare(here, out), stride=STRIDE))
