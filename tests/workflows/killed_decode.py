"""Kill a decode before changes to its store, at strides, and continue it.

Run by test_decode.py as ``python killed_decode.py FOLDER``, in a process of its own, since it
forks. Prints how many kills were survived; fails at the first that was not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parents[1]))

# Imported before forking, which spares every child two seconds; no threads begin with it.
import sklearn.cluster  # noqa: F401
from fake_run import BOX, formula_decoder, some_latents, write_run
from killing import in_child, survive

from emhet_dask.ensemble import layout
from emhet_dask.errors import InputError
from emhet_dask.runtime import clients, submit  # noqa: F401
from emhet_dask.workflows import decode as workflow

STRIDE = 67


def decode(folder: Path, out: Path, *, n: int = 9) -> None:
    workflow._decoder = formula_decoder
    layout._CHUNK_BYTES = 4 * BOX**3
    run, options = str(folder / "run"), {"output": str(out / "ensemble.zarr"), "n": n}
    try:
        workflow.decode(run, 3, quiet=True, **options)
    except InputError:  # the store of another call is in the way
        workflow.decode(run, 3, quiet=True, overwrite=True, **options)


def prepare(folder: Path) -> None:
    decode(folder, folder / "undisturbed")
    decode(folder, folder / "earlier", n=4)


if __name__ == "__main__":
    here = Path(sys.argv[1])
    write_run(here / "run", some_latents())
    # Forks come from a process that never started threads, which they would lack.
    assert in_child(lambda: prepare(here)) == 0
    print(survive(here, lambda out: decode(here, out), stride=STRIDE))
