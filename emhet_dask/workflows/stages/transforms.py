"""How maps were moved: a row of numbers for each, and the table ``transforms.csv``."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import zarr

from emhet_dask.analysis.alignment import REASONS, Fit
from emhet_dask.analysis.rigid import Motion
from emhet_dask.analysis.rotations import relion_angles
from emhet_dask.ensemble import Ensemble
from emhet_dask.ensemble.layout import Layout
from emhet_dask.ensemble.store import open_group

__all__ = [
    "FITS",
    "FIT_COLUMNS",
    "TRANSFORMS",
    "create_fits",
    "row_of",
    "transforms_table",
    "write_transforms",
]

TRANSFORMS = "transforms.csv"
# Array of a store of aligned volumes, with a row for each.
FITS = "alignment"
# R row by row, t along x, y, z in voxels, and how good the fit is.
FIT_COLUMNS = (
    *(f"r{row}{column}" for row in "xyz" for column in "xyz"),
    *("shift_x_voxels", "shift_y_voxels", "shift_z_voxels"),
    *("mirrored", "correlation", "rival_correlation", "margin", "hand_margin", "reason"),
)
_NOT_USABLE = "the volume is not usable"


def create_fits(path: str, layout: Layout) -> None:
    """Make the array of a store that fits are written to, a row for each volume."""
    open_group(path, mode="r+").create_array(
        FITS,
        shape=(layout.n_volumes, len(FIT_COLUMNS)),
        chunks=(layout.volumes_per_shard, len(FIT_COLUMNS)),
        dtype="float64",
        fill_value=float("nan"),
        dimension_names=("volume", "alignment_column"),
        attributes={
            "long_name": "motion onto the reference, p' = R p + t, and how good the fit is",
            "columns": list(FIT_COLUMNS),
            "reasons": list(REASONS),
        },
        overwrite=True,
    )


def row_of(fit: Fit) -> list[float]:
    """Return a fit as the values of `FIT_COLUMNS`."""
    motion = fit.motion
    return [
        *motion.rotation.ravel(),
        *motion.shift_voxels,
        float(motion.mirrored),
        fit.correlation,
        fit.rival_correlation,
        fit.margin,
        fit.hand_margin,
        float(REASONS.index(fit.reason)),
    ]


def transforms_table(ensemble: Ensemble, fits: np.ndarray) -> pd.DataFrame:
    """Return the fits as people and programs read them."""
    rows = []
    for volume, values in enumerate(fits):
        known = dict(zip(FIT_COLUMNS[12:], values[12:], strict=True))
        usable = not np.isnan(values[0])
        motion = Motion(values[:9].reshape(3, 3), values[9:12], mirrored=known["mirrored"] == 1)
        angles = relion_angles(motion.rotation) if usable else (np.nan,) * 3
        shift = motion.shift_voxels * ensemble.voxel_size_angstrom
        placement = motion.placement(
            ensemble.box,
            voxel_size_angstrom=ensemble.voxel_size_angstrom,
            origin_angstrom=ensemble.origin_angstrom,
        )
        reason = REASONS[int(known["reason"])] if usable else _NOT_USABLE
        rows.append(
            {
                "volume": volume,
                "name": str(ensemble.names[volume]),
                **dict(zip(("rot", "tilt", "psi"), angles, strict=True)),
                **{f"shift_{axis}_angstrom": shift["xyz".index(axis)] for axis in "xyz"},
                "mirrored": motion.mirrored,
                "correlation": known["correlation"],
                "rival_correlation": known["rival_correlation"],
                "margin": known["margin"],
                "flagged": bool(reason),
                "reason": reason,
                "chimerax_matrix": ",".join(f"{value:.6g}" for value in placement.ravel())
                if usable
                else "",
            }
        )
    return pd.DataFrame(rows)


def write_transforms(path: str, table: pd.DataFrame) -> None:
    """Put the table into a store, where it is not there yet."""
    _write(path, table)
    _consolidate(path)


def _write(path: str, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, float_format="%.6g")
    if "://" in path:
        with fsspec.open(f"{path}/{TRANSFORMS}", "w", encoding="utf-8") as file:
            file.write(text)
        return
    target = Path(path) / TRANSFORMS
    if not target.is_file():
        partial = target.with_name(f"{TRANSFORMS}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)  # noqa: PTH105 - there when it is whole


def _consolidate(path: str) -> None:
    """List the arrays in the store, so that readers need not look for them.

    Where they do, Zarr warns of the table, which is no array.
    """
    if zarr.open_group(path, mode="r", zarr_format=3).metadata.consolidated_metadata is None:
        with warnings.catch_warnings():
            # That other programs may not know it; they fall back on looking.
            warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(path, zarr_format=3)
