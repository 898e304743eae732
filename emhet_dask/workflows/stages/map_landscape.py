"""The landscape that particles are placed on: what of it is used, and whether it can be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from emhet_dask.ensemble import Ensemble, open_ensemble
from emhet_dask.ensemble.groups import load_group
from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn_run import CryodrgnRun
from emhet_dask.runtime import read_run
from emhet_dask.urls import Place, place_of

__all__ = ["Sketch"]


@dataclass(frozen=True)
class Sketch:
    """A finished landscape of volumes whose latents are known.

    Attributes
    ----------
    folder : Path or UrlPlace
    ensemble : Ensemble
        Its volumes, in the order of its results.
    parameters : dict
        Of the command that made it.
    keys : dict
        What its stages are known by.
    """

    folder: Place
    ensemble: Ensemble
    parameters: dict[str, Any]
    keys: dict[str, str]

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> Sketch:
        """Open the results of ``emhet landscape``.

        Raises
        ------
        InputError
            When they are none, are not finished, or the ensemble is gone, has changed, or does not
            know the latents of its volumes.
        """
        folder = place_of(folder).absolute()
        if not (folder / "run.json").is_file():
            raise InputError(f"--landscape: {folder} has no run.json, expected results of emhet "
                             "landscape")  # fmt: skip
        run = read_run(folder)
        if run.command != "landscape":
            raise InputError(
                f"--landscape: {folder} holds results of 'emhet {run.command}', expected 'emhet "
                "landscape'"
            )
        missing = {"matrix", "pca", "tree", "clusters"} - set(run.stages)
        if missing:
            raise InputError(
                f"--landscape: {folder} is not finished ({', '.join(sorted(missing))} missing); "
                "run the same emhet landscape again"
            )
        keys = {name: record.key for name, record in run.stages.items()}
        return cls(folder, _ensemble(folder, run.inputs), dict(run.parameters), keys)

    def group(self, name: str) -> xr.Dataset:
        """Return a group of its ``results.zarr``."""
        return load_group(self.folder / "results.zarr" / name)

    @cached_property
    def pca(self) -> xr.Dataset:
        """Return the group ``pca`` in memory."""
        return self.group("pca").load()

    @cached_property
    def scores(self) -> np.ndarray:
        """Return the scores (volume, component) of its volumes."""
        return np.asarray(self.pca["scores"].values, dtype=np.float64)

    @cached_property
    def latents(self) -> np.ndarray:
        """Return the latents (volume, latent_dim) of its volumes."""
        return np.asarray(self.ensemble.dataset["latent"].values, dtype=np.float32)

    @cached_property
    def states(self) -> np.ndarray:
        """Return the state (volume,) of each volume."""
        return np.asarray(self.group("clusters")["cluster"].values, dtype=np.int64)

    @cached_property
    def outlier(self) -> np.ndarray:
        """Tell which volumes (volume,) are unlike all others."""
        return np.asarray(self.group("clusters")["outlier"].values, dtype=bool)

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """Return what its ``evidence.json`` says."""
        path = self.folder / "clusters" / "evidence.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    @property
    def n_signal(self) -> int:
        """Return how many components stand out of the noise, at least one."""
        return max(1, int(self.evidence["n_signal"]))

    @property
    def noun(self) -> str:
        """Return what groups are called: pieces of a continuum are no states."""
        return "state" if self.evidence["separate_states"] else "cluster"

    @property
    def ratios(self) -> np.ndarray:
        """Return the explained variance ratio (component,)."""
        return np.asarray(self.pca["explained_variance_ratio"].values)

    @property
    def spread(self) -> np.ndarray:
        """Return the standard deviation (component,) of the scores of its volumes."""
        weights = self.ensemble.weights
        mean = np.average(self.scores, axis=0, weights=weights)
        return np.asarray(np.sqrt(np.average((self.scores - mean) ** 2, axis=0, weights=weights)))

    def table(self) -> pd.DataFrame:
        """Return a row for each volume: ``name``, ``cluster``, ``pc1``, …."""
        names = [f"pc{number}" for number in range(1, self.scores.shape[1] + 1)]
        table = pd.DataFrame(self.scores, columns=names)
        table.insert(0, "cluster", self.states)
        table.insert(0, "name", self.ensemble.names)
        return table

    def flip(self, *, asked: bool) -> bool:
        """Tell whether its volumes are mirrored."""
        made = self.decoded_from
        return asked if made is None else bool(made["flip"])

    @property
    def decoded_from(self) -> dict[str, Any] | None:
        """Return which model its volumes were decoded from, where that is known."""
        found: dict[str, Any] | None = self.ensemble.dataset.attrs.get("decoded_from")
        return found

    def refuse_other_run(self, run: CryodrgnRun) -> None:
        """Refuse a run that the volumes are not of.

        Raises
        ------
        InputError
            When latents have other dimensions, the box is larger, or other weights decoded them.
        """
        made = self.decoded_from
        where = self.ensemble.path
        if made is not None and made["weights_sha256"] != run.weights_sha256:
            raise InputError(
                f"--landscape: its volumes were decoded from epoch {made['epoch']} of "
                f"{made['workdir']} with other weights than {run.weights_path}; expected that epoch"
            )
        if self.latents.shape[1] != run.latents.shape[1]:
            raise InputError(
                f"{where}: latents of {self.latents.shape[1]} dimensions, but those of "
                f"{run.workdir} have {run.latents.shape[1]}; are its volumes of this run?"
            )
        if self.ensemble.box > run.box:
            raise InputError(
                f"{where}: volumes of {self.ensemble.box}³, but the model was trained on "
                f"{run.box}³; are they of this run?"
            )


def _ensemble(folder: Place, inputs: Any) -> Ensemble:
    path = inputs.get("ensemble")
    if path is None:
        raise InputError(
            f"--landscape: {folder} was made of an array in memory; expected one of a store"
        )
    try:
        whole = open_ensemble(str(path))
    except InputError as error:
        raise InputError(
            f"--landscape: {folder} was made of {path}, which is needed too: {error}"
        ) from None
    if whole.fingerprint != inputs.get("source"):
        raise InputError(
            f"--landscape: {path} is not what it was when {folder} was made; run emhet landscape "
            "again"
        )
    if "latent" not in whole.dataset:
        raise InputError(
            f"--landscape: {path} does not know the latents of its volumes; expected a store of "
            "emhet decode, or of emhet ingest --latents"
        )
    rows = load_group(folder / "results.zarr" / "pca")["volume_index"].values
    return whole.select(rows)
