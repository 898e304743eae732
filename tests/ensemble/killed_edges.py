"""Kill the making of bits and edges before each of its changes to the file system, and continue.

Run by test_edges.py as ``python killed_edges.py FOLDER``, in a process of its own, since it forks.
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

from emhet_dask.analysis.binarised import kept_voxels
from emhet_dask.analysis.cooccupancy import edge_kernel
from emhet_dask.ensemble.edges import finish_edges, write_edges
from emhet_dask.ensemble.occupied import finish_occupied, open_occupied, write_occupied

STRIDE = 31
N_VOLUMES, N_VOXELS = 40, 12


def connect(folder: Path, out: Path, key: str = "a") -> None:
    bits, edges = str(out / "bits"), str(out / "edges")
    thresholds = np.zeros((1, N_VOLUMES))
    run(write_occupied(bits, str(folder / "m"), thresholds, key=key))
    finish_occupied(bits, choose=kept_voxels)
    occupied = open_occupied(bits)
    kernel = edge_kernel(occupied, [(0.4, 0.4)], correction="none", n_neighbours=3)
    run(write_edges(edges, occupied, kernel=kernel, side=6, key=key))
    finish_edges(edges, kernel=kernel)


def run(tasks: list) -> None:
    dask.compute(*tasks, scheduler="synchronous")


def prepare(folder: Path) -> None:
    x = np.random.default_rng(0).standard_normal((N_VOLUMES, N_VOXELS)).astype(np.float32)
    group = zarr.create_group(str(folder / "m"))
    group.create_array("matrix", shape=x.shape, chunks=(16, 7), dtype="float32")[:] = x
    group.create_array("voxel_index", shape=(N_VOXELS,), dtype="int64")[:] = np.arange(N_VOXELS)
    connect(folder, folder / "undisturbed")
    connect(folder, folder / "earlier", key="of something else")


if __name__ == "__main__":
    here = Path(sys.argv[1])
    # Forks come from a process that never used Zarr, whose threads they would lack.
    assert in_child(lambda: prepare(here)) == 0
    print(survive(here, lambda out: connect(here, out), stride=STRIDE))
