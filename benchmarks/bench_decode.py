"""Decoding into a store against ``cryodrgn eval_vol``, which writes files: same latents and cores.

Both start from the command line, so that loading torch is in the figures; volumes of a network as
it is before training cost what those of a trained one do.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.measuring import CHECKOUT, emhet, run_measured
from emhet_dask import open_ensemble
from emhet_dask.formats.mrc import read_header, read_volume

N_LATENT, EPOCH, APIX = 4, 1, 3.0
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
PEER = next(
    (path for folder in (CHECKOUT / ".venv-peer" / "bin", Path(sys.executable).parent)
     if (path := folder / "cryodrgn").is_file()),
    None,
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("cryodrgn") is None or PEER is None,
    reason="cryodrgn is not installed: pip install 'emhet-dask[cryodrgn]'",
)


def write_run(workdir: Path, *, box: int, width: int) -> None:
    """Write a run of 1,000 particles whose decoder has three layers so wide."""
    import torch  # noqa: PLC0415 - may be absent
    from cryodrgn.models import HetOnlyVAE  # noqa: PLC0415

    layers = {"qlayers": 1, "qdim": 8, "players": 3, "pdim": width}
    config = {
        "dataset_args": {"ind": None, "norm": [0.0, 50.0]},
        "lattice_args": {"D": box + 1, "extent": 0.5, "ignore_DC": True},
        "model_args": {
            **layers, "zdim": N_LATENT, "encode_mode": "resid", "enc_mask": box // 2,
            "domain": "fourier", "activation": "relu", "pe_type": "gaussian", "pe_dim": None,
            "feat_sigma": 0.5, "tilt_params": {},
        },
        "version": "4.3.1",
    }  # fmt: skip
    torch.manual_seed(0)
    model, _ = HetOnlyVAE.load(config, None, device=torch.device("cpu"))
    workdir.mkdir()
    (workdir / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"model_state_dict": model.state_dict()}, workdir / f"weights.{EPOCH}.pkl")
    latents = np.random.default_rng(0).standard_normal((1000, N_LATENT)).astype(np.float32)
    (workdir / f"z.{EPOCH}.pkl").write_bytes(pickle.dumps(latents))


# Layers as wide as by default, and as in a run whose decoder was made small.
@pytest.mark.parametrize("width", [128, 1024])
def test_decode_against_eval_vol(benchmark, report, scratch, full, width):
    if not full and width > 128:
        pytest.skip("takes minutes; with --size full")
    n, box = ({128: 60, 1024: 4}[width], 64) if full else (4, 32)
    workdir, store, files = (scratch / f"{what}{width}" for what in ("run", "store", "files"))
    write_run(workdir, box=box, width=width)
    latents = np.random.default_rng(1).standard_normal((n, N_LATENT)).astype(np.float32)
    np.savetxt(scratch / "z.txt", latents)
    given = ["--z", scratch / "z.txt", "--apix", APIX, "-o", store, "--quiet"]

    ours = benchmark.pedantic(
        lambda: run_measured(emhet("decode", workdir, EPOCH, *given)),
        setup=lambda: shutil.rmtree(store, ignore_errors=True),
        rounds=3 if full else 1,
    )
    asked = [PEER, "eval_vol", workdir / f"weights.{EPOCH}.pkl", "-c", workdir / "config.yaml",
             "--zfile", scratch / "z.txt", "-o", files, "--Apix", APIX]  # fmt: skip
    # Where other work runs beside it, torch's threads wait for each other: the better of both.
    theirs = min(
        (run_measured(asked, env={**os.environ, **threads}, **SILENT)
         for threads in ({}, {"OMP_NUM_THREADS": "1"})),
        key=lambda run: run.seconds,
    )  # fmt: skip
    difference = largest_difference(store, files)
    assert difference < 1e-4
    report(
        volumes=n,
        box=box,
        width=width,
        ours_volumes_per_s=n / ours.seconds,
        eval_vol_volumes_per_s=n / theirs.seconds,
        times_as_fast=theirs.seconds / ours.seconds,
        ours_peak_gib=ours.peak_gib,
        eval_vol_peak_gib=theirs.peak_gib,
        largest_difference_in_std=difference,
    )


def largest_difference(store: Path, files: Path) -> float:
    """Compare all volumes, by the standard deviation of each."""
    found = []
    paths = sorted(files.glob("vol_*.mrc"), key=lambda path: int(path.stem[4:]))
    volumes = open_ensemble(store).dataset["volumes"]
    assert len(paths) == len(volumes)
    for path, ours in zip(paths, volumes, strict=True):
        theirs = read_volume(read_header(path))
        found.append(np.abs(ours.values - theirs).max() / theirs.std())
    return max(found)
