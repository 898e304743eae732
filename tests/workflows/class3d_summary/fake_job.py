"""Classification jobs as RELION writes them, with chosen numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emhet_dask.analysis.phantom import Grid, packed_bodies
from emhet_dask.formats.mrc_write import write_map

BOX, VOXEL_SIZE = 32, 4.0
QUIET_CHANGES = (0.002, 2.67e-7, 0.0)
EVEN = [0.25, 0.3, 0.45]
LABELS = np.repeat([1, 2, 3], [250, 300, 450])


def write_iteration(
    folder: Path,
    iteration: int,
    distribution: list[float],
    *,
    prefix: str = "run",
    old: bool = False,
    changes: tuple[float, float, float] | None = (0.0, 2.67e-7, 0.0),
    aligned: bool = False,
    planned: int = 25,
    resolution: float = 16.0,
    accuracy: tuple[float, float] = (0.0, 0.0),
    likelihood: float = 1e6,
) -> None:
    """Write model, optimiser (unless `changes` is None) and sampling of one iteration.

    `old` writes as RELION 3.0 does: no version lines, translations in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}_it{iteration:03d}"
    version = "" if old else "\n# version 30001\n"
    angst = "" if old else "Angst"
    rows = "\n".join(
        f"Class3D/job001/{stem}_class{k:03d}.mrc {share:.6f} {accuracy[0]:.6f} "
        f"{accuracy[1]:.6f} {resolution:.6f}" + ("" if old else " 0.990000")
        for k, share in enumerate(distribution, start=1)
    )
    shells = "\n".join(
        f"{shell} {shell / (BOX * VOXEL_SIZE):.6f} "
        f"{999 if shell == 0 else BOX * VOXEL_SIZE / shell:.6f} {1000 * 0.3**shell:.6f}"
        for shell in range(BOX // 2 + 1)
    )
    tables = "".join(
        f"{version}\ndata_model_class_{k}\n\nloop_\n_rlnSpectralIndex #1\n_rlnResolution #2\n"
        f"_rlnAngstromResolution #3\n_rlnSsnrMap #4\n{shells}\n\n"
        for k in range(1, len(distribution) + 1)
    )
    completeness = "" if old else "_rlnOverallFourierCompleteness #6\n"
    (folder / f"{stem}_model.star").write_text(
        f"{version}\ndata_model_general\n\n_rlnReferenceDimensionality 3\n"
        f"_rlnCurrentResolution {resolution:.6f}\n_rlnPixelSize {VOXEL_SIZE:.6f}\n"
        f"_rlnNrClasses {len(distribution)}\n_rlnSigmaOffsets{angst} 3.000000\n"
        f"_rlnLogLikelihood {likelihood:.6e}\n_rlnAveragePmax 0.800000\n\n"
        f"{version}\ndata_model_classes\n\nloop_\n_rlnReferenceImage #1\n"
        "_rlnClassDistribution #2\n_rlnAccuracyRotations #3\n"
        f"_rlnAccuracyTranslations{angst} #4\n_rlnEstimatedResolution #5\n{completeness}"
        f"{rows}\n\n{tables}"
    )
    (folder / f"{stem}_sampling.star").write_text(
        f"{version}\ndata_sampling_general\n\n_rlnIs3DSampling 1\n_rlnSymmetryGroup c1\n"
    )
    if changes is not None:
        (folder / f"{stem}_optimiser.star").write_text(
            f"{version}\ndata_optimiser_general\n\n_rlnCurrentIteration {iteration}\n"
            f"_rlnNumberOfIterations {planned}\n_rlnParticleDiameter 80.000000\n"
            f"_rlnDoSkipAlign {int(not aligned)}\n_rlnDoSkipRotate 0\n"
            f"_rlnOverallAccuracyRotations {accuracy[0] or 999:.6f}\n"
            f"_rlnOverallAccuracyTranslations{angst} {accuracy[1] or 999:.6f}\n"
            f"_rlnChangesOptimalClasses {changes[0]:.6f}\n"
            f"_rlnChangesOptimalOrientations {changes[1]:.6e}\n"
            f"_rlnChangesOptimalOffsets {changes[2]:.6f}\n"
        )


def write_particles(
    folder: Path,
    iteration: int,
    labels: np.ndarray,
    *,
    prefix: str = "run",
    old: bool = False,
    polar: int | None = None,
) -> None:
    """Write the particles of an iteration, seen from random sides, class `polar` from above."""
    rng = np.random.default_rng(1)
    rot = rng.uniform(-180, 180, len(labels))
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, len(labels))))
    if polar is not None:
        tilt[labels == polar] = 1.0
    rows = "\n".join(
        f"{k:06d}@Extract/p.mrcs {rot[k]:.4f} {tilt[k]:.4f} 0.0 {labels[k]} 0.9"
        + ("" if old else " 1")
        for k in range(len(labels))
    )
    columns = ["ImageName", "AngleRot", "AngleTilt", "AnglePsi", "ClassNumber"]
    columns += ["MaxValueProbDistribution"] + ([] if old else ["OpticsGroup"])
    header = "\n".join(f"_rln{name} #{k}" for k, name in enumerate(columns, start=1))
    optics = (
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n"
        f"_rlnImagePixelSize #2\n1 {VOXEL_SIZE}\n\n\n# version 30001\n"
    )
    optics = "" if old else optics
    block = "data_" if old else "data_particles"
    (folder / f"{prefix}_it{iteration:03d}_data.star").write_text(
        f"{optics}\n{block}\n\nloop_\n{header}\n{rows}\n"
    )


def write_maps(folder: Path, iteration: int, count: int, *, prefix: str = "run") -> None:
    """Write class maps of a complex of eight bodies, of which each class lacks another one."""
    grid = Grid(BOX, VOXEL_SIZE, 16.0)
    bodies = packed_bodies(
        np.random.default_rng(0),
        n_bodies=8,
        radius_angstrom=grid.radius_angstrom,
        gap_angstrom=16.0,
    )
    for k in range(count):
        density = grid.render(np.concatenate(bodies[: -k or None]))
        noise = grid.noise(np.random.default_rng([1, k]))
        write_map(
            folder / f"{prefix}_it{iteration:03d}_class{k + 1:03d}.mrc",
            density + np.float32(0.2 * density.std()) * noise,
            voxel_size_angstrom=VOXEL_SIZE,
        )


def make_job(folder, *, n_iterations=6, distribution=EVEN, labels=LABELS, **options):
    for number in range(1, n_iterations + 1):
        write_iteration(folder, number, distribution, **{"changes": QUIET_CHANGES, **options})
    write_particles(folder, n_iterations, labels, old=options.get("old", False))
    return folder
