"""The stage ``fsc`` of ``emhet reconstruct``: what the half maps confirm, and maps to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.analysis.fourier import resample_mask
from emhet_dask.analysis.half_maps import (
    fitted_b_factor,
    fsc_curves,
    half_map_mask,
    post_processed,
)
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.runtime import fingerprint_file
from emhet_dask.workflows.stages.reconstruct_maps import Reconstruction
from emhet_dask.workflows.stages.reconstruct_states import state_name

__all__ = ["HalfMapTables", "fsc_stage", "load_tables", "read_mask"]

_CURVES = ("unmasked", "masked", "randomised", "corrected")
_DIGITS = "%.6g"


@dataclass(frozen=True)
class HalfMapTables:
    """What the tables hold.

    Attributes
    ----------
    fsc : pandas.DataFrame
        A row per state and Fourier shell: ``state``, ``shell``, ``resolution_A``,
        ``fsc_unmasked``, ``fsc_masked``, ``fsc_randomised``, ``fsc_corrected``.
    states : pandas.DataFrame
        A row per state: ``state``, ``name``, ``particles``, ``resolution_A`` (corrected, at
        0.143), ``resolution_masked_A``, ``resolution_unmasked_A``, ``mask_fraction`` of the box,
        ``b_factor_A2`` (NaN: none).
    """

    fsc: pd.DataFrame
    states: pd.DataFrame


def load_tables(folder: Path) -> HalfMapTables:
    """Read the tables of a results folder."""
    return HalfMapTables(pd.read_csv(folder / "fsc.csv"), pd.read_csv(folder / "states.csv"))


def read_mask(run_mask: str, *, box: int, voxel_size_angstrom: float) -> np.ndarray | None:
    """Read the mask of ``--mask``; None for the words.

    Raises
    ------
    InputError
        When the file cannot be read, is of another extent, or holds other than 0 to 1.
    """
    if run_mask in ("auto", "none"):
        return None
    header = read_header(run_mask)
    if header.n_volumes != 1 or not header.is_cubic:
        raise InputError(f"--mask {run_mask}: expected one cubic map, found {header.shape}")
    size = header.voxel_size_angstrom
    extent = box * voxel_size_angstrom
    same = header.shape[0] == box if size is None else None
    if same is None:
        same = abs(header.shape[0] * (size or 0.0) - extent) <= 0.01 * extent
    if not same:
        raise InputError(
            f"--mask {run_mask}: {header.shape[0]} voxels of {size or 0:g} Å; expected a mask as "
            f"wide as the maps, {box} voxels of {voxel_size_angstrom:g} Å"
        )
    values = read_volume(header)
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and 0 < high <= 1 + 1e-3):
        raise InputError(
            f"--mask {run_mask}: values from {low:g} to {high:g}, expected 0 outside to 1 inside"
        )
    return resample_mask(np.clip(values, 0.0, 1.0), box)


def fsc_stage(run: Reconstruction, mask: np.ndarray | None, *, after: list[str]) -> HalfMapTables:
    """Compare the half maps of each state and write the post-processed maps, or find that done.

    Parameters
    ----------
    run : Reconstruction
    mask : ndarray or None
        Of a file.
    after : list of str
        Stages of the maps.

    Raises
    ------
    InputError
        When a map has no positive density to put a mask around.
    """
    options = run.options

    def build(workspace: Path) -> None:
        rows, shells = [], []
        with run.progress.task("fsc", total=len(run.particles.rows), unit="states") as task:
            for number in run.particles.rows:
                row, curves = _state(run, number, mask, workspace)
                rows.append(row)
                shells.append(_table(number, curves, run.sampling.extent_angstrom))
                task.update(1)
        pd.DataFrame(rows).to_csv(workspace / "states.csv", index=False, float_format=_DIGITS)
        pd.concat(shells).to_csv(workspace / "fsc.csv", index=False, float_format=_DIGITS)

    recorded: dict[str, Any] = {"mask": options.mask}
    if mask is not None:
        recorded["mask_file"] = fingerprint_file(options.mask)
    run.results.stage(
        "fsc",
        parameters={**recorded, "b_factor": options.b_factor, "seed": options.seed},
        after=after,
        build=build,
        replaceable=True,
    )
    return load_tables(run.results.path())


def _state(
    run: Reconstruction, number: int, mask: np.ndarray | None, workspace: Path
) -> tuple[dict[str, Any], xr.Dataset]:
    name, size = state_name(number), run.sampling.voxel_size_angstrom
    first, second, whole = (
        read_volume(read_header(run.results.path(f"{name}{ending}.mrc")))
        for ending in ("_half1", "_half2", "")
    )
    if run.options.mask == "auto":
        mask = half_map_mask(whole, voxel_size_angstrom=size)
        write_map(workspace / f"{name}_mask.mrc", mask, voxel_size_angstrom=size)
    curves = fsc_curves(first, second, mask=mask, voxel_size_angstrom=size, seed=run.options.seed)
    resolution = curves.attrs["corrected_A"]
    b_factor = run.options.b_factor
    if b_factor == "auto":
        b_factor = fitted_b_factor(
            whole if mask is None else whole * mask,
            curves["corrected"].values,
            resolution_angstrom=resolution,
            voxel_size_angstrom=size,
        )
    post = post_processed(
        whole,
        curves["corrected"].values,
        resolution_angstrom=resolution,
        voxel_size_angstrom=size,
        b_factor=float(b_factor or 0.0),
    )
    write_map(workspace / f"{name}_post.mrc", post, voxel_size_angstrom=size)
    return {
        "state": number,
        "name": name,
        "particles": len(run.particles.rows[number]),
        "resolution_A": resolution,
        "resolution_masked_A": curves.attrs["masked_A"],
        "resolution_unmasked_A": curves.attrs["unmasked_A"],
        "mask_fraction": 1.0 if mask is None else float(np.mean(mask > 0.5)),
        "b_factor_A2": np.nan if b_factor is None else float(b_factor),
    }, curves


def _table(number: int, curves: xr.Dataset, extent: float) -> pd.DataFrame:
    shell = curves["shell"].values
    columns = {f"fsc_{name}": curves[name].values for name in _CURVES}
    return pd.DataFrame(
        {"state": number, "shell": shell, "resolution_A": extent / shell, **columns}
    )
