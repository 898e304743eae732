"""All particles of a cryoDRGN run on a landscape: seconds for 1,000, and the error of a sample."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measuring import CHECKOUT, emhet, run_measured
from emhet_dask.ensemble.groups import load_group

RUN = CHECKOUT.parent / "shared" / "data" / "cryodrgn_run"

pytestmark = [
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "cryodrgn")),
        reason='cryoDRGN is not installed: pip install "emhet-dask[cryodrgn]"',
    ),
    pytest.mark.skipif(not RUN.is_dir(), reason=f"no {RUN} beside this checkout"),
]


@pytest.fixture(scope="module")
def sketch(scratch, full) -> Path:
    """The landscape of some volumes of the run."""
    store, out = scratch / "sketch.zarr", scratch / "landscape"
    run_measured(emhet("decode", RUN, 3, "-n", 300 if full else 24, "-o", store, "-q"))
    n_components = () if full else ("--n-components", 3, "--plot-dim", 1)
    run_measured(emhet("landscape", store, "-o", out, "-q", *n_components))
    return out


def mapped(sketch: Path, out: Path, *options) -> tuple[float, dict, np.ndarray]:
    """Map; return seconds, ``map.json`` and the scores."""
    arguments = emhet("map", RUN, 3, "--landscape", sketch, "-o", out, "-q", *options)
    cost = run_measured(arguments)
    scores = load_group(out / "results.zarr" / "scores")["particle_scores"].values
    return cost.seconds, json.loads((out / "map.json").read_text()), scores


def test_map_all_particles(sketch, scratch, full, report, benchmark):
    """Exact in Fourier space, the seconds of either read-out, and the true error of a sample."""
    sample = 600 if full else 40
    seconds, facts, predicted = mapped(sketch, scratch / "sample", "--sample", sample)
    benchmark.pedantic(lambda: None, rounds=1)
    per_particle = facts["seconds"]
    claimed = np.array(facts["error"]["regression"])
    figures = {
        "sample_s": seconds,
        "full_decode_s_per_1000": 1000 * per_particle["per_particle_full_decode"],
        "fourier_s_per_1000": 1000 * per_particle["per_particle_fourier"],
        "fourier_error": max(facts["error"]["fourier"]),
        "sketch_error": max(facts["error"]["sketch"]),
        "claimed_error_pc1": claimed[0],
        "claimed_error_worst": claimed.max(),
    }
    assert figures["fourier_error"] < 0.01
    assert figures["sketch_error"] < 0.01
    if full:
        seconds, facts, exact = mapped(sketch, scratch / "exact")
        rest = ~load_group(scratch / "sample" / "results.zarr" / "particles")[
            "particle_decoded"
        ].values.astype(bool)
        error = np.sqrt(((predicted - exact)[rest] ** 2).mean(axis=0)) / exact.std(axis=0)
        figures |= {
            "exact_s": seconds,
            "exact_s_per_1000": 1000 * facts["seconds"]["mapping"] / facts["n_particles"],
            "true_error_pc1": error[0],
            "true_error_pc3": error[2],
            "true_error_median": float(np.median(error)),
            "true_error_worst": error.max(),
            "assigned_accuracy": facts["accuracy"],
        }
        assert error.max() < 3 * claimed.max()
    report(**{name: float(value) for name, value in figures.items()})
