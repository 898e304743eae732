"""``emhet info``: what is in a store, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emhet_dask.ensemble.integrity import check_arrays, check_shard, list_shards
from emhet_dask.ensemble.store import open_array, open_group, read_array
from emhet_dask.errors import InputError
from emhet_dask.options import command
from emhet_dask.options.ingest import Info
from emhet_dask.runtime import Progress

__all__ = ["StoreInfo", "info"]


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes
    ----------
    facts : dict
        JSON values; the keys are those of ``--json``.
    as_json : bool
        Describe it as JSON.
    """

    facts: dict[str, Any]
    as_json: bool = False

    @property
    def whole(self) -> bool:
        """Tell whether every shard is there and, where they were read, all arrays are right."""
        return bool(self.facts["whole"])

    @property
    def failed(self) -> bool:
        """Tell the command line to end with status 2."""
        return not self.whole

    def describe(self) -> str:
        """Return it as JSON or in words."""
        return json.dumps(self.facts, indent=2) if self.as_json else "\n".join(self._words())

    def _words(self) -> list[str]:
        facts = self.facts
        box, apix = facts["box"], facts["voxel_size_angstrom"]
        lines = [
            facts["path"],
            f"  {facts['n_volumes']} volumes of {box}³ voxels at {apix:g} Å ({box * apix:g} Å), "
            f"{facts['dtype']}, {facts['bytes'] / 1e9:.3g} GB in {facts['n_shards']} shards",
        ]
        if facts["n_unusable"]:
            lines.append(f"  {facts['n_unusable']} volumes were faulty and are left out")
        if facts["particles_total"] is not None:
            lines.append(f"  weights: {facts['particles_total']:g} particles in all")
        if facts["n_particles"]:
            lines.append(f"  {facts['n_particles']} particles are assigned to volumes")
        if facts["latent_dim"]:
            lines.append(f"  latents of {facts['latent_dim']} dimensions")
        checked = "every shard is there" + (
            ", every checksum right" if facts["checked"] else "; nothing was read to test it"
        )
        lines.append(f"  whole: {checked}" if self.whole else "  NOT whole:")
        lines.extend(f"    {problem}" for problem in facts["problems"])
        return lines


@command(Info)
def info(options: Info) -> StoreInfo:
    """Say what is in an ensemble store and whether it is whole.

    Returns
    -------
    StoreInfo

    Raises
    ------
    InputError
        When there is no ensemble store.
    """
    path = str(options.ensemble)
    group = open_group(path)
    attributes = dict(group.attrs)
    if attributes.get("schema") != "emhet_dask.ensemble":
        raise InputError(f"{path}: a Zarr group, but not an ensemble store made by emhet ingest")
    volumes = open_array(group, "volumes")
    problems = _damage(path, deep=not options.quick, quiet=options.quiet)
    if not attributes.get("complete"):
        problems.insert(0, "not finished; the same command again continues it")
    facts = {
        "path": path,
        "schema_version": attributes["schema_version"],
        "n_volumes": volumes.shape[0],
        "box": volumes.shape[-1],
        "voxel_size_angstrom": attributes["voxel_size_angstrom"],
        "origin_angstrom": attributes["origin_angstrom"],
        "dtype": str(volumes.dtype),
        "bytes": volumes.nbytes,
        "n_shards": sum(1 for _ in list_shards(path)),
        "n_unusable": _sum_of(group, "usable", lambda usable: int((~usable).sum())) or 0,
        "particles_total": _sum_of(group, "weight", lambda weight: float(weight.sum())),
        "n_particles": open_array(group, "particle_volume").shape[0]
        if "particle_volume" in group
        else 0,
        "latent_dim": open_array(group, "latent").shape[1] if "latent" in group else 0,
        "made_by": attributes.get("made_by"),
        "checked": not options.quick,
        "whole": not problems,
        "problems": problems,
    }
    return StoreInfo(facts, as_json=options.json)


def _damage(path: str, *, deep: bool, quiet: bool) -> list[str]:
    shards = list(list_shards(path))
    problems = []
    with Progress(quiet=quiet).task("check", total=len(shards), unit="shards") as task:
        for shard in shards:
            problems.append(check_shard(shard, deep=deep))
            task.update(1)
    return [problem for problem in problems if problem is not None] + (
        check_arrays(path) if deep else []
    )


def _sum_of(group: Any, name: str, reduce: Callable[[np.ndarray], float]) -> float | None:
    """Return a sum over an array; None where it is missing or, which the check tells, damaged."""
    try:
        return reduce(read_array(group, name)) if name in group else None
    except Exception:
        return None
