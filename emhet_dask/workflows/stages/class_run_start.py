"""The stage ``start`` of ``emhet class3d run``: classes to begin with, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr

from emhet_dask.analysis.classification import Classes, judge
from emhet_dask.analysis.gridding import shell_mean
from emhet_dask.analysis.projection import SliceGrid, cropped, plan_slices, volume_transform
from emhet_dask.analysis.references import best_correlated, to_box
from emhet_dask.analysis.seeding import Start, find_start
from emhet_dask.analysis.subspace import Bounds
from emhet_dask.analysis.support import support_of
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.runtime import Progress, ResultsFolder, fingerprint_file
from emhet_dask.workflows.stages.class_costs import Imaging
from emhet_dask.workflows.stages.class_run_blocks import Placed, halves_of
from emhet_dask.workflows.stages.class_run_images import Common

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "_PRIOR_OF_CONSENSUS",
    "Reference",
    "StartFacts",
    "load_start",
    "read_references",
    "start_stage",
]

START = "start.zarr"
EVIDENCE = "n_classes.csv"
COMPONENTS = "components.csv"
_MOST_AUTOMATIC = 8
# One more than asked for, so that it shows where they are not enough.
_BEYOND = 1
# Variance that differences are expected to have, over the power of the consensus.
_PRIOR_OF_CONSENSUS = 0.1
# A reference of the other hand correlates better when it is mirrored, by more than noise.
_LEAST_ADVANTAGE = 0.02


@dataclass(frozen=True, eq=False)
class StartFacts:
    """Where the iterations begin.

    Attributes
    ----------
    posteriors : ndarray of float32 (particle, class)
    evidence : pandas.DataFrame
        ``n_classes, log_likelihood`` of images not seen; empty where references were given.
    components : pandas.DataFrame
        ``half, component, power, excess, looked_at``.
    n_supported : int or None
    """

    posteriors: np.ndarray
    evidence: pd.DataFrame
    components: pd.DataFrame
    n_supported: int | None


@dataclass(frozen=True, eq=False)
class Reference:
    """A map that was given, with the box and the voxel size of the images."""

    path: str
    volume: np.ndarray


def read_references(paths: Sequence[str], *, box: int, pixel_size: float) -> list[Reference]:
    """Read reference maps; those of another box or voxel size are resampled.

    Raises
    ------
    InputError
        When a map cannot be read, is no cube of an even side, or is of another box and says nothing
        of its voxel size.
    """
    found = []
    for path in paths:
        header = read_header(path)
        size = header.voxel_size_angstrom
        if len(set(header.shape)) > 1 or header.shape[0] % 2:
            shape = " × ".join(map(str, header.shape))
            raise InputError(f"--ref: {path} has {shape} voxels, expected a cube of an even side")
        if size is None and header.shape[0] != box:
            raise InputError(
                f"--ref: {path} has {header.shape[0]} voxels a side, the images {box} pixels, and "
                "it does not say how large its voxels are; expected a voxel size in its header"
            )
        volume = to_box(
            read_volume(header),
            voxel_size_angstrom=pixel_size if size is None else size,
            box=box,
            pixel_size_angstrom=pixel_size,
        )
        found.append(Reference(path, volume))
    return found


def start_stage(
    common: Common,
    *,
    k: int | str,
    references: list[Reference],
    radius: int,
    mask: np.ndarray | None,
    operators: np.ndarray,
    parameters: dict[str, Any],
    results: ResultsFolder,
    client: Client,
    progress: Progress,
) -> StartFacts:
    """Run the stage, or find it done.

    Parameters
    ----------
    common : Common
    k : int or ``"auto"``
    references : list of Reference
        None, one to be checked, or one of each class.
    radius : int
        Shells that are compared.
    mask : ndarray (z, y, x) or None
        That states are looked for in.
    operators : ndarray (operator, 3, 3)
        Of the point group.
    parameters : dict
        ``components``, ``restarts``, ``seed`` and ``firstiter_cc``.
    results, client, progress
        Where results go and work runs.

    Raises
    ------
    InputError
        When a reference is of the other hand than the poses.
    """
    images = common.particles.images
    grid, full = plan_slices(images.box, radius=radius), plan_slices(images.box)

    def build(workspace: Path) -> None:
        mean = cropped(common.transform, full, grid)
        for reference in references:
            _check_hand(reference, mean, grid)
        imaging = Imaging.on(client, images)
        results.state(
            imaging.comparison(stage="start", radius=radius, classes=len(references))
            if len(references) > 1
            else imaging.start(radius=radius, components=parameters["components"])
        )
        with progress.computing(client, label="start") as anywhere:
            compute = Placed(anywhere, client)
            if len(references) > 1:
                judge_by = _correlate if parameters["firstiter_cc"] else _compare
                posteriors = judge_by(references, mean, common, grid, compute)
                start = None
            else:
                whole = cropped(common.power_from, full, grid)
                power = shell_mean(np.square(np.abs(whole)), grid)
                start = find_start(
                    halves_of(common.blocks_for(radius)),
                    _PRIOR_OF_CONSENSUS * power,
                    grid=grid,
                    n_classes=None if k == "auto" else int(k),
                    most=_MOST_AUTOMATIC if k == "auto" else int(k) + _BEYOND,
                    n_components=parameters["components"],
                    restarts=parameters["restarts"],
                    seed=parameters["seed"],
                    bounds=Bounds(None if mask is None else support_of(mask, grid), operators),
                    compute=compute,
                )
                posteriors = start.posteriors
        group = zarr.create_group(str(workspace / START))
        group.create_array("posteriors", data=posteriors, dimension_names=("particle", "class"))
        group.attrs["n_supported"] = None if start is None else start.n_supported
        _evidence_table(start).to_csv(workspace / EVIDENCE, index=False)
        _component_table(start).to_csv(workspace / COMPONENTS, index=False)

    results.stage(
        "start",
        parameters={
            "k": k,
            "radius": radius,
            "references": [fingerprint_file(reference.path) for reference in references],
            **parameters,
        },
        after=("consensus",),
        build=build,
        replaceable=True,
    )
    return load_start(results.path())


def load_start(folder: Path) -> StartFacts:
    """Read the stage of a results folder."""
    evidence = pd.read_csv(folder / EVIDENCE)
    group = zarr.open_group(str(folder / START), mode="r")
    posteriors = np.asarray(group["posteriors"])
    facts: dict[str, Any] = dict(group.attrs)
    supported = facts["n_supported"]
    return StartFacts(posteriors, evidence, pd.read_csv(folder / COMPONENTS), supported)


def _correlate(
    references: list[Reference], mean: np.ndarray, common: Common, grid: SliceGrid, compute: Any
) -> np.ndarray:
    transforms = np.stack([volume_transform(each.volume, grid) for each in references], axis=1)
    return best_correlated(
        common.blocks_for(grid.radius), transforms, mean, grid=grid, compute=compute
    )


def _compare(
    references: list[Reference], mean: np.ndarray, common: Common, grid: SliceGrid, compute: Any
) -> np.ndarray:
    """Judge all images by references, brought to the consensus's grey scale."""
    count = len(references)
    difference = np.empty((grid.n_voxels, count), dtype=np.complex64)
    for number, reference in enumerate(references):
        transform = volume_transform(reference.volume, grid)
        scale = np.vdot(transform, mean).real / max(np.vdot(transform, transform).real, 1e-30)
        difference[:, number] = scale * transform - mean
    classes = Classes(
        grid,
        difference,
        np.zeros(difference.shape, dtype=np.float32),
        np.full(count, 1.0 / count),
    )
    found = judge(
        common.blocks_for(grid.radius),
        classes,
        np.zeros((len(common.particles.images), count), dtype=np.float32),
        noise=np.ones(grid.radius + 1),
        compute=compute,
    )
    return found.posteriors


def _check_hand(reference: Reference, mean: np.ndarray, grid: SliceGrid) -> None:
    # A map is mirrored along z about its middle voxel.
    volume = reference.volume
    mirrored = np.roll(volume[::-1], 1 if len(volume) % 2 == 0 else 0, axis=0)
    own, other = (_correlation(volume_transform(each, grid), mean) for each in (volume, mirrored))
    if other > own + _LEAST_ADVANTAGE:
        raise InputError(
            f"--ref: {reference.path} is of the other hand than the poses (correlation with the "
            f"consensus {own:.2f}, mirrored {other:.2f}); mirror it, as emhet align --hand does"
        )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    product = np.vdot(one, other).real
    norms = np.vdot(one, one).real * np.vdot(other, other).real
    return float(product / np.sqrt(max(norms, 1e-30)))


def _evidence_table(start: Start | None) -> pd.DataFrame:
    gains = np.empty(0) if start is None else start.log_likelihood
    return pd.DataFrame(
        {"n_classes": np.arange(1, len(gains) + 1), "log_likelihood": np.round(gains, 3)}
    )


def _component_table(start: Start | None) -> pd.DataFrame:
    rows = [
        (half, number, power, excess, number <= fit.n_components)
        for half, fit in enumerate(() if start is None else start.halves, start=1)
        for number, (power, excess) in enumerate(
            zip(fit.subspace.power / fit.subspace.power[0], fit.excess, strict=True), start=1
        )
    ]
    return pd.DataFrame(rows, columns=["half", "component", "power", "excess", "looked_at"])
