"""The stages ``read_outs`` and ``check``: how volumes are placed, and whether they fall right."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.normalisation import fit_amplitudes
from emhet_dask.analysis.read_outs import ReadOuts, fourier_weights, products_in_fourier_space
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.errors import InputError
from emhet_dask.workflows.stages.components import prepared_rows
from emhet_dask.workflows.stages.costs import amplitudes_work
from emhet_dask.workflows.stages.map_job import MapJob
from emhet_dask.workflows.stages.map_landscape import Sketch

if TYPE_CHECKING:
    from emhet_dask.decoders import DecoderModel

__all__ = ["Placing", "check_stage", "fits_fourier", "read_outs_stage"]

# Weights in Fourier space that one process holds: 20 components up to a box of about 180.
_MOST_WEIGHT_BYTES = 512 << 20
_BATCH_BYTES = 64 << 20
# Volumes of the sketch that are decoded again, and particles that are decoded both ways.
_OF_SKETCH = 8
_HELD_OUT = 32
_PER_TASK = 8
# Of the standard deviation of a component: what a wrong epoch, hand or box exceeds by far. The
# faintest components are known no better than a thousandth of the first one.
_MOST_APART = 0.1
_FAINT = 1e-3
# Factors that are computed again differ by rounding.
_SAME_FACTOR = 1e-3

_held: dict[tuple[str, str, str], tuple[ReadOuts, Any]] = {}
_holding = threading.Lock()


@dataclass(frozen=True)
class Placing:
    """What a worker needs to turn latents into scores; small.

    Attributes
    ----------
    path : str
        Group ``read_outs``.
    key : str
        What it is known by.
    model : DecoderModel
    fourier : bool
    """

    path: str
    key: str
    model: DecoderModel
    fourier: bool

    def scores(self, latents: np.ndarray) -> np.ndarray:
        """Return the scores (particle, component), float32, of the volumes at some latents."""
        decoder = self.model.load()
        read_outs, weights = self._read_outs(decoder)
        if weights is None:
            products = np.stack([read_outs.products(each) for each in decoder.volumes(latents)])
            return read_outs.scores(products)
        most = max(1, _BATCH_BYTES // (8 * len(decoder.coordinates)))
        batches = [latents[start : start + most] for start in range(0, len(latents), most)]
        products = np.concatenate(
            [products_in_fourier_space(decoder.fourier(batch), weights) for batch in batches]
        )
        return read_outs.scores(products)

    def _read_outs(self, decoder: Any) -> tuple[ReadOuts, np.ndarray | None]:
        """Return the read-outs, and their weights in Fourier space; made once per process."""
        which = (self.path, self.key, repr(self.model) if self.fourier else "")
        with _holding:
            if which not in _held:
                read_outs = _load(self.path)
                weights = None
                if self.fourier:
                    weights = fourier_weights(
                        read_outs,
                        box=decoder.box,
                        coordinates=decoder.coordinates,
                        multiplicity=decoder.multiplicity,
                    )
                _held.clear()  # of another command in this process
                _held[which] = (read_outs, weights)
            return _held[which]


def fits_fourier(sketch: Sketch) -> bool:
    """Tell whether volumes of a landscape can be read out in Fourier space."""
    n_weights = (sketch.scores.shape[1] + 1) * sketch.ensemble.box**3 // 2
    return not sketch.parameters["clip_negative"] and 8 * n_weights <= _MOST_WEIGHT_BYTES


def read_outs_stage(job: MapJob) -> Placing:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : MapJob

    Returns
    -------
    Placing

    Raises
    ------
    InputError
        When the amplitudes of the landscape cannot be computed again.
    """

    def build(workspace: Path) -> None:
        save_group(workspace / "results.zarr" / "read_outs", _make(job))

    record = job.results.stage("read_outs", parameters={}, build=build)
    return Placing(str(job.group("read_outs")), record.key, job.model, job.fourier)


def check_stage(job: MapJob, placing: Placing, *, seed: int, flip: bool) -> dict[str, Any]:
    """Run the stage, or find it done: decode some volumes of the sketch again, and compare.

    Parameters
    ----------
    job : MapJob
    placing : Placing
    seed : int
        Of the particles that are decoded both ways.
    flip : bool
        Whether the model mirrors its volumes.

    Returns
    -------
    dict
        ``sketch_error``: root mean square distance of volumes of the sketch from their scores, as a
        share of the standard deviation of each component; ``fourier_error``: the same between
        projection in Fourier space and of voxels, over random particles; ``n_held_out``;
        ``seconds_full`` and, in Fourier space, ``seconds_fourier`` per particle.

    Raises
    ------
    InputError
        When volumes of the sketch do not fall where they lie.
    """

    def build(workspace: Path) -> dict[str, Any]:
        del workspace
        return _compare(job, placing, seed=seed, flip=flip)

    record = job.results.stage(
        "check",
        parameters={"fourier": job.fourier, "seed": seed, "flip": flip},
        after=("read_outs",),
        build=build,
        replaceable=True,
    )
    return dict(record.summary)


def _make(job: MapJob) -> xr.Dataset:
    sketch = job.sketch
    clip = bool(sketch.parameters["clip_negative"])
    path = str(sketch.folder / "results.zarr" / "matrix")
    amplitude = None
    if "factor" in sketch.pca:
        weights = sketch.ensemble.weights if sketch.parameters["weights"] else None
        rows = prepared_rows(path, factor=None, clip_negative=clip)
        job.results.state(amplitudes_work(rows, stage="amplitudes"))
        with job.progress.computing(job.client, label="amplitudes") as compute:
            amplitude, factors = fit_amplitudes(rows, weights=weights, compute=compute)
        apart = float(np.abs(factors - sketch.pca["factor"].values).max())
        if apart > _SAME_FACTOR:
            raise InputError(
                f"--landscape: the amplitudes of its volumes are not found again (they differ by "
                f"up to {apart:.2g}); run emhet landscape --overwrite with this version"
            )
    stored = open_matrix(path)
    read_outs = ReadOuts.of(
        components=sketch.pca["components"].values,
        mean=sketch.pca["mean"].values,
        voxel_index=stored["voxel_index"].values,
        voxel_weight=stored["voxel_weight"].values,
        amplitude=amplitude,
        clip_negative=clip,
    )
    return xr.Dataset(
        {
            "read_out": (("read_out_row", "voxel"), read_outs.vectors),
            "voxel_index": (("voxel",), read_outs.voxel_index),
            "score_offset": (("component",), read_outs.offset),
        },
        attrs={
            "amplitude_scale": read_outs.amplitude_scale,
            "repeatability": read_outs.repeatability,
            "clip_negative": clip,
        },
    )


def _load(path: str) -> ReadOuts:
    stored = load_group(path)
    scale = stored.attrs["amplitude_scale"]
    return ReadOuts(
        vectors=np.asarray(stored["read_out"].values),
        voxel_index=np.asarray(stored["voxel_index"].values),
        offset=np.asarray(stored["score_offset"].values),
        amplitude_scale=None if scale is None else float(scale),
        repeatability=float(stored.attrs["repeatability"]),
        clip_negative=bool(stored.attrs["clip_negative"]),
    )


def _compare(job: MapJob, placing: Placing, *, seed: int, flip: bool) -> dict[str, Any]:
    sketch = job.sketch
    count = sketch.ensemble.n_volumes
    rows = np.unique(np.linspace(0, count - 1, min(_OF_SKETCH, count)).round().astype(int))
    apart = _decode(job, placing, sketch.latents[rows], label="check")[0] - sketch.scores[rows]
    spread = np.maximum(sketch.spread, _FAINT * sketch.spread.max())
    relative = np.sqrt((apart**2).mean(axis=0)) / spread
    if not relative.max() <= _MOST_APART:
        component = int(np.nanargmax(np.where(np.isfinite(relative), relative, np.inf))) + 1
        other = "without" if flip else "with"
        hand = f", or mirrored (try {other} --flip)" if sketch.decoded_from is None else ""
        raise InputError(
            f"--landscape: volumes of {sketch.folder} do not fall where they lie on it: off by "
            f"{relative[component - 1]:.0%} of the standard deviation of PC{component}; its "
            f"volumes must be decoded from this epoch, and not aligned, filtered{hand}"
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(job.n_particles, min(_HELD_OUT, job.n_particles), replace=False))
    by_voxels = Placing(placing.path, placing.key, placing.model, fourier=False)
    exact, seconds_full = _decode(job, by_voxels, job.latents[chosen], label="full decode")
    found: dict[str, Any] = {
        "sketch_error": (np.sqrt((apart**2).mean(axis=0)) / sketch.spread).tolist(),
        "n_held_out": len(chosen),
        "seconds_full": seconds_full,
    }
    if job.fourier:
        fast, seconds = _decode(job, placing, job.latents[chosen], label="Fourier projection")
        error = np.sqrt(((fast.astype(np.float64) - exact) ** 2).mean(axis=0)) / sketch.spread
        found |= {"fourier_error": error.tolist(), "seconds_fourier": seconds}
    return found


def _decode(
    job: MapJob, placing: Placing, latents: np.ndarray, *, label: str
) -> tuple[np.ndarray, float]:
    """Return scores, and seconds for each after the first task, which loads the decoder."""
    parts = [latents[start : start + _PER_TASK] for start in range(0, len(latents), _PER_TASK)]
    job.state_decoding(label, particles=len(latents), tasks=len(parts))
    timed = _Timed(placing)
    found = list(job.progress.map(job.client, timed, parts, label=label, unit="batches"))
    seconds = min(taken / len(scores) for scores, taken in found)
    return np.concatenate([scores for scores, _ in found]), seconds


@dataclass(frozen=True)
class _Timed:
    placing: Placing

    def __call__(self, latents: np.ndarray) -> tuple[np.ndarray, float]:
        began = time.perf_counter()
        scores = self.placing.scores(latents)
        return scores, time.perf_counter() - began
