"""The stage ``mask``: where in the box things are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.fourier import resample_mask
from emhet_dask.analysis.mask import auto_mask, binarise_mask, grow_mask
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.runtime import fingerprint_file, fingerprint_values
from emhet_dask.urls import Place
from emhet_dask.workflows.stages.costs import mask_work
from emhet_dask.workflows.stages.foreign import refuse_other_extent
from emhet_dask.workflows.stages.job import Job

__all__ = ["MaskOptions", "mask_stage"]

_FILE_THRESHOLD = 0.5
# Soft edges may ring a little; density goes below this.
_LEAST_OF_MASK = -0.01


@dataclass(frozen=True)
class MaskOptions:
    """What the stage depends on.

    Attributes
    ----------
    mask : str
        ``"auto"``, ``"none"`` or a file.
    threshold, dilate : float or None
    cosine_edge : float
        In Å, as is `dilate`.
    reused : Path, UrlPlace or None
        Results folder whose mask is taken as it is, instead of all that.
    """

    mask: str
    threshold: float | None
    dilate: float | None
    cosine_edge: float
    reused: Place | None = None

    def refuse_early(self) -> None:
        """Refuse what cannot work, before anything is computed.

        Raises
        ------
        InputError
            When a file is not there, or a mask that is reused should be changed.
        """
        if self.mask not in {"auto", "none"} and not Path(self.mask).is_file():
            raise InputError(f"--mask: no file {self.mask}; expected auto, none or an MRC file")
        given = {"--threshold": self.threshold, "--dilate": self.dilate}
        given["--cosine-edge"] = self.cosine_edge or None
        changed = [name for name, value in given.items() if value is not None]
        if self.mask == "none" and changed:
            raise InputError(f"{changed[0]}: --mask none is the whole box, which it cannot change")
        if self.reused is not None and changed:
            raise InputError(
                f"{changed[0]}: the mask of {self.reused} is reused as it is with --keep "
                f"{self.reused}:…; for another mask name it with --mask, or keep volumes by number"
            )

    def recorded(self) -> dict[str, Any]:
        """Return the options, with the content of a mask that exists in place of its name."""
        settings: dict[str, Any] = {
            "mask": self.mask,
            "threshold": self.threshold,
            "dilate": self.dilate,
            "cosine_edge": self.cosine_edge,
        }
        if self.reused is not None:
            return {**settings, "mask": {"values": fingerprint_values(_values_of(self.reused))}}
        if self.mask not in {"auto", "none"}:
            settings["mask"] = fingerprint_file(self.mask)
        return settings


def mask_stage(job: Job, options: MaskOptions) -> xr.Dataset:
    """Run the stage, or find it done.

    Parameters
    ----------
    job : Job
    options : MaskOptions

    Returns
    -------
    xarray.Dataset
        The group ``mask``.

    Raises
    ------
    InputError
        When a file cannot be read or is of another extent, or nothing is inside the mask.
    """
    options.refuse_early()

    def build(workspace: Path) -> dict[str, Any]:
        found = _make(job, options)
        save_group(workspace / "results.zarr" / "mask", found)
        write_map(
            workspace / "mask.mrc",
            found["mask"].values.astype(np.float32),
            voxel_size_angstrom=job.ensemble.voxel_size_angstrom,
            origin_angstrom=job.ensemble.origin_angstrom,
        )
        inside = int(np.count_nonzero(found["mask"].values))
        return {"voxels": inside, "fraction": round(inside / job.ensemble.box**3, 6)}

    job.results.stage("mask", parameters=options.recorded(), after=job.made_by, build=build)
    return load_group(job.group("mask"))


def _make(job: Job, options: MaskOptions) -> xr.Dataset:
    ensemble = job.ensemble
    if options.reused is not None:
        return _reused(job, options.reused)
    if options.mask == "none":
        whole = np.ones((ensemble.box,) * 3, dtype=np.float32)
        return xr.Dataset({"mask": (("z", "y", "x"), whole)})
    if options.mask != "auto":
        return _from_file(job, options)
    job.results.state(mask_work(ensemble))
    known = ensemble.dataset.get("percentile_9999")
    with job.progress.computing(job.client, label="mask") as compute:
        return auto_mask(
            ensemble.volumes,
            voxel_size_angstrom=ensemble.voxel_size_angstrom,
            threshold=options.threshold,
            thresholds=None if known is None else known.values / 2,
            dilate_angstrom=options.dilate,
            cosine_edge_angstrom=options.cosine_edge,
            compute=compute,
        )


def _values_of(folder: Place) -> np.ndarray:
    return np.asarray(load_group(folder / "results.zarr" / "mask")["mask"].values)


def _reused(job: Job, folder: Place) -> xr.Dataset:
    values = _values_of(folder)
    if values.shape != (job.ensemble.box,) * 3:
        raise InputError(
            f"--keep: the mask of {folder} has {values.shape[0]}³ voxels, but the volumes "
            f"{job.ensemble.box}³; is it of another ensemble?"
        )
    return xr.Dataset({"mask": (("z", "y", "x"), values)})


def _from_file(job: Job, options: MaskOptions) -> xr.Dataset:
    box, voxel_size = job.ensemble.box, job.ensemble.voxel_size_angstrom
    header = read_header(options.mask)
    refuse_other_extent(header, job.ensemble, what=f"--mask {options.mask}")
    sides = header.shape[0]
    values = read_volume(header)
    threshold = _FILE_THRESHOLD if options.threshold is None else options.threshold
    if options.threshold is None and values.min() < _LEAST_OF_MASK:
        raise InputError(
            f"--mask {options.mask}: values from {values.min():.4g} to {values.max():.4g}, "
            "expected a mask from 0 to 1; emhet mask makes one from a map"
        )
    try:
        inside = binarise_mask(values, threshold=threshold)
        if sides != box:
            inside = resample_mask(inside, box) >= _FILE_THRESHOLD
        if not inside.any():
            raise InputError(f"nothing of it is left at {box}³ voxels")  # noqa: TRY301
    except InputError as error:
        raise InputError(f"--mask {options.mask}: {error}") from None
    grown = grow_mask(
        inside,
        voxel_size_angstrom=voxel_size,
        dilate_angstrom=options.dilate or 0.0,
        cosine_edge_angstrom=options.cosine_edge,
    )
    return xr.Dataset({"mask": (("z", "y", "x"), grown)}, attrs={"threshold": threshold})
