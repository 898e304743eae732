"""The stage ``thresholds``: amplitudes, background, and what counts as occupied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.analysis.background import Background, measure_background
from emhet_dask.analysis.normalisation import divisors, normalisation_factors
from emhet_dask.analysis.thresholds import automatic_level
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.ensemble.matrix import open_matrix
from emhet_dask.ensemble.reading import stream
from emhet_dask.errors import InputError
from emhet_dask.formats.tables import read_thresholds
from emhet_dask.runtime import fingerprint_file
from emhet_dask.workflows.stages.costs import amplitudes_work, background_work
from emhet_dask.workflows.stages.job import Job

__all__ = ["ThresholdOptions", "thresholds_stage"]

# Volumes on which the background is measured, evenly spread, and how many bytes of them.
_SAMPLED = 64
_SAMPLED_BYTES = 2 << 30
_FEWEST_SAMPLED = 8


@dataclass(frozen=True)
class ThresholdOptions:
    """What the stage depends on beside the matrix.

    Attributes
    ----------
    threshold : str
        ``"auto"``, a number or a CSV file.
    normalize : bool
    background_length : float or "auto"
        In Å.
    """

    threshold: str
    normalize: bool
    background_length: float | str

    @property
    def level(self) -> float | None:
        """Return the one number that is given, if one is."""
        try:
            return float(self.threshold)
        except ValueError:
            return None

    @property
    def is_file(self) -> bool:
        """Tell whether there is a threshold for each volume in a file."""
        return self.threshold != "auto" and self.level is None

    def refuse_early(self) -> None:
        """Refuse what cannot work, before anything is computed.

        Raises
        ------
        InputError
            When the threshold is neither a finite number nor a file that is there.
        """
        if self.is_file and not Path(self.threshold).is_file():
            raise InputError(
                f"--threshold {self.threshold}: no such file; expected auto, a number or a CSV file"
            )
        if self.level is not None and not np.isfinite(self.level):
            raise InputError(f"--threshold: got {self.threshold}, expected a finite number")

    def recorded(self) -> dict[str, Any]:
        """Return the options, with the content of a file in place of its name."""
        threshold = fingerprint_file(self.threshold) if self.is_file else self.threshold
        return {**vars(self), "threshold": threshold}


def thresholds_stage(job: Job, options: ThresholdOptions) -> xr.Dataset:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
        With the stage ``matrix`` finished.
    options : ThresholdOptions

    Returns
    -------
    xarray.Dataset
        The group ``thresholds``: ``threshold`` and ``factor`` (volume), ``background_correlation``
        (lag); attributes ``level``, ``background_std``, ``background_length_voxels``, ….

    Raises
    ------
    InputError
        When a file does not fit, or nothing can be normalised.
    """

    def build(workspace: Path) -> dict[str, Any]:
        found = _decide(job, options)
        save_group(workspace / "results.zarr" / "thresholds", found)
        pd.DataFrame(
            {
                "volume": job.ensemble.dataset["volume_index"].values,
                "name": job.ensemble.names,
                "threshold": found["threshold"].values,
                "factor": found["factor"].values,
            }
        ).to_csv(workspace / "thresholds.csv", index=False, float_format="%.6g")
        length = found.attrs["background_length_voxels"] * job.ensemble.voxel_size_angstrom
        job.progress.say(
            f"occupied above {found.attrs['level']:.4g}; background reaches {length:.3g} Å"
        )
        return {"level": found.attrs["level"], "background_length_angstrom": length}

    job.results.stage(
        "thresholds",
        parameters=options.recorded(),
        after=("matrix",),
        build=build,
        replaceable=True,
    )
    return load_group(job.group("thresholds")).load()


def _decide(job: Job, options: ThresholdOptions) -> xr.Dataset:
    ensemble = job.ensemble
    factor = np.ones(ensemble.n_volumes)
    if options.normalize:
        matrix = open_matrix(str(job.group("matrix")))["matrix"].data
        job.results.state(amplitudes_work(matrix, stage="amplitudes"))
        with job.progress.computing(job.client, label="amplitudes") as compute:
            factor = divisors(normalisation_factors(matrix, compute=compute))
    background, percentiles = _measure(job)
    if options.is_file:
        threshold = read_thresholds(options.threshold, names=ensemble.names.tolist())
    else:
        level = options.level
        if level is None:
            level = automatic_level(percentiles / factor, noise=background.std)
        threshold = level * factor
    length = background.length
    if options.background_length != "auto":
        length = float(options.background_length) / ensemble.voxel_size_angstrom
    return xr.Dataset(
        {
            "threshold": ("volume", threshold),
            "factor": ("volume", factor),
            "background_correlation": ("lag", background.correlation),
        },
        attrs={
            "level": float(np.median(threshold / factor)),
            "background_std": background.std,
            "background_length_voxels": float(length),
            "background_limit": background.limit,
            "background_reached": bool(background.reached),
        },
    )


def _measure(job: Job) -> tuple[Background, np.ndarray]:
    """Return the background, and the 99.99th percentile of each volume."""
    ensemble = job.ensemble
    affordable = max(_FEWEST_SAMPLED, _SAMPLED_BYTES // (4 * ensemble.box**3))
    count = min(_SAMPLED, affordable, ensemble.n_volumes)
    sample = np.unique(np.linspace(0, ensemble.n_volumes - 1, count).round().astype(int))
    job.results.state(background_work(ensemble, sampled=len(sample)))
    volumes = stream(ensemble, sample)
    measure = dask.delayed(measure_background, pure=False)
    tasks = [measure(volumes, n_volumes=ensemble.n_volumes)]
    known = ensemble.dataset.get("percentile_9999")
    if known is None:
        tasks.append(dask.delayed(_percentiles, pure=False)(volumes))
    found = job.progress.compute(job.client, tasks, label="background")
    if known is not None:
        return found[0], np.asarray(known.values, dtype=np.float64)
    return found[0], np.full(ensemble.n_volumes, np.median(found[1]))


def _percentiles(volumes: Any) -> list[float]:
    return [float(np.percentile(volume, 99.99)) for volume in volumes]
