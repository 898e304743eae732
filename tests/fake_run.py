"""A cryoDRGN run without a network: its files, and a model that is a formula."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

BOX = 16


def write_run(
    folder: Path, latents: np.ndarray, *, epoch: str = ".3", apix: float = 1.5, **config
) -> Path:
    """Write a run folder; images of 32 voxels were binned to `BOX`. Keywords replace parts."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "cmd": ["cryodrgn", "train_vae"],
        "dataset_args": {"ctf": "ctf.pkl", "ind": None, "norm": [0.0, 1.0]},
        "lattice_args": {"D": BOX + 1, "extent": 0.5, "ignore_DC": True},
        "model_args": {"zdim": latents.shape[1], "players": 3},
        "version": "4.3.1",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(known | config))
    table = np.tile([32.0, apix, 1e4, 1e4, 0, 300, 2.7, 0.1, 0], (len(latents), 1))
    (folder / "ctf.pkl").write_bytes(pickle.dumps(table))
    add_epoch(folder, latents, epoch)
    return folder


def add_epoch(folder: Path, latents: np.ndarray, epoch: str) -> None:
    (folder / f"weights{epoch}.pkl").write_bytes(b"weights" + epoch.encode())
    means, log_variances = latents.astype(np.float32), np.zeros_like(latents, dtype=np.float32)
    (folder / f"z{epoch}.pkl").write_bytes(pickle.dumps(means) + pickle.dumps(log_variances))


@dataclass(frozen=True)
class FormulaModel:
    """A blob whose place and height are the latent; decodes like a `Decoder`."""

    box: int = BOX
    flip: bool = False

    def load(self) -> FormulaModel:
        return self

    def volumes(self, latents: np.ndarray) -> Iterator[np.ndarray]:
        z, y, x = np.indices((self.box,) * 3, dtype=np.float32) - self.box // 2
        for latent in np.asarray(latents, dtype=np.float32):
            distance = (z - latent[0]) ** 2 + (y - latent[1]) ** 2 + x**2
            volume = (np.exp(-distance / 8) * (2 + latent[-1]) - 0.01).astype(np.float32)
            yield volume[::-1].copy() if self.flip else volume


def formula_decoder(run, options):
    """Stand in for what builds the model of a run."""
    return FormulaModel(options.box or run.box, options.flip), "formula 1.0"


def some_latents(n: int = 60, n_latent: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n_latent)).astype(np.float32)
