"""The images of particles that a STAR file lists, with their poses and CTFs, as arrays.

Names of stacks in a STAR file are untrusted: they are looked up below one folder and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from emhet_dask.errors import InputError, join_problems
from emhet_dask.formats.mrc import read_header
from emhet_dask.formats.star import ParticleTable

__all__ = ["ParticleImages", "Stack", "find_root", "open_images", "read_images"]

_POSES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
# Column, name here, and value where there is no such column; without one it is needed.
_CTF: tuple[tuple[str, str, float | None], ...] = (
    ("rlnDefocusU", "defocus_u_angstrom", None),
    ("rlnDefocusV", "defocus_v_angstrom", None),
    ("rlnDefocusAngle", "defocus_angle_degrees", 0.0),
    ("rlnVoltage", "voltage_kv", None),
    ("rlnSphericalAberration", "spherical_aberration_mm", None),
    ("rlnAmplitudeContrast", "amplitude_contrast", None),
    ("rlnPhaseShift", "phase_shift_degrees", 0.0),
    ("rlnCtfBfactor", "b_factor", 0.0),
    ("rlnCtfScalefactor", "scale", 1.0),
)
_OF_OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_ANGSTROM_PER_MICROMETRE = 1e4
# A STAR file lies in PROJECT/Class3D/job085, say, and names are relative to PROJECT.
_LEVELS = 4


@dataclass(frozen=True)
class Stack:
    """Where the images of a file of images lie.

    Attributes
    ----------
    path : str
    n_images : int
    dtype : numpy.dtype
    offset : int
        Byte at which the first image starts.
    """

    path: str
    n_images: int
    dtype: np.dtype[Any]
    offset: int


@dataclass(frozen=True, eq=False)
class ParticleImages:
    """Particles with all that is needed to reconstruct them: arrays along the particles.

    Attributes
    ----------
    path : str
        The STAR file.
    stacks : tuple of Stack
    box : int
        Pixels a side.
    pixel_size_angstrom : float
    stack : ndarray of int32
        Which of `stacks` holds the image.
    index : ndarray of int64
        Its place there, from 0.
    angles : ndarray of float64 (particle, 3)
        Rot, tilt and psi in degrees.
    shifts : ndarray of float64 (particle, 2)
        Origins in pixels, x and y.
    ctf : dict of str to ndarray of float64, or None
        The parameters of `emhet_dask.analysis.ctf.CtfParameters`, by name.
    group : ndarray of int64
        Optics group.
    subset : ndarray of int64 or None
        ``rlnRandomSubset``.
    """

    path: str
    stacks: tuple[Stack, ...]
    box: int
    pixel_size_angstrom: float
    stack: np.ndarray
    index: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray
    ctf: dict[str, np.ndarray] | None
    group: np.ndarray
    subset: np.ndarray | None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> ParticleImages:
        """Return some of the particles, an array of rows or a slice."""
        taken = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("stack", "index", "angles", "shifts", "group"):
            taken[name] = taken[name][rows]
        if self.ctf is not None:
            taken["ctf"] = {name: values[rows] for name, values in self.ctf.items()}
        if self.subset is not None:
            taken["subset"] = self.subset[rows]
        return ParticleImages(**taken)


def open_images(
    table: ParticleTable, *, root: str | Path | None = None, with_ctf: bool = True
) -> ParticleImages:
    """Collect poses, CTFs and the places of images, and check that the images are there.

    Parameters
    ----------
    table : ParticleTable
        From `emhet_dask.formats.star.read_particles`, of RELION 3.0 or later.
    root : path, optional
        Folder that the names of stacks are relative to, and below which they lie; by default
        `find_root`.
    with_ctf : bool
        False where CTFs are not needed.

    Raises
    ------
    InputError
        When poses, CTFs, optics or the pixel size are missing, a value is no number, or a stack is
        outside of the folder, missing, shorter than the table says, compressed, or of another size
        than the others.
    """
    path = table.path
    values = _columns(table)
    _need(path, values, _POSES, what="poses")
    angles = np.stack([_numbers(path, values, name) for name in _POSES], axis=1)
    pixel_size = _pixel_size(path, values)
    ctf = _ctf(path, table, values) if with_ctf else None
    names, index = _image_names(path, table.particles)
    unique, stack = np.unique(names, return_inverse=True)
    folder = find_root(path, unique[0]) if root is None else Path(root)
    counts = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(counts, stack, index + 1)
    stacks, box = _open_stacks(path, folder, unique, counts)
    group = np.ones(len(index)) if "rlnOpticsGroup" not in values else values["rlnOpticsGroup"]
    subset = values.get("rlnRandomSubset")
    return ParticleImages(
        path=path,
        stacks=stacks,
        box=box,
        pixel_size_angstrom=pixel_size,
        stack=stack.astype(np.int32),
        index=index,
        angles=angles,
        shifts=_shifts(path, values, pixel_size),
        ctf=ctf,
        group=np.asarray(group, dtype=np.int64),
        subset=None if subset is None else np.asarray(subset, dtype=np.int64),
    )


def find_root(star: str | Path, name: str) -> Path:
    """Return the folder that the stacks of a STAR file are relative to.

    Parameters
    ----------
    star : path
    name : str
        Of one of its stacks.

    Returns
    -------
    Path
        The first of the working directory, the folder of the file and the three above it that has
        such a file; the working directory where none has.
    """
    below = _inside(star, name)
    for folder in (Path(), *list(Path(star).absolute().parents)[:_LEVELS]):
        if (folder / below).is_file():
            return folder
    return Path()


def read_images(images: ParticleImages) -> np.ndarray:
    """Read the images of particles.

    Parameters
    ----------
    images : ParticleImages
        A subset that fits into memory.

    Returns
    -------
    ndarray of float32 (particle, y, x)

    Raises
    ------
    InputError
        When a stack cannot be read any more, or an image holds NaN.
    """
    box = images.box
    found = np.empty((len(images), box, box), dtype=np.float32)
    for number in np.unique(images.stack):
        stack = images.stacks[number]
        rows = np.flatnonzero(images.stack == number)
        try:
            pixels = np.memmap(
                stack.path, stack.dtype, "r", stack.offset, (stack.n_images, box, box)
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{stack.path}: cannot be read any more ({error})") from None
        found[rows] = pixels[images.index[rows]]
        bad = np.flatnonzero(~np.isfinite(found[rows].sum(axis=(1, 2))))
        if len(bad):
            raise InputError(
                f"{stack.path}: image {images.index[rows[bad[0]]] + 1} holds NaN or infinity; "
                "leave the particle out"
            )
    return found


# What the table says ------------------------------------------------------------------------------


def _columns(table: ParticleTable) -> dict[str, pd.Series]:
    """Return all columns along the particles; those of the optics table are spread over them."""
    values = {str(name): table.particles[name] for name in table.particles}
    if table.optics is None:
        return values
    if "rlnOpticsGroup" in table.particles:
        optics = table.optics.set_index("rlnOpticsGroup")
        if not optics.index.is_unique:
            raise InputError(f"{table.path}: data_optics defines an optics group twice")
        spread = optics.loc[table.particles["rlnOpticsGroup"]]
    else:
        spread = table.optics.iloc[np.zeros(len(table.particles), dtype=np.int64)]
    return {str(name): spread[name].reset_index(drop=True) for name in spread} | values


def _need(path: str, values: Mapping[str, Any], names: Sequence[str], *, what: str) -> None:
    missing = [f"_{name}" for name in names if name not in values]
    if missing:
        raise InputError(
            f"{path}: its particles have no {what}; expected the columns {', '.join(missing)}"
        )


def _numbers(path: str, values: Mapping[str, pd.Series], name: str) -> np.ndarray:
    numbers = pd.to_numeric(values[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InputError(
            f"{path}: _{name} of particle {bad[0] + 1} is {values[name].iloc[bad[0]]!r}, expected "
            "a number"
        )
    return numbers


def _pixel_size(path: str, values: Mapping[str, pd.Series]) -> float:
    if "rlnImagePixelSize" in values:
        sizes = _numbers(path, values, "rlnImagePixelSize")
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(values):
        micrometres = _numbers(path, values, "rlnDetectorPixelSize")
        magnification = _numbers(path, values, "rlnMagnification")
        sizes = _ANGSTROM_PER_MICROMETRE * micrometres / np.maximum(magnification, 1e-30)
    else:
        raise InputError(
            f"{path}: says nothing of the pixel size; expected an optics table with "
            "_rlnImagePixelSize, or _rlnDetectorPixelSize and _rlnMagnification"
        )
    if not len(sizes):
        raise InputError(f"{path}: lists no particles")
    low, high = float(sizes.min()), float(sizes.max())
    if low <= 0 or high - low > 1e-3 * low:
        raise InputError(
            f"{path}: pixel sizes from {low:g} to {high:g} Å, expected one; give the particles of "
            "one optics group, or rescale them"
        )
    return low


def _shifts(path: str, values: Mapping[str, pd.Series], pixel_size: float) -> np.ndarray:
    found = np.zeros((len(values["rlnAngleRot"]), 2))
    for axis, letter in enumerate("XY"):
        # Ångström from RELION 3.1 on, pixels before; cryoDRGN writes pixels beside an optics table.
        if f"rlnOrigin{letter}Angst" in values:
            found[:, axis] = _numbers(path, values, f"rlnOrigin{letter}Angst") / pixel_size
        elif f"rlnOrigin{letter}" in values:
            found[:, axis] = _numbers(path, values, f"rlnOrigin{letter}")
    return found


def _ctf(path: str, table: ParticleTable, values: Mapping[str, pd.Series]) -> dict[str, np.ndarray]:
    if table.optics is None and not set(_OF_OPTICS) <= set(values):
        missing = ", ".join(f"_{name}" for name in _OF_OPTICS if name not in values)
        raise InputError(f"{path}: has neither an optics table nor the columns {missing}")
    given = dict(values)
    if "rlnDefocusV" not in given and "rlnDefocusU" in given:
        given["rlnDefocusV"] = given["rlnDefocusU"]  # as RELION does
    needed = [column for column, _, default in _CTF if default is None]
    _need(path, given, needed, what="CTF")
    count = len(table.particles)
    found = {
        name: _numbers(path, given, column) if column in given else np.full(count, default)
        for column, name, default in _CTF
    }
    for name, low, high in (("voltage_kv", 1.0, 1e4), ("amplitude_contrast", 0.0, 1.0)):
        bad = np.flatnonzero((found[name] < low) | (found[name] > high))
        if len(bad):
            raise InputError(
                f"{path}: {name} of particle {bad[0] + 1} is {found[name][bad[0]]:g}, expected "
                f"{low:g} to {high:g}"
            )
    return found


def _image_names(path: str, particles: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the stack of each particle and its place there, from 0."""
    if "rlnImageName" not in particles:
        raise InputError(f"{path}: has no column _rlnImageName, so no images to read")
    parts = particles["rlnImageName"].astype(str).str.extract(r"^(?:(\d{1,12})@)?(.+)$")
    index = pd.to_numeric(parts[0]).fillna(1).to_numpy(dtype=np.int64) - 1
    bad = np.flatnonzero(parts[1].isna().to_numpy() | (index < 0))
    if len(bad):
        raise InputError(
            f"{path}: _rlnImageName of particle {bad[0] + 1} is "
            f"{particles['rlnImageName'].iloc[bad[0]]!r}, expected such as 000001@stack.mrcs"
        )
    return parts[1].to_numpy(dtype=str), index


# Where the images are -----------------------------------------------------------------------------


def _inside(star: str | Path, name: str) -> PurePosixPath:
    """Return a stack's name as a path that leads down, or refuse it."""
    below = PurePosixPath(name)
    if below.is_absolute() or ".." in below.parts or "\0" in name:
        raise InputError(
            f"{star}: the stack {name!r} is not below any folder; give names relative to the "
            "project, or --root a folder that it is in"
        )
    return below


def _open_stacks(
    star: str, root: Path, names: np.ndarray, counts: np.ndarray
) -> tuple[tuple[Stack, ...], int]:
    found, problems = [], []
    for name, count in zip(names.tolist(), counts.tolist(), strict=True):
        try:
            found.append(_open_stack(star, root, name, count))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(join_problems(problems, what="stacks cannot be used", limit=5))
    boxes = {box for _, box in found}
    if len(boxes) > 1:
        first = found[0]
        other = next(each for each in found if each[1] != first[1])
        raise InputError(
            f"{other[0].path}: images of {other[1]} pixels, but those of {first[0].path} have "
            f"{first[1]}; expected one size"
        )
    return tuple(stack for stack, _ in found), boxes.pop()


def _open_stack(star: str, root: Path, name: str, count: int) -> tuple[Stack, int]:
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(root.absolute()) and ".." not in path.parts:
        name = str(path.relative_to(root.absolute()))
    path = root / _inside(star, name)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such stack, which {star} lists; --root names the folder that "
            "its stacks are relative to"
        )
    header = read_header(path)
    if header.compression is not None:
        raise InputError(f"{path}: is compressed; unpack it, images are read one by one")
    if header.axis_order != (0, 1, 2) or header.shape[1] != header.shape[2]:
        raise InputError(
            f"{path}: images of {header.shape[2]} × {header.shape[1]} pixels, expected square ones"
        )
    held = header.shape[0] * header.n_volumes
    if held < count:
        raise InputError(f"{path}: holds {held} images, but {star} lists image {count} of it")
    return Stack(str(path.absolute()), held, header.dtype, header.offset), header.shape[1]
