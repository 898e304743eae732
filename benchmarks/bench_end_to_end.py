"""Ingest and landscape against ``cryodrgn analyze_landscape --skip-vol``, on the same maps."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measuring import CHECKOUT, emhet, run_measured
from emhet_dask.workflows.simulate import simulate_assembly

PEER = CHECKOUT / ".venv-peer" / "bin" / "cryodrgn"
CONFIG = """\
cmd: [cryodrgn, train_vae]
dataset_args: {particles: none.mrcs, ind: null, invert_data: false, norm: [0.0, 1.0]}
lattice_args: {D: 65, extent: 0.5, ignore_DC: true}
model_args: {zdim: 2, domain: fourier}
version: 4.3.1
"""


@pytest.fixture(scope="module")
def workdir(scratch, full) -> Path:
    """A cryoDRGN run with a finished sketch: what ``--skip-vol`` starts from."""
    n, box = (1000, 64) if full else (24, 32)
    maps = scratch / "maps"
    simulate_assembly(output=str(maps), n=n, box=box, snr=8.0, seed=1, quiet=True)
    workdir = scratch / "run"
    sketch = workdir / "landscape.1" / f"kmeans{n}"
    sketch.mkdir(parents=True)
    for number in range(n):
        (maps / f"vol_{number:05d}.mrc").rename(sketch / f"vol_{number + 1:03d}.mrc")
    rng = np.random.default_rng(0)
    particles = rng.integers(0, n, 20 * n)
    particles[:n] = np.arange(n)
    (workdir / "analyze.1").mkdir()
    (workdir / "config.yaml").write_text(CONFIG)
    for path, array in (
        (workdir / "z.1.pkl", rng.standard_normal((20 * n, 2))),
        (workdir / "analyze.1" / "umap.pkl", rng.standard_normal((20 * n, 2))),
        (sketch / "labels.pkl", particles),
    ):
        path.write_bytes(pickle.dumps(array))
    np.savetxt(sketch / "centers_ind.txt", np.arange(n), fmt="%d")
    return workdir


def test_ingest_and_landscape_against_cryodrgn(benchmark, report, workdir, scratch, full):
    (sketch,) = (workdir / "landscape.1").glob("kmeans*")
    n = len(list(sketch.glob("vol_*.mrc")))

    store, results = scratch / "ensemble.zarr", scratch / "landscape"

    def afresh():
        for folder in (store, results):
            shutil.rmtree(folder, ignore_errors=True)

    def ours():
        return (
            run_measured(emhet("ingest", sketch, "-o", store, "--quiet")),
            run_measured(emhet("landscape", store, "-o", results, "--quiet")),
        )

    ingest, landscape = benchmark.pedantic(ours, setup=afresh, rounds=3 if full else 1)
    assert (results / "report.html").is_file()
    figures = {
        "volumes": n,
        "ingest_s": ingest.seconds,
        "landscape_s": landscape.seconds,
        "peak_gib": max(ingest.peak_gib, landscape.peak_gib),
    }
    if PEER.is_file():
        peer = run_measured(
            [PEER, "analyze_landscape", workdir, "1", "--skip-vol", "-N", n, "--Apix", "3"]
        )
        figures |= {
            "cryodrgn_s": peer.seconds,
            "cryodrgn_peak_gib": peer.peak_gib,
            "time_ratio": (ingest.seconds + landscape.seconds) / peer.seconds,
        }
    else:
        assert not full, "make peer installs cryoDRGN, which this is measured against"
    report(**figures)
