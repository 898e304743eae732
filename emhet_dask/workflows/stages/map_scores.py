"""The stages ``sample`` and ``scores``: particles are decoded and placed, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emhet_dask.analysis.latent_regression import fit_latents
from emhet_dask.ensemble.checked import REMAKE, CheckedArray
from emhet_dask.ensemble.matrix import MatrixLayout, open_bands, write_band
from emhet_dask.ensemble.store import has_chunk, open_array, open_group, put_array
from emhet_dask.errors import InputError
from emhet_dask.variables import RESULTS
from emhet_dask.workflows.stages.map_job import MapJob
from emhet_dask.workflows.stages.map_read_outs import Placing

__all__ = ["Mapped", "scores_stage"]

_ARRAY = "particle_scores"
# A block is a task, and what a kill loses: some ten seconds of decoding to a minute.
_FEWEST_ROWS, _MOST_ROWS, _BLOCKS = 16, 512, 256
# A prediction takes some 0.1 ms.
_PREDICTED_ROWS = 16_384


@dataclass(frozen=True)
class Mapped:
    """All particles on the landscape.

    Attributes
    ----------
    scores : ndarray of float32 (particle, component)
    decoded : ndarray of bool (particle,)
        Which were decoded; the others were predicted.
    facts : dict
        Of the regression: ``regression_error`` as a share of the standard deviation of the sample's
        scores and ``regression``, what predicts each component; empty where all were decoded.
    """

    scores: np.ndarray
    decoded: np.ndarray
    facts: dict[str, Any]


def scores_stage(job: MapJob, placing: Placing, *, sample: int | None, seed: int) -> Mapped:
    """Run the stages, or find them done; a stage that was killed keeps its finished blocks.

    Parameters
    ----------
    job : MapJob
        With the stages ``read_outs`` and ``check`` finished.
    placing : Placing
    sample : int or None
        Particles to decode; None for all.
    seed : int
        Of the draw.

    Returns
    -------
    Mapped

    Raises
    ------
    InputError
        When the model gives no finite density at a latent.
    """
    count = job.n_particles
    if sample is None or sample >= count:
        _decoded_stage(job, placing, np.arange(count), name="scores", recorded={"sample": None})
        return Mapped(_read(job, "scores"), np.ones(count, dtype=bool), {})
    chosen = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
    recorded = {"sample": sample, "seed": seed}
    _decoded_stage(job, placing, chosen, name="sample", recorded=recorded)
    facts = _predicted_stage(job, chosen, recorded=recorded, seed=seed)
    decoded = np.zeros(count, dtype=bool)
    decoded[chosen] = True
    return Mapped(_read(job, "scores"), decoded, facts)


@dataclass(frozen=True)
class _Block:
    """One task: particles that are decoded, and the band that their scores are written to."""

    path: str
    start: int
    particles: np.ndarray
    latents: np.ndarray
    placing: Placing

    def run(self) -> int:
        """Decode, place and write; return how many there are."""
        scores = self.placing.scores(self.latents)
        faulty = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(faulty):
            raise InputError(
                "the model gives no finite density at the latent of particle "
                f"{int(self.particles[faulty[0]])}; is the epoch sound?"
            )
        target = open_array(open_group(self.path, mode="r+"), _ARRAY)
        return write_band(target, self.start, scores)


def _decoded_stage(
    job: MapJob,
    placing: Placing,
    particles: np.ndarray,
    *,
    name: str,
    recorded: dict[str, Any],
) -> None:
    """Decode particles into a group of scores."""
    parameters = {"fourier": job.fourier, **recorded}
    latents = job.latents[particles]
    rows = min(max(-(-len(particles) // _BLOCKS), _FEWEST_ROWS), _MOST_ROWS)

    def build(workspace: Path) -> None:
        path = str((workspace / "results.zarr" / name).absolute())
        layout = _layout(len(particles), job.n_components, rows)
        target, fresh = open_bands(path, _ARRAY, layout, placing.key)
        if fresh:
            group = open_group(path, mode="r+")
            variable = RESULTS["sample_particle"]
            put_array(
                group,
                variable.name,
                particles.astype(np.int64),
                variable.dims,
                attributes=variable.attributes(),
            )
            group.attrs["key"] = placing.key  # last: with it, all above is known to be there
        blocks = [
            _Block(path, start, particles[start:stop], latents[start:stop], placing)
            for number, (start, stop) in enumerate(layout.bands)
            if fresh or not has_chunk(target, number, 0)
        ]
        if blocks:
            job.state_decoding(name, particles=len(particles), tasks=len(blocks))
            _run(job, blocks, done=len(layout.bands) - len(blocks), rows=layout.rows)

    job.results.stage(name, parameters=parameters, after=("check",), build=build, resumable=True)


def _run(job: MapJob, blocks: list[_Block], *, done: int, rows: int) -> None:
    for _ in job.progress.map(
        job.client,
        _Block.run,
        blocks,
        label="map",
        unit=f"blocks of {rows} particles",
        done=done,
        ordered=False,
    ):
        pass


def _predicted_stage(
    job: MapJob, chosen: np.ndarray, *, recorded: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Predict the scores of all particles from those of the sample, which stay as they are."""

    def build(workspace: Path) -> dict[str, Any]:
        path = str((workspace / "results.zarr" / "scores").absolute())
        measured = _read(job, "sample")
        with job.progress.task("regression"):
            regression = fit_latents(job.latents[chosen], measured, seed=seed)
            predict = regression.predictor()
        layout = _layout(job.n_particles, job.n_components, _PREDICTED_ROWS)
        target, _ = open_bands(path, _ARRAY, layout, "predicted")
        open_group(path, mode="r+").attrs["key"] = "predicted"
        with job.progress.task("prediction", total=job.n_particles, unit="particles") as task:
            for start, stop in layout.bands:
                scores = predict(job.latents[start:stop])
                here = slice(*np.searchsorted(chosen, [start, stop]))
                scores[chosen[here] - start] = measured[here]
                task.update(write_band(target, start, scores))
        return {
            "regression_error": regression.relative_error.tolist(),
            "regression": list(regression.kinds),
        }

    record = job.results.stage("scores", parameters=recorded, after=("sample",), build=build)
    return dict(record.summary)


def _layout(n_rows: int, n_components: int, rows: int) -> MatrixLayout:
    return MatrixLayout((n_rows, n_components), "float32", min(rows, n_rows), n_components)


def _read(job: MapJob, name: str) -> np.ndarray:
    path = str(job.group(name))
    stored = open_array(open_group(path), _ARRAY)
    checked = CheckedArray(stored, path, advice=REMAKE)
    return np.asarray(checked[slice(None), slice(None)])
