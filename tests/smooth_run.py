"""A decoder that is a smooth formula, in voxels and in Fourier space, and a landscape of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emhet_dask.decoders.halfspace import HalfSpace, is_first_of_pair

BOX = 16


@dataclass(frozen=True)
class SmoothModel:
    """A core that stays and a part that moves and fades; decodes like a `Decoder`."""

    box: int = BOX
    flip: bool = False

    n_latent = 2

    def load(self) -> SmoothModel:
        return self

    @property
    def _half(self) -> HalfSpace:
        axis = np.arange(-(self.box // 2), self.box // 2, dtype=np.int32)
        grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        return HalfSpace(grid[is_first_of_pair(grid, self.box)], self.box)

    @property
    def coordinates(self) -> np.ndarray:
        return self._half.coordinates

    @property
    def multiplicity(self) -> np.ndarray:
        return self._half.multiplicity

    def volumes(self, latents: np.ndarray) -> Iterator[np.ndarray]:
        z, y, x = np.indices((self.box,) * 3, dtype=np.float32) - self.box // 2
        core = 3 * np.exp(-((z + 2) ** 2 + y**2 + (x + 1) ** 2) / 10)
        for first, second in np.asarray(latents, dtype=np.float32):
            moved = (z - 3) ** 2 + (y - 1.5 * np.tanh(first)) ** 2 + x**2
            part = (1.5 + np.sin(second)) * np.exp(-moved / 5)
            volume = ((1 + 0.02 * first) * (core + part)).astype(np.float32)
            yield volume[::-1].copy() if self.flip else volume

    def fourier(self, latents: np.ndarray) -> np.ndarray:
        places = tuple(self.coordinates.T % self.box)
        found = [np.fft.fftn(each)[places] for each in self.volumes(latents)]
        return np.asarray(found, dtype=np.complex64)


def smooth_decoder_to_store(run, options):
    """Stand in for what builds the model of a run in ``emhet decode``."""
    return SmoothModel(options.box or run.box, options.flip), "formula 1.0"


def smooth_decoder_to_map(run, sketch, options):
    """Stand in for what builds it in ``emhet map``."""
    return SmoothModel(sketch.ensemble.box, sketch.flip(asked=options.flip))


def make_landscape(folder: Path, run: Path, *, n: int = 40, client=None, **options) -> Path:
    """Decode some volumes of a run and find their landscape; return its folder."""
    from emhet_dask.workflows import decode as workflow
    from emhet_dask.workflows.landscape import landscape

    before = workflow._decoder
    workflow._decoder = smooth_decoder_to_store
    where = {"quiet": True} | ({} if client is None else {"cluster": client})
    try:
        workflow.decode(str(run), 3, output=str(folder / "e.zarr"), n=n, **where)
    finally:
        workflow._decoder = before
    options = {"n_components": 4, "plot_dim": 2} | options
    landscape(str(folder / "e.zarr"), output=str(folder / "landscape"), **where, **options)
    return folder / "landscape"
