"""``emhet mask``: masks from maps."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from emhet_dask.analysis.intensity import volume_threshold
from emhet_dask.analysis.mask import grow_mask
from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats.mrc import read_volume, write_map
from emhet_dask.formats.sources import find_volumes
from emhet_dask.formats.volumes import VolumeSource
from emhet_dask.options import command
from emhet_dask.options.mask import Mask
from emhet_dask.report.style import counted
from emhet_dask.runtime import Progress, connect, state_plan
from emhet_dask.workflows.stages.volume_costs import masks_work

__all__ = ["Masks", "mask"]


@dataclass(frozen=True)
class Masks:
    """What was written.

    Attributes
    ----------
    folder : Path
    fractions : dict of str to float
        Share of the box that is inside each mask (above 0), by name.
    """

    folder: Path
    fractions: dict[str, float]

    def describe(self) -> str:
        """Return it in words."""
        share = np.array(list(self.fractions.values()))
        return (
            f"{counted(len(share), 'mask')} in {self.folder}, of {share.min():.2%} to "
            f"{share.max():.2%} of the box"
        )


@command(Mask)
def mask(options: Mask) -> Masks:
    """Make masks from maps.

    Voxels at or above the threshold are inside, and so are those within `extend` of one. Outside,
    the mask falls to 0 as a raised cosine of the distance from the nearest voxel inside. That is
    what ``relion_mask_create`` does, which takes both widths in voxels (and leaves out the voxels
    that lie at `extend` exactly).

    Returns
    -------
    Masks

    Raises
    ------
    InputError
        When a map cannot be read, its voxel size is not known, nothing or everything is inside,
        two maps would give one file, or a file is there already.
    """
    tasks = _tasks(options)
    Path(options.output).mkdir(parents=True, exist_ok=True)
    progress = Progress(quiet=options.quiet)
    fractions: dict[str, float] = {}
    with connect(options.cluster, memory_limit=options.memory_limit, tls=options.tls) as client:
        state_plan(masks_work([task.source for task in tasks]), client, progress)
        found = progress.map(client, _Task.run, tasks, label="mask", unit="maps")
        for task, fraction in zip(tasks, found, strict=True):
            fractions[Path(task.path).stem] = fraction
    return Masks(Path(options.output), fractions)


@dataclass(frozen=True)
class _Task:
    """One mask for one worker."""

    source: VolumeSource
    path: str
    voxel_size_angstrom: float
    settings: dict[str, Any]

    def run(self) -> float:
        """Write the mask, which is there when it is whole; return the share of the box inside."""
        header = self.source.header
        density = read_volume(header, self.source.index)
        try:
            made = _make(density, voxel_size_angstrom=self.voxel_size_angstrom, **self.settings)
        except InputError as error:
            raise InputError(f"{header.path}: {error}") from None
        partial = f"{self.path}.partial"
        write_map(
            partial,
            made,
            voxel_size_angstrom=self.voxel_size_angstrom,
            origin_angstrom=header.origin_angstrom,
        )
        os.replace(partial, self.path)  # noqa: PTH105 - a rename that has to be atomic
        return float(np.count_nonzero(made)) / made.size


def _tasks(options: Mask) -> list[_Task]:
    """Return what is to be made, or refuse all of it."""
    if not options.maps:
        raise InputError("MAPS: none given, expected maps, or folders or patterns of them")
    sources = find_volumes(options.maps)
    files = [source.name.replace("\\", "/").replace("/", "_") + ".mrc" for source in sources]
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise InputError(f"MAPS: more than one would be written to {twice[0]}; rename one of them")
    unknown = [
        f"{source.header.path}: its header has no voxel size; give it with --apix"
        for source in sources
        if options.apix is None and source.header.voxel_size_angstrom is None
    ]
    if unknown:
        raise InputError(join_problems(unknown, what="maps cannot be used"))
    paths = [Path(options.output, file).absolute() for file in files]
    taken = [path for path in paths if path.exists()]
    if taken and not options.overwrite:
        others = f" and {len(taken) - 1} more of the masks" if len(taken) > 1 else ""
        raise InputError(f"{taken[0]}{others} exists already; --overwrite replaces it")
    same = [
        source.header.path
        for source, path in zip(sources, paths, strict=True)
        if Path(source.header.path).absolute() == path
    ]
    if same:
        raise InputError(f"-o {options.output}: the mask would replace {same[0]}, its map")
    settings = options.parameters("threshold", "extend", "soft_edge", "largest")
    return [
        _Task(source, str(path), options.apix or source.header.voxel_size_angstrom or 1.0, settings)
        for source, path in zip(sources, paths, strict=True)
    ]


def _make(
    density: np.ndarray,
    *,
    voxel_size_angstrom: float,
    threshold: float | None,
    extend: float,
    soft_edge: float,
    largest: int | None,
) -> np.ndarray:
    if not np.isfinite(density).all():
        raise InputError("holds NaN or infinite densities, expected finite numbers")
    level = volume_threshold(density) if threshold is None else threshold
    core = density >= level
    if not core.any() or core.all():
        what = "all voxels are" if core.any() else "no voxel is"
        option = "the automatic threshold" if threshold is None else "--threshold"
        raise InputError(
            f"{what} inside at {option} {level:.4g}; densities range from {density.min():.4g} to "
            f"{density.max():.4g}, expected something near {volume_threshold(density):.4g}"
        )
    if largest is not None:
        core = _largest_pieces(core, largest)
    inside = grow_mask(core, voxel_size_angstrom=voxel_size_angstrom, dilate_angstrom=extend) == 1
    if inside.all():
        raise InputError(f"--extend {extend:g}: the mask fills the whole box, expected less")
    # In two steps: the edge begins at the voxels that are inside, not at a distance from the core.
    return grow_mask(
        inside,
        voxel_size_angstrom=voxel_size_angstrom,
        dilate_angstrom=0.0,
        cosine_edge_angstrom=soft_edge,
    )


def _largest_pieces(core: np.ndarray, count: int) -> np.ndarray:
    """Keep the largest pieces, connected by faces, edges or corners; of equal ones the first."""
    labels, n_pieces = ndimage.label(core, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.reshape(-1), minlength=n_pieces + 1)
    sizes[0] = 0
    kept = np.zeros(n_pieces + 1, dtype=bool)
    kept[np.argsort(-sizes, kind="stable")[:count]] = True
    kept[0] = False
    chosen: np.ndarray = kept[labels]
    return chosen
