"""Kill a classification before changes to its folder, at strides, and continue it.

Run by test_class3d_run.py as ``python killed_class3d_run.py FOLDER``, in a process of its own,
since it forks. Prints how many kills were survived; fails at the first that was not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.append(str(Path(__file__).parents[1]))

# Imported before forking, which spares every child two seconds; no threads begin with it.
import matplotlib.figure  # noqa: F401
from fake_particles import fake_particles, write_particles
from killing import KILLED, in_child, killed_before_change

from emhet_dask.runtime import clients, submit  # noqa: F401
from emhet_dask.workflows import class3d_run as workflow

STRIDE = 45
WANTED = ("_data.star", "_model.star", "_optimiser.star", ".mrc", ".npy", "n_classes.csv")


def classify(folder: Path, out: Path) -> None:
    workflow.class3d_run(
        str(folder / "particles.star"),
        output=str(out),
        k=2,
        iterations=2,
        components=2,
        restarts=1,
        root=str(folder),
        quiet=True,
    )


def files_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and (path.name.endswith(WANTED) or ".zarr/" in path.as_posix())
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_particles(folder, fake_particles(240, box=24, snr=0.5, seed=3))
    # The same name for both, as their files hold the name of the job.
    out = folder / "out"
    assert in_child(lambda: classify(folder, out)) == 0
    expected = files_of(out)
    assert any(name.endswith("it002_model.star") for name in expected)
    out.rename(folder / "undisturbed")
    kills = 0
    while True:
        status = killed_before_change((kills + 1) * STRIDE, out, lambda: classify(folder, out))
        if status == KILLED:
            assert in_child(lambda: classify(folder, out)) == 0, kills
        found = files_of(out)
        wrong = {name for name, data in found.items() if data != expected.get(name)}
        assert not wrong, (kills, sorted(wrong))
        assert set(found) == set(expected), (kills, set(found) ^ set(expected))
        if status != KILLED:
            break
        kills += 1
        out.rename(folder / f"killed_{kills}")
    print(kills)
