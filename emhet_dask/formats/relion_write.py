"""Write an iteration of a classification as RELION does: ``run_itNNN_data.star`` and the others.

Names of files, blocks and columns are RELION 3.1's, all that it demands: its programs, and all that
reads its jobs, find their way, and ``relion_refine --continue`` goes on from an iteration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.formats.star import (
    FIRST_VERSION_WITH_OPTICS,
    ParticleTable,
    write_particles,
    write_star,
)

__all__ = ["ClassSpectra", "IterationFacts", "iteration_stem", "write_iteration"]

# What RELION has where it has no resolution, no accuracy.
_NONE = 999.0
# Of its sampling of orientations, HEALPix of order 2 and what goes with it along psi: probabilities
# of all directions are demanded, of as many as C1 has.
_HEALPIX_ORDER, _N_DIRECTIONS, _PSI_STEP = 2, 192, 15.0
# What RELION gives to groups of images of one name; and else it makes one of each micrograph.
_GROUP, _MICROGRAPH = "rlnGroupName", "rlnMicrographName"


@dataclass(frozen=True, eq=False)
class ClassSpectra:
    """Spectra of classes and of the noise: arrays along the shells, from 0 to half of the box.

    Of the real or of the imaginary part, of transforms over the number of pixels.

    Attributes
    ----------
    tau2 : ndarray (class, shell)
        Power of each map.
    sigma2 : ndarray (class, shell)
        Variance of its noise.
    noise : ndarray (group, shell)
        Variance of the noise of images.
    """

    tau2: np.ndarray
    sigma2: np.ndarray
    noise: np.ndarray

    @property
    def ssnr(self) -> np.ndarray:
        """Return signal over noise (class, shell)."""
        return np.divide(
            self.tau2, self.sigma2, out=np.zeros_like(self.tau2), where=self.sigma2 > 0
        )


@dataclass(frozen=True, eq=False)
class IterationFacts:
    """What is written of an iteration.

    Attributes
    ----------
    number : int
    box : int
    pixel_size_angstrom : float
    radius : int
        Shells that were compared.
    shares : ndarray (class,)
    log_likelihood : ndarray (particle,)
    labels : ndarray of int (particle,)
        Class, from 1.
    pmax : ndarray (particle,)
    significant : ndarray of int (particle,)
        Classes that hold 99.9% of the probability.
    changed : float
        Share of the particles that changed class.
    tau2_fudge : float
    particle_diameter_angstrom : float
    n_planned : int
    seed : int
    zero_mask : bool
    sigma_offset_angstrom : float
        Standard deviation of the offsets of particles, along one axis.
    groups : sequence of str
        Names of the groups of images.
    group : ndarray of int (particle,)
        Number of each particle's group, from 1.
    scale : ndarray (group,)
        Amplitude of each group's images.
    symmetry : str
    ctf_corrected : bool
    intact_first_peak : bool
    scale_corrected : bool
    moved : tuple of float or None
        Degrees and Å by which poses changed, where they were searched.
    """

    number: int
    box: int
    pixel_size_angstrom: float
    radius: int
    shares: np.ndarray
    log_likelihood: np.ndarray
    labels: np.ndarray
    pmax: np.ndarray
    significant: np.ndarray
    changed: float
    tau2_fudge: float
    particle_diameter_angstrom: float
    n_planned: int
    seed: int
    zero_mask: bool
    sigma_offset_angstrom: float
    groups: Sequence[str]
    group: np.ndarray
    scale: np.ndarray
    symmetry: str
    ctf_corrected: bool
    intact_first_peak: bool
    scale_corrected: bool
    moved: tuple[float, float] | None = None


def iteration_stem(number: int) -> str:
    """Return what the names of an iteration's files begin with."""
    return f"run_it{number:03d}"


def class_resolutions(spectra: ClassSpectra, box: int, pixel_size: float) -> np.ndarray:
    """Return the resolution (class,) in Å up to which each class has more signal than noise."""
    found = []
    for ssnr in spectra.ssnr:
        low = np.flatnonzero(ssnr[1:] < 1.0)
        shell = int(low[0]) if len(low) else len(ssnr) - 1
        found.append(box * pixel_size / shell if shell else _NONE)
    return np.array(found)


def _resolution(facts: IterationFacts, spectra: ClassSpectra) -> float:
    found = class_resolutions(spectra, facts.box, facts.pixel_size_angstrom)
    return float(found[facts.shares > 0].min())


def write_iteration(
    folder: Path, name: str, table: ParticleTable, facts: IterationFacts, spectra: ClassSpectra
) -> None:
    """Write the four files; the optimiser's, by which RELION takes an iteration up, comes last.

    Parameters
    ----------
    folder : Path
        Where to.
    name : str
        Of the job, as other files are to refer to it, such as ``Class3D/job100``.
    table : ParticleTable
        The particles as they were read.
    facts : IterationFacts
    spectra : ClassSpectra
    """
    stem = iteration_stem(facts.number)
    facts, spectra = _as_relion_meets_groups(table, facts, spectra)
    particles = table.particles.assign(
        rlnGroupName=np.asarray(facts.groups)[facts.group - 1],
        rlnGroupNumber=facts.group,
        rlnClassNumber=facts.labels,
        rlnLogLikeliContribution=np.round(facts.log_likelihood, 6),
        rlnMaxValueProbDistribution=np.round(facts.pmax, 6),
        rlnNrOfSignificantSamples=facts.significant,
    )
    write_particles(folder / f"{stem}_data.star", replace(table, particles=particles))
    version = FIRST_VERSION_WITH_OPTICS
    write_star(folder / f"{stem}_model.star", _model(name, facts, spectra), version=version)
    write_star(folder / f"{stem}_sampling.star", _sampling(facts), version=version)
    write_star(folder / f"{stem}_optimiser.star", _optimiser(name, facts, spectra), version=version)


def _as_relion_meets_groups(
    table: ParticleTable, facts: IterationFacts, spectra: ClassSpectra
) -> tuple[IterationFacts, ClassSpectra]:
    """Put groups in the order that RELION meets them in, which sorts particles by micrograph."""
    met = facts.group - 1
    if _MICROGRAPH in table.particles:
        met = met[np.argsort(table.particles[_MICROGRAPH].to_numpy(dtype=str), kind="stable")]
    order = pd.unique(met)
    order = np.concatenate([order, np.setdiff1d(np.arange(len(facts.groups)), order)])
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(1, len(order) + 1)
    ordered = replace(
        facts,
        groups=[facts.groups[old] for old in order],
        group=number[facts.group - 1],
        scale=facts.scale[order],
    )
    return ordered, replace(spectra, noise=spectra.noise[order])


def _model(name: str, facts: IterationFacts, spectra: ClassSpectra) -> dict[str, Any]:
    box, pixel = facts.box, facts.pixel_size_angstrom
    resolutions = class_resolutions(spectra, box, pixel)
    used = facts.shares > 0
    general: Mapping[str, Any] = {
        "rlnReferenceDimensionality": 3,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": box,
        "rlnCurrentResolution": round(_resolution(facts, spectra), 6),
        "rlnCurrentImageSize": 2 * facts.radius,
        "rlnPaddingFactor": 2.0,
        "rlnIsHelix": 0,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": pixel,
        "rlnNrClasses": len(facts.shares),
        "rlnNrBodies": 1,
        "rlnNrGroups": len(facts.groups),
        "rlnTau2FudgeFactor": facts.tau2_fudge,
        "rlnNormCorrectionAverage": 1.0,
        "rlnSigmaOffsetsAngst": round(facts.sigma_offset_angstrom, 6),
        "rlnOrientationalPriorMode": 0,
        "rlnSigmaPriorRotAngle": 0.0,
        "rlnSigmaPriorTiltAngle": 0.0,
        "rlnSigmaPriorPsiAngle": 0.0,
        "rlnLogLikelihood": round(float(facts.log_likelihood.sum()), 6),
        "rlnAveragePmax": round(float(facts.pmax.mean()), 6),
    }
    count = len(facts.shares)
    classes = pd.DataFrame(
        {
            "rlnReferenceImage": [
                f"{name}/{iteration_stem(facts.number)}_class{k + 1:03d}.mrc" for k in range(count)
            ],
            "rlnClassDistribution": np.round(facts.shares, 6),
            "rlnAccuracyRotations": np.full(count, _NONE),
            "rlnAccuracyTranslationsAngst": np.full(count, _NONE),
            "rlnEstimatedResolution": np.round(np.where(used, resolutions, _NONE), 6),
            "rlnOverallFourierCompleteness": np.ones(count) * used,
        }
    )
    shell = np.arange(spectra.tau2.shape[1])
    with np.errstate(divide="ignore"):
        angstrom = np.where(shell > 0, box * pixel / np.maximum(shell, 1), _NONE)
    frequency = np.round(shell / (box * pixel), 6)
    blocks: dict[str, Any] = {"model_general": general, "model_classes": classes}
    for k, ssnr in enumerate(spectra.ssnr):
        blocks[f"model_class_{k + 1}"] = pd.DataFrame(
            {
                "rlnSpectralIndex": shell,
                "rlnResolution": frequency,
                "rlnAngstromResolution": np.round(angstrom, 6),
                "rlnSsnrMap": _short(ssnr),
                "rlnGoldStandardFsc": np.zeros(len(shell)),
                "rlnFourierCompleteness": np.full(len(shell), float(used[k])),
                "rlnReferenceSigma2": _short(spectra.sigma2[k]),
                "rlnReferenceTau2": _short(spectra.tau2[k]),
            }
        )
    blocks["model_groups"] = pd.DataFrame(
        {
            "rlnGroupNumber": np.arange(1, len(facts.groups) + 1),
            "rlnGroupName": list(facts.groups),
            "rlnGroupNrParticles": np.bincount(facts.group - 1, minlength=len(facts.groups)),
            "rlnGroupScaleCorrection": np.round(facts.scale, 6),
        }
    )
    for number, noise in enumerate(spectra.noise, start=1):
        blocks[f"model_group_{number}"] = pd.DataFrame(
            {
                "rlnSpectralIndex": shell,
                "rlnResolution": frequency,
                "rlnSigma2Noise": _short(noise),
            }
        )
    # Particles have their poses: no direction is likelier than another.
    for k, share in enumerate(facts.shares):
        each = np.full(_N_DIRECTIONS, share / _N_DIRECTIONS)
        blocks[f"model_pdf_orient_class_{k + 1}"] = pd.DataFrame(
            {"rlnOrientationDistribution": _short(each)}
        )
    return blocks


def _sampling(facts: IterationFacts) -> dict[str, Any]:
    # A search would reach three standard deviations, in steps of one.
    offsets = max(facts.sigma_offset_angstrom, facts.pixel_size_angstrom)
    general = {
        "rlnIs3DSampling": 1,
        "rlnIs3DTranslationalSampling": 0,
        "rlnHealpixOrder": _HEALPIX_ORDER,
        "rlnSymmetryGroup": facts.symmetry,
        "rlnTiltAngleLimit": -91.0,
        "rlnPsiStep": _PSI_STEP,
        "rlnOffsetRange": round(3 * offsets, 6),
        "rlnOffsetStep": round(offsets, 6),
        "rlnSamplingPerturbInstance": 0.0,
        "rlnSamplingPerturbFactor": 0.0,
    }
    return {"sampling_general": general}


def _optimiser(name: str, facts: IterationFacts, spectra: ClassSpectra) -> dict[str, Any]:
    stem = f"{name}/{iteration_stem(facts.number)}"
    moved = (0.0, 0.0) if facts.moved is None else facts.moved
    general = {
        "rlnOutputRootName": f"{name}/run",
        "rlnModelStarFile": f"{stem}_model.star",
        "rlnExperimentalDataStarFile": f"{stem}_data.star",
        "rlnOrientSamplingStarFile": f"{stem}_sampling.star",
        "rlnCurrentIteration": facts.number,
        "rlnNumberOfIterations": facts.n_planned,
        "rlnDoSplitRandomHalves": 0,
        "rlnJoinHalvesUntilThisResolution": -1.0,
        "rlnAdaptiveOversampleOrder": 0,
        "rlnAdaptiveOversampleFraction": 0.999,
        "rlnRandomSeed": facts.seed,
        "rlnParticleDiameter": facts.particle_diameter_angstrom,
        "rlnWidthMaskEdge": 4,
        "rlnDoZeroMask": int(facts.zero_mask),
        "rlnDoSolventFlattening": 1,
        "rlnSolventMaskName": "None",
        "rlnSolventMask2Name": "None",
        "rlnTauSpectrumName": "None",
        "rlnMaximumCoarseImageSize": -1,
        "rlnHighresLimitExpectation": -1.0,
        "rlnIncrementImageSize": 10,
        "rlnDoMapEstimation": 1,
        "rlnDoAutoRefine": 0,
        "rlnAutoLocalSearchesHealpixOrder": 4,
        "rlnNumberOfIterWithoutResolutionGain": 0,
        "rlnBestResolutionThusFar": round(1.0 / _resolution(facts, spectra), 6),
        "rlnNumberOfIterWithoutChangingAssignments": 0,
        "rlnDoSkipAlign": int(facts.moved is None),
        "rlnDoSkipRotate": 0,
        "rlnOverallAccuracyRotations": _NONE,
        "rlnOverallAccuracyTranslationsAngst": _NONE,
        "rlnChangesOptimalOrientations": round(moved[0], 6),
        "rlnChangesOptimalOffsets": round(moved[1], 6),
        "rlnChangesOptimalClasses": round(facts.changed, 9),
        # So far; RELION looks for smaller ones from here on.
        "rlnSmallestChangesOrientations": round(moved[0], 6),
        "rlnSmallestChangesOffsets": round(moved[1], 6),
        "rlnSmallestChangesClasses": round(facts.changed),
        "rlnHasHighFscAtResolLimit": 0,
        "rlnHasLargeSizeIncreaseIterationsAgo": 0,
        "rlnDoCorrectNorm": 0,
        "rlnDoCorrectScale": int(facts.scale_corrected),
        "rlnDoCorrectCtf": int(facts.ctf_corrected),
        "rlnDoIgnoreCtfUntilFirstPeak": int(facts.intact_first_peak),
        "rlnCtfDataArePhaseFlipped": 0,
        "rlnDoOnlyFlipCtfPhases": 0,
        "rlnRefsAreCtfCorrected": 1,
        "rlnFixSigmaNoiseEstimates": 0,
        "rlnFixSigmaOffsetEstimates": 0,
        "rlnMaxNumberOfPooledParticles": 30,
        "rlnHasConverged": 0,
    }
    return {"optimiser_general": general}


def _short(values: np.ndarray) -> np.ndarray:
    """Return values of seven digits: shorter to read, and longer than anything measured."""
    return np.array([float(f"{value:.7g}") for value in values])
