"""Finished results as labelled groups of Zarr arrays."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import xarray as xr

from emhet_dask.errors import InputError
from emhet_dask.urls import words_for_url
from emhet_dask.variables import RESULTS, check, describe

__all__ = ["load_group", "save_group"]


def save_group(path: str | PathLike[str], dataset: xr.Dataset) -> None:
    """Write a dataset as one Zarr v3 group, with the meaning of every array beside it.

    Parameters
    ----------
    path : path
        Of the group; replaced.
    dataset : xarray.Dataset
        Arrays named in `emhet_dask.variables.RESULTS` must have its dimensions and kinds.

    Raises
    ------
    InputError
        When an array disagrees with the registry.
    """
    check(dataset, RESULTS, what=str(path))
    bare = dataset.drop_encoding()
    describe(bare, RESULTS).to_zarr(path, mode="w", zarr_format=3, consolidated=False)


def load_group(path: str | PathLike[str], **options: Any) -> xr.Dataset:
    """Open a group that `save_group` wrote; arrays are read when they are used.

    Parameters
    ----------
    path : path
    **options
        Passed to `xarray.open_zarr`.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    InputError
        When there is no such group.
    """
    try:
        with words_for_url(fspath(path)):
            return xr.open_zarr(path, consolidated=False, chunks=None, **options)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such results; run the command that makes them") from error
