"""``emhet decode``: volumes from a trained model into a store, shard by shard on the workers.

Which latents are decoded is written when the store is made, so that a call that was killed goes on
with the same ones and does not choose again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emhet_dask.analysis.intensity import measure
from emhet_dask.analysis.sketch import count_distinct, sketch_at, sketch_kmeans
from emhet_dask.ensemble.layout import Layout, plan_layout
from emhet_dask.ensemble.shards import crc32c
from emhet_dask.ensemble.store import (
    RECORD_COLUMNS,
    create_store,
    digest_arrays,
    finish_store,
    open_group,
    read_array,
    read_records,
    sweep_store,
    write_shard,
)
from emhet_dask.errors import InputError, need
from emhet_dask.formats.cryodrgn import read_indices, read_z
from emhet_dask.formats.cryodrgn_run import CryodrgnRun
from emhet_dask.options import command
from emhet_dask.options.decode import Decode
from emhet_dask.runtime import (
    Progress,
    Work,
    connect,
    digest,
    fingerprint_values,
    state_plan,
    versions,
)
from emhet_dask.runtime.making import making_store
from emhet_dask.workflows.particles import ParticleFile
from emhet_dask.workflows.stages.decoding_costs import Network, decode_work
from emhet_dask.workflows.stages.making import how_far, to_stored

if TYPE_CHECKING:
    from emhet_dask.decoders import DecoderModel

__all__ = ["Decoded", "decode"]

_N_VOLUMES = 1000
# A volume takes a tenth of a second and more: also small stores are cut so that many workers have
# something to do.
_LEAST_SHARDS = 64
_PROGRAM = "cryodrgn"


@dataclass(frozen=True)
class Decoded:
    """What a call of ``decode`` did.

    Attributes
    ----------
    path : str
        The store.
    n_volumes, box : int
    voxel_size_angstrom : float
        In Å.
    n_particles : int
        That the model was trained on, and that the volumes stand for.
    written : int
        Volumes written by this call; fewer than `n_volumes` where an earlier one had begun.
    """

    path: str
    n_volumes: int
    box: int
    voxel_size_angstrom: float
    n_particles: int
    written: int

    def describe(self) -> str:
        """Return it in words."""
        lines = [
            f"{self.path}: {self.n_volumes} volumes of {self.box}³ at "
            f"{self.voxel_size_angstrom:.4g} Å, for {self.n_particles} particles"
            + ("" if self.written else "; nothing was left to do")
        ]
        if 0 < self.written < self.n_volumes:
            lines.append(f"continued: {self.n_volumes - self.written} volumes were there before")
        return "\n".join(lines)


@command(Decode)
def decode(options: Decode) -> Decoded:
    """Decode volumes of a trained cryoDRGN model into an ensemble store.

    The volumes are those of ``cryodrgn eval_vol`` at the latents of particles, which k-means
    chooses unless they are given. Every particle belongs to one volume: with k-means to that of its
    cluster, else to the nearest one. A call that was killed is continued by the same call: finished
    shards stay as they are.

    Returns
    -------
    Decoded

    Raises
    ------
    InputError
        When the folder is not a run of a kind that is supported or has no such epoch, its voxel
        size or training particles are not within reach, tables do not fit the latents, cryoDRGN is
        not installed, the model gives no density, or the store at `output` was made from another
        model or with other settings.
    """
    plan = _plan(options, CryodrgnRun.open(options.workdir, options.epoch))  # type: ignore[arg-type]
    say = Progress(quiet=options.quiet).say
    with making_store(plan.path, command="emhet decode", say=say):
        return _make(plan, options)


def _make(plan: _Plan, options: Decode) -> Decoded:
    found = how_far(
        plan.path,
        key=plan.key,
        overwrite=options.overwrite,
        made_from="another model, other latents or options",
    )
    if found == "complete":
        return plan.report(written=0)
    progress = Progress(quiet=options.quiet)
    model, program = _decoder(plan.run, options)
    with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
        # What cannot fit is refused before anything is replaced.
        state_plan(plan.work(), client, progress)
        sweep_store(plan.path)
        if found == "nowhere":
            plan.create(program, progress)
        tasks = list(plan.unfinished(model))
        for _ in progress.map(client, _ShardTask.run, tasks, label="decode", unit="shards"):
            pass
    finish_store(plan.path)
    return plan.report(written=sum(len(task.latents) for task in tasks))


@dataclass(frozen=True)
class _Choice:
    """What is to be decoded, before it is chosen; one of the three.

    Attributes
    ----------
    n : int or None
        By k-means.
    rows : ndarray of int or None
        Of the latents.
    latents : ndarray of float32 or None
        Themselves.
    """

    n: int | None = None
    rows: np.ndarray | None = None
    latents: np.ndarray | None = None

    @property
    def count(self) -> int:
        if self.n is not None:
            return self.n
        return len(self.rows if self.rows is not None else self.latents)  # type: ignore[arg-type]

    def identity(self, *, seed: int) -> dict[str, Any]:
        """Return what it is known by."""
        if self.n is not None:
            return {"n": self.n, "seed": seed}
        given = self.rows if self.rows is not None else self.latents
        return {"given": fingerprint_values(given)}

    def choose(self, latents: np.ndarray, *, seed: int) -> xr.Dataset:
        """Choose among the latents of all particles."""
        if self.n is not None:
            return sketch_kmeans(latents, n=self.n, seed=seed)
        if self.latents is not None:
            return sketch_at(latents, at=self.latents)
        found = sketch_at(latents, at=latents[self.rows])
        return found.assign(decoded_particle=("volume", self.rows))


@dataclass(frozen=True)
class _Plan:
    """All that is decided before anything is written."""

    options: Decode
    run: CryodrgnRun
    choice: _Choice
    layout: Layout
    voxel_size_angstrom: float
    particles: dict[str, np.ndarray]

    @property
    def path(self) -> str:
        return self.options.output

    @cached_property
    def key(self) -> str:
        """Return what this call makes, told by contents: a run that was moved is the same."""
        return digest(
            {
                "weights": self.run.weights_sha256,
                "model": self.run.model_config,
                "latents": fingerprint_values(self.run.latents),
                "choice": self.choice.identity(seed=self.options.seed),
                "box": self.layout.box,
                "voxel_size_angstrom": self.voxel_size_angstrom,
                "particles": digest_arrays(self.particles),
                **self.options.parameters("flip", "dtype"),
            }
        )

    def report(self, *, written: int) -> Decoded:
        return Decoded(
            path=self.path,
            n_volumes=self.layout.n_volumes,
            box=self.layout.box,
            voxel_size_angstrom=self.voxel_size_angstrom,
            n_particles=self.run.n_particles,
            written=written,
        )

    def work(self) -> Work:
        """Return what decoding all volumes takes."""
        return decode_work(
            self.layout,
            network=Network.of(self.run.model_config, self.run.weights_path.stat().st_size),
            tasks=self.layout.n_shards,
            volumes=self.layout.n_volumes,
        )

    def create(self, program: str, progress: Progress) -> None:
        """Choose the latents, and make the store."""
        with progress.task("choose latents"):
            chosen = self.choice.choose(self.run.latents, seed=self.options.seed)
        create_store(
            self.path,
            self.layout,
            known={
                **_names(self.layout.n_volumes, self.run.weights_path),
                **{str(name): np.asarray(chosen[name].values) for name in chosen},
                **self.particles,
                "particle_latent": self.run.latents,
            },
            attributes=self._attributes(program),
        )

    def _attributes(self, program: str) -> dict[str, Any]:
        options, run = self.options, self.run
        settings = options.parameters(
            "epoch", "n", "z", "indices", "ind", "box", "apix", "flip", "dtype", "seed", "particles"
        )
        file = options.particles
        return {
            **({} if file is None else {"particle_file": str(Path(file).absolute())}),
            "voxel_size_angstrom": self.voxel_size_angstrom,
            "origin_angstrom": [0.0, 0.0, 0.0],
            "box": self.layout.box,
            "ingest_key": self.key,
            "decoded_from": {
                "workdir": str(run.workdir),
                "epoch": run.epoch,
                "weights_sha256": run.weights_sha256,
                "box": self.layout.box,
                "flip": options.flip,
                "voxel_size_angstrom": self.voxel_size_angstrom,
                "trained_with": f"{_PROGRAM} {run.version}".strip(),
                "decoded_with": program,
            },
            "made_by": {"command": "emhet decode", "options": settings, "versions": versions()},
        }

    def unfinished(self, model: DecoderModel) -> Iterator[_ShardTask]:
        """Yield a task for each shard without a record."""
        finished = ~np.isnan(read_records(self.path)[:, 0])
        latents = read_array(open_group(self.path), "latent")
        for start, stop in self.layout.shards():
            if not finished[start:stop].all():
                yield _ShardTask(
                    path=self.path if "://" in self.path else str(Path(self.path).resolve()),
                    bounds=(start, stop),
                    latents=latents[start:stop],
                    model=model,
                    dtype=self.layout.dtype,
                    weights=str(self.run.weights_path),
                )


def _plan(options: Decode, run: CryodrgnRun) -> _Plan:
    box = run.box if options.box is None else options.box
    if box > run.box or box % 2:
        raise InputError(
            f"--box: got {box}, expected an even number up to the {run.box} voxels that the model "
            "was trained on"
        )
    trained = run.voxel_size_angstrom() if options.apix is None else options.apix
    choice = _choice(options, run)
    layout = plan_layout(choice.count, box, options.dtype)
    chunks = -(-layout.n_volumes // layout.volumes_per_chunk)
    finely = layout.volumes_per_chunk * -(-chunks // _LEAST_SHARDS)
    return _Plan(
        options=options,
        run=run,
        choice=choice,
        layout=replace(layout, volumes_per_shard=min(layout.volumes_per_shard, finely)),
        voxel_size_angstrom=trained * run.box / box,
        particles=_particles(options, run),
    )


def _choice(options: Decode, run: CryodrgnRun) -> _Choice:
    given = {"-n": options.n, "--z": options.z, "--indices": options.indices}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)}: exclude each other, expected one of them")
    if options.z is not None:
        latents = read_z(options.z).astype(np.float32)
        n_latent = run.latents.shape[1]
        if latents.shape[1] != n_latent and latents.size == n_latent:
            latents = latents.reshape(1, n_latent)  # one latent, written as a column
        if latents.shape[1] != n_latent:
            raise InputError(
                f"{options.z}: rows of {latents.shape[1]} numbers, expected latents of {n_latent}"
            )
        return _Choice(latents=latents)
    if options.indices is not None:
        rows = read_indices(options.indices)
        if rows.max() >= run.n_particles:
            raise InputError(
                f"{options.indices}: index {rows.max()} is beyond the {run.n_particles} latents of "
                f"epoch {run.epoch}; expected rows of them, from 0"
            )
        return _Choice(rows=rows)
    if options.n is not None:
        return _Choice(n=options.n)
    return _Choice(n=min(_N_VOLUMES, count_distinct(run.latents)))


def _particles(options: Decode, run: CryodrgnRun) -> dict[str, np.ndarray]:
    """Return rows before any subset and, from a particle file, names of the particles."""
    rows = run.particle_index(options.ind)
    found: dict[str, np.ndarray] = {"particle_index": rows}
    if options.particles is None:
        return found
    file = ParticleFile.open(options.particles)
    available = len(file.names)
    if rows.max() >= available:
        raise InputError(
            f"{file.path}: {available} particles, but the model was trained on row "
            f"{int(rows.max())}; expected the file before any subset"
        )
    if len(rows) != available and np.array_equal(rows, np.arange(len(rows))):
        raise InputError(
            f"{file.path}: {available} particles, but the latents are of {len(rows)}; give --ind "
            "if a subset was used"
        )
    return {**found, "particle_name": file.names[rows], "particle_copy": file.copies[rows]}


def _names(count: int, weights: Path) -> dict[str, np.ndarray]:
    width = max(5, len(str(count - 1)))
    return {
        "name": np.asarray([f"vol_{number:0{width}d}" for number in range(count)]),
        "source": np.full(count, str(weights)),
    }


def _decoder(run: CryodrgnRun, options: Decode) -> tuple[DecoderModel, str]:
    """Return what workers load, and the program that decodes, with its version."""
    need("torch", extra=_PROGRAM, purpose="emhet decode")
    need(_PROGRAM, extra=_PROGRAM, purpose="emhet decode")
    from emhet_dask.decoders import CryodrgnModel  # noqa: PLC0415 - on demand, like torch

    model = CryodrgnModel(
        config=run.model_config,
        weights=str(run.weights_path),
        weights_sha256=run.weights_sha256,
        box=options.box,
        flip=options.flip,
        device=options.device,
    )
    return model, f"{_PROGRAM} {versions([_PROGRAM]).get(_PROGRAM, '')}".strip()


@dataclass(frozen=True)
class _ShardTask:
    """Everything that one worker needs to write one shard."""

    path: str
    bounds: tuple[int, int]
    latents: np.ndarray
    model: DecoderModel
    dtype: str
    weights: str

    def run(self) -> None:
        """Decode, measure and write the volumes."""
        record = np.zeros((len(self.latents), len(RECORD_COLUMNS)))
        write_shard(self.path, self.bounds, self._volumes(record), record)

    def _volumes(self, record: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the volumes as they are stored, and note what they are."""
        for row, volume in enumerate(self.model.load().volumes(self.latents)):
            measured = measure(volume)
            _refuse_nonsense(measured, latent=self.latents[row], weights=self.weights)
            stored, record[row] = to_stored(
                volume, measured, dtype=self.dtype, source_crc32c=crc32c(volume)
            )
            yield stored


def _refuse_nonsense(measured: dict[str, float], *, latent: np.ndarray, weights: str) -> None:
    low, high = measured["minimum"], measured["maximum"]
    at = ", ".join(f"{value:.4g}" for value in latent[:4]) + (", …" if len(latent) > 4 else "")
    if not np.isfinite([low, high]).all():
        raise InputError(f"{weights}: gives NaN or infinite densities at the latent ({at})")
    if low == high:
        raise InputError(f"{weights}: gives the density {low:g} everywhere at the latent ({at})")
