"""What RELION writes of a classification at each iteration: ``_model.star``, ``_optimiser.star``.

Labels differ between versions: translations are in pixels up to 3.0 (``rlnAccuracyTranslations``)
and in Å from 3.1 on (``rlnAccuracyTranslationsAngst``). What RELION has not estimated it writes as
0, 999 or infinity; here that is NaN.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import starfile

from emhet_dask.errors import InputError
from emhet_dask.formats.star import StarFile, outline, read_star

__all__ = ["IterationModel", "IterationState", "read_model", "read_state", "read_symmetry"]

_WANTED = re.compile(r"model_(general|classes|class_\d+)").fullmatch
_CLASS_NUMBER = re.compile(r"class(\d{3,})\.mrcs?$")
# ml_optimiser.cpp starts accuracies and changes from these, and keeps them until they are known.
_NOT_KNOWN = 999.0


@dataclass(frozen=True)
class IterationModel:
    """The model of one iteration.

    Attributes
    ----------
    path : str
        The file.
    classes : DataFrame
        A row per class: ``class`` (RELION's number, from 1), ``distribution`` (share of the
        particles), ``resolution_A``, ``accuracy_rotations_deg``, ``accuracy_translations_A`` and
        ``fourier_completeness``; NaN where RELION does not say.
    shells : DataFrame
        A row per class and Fourier shell: ``class``, ``shell``, ``resolution_A`` (infinite for
        shell 0) and ``ssnr``. Without rows where the file has no such tables.
    voxel_size_angstrom : float
        Of the maps; NaN where the file does not say.
    in_pixels : bool
        Whether translations are in pixels, as up to RELION 3.0.
    resolution_angstrom, log_likelihood, average_pmax : float
        Of the iteration; NaN where the file does not say.
    """

    path: str
    classes: pd.DataFrame
    shells: pd.DataFrame
    voxel_size_angstrom: float
    in_pixels: bool
    resolution_angstrom: float
    log_likelihood: float
    average_pmax: float


@dataclass(frozen=True)
class IterationState:
    """How far the optimiser had come after one iteration.

    Attributes
    ----------
    path : str
        The file.
    changes_classes : float
        Share of the particles whose best class changed, 0 to 1.
    changes_orientations_deg : float
        Mean angle between the best orientations before and after.
    changes_offsets : float
        Root mean square of the change of an offset coordinate: in Å, in pixels up to RELION 3.0.
    accuracy_rotations_deg, accuracy_translations : float
        Overall accuracies; the latter in Å, in pixels up to RELION 3.0.
    aligned : bool
        Whether orientations were searched (no ``--skip_align``, no ``--skip_rotate``).
    n_planned : int or None
        Iterations that the job was to run.
    particle_diameter_angstrom : float
        NaN where the file does not say.
    """

    path: str
    changes_classes: float
    changes_orientations_deg: float
    changes_offsets: float
    accuracy_rotations_deg: float
    accuracy_translations: float
    aligned: bool
    n_planned: int | None
    particle_diameter_angstrom: float


def read_model(path: str | Path) -> IterationModel:
    """Read ``run_itNNN_model.star`` of a 3D classification.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    IterationModel

    Raises
    ------
    InputError
        When the file cannot be read, or has no table of classes with reference maps and class
        distributions.
    """
    star = _read_start(path)
    general = _single(star, "model_general")
    table = star.table("model_classes")
    numbers = _class_numbers(star, table)
    voxel_size = _positive(general.get("rlnPixelSize"))
    in_pixels = (
        "rlnAccuracyTranslationsAngst" not in table and "rlnSigmaOffsetsAngst" not in general
    )
    translations = _column(table, "rlnAccuracyTranslationsAngst")
    if in_pixels:
        translations = _column(table, "rlnAccuracyTranslations") * voxel_size
    classes = pd.DataFrame(
        {
            "class": numbers,
            "distribution": _column(table, "rlnClassDistribution"),
            "resolution_A": _estimated(_column(table, "rlnEstimatedResolution")),
            "accuracy_rotations_deg": _estimated(_column(table, "rlnAccuracyRotations")),
            "accuracy_translations_A": _estimated(translations),
            "fourier_completeness": _column(table, "rlnOverallFourierCompleteness"),
        }
    )
    return IterationModel(
        path=star.path,
        classes=classes,
        shells=_shells(star, numbers),
        voxel_size_angstrom=voxel_size,
        in_pixels=in_pixels,
        resolution_angstrom=_positive(general.get("rlnCurrentResolution")),
        log_likelihood=_number(general.get("rlnLogLikelihood")),
        average_pmax=_positive(general.get("rlnAveragePmax")),
    )


def read_state(path: str | Path) -> IterationState:
    """Read ``run_itNNN_optimiser.star``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    IterationState

    Raises
    ------
    InputError
        When the file cannot be read, or is not an optimiser's.
    """
    star = read_star(path)
    general = _single(star, "optimiser_general")
    translations = general.get(
        "rlnOverallAccuracyTranslationsAngst", general.get("rlnOverallAccuracyTranslations")
    )
    planned = _number(general.get("rlnNumberOfIterations"))
    skipped = (_number(general.get(f"rlnDoSkip{what}")) == 1 for what in ("Align", "Rotate"))
    return IterationState(
        path=star.path,
        changes_classes=_known(general.get("rlnChangesOptimalClasses")),
        changes_orientations_deg=_known(general.get("rlnChangesOptimalOrientations")),
        changes_offsets=_known(general.get("rlnChangesOptimalOffsets")),
        accuracy_rotations_deg=_positive(general.get("rlnOverallAccuracyRotations")),
        accuracy_translations=_positive(translations),
        aligned=not any(skipped),
        n_planned=int(planned) if np.isfinite(planned) else None,
        particle_diameter_angstrom=_positive(general.get("rlnParticleDiameter")),
    )


def read_symmetry(path: str | Path) -> str:
    """Return the point group in ``run_itNNN_sampling.star``, such as ``"C1"`` or ``"D7"``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    str
        ``"C1"`` where the file does not say.

    Raises
    ------
    InputError
        When the file cannot be read, or is not a sampling's.
    """
    general = _single(read_star(path), "sampling_general")
    return str(general.get("rlnSymmetryGroup", "C1")).upper()


def _read_start(path: str | Path) -> StarFile:
    """Read the blocks that are wanted here, which come first.

    A block for each micrograph's noise follows up to RELION 3.0; a thousand of them take
    `read_star` two seconds, and a tenth of one when they are only checked.
    """
    outlined = outline(path)
    wanted = [number for number, block in enumerate(outlined.blocks, 1) if _WANTED(block.name)]
    linecache.cache.pop(str(Path(path)), None)  # as `read_star` has to
    try:
        blocks = starfile.read(
            str(path),
            read_n_blocks=max(wanted, default=1),
            always_dict=True,
            parse_as_string=["rlnReferenceImage"],
        )
    except Exception as error:  # whatever a parser of foreign text may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as STAR ({reason})") from None
    return StarFile(str(path), outlined.version, blocks)


def _single(star: StarFile, name: str) -> Mapping[str, Any]:
    """Return a block of label–value pairs; some versions write it as a table of one row."""
    rows = star.table(name).to_dict("records")
    if len(rows) != 1:
        raise InputError(f"{star.path}: data_{name} has {len(rows)} rows, expected one")
    return {str(label): value for label, value in rows[0].items()}


def _class_numbers(star: StarFile, table: pd.DataFrame) -> list[int]:
    for column in ("rlnReferenceImage", "rlnClassDistribution"):
        if column not in table:
            raise InputError(f"{star.path}: data_model_classes has no column _{column}")
    matches = [_CLASS_NUMBER.search(name) for name in table["rlnReferenceImage"].astype(str)]
    shares = pd.to_numeric(table["rlnClassDistribution"], errors="coerce")
    if not all(matches) or not shares.ge(0).all():
        raise InputError(
            f"{star.path}: data_model_classes needs reference maps that end in class001.mrc, … "
            "(of a 3D classification) and class distributions of at least 0"
        )
    return [int(match[1]) for match in matches if match]


def _shells(star: StarFile, numbers: list[int]) -> pd.DataFrame:
    tables = []
    # Tables count rows of data_model_classes, whatever the maps are called.
    for position, number in enumerate(numbers, start=1):
        block = star.blocks.get(f"model_class_{position}")
        if not isinstance(block, pd.DataFrame) or "rlnSsnrMap" not in block:
            continue
        shell = _column(block, "rlnSpectralIndex")
        shell = np.where(np.isnan(shell), np.arange(len(shell)), shell).astype(int)
        with np.errstate(divide="ignore"):
            resolution = 1.0 / _column(block, "rlnResolution")
        if "rlnAngstromResolution" in block:  # the same with more digits, but 999 for shell 0
            resolution = _column(block, "rlnAngstromResolution")
        tables.append(
            pd.DataFrame(
                {
                    "class": number,
                    "shell": shell,
                    "resolution_A": np.where(shell == 0, np.inf, resolution),
                    "ssnr": _column(block, "rlnSsnrMap"),
                }
            )
        )
    empty = pd.DataFrame({name: [] for name in ("class", "shell", "resolution_A", "ssnr")})
    return pd.concat(tables, ignore_index=True) if tables else empty


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    if name not in table:
        return np.full(len(table), np.nan)
    return pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)


def _number(value: Any) -> float:
    """Return a number, NaN for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _known(value: Any) -> float:
    """Return a change; before two iterations are done RELION has none."""
    number = _number(value)
    return number if 0 <= number < _NOT_KNOWN else float("nan")


def _positive(value: Any) -> float:
    return float(_estimated(np.array([_number(value)]))[0])


def _estimated(values: np.ndarray) -> np.ndarray:
    """Return values that RELION has estimated, NaN for its 0, 999 and infinity."""
    with np.errstate(invalid="ignore"):
        return np.where((values > 0) & (values < _NOT_KNOWN), values, np.nan)
