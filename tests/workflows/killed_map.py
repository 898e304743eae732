"""Kill a map before changes to its folder, at strides, and continue it.

Run by test_map.py as ``python killed_map.py FOLDER``, in a process of its own, since it forks.
Prints how many kills were survived; fails at the first that was not.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.extend([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])

from killing import in_child, survive

from emhet_dask.runtime.moves import write_json

STRIDE = 97
N = 90


def run_map(folder: Path, out: Path, *, seed: int = 0) -> None:
    from emhet_dask.workflows import map as workflow
    from tests.smooth_run import smooth_decoder_to_map

    workflow._decoder = smooth_decoder_to_map
    # What comes after the mapping is killed in tests of its own.
    workflow._finish = lambda *_: None
    full = out / "full"
    workflow.map(
        str(folder / "run"), 3, landscape=str(folder / "landscape"), output=str(full), sample=40,
        seed=seed, quiet=True, overwrite=True,
    )  # fmt: skip
    _forget_times(full / "run.json")


def _forget_times(path: Path) -> None:
    """Take seconds, memory and dates out of the record, the only ones in the folder."""
    entry = json.loads(path.read_text())
    for stage in entry["stages"].values():
        stage |= {"seconds": 0, "peak_memory_bytes": 0, "worker_peak_memory_bytes": 0}
        stage["finished"] = ""
        stage["summary"] = {
            name: value for name, value in stage["summary"].items() if "seconds" not in name
        }
    write_json(path, entry)


def prepare(folder: Path) -> None:
    import numpy as np

    from tests.fake_run import write_run
    from tests.smooth_run import make_landscape

    latents = np.random.default_rng(0).standard_normal((N, 2)).astype(np.float32)
    run = write_run(folder / "run", latents)
    make_landscape(folder, run, n=20)
    run_map(folder, folder / "undisturbed")
    # A folder with another sample in it, which is replaced.
    run_map(folder, folder / "earlier", seed=1)


if __name__ == "__main__":
    here = Path(sys.argv[1])
    # Forks come from a process that never started threads, which they would lack.
    assert in_child(lambda: prepare(here)) == 0
    print(survive(here, lambda out: run_map(here, out), stride=STRIDE))
