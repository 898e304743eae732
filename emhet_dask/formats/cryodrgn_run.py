"""The folder of a cryoDRGN run: latents and weights of an epoch, and what they were made of.

``config.yaml`` was written on another day, perhaps on another machine: the files that it names are
looked for in the run's folder and in the one that this lies in, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import (
    epochs,
    read_array,
    read_config,
    read_indices,
    read_z,
    training_subset,
)

__all__ = ["CryodrgnRun"]

_SUPPORTED = "expected a run of cryodrgn train_vae or train_dec"
# What a decoder is built from.
_MODEL_PARTS = ("lattice_args", "model_args")


@dataclass(frozen=True)
class CryodrgnRun:
    """One epoch of a cryoDRGN run.

    Attributes
    ----------
    workdir : Path
        Absolute.
    epoch : int or "last"
        "last" for the files without a number that a finished run has.
    config : dict
        Of ``config.yaml``.
    latents : ndarray of float32 (particle, latent_dim)
        Means, one row for each particle that the model was trained on.
    box : int
        Voxels a side, as trained.
    """

    workdir: Path
    epoch: int | Literal["last"]
    config: dict[str, Any]
    latents: np.ndarray
    box: int

    @classmethod
    def open(cls, workdir: str | Path, epoch: int | Literal["last"]) -> CryodrgnRun:
        """Read what an epoch left.

        Parameters
        ----------
        workdir : path
            The ``-o`` of ``cryodrgn train_vae``.
        epoch : int or "last"
            As in the names ``z.N.pkl`` and ``weights.N.pkl``; "last" is ``z.pkl`` of a finished
            run, or the highest number.

        Raises
        ------
        InputError
            When this is no such folder, it has no such epoch, the run is of a kind that is not
            supported, or its files are damaged or do not belong together.
        """
        folder = Path(os.path.abspath(workdir))  # noqa: PTH100 - keeps the names of symbolic links
        path = folder / "config.yaml"
        config = read_config(folder)
        box, n_latent = _architecture(config, path)
        found = _find_epoch(folder, epoch)
        latents_path = folder / _name("z", found)
        latents = read_z(latents_path).astype(np.float32)
        if latents.shape[1] != n_latent:
            raise InputError(
                f"{latents_path}: {latents.shape[1]} numbers per particle, but zdim is {n_latent} "
                f"in {path}"
            )
        return cls(folder, found, config, latents, box)

    @property
    def n_particles(self) -> int:
        """Return how many particles the model was trained on."""
        return len(self.latents)

    @property
    def weights_path(self) -> Path:
        """Return the file of the model's weights."""
        return self.workdir / _name("weights", self.epoch)

    @cached_property
    def weights_sha256(self) -> str:
        """Return the SHA-256 of the model's weights, in hex.

        Raises
        ------
        InputError
            When they cannot be read.
        """
        try:
            with self.weights_path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{self.weights_path}: cannot be read ({error.strerror})") from None

    @property
    def version(self) -> str:
        """Return the version of cryoDRGN that trained the model; empty where nothing says."""
        return str(self.config.get("version") or "")

    @property
    def model_config(self) -> dict[str, Any]:
        """Return the part of the configuration that a decoder is built from, as JSON values."""
        norm = self._dataset_args.get("norm")
        parts = {name: self.config[name] for name in _MODEL_PARTS}
        return {**parts, "dataset_args": {"norm": norm}}

    def voxel_size_angstrom(self) -> float:
        """Return the voxel size of the volumes as trained, from the CTF parameters of the run.

        Raises
        ------
        InputError
            When there are none within reach, or their particles differ in voxel size.
        """
        named = self._dataset_args.get("ctf")
        where = self.workdir / "config.yaml"
        if not isinstance(named, str) or not named:
            raise InputError(f"{where}: names no file with CTF parameters; give --apix")
        path = self._find(named)
        if path is None:
            raise InputError(
                f"{where}: the voxel size is in {named}, which is neither in {self.workdir} nor in "
                f"{self.workdir.parent}; give --apix"
            )
        table = read_array(path)
        if table.ndim != 2 or table.shape[1] != 9 or not len(table):
            raise InputError(
                f"{path}: expected CTF parameters in 9 columns, found an array of {table.shape}; "
                "give --apix"
            )
        # Image size in pixels and Å per pixel; the images were binned to the box of the model.
        extents = np.asarray(table[:, 0] * table[:, 1], dtype=np.float64)
        lowest, highest = float(extents.min()), float(extents.max())
        if not (np.isfinite(extents).all() and lowest > 0 and highest < lowest * 1.001):
            raise InputError(
                f"{path}: image sizes from {lowest:g} to {highest:g} Å, expected one; give --apix"
            )
        return float(extents[0]) / self.box

    def particle_index(self, ind: str | Path | None = None) -> np.ndarray:
        """Return the row of each particle in the particle file, before any subset.

        Parameters
        ----------
        ind : path, optional
            Indices of the particles that the model was trained on; by default those that
            ``config.yaml`` names.

        Returns
        -------
        ndarray of int64 (particle,)

        Raises
        ------
        InputError
            When the file is not within reach, or is not of so many particles.
        """
        subset: Path | int | None
        if ind is not None:
            subset, indices = Path(ind), read_indices(ind)
        else:
            where = self.workdir / "config.yaml"
            subset = training_subset(self.config, path=where)
            if isinstance(subset, Path):
                path = self._find(str(subset))
                if path is None:
                    raise InputError(
                        f"{where}: the run was trained on the particles in {subset}, which is "
                        f"neither in {self.workdir} nor in {self.workdir.parent}; give --ind"
                    )
                subset, indices = path, read_indices(path)
            else:
                indices = np.arange(self.n_particles if subset is None else subset, dtype=np.int64)
        if len(indices) != self.n_particles:
            raise InputError(
                f"{subset if isinstance(subset, Path) else self.workdir / 'config.yaml'}: "
                f"{len(indices)} indices, but the latents are of {self.n_particles} particles; "
                "expected --ind of the training"
            )
        return indices

    @property
    def _dataset_args(self) -> dict[str, Any]:
        found = self.config.get("dataset_args")
        return found if isinstance(found, dict) else {}

    def _find(self, named: str) -> Path | None:
        """Find a file that the configuration names, in the run's folder or the one it lies in.

        Whatever leads out of there, by ``..``, from the root or by a symbolic link, is not found.
        """
        run = Path(os.path.realpath(self.workdir))
        above = run.parent
        # All files of the machine are in its root.
        root = run if above == above.parent else above
        for folder in (run, above):
            path = Path(os.path.realpath(folder / named))
            if path.is_relative_to(root) and path.is_file():
                return path
        return None


def _architecture(config: dict[str, Any], path: Path) -> tuple[int, int]:
    """Return box and latent dimensions of a model that is supported."""
    model, lattice = config.get("model_args"), config.get("lattice_args")
    if "data_norm_mean" in config or (isinstance(model, dict) and "hypervolume_params" in model):
        raise InputError(f"{path}: a run of cryodrgn abinit (DRGN-AI); {_SUPPORTED}")
    if not isinstance(model, dict) or not isinstance(lattice, dict):
        raise InputError(f"{path}: has no model_args or lattice_args; {_SUPPORTED}")
    n_latent, side = model.get("zdim"), lattice.get("D")
    if not isinstance(n_latent, int) or n_latent < 1 or not ({"players", "layers"} & set(model)):
        raise InputError(f"{path}: a model without latents (zdim {n_latent!r:.20}); {_SUPPORTED}")
    if not isinstance(side, int) or side < 9 or side % 2 == 0:
        raise InputError(
            f"{path}: lattice_args.D is {side!r:.20}, expected the box and one more; {_SUPPORTED}"
        )
    try:
        json.dumps([config[name] for name in _MODEL_PARTS])
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: model_args or lattice_args hold other than numbers and texts; {_SUPPORTED}"
        ) from None
    return side - 1, n_latent


def _find_epoch(folder: Path, epoch: int | Literal["last"]) -> int | Literal["last"]:
    numbers = epochs(folder)
    finished = (folder / "z.pkl").is_file() and (folder / "weights.pkl").is_file()
    if not numbers and not finished:
        raise InputError(
            f"{folder}: no z.N.pkl with its weights.N.pkl inside, expected a trained cryoDRGN run"
        )
    if epoch == "last":
        return "last" if finished else numbers[-1]
    if epoch not in numbers:
        there = _runs(numbers) + (["last"] if finished else [])
        raise InputError(f"EPOCH: got {epoch}, but {folder} has {', '.join(there)}")
    return epoch


def _runs(numbers: list[int]) -> list[str]:
    """Return ascending numbers as texts, with a dash for those in between."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ["-".join(map(str, run)) for run in runs]


def _name(what: str, epoch: int | Literal["last"]) -> str:
    return f"{what}.pkl" if epoch == "last" else f"{what}.{epoch}.pkl"
