"""Images of particles in known states: projections of Gaussian blobs, computed in closed form.

Nothing here comes from the project's projector, so that images are an oracle for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.image_blocks import ImageBlock
from emhet_dask.analysis.projection import (
    image_transforms,
    plan_slices,
    pose_matrices,
    slice_operator,
)
from emhet_dask.formats.star import write_star

PIXEL = 4.0
_BLOB = 1.6


@dataclass(frozen=True)
class FakeParticles:
    """Images, poses and states."""

    images: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray
    defocus: np.ndarray
    states: np.ndarray
    bodies: np.ndarray

    @property
    def box(self) -> int:
        return self.images.shape[1]

    def __len__(self) -> int:
        return len(self.images)

    def parameters(self, rows: slice = slice(None)) -> CtfParameters:
        defocus = self.defocus[rows]
        same = np.ones(len(defocus))
        return CtfParameters(
            defocus, defocus, 0 * same, 300 * same, 2.7 * same, 0.1 * same, 0 * same, 0 * same, same
        )


def fake_particles(
    count: int,
    *,
    box: int = 32,
    snr: float = 0.2,
    shares: tuple[float, ...] = (0.6, 0.4),
    seed: int = 0,
    shifted: bool = False,
    elsewhere: float = 0.0,
    without: tuple[tuple[int, ...], ...] | None = None,
) -> FakeParticles:
    """Project states, each without another one of eight bodies, add CTF and white noise.

    `without` names the bodies that each state lacks instead. A share of the particles, `elsewhere`,
    lacks the last four bodies, whatever its state.
    """
    rng = np.random.default_rng(seed)
    bodies = rng.normal(0, box / 9, (8, 3))
    points = bodies[:, None] + rng.normal(0, box / 24, (8, 6, 3))
    states = rng.choice(len(shares), count, p=shares)
    angles = np.stack(
        [
            rng.uniform(-180, 180, count),
            np.degrees(np.arccos(rng.uniform(-1, 1, count))),
            rng.uniform(-180, 180, count),
        ],
        axis=1,
    )
    shifts = rng.uniform(-2, 2, (count, 2)) if shifted else np.zeros((count, 2))
    defocus = rng.uniform(8000, 20000, count)
    turns = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().swapaxes(1, 2)
    ky, kx = np.meshgrid(np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij")
    damp = np.exp(-2 * (np.pi * _BLOB) ** 2 * (kx**2 + ky**2))
    spectra = np.empty((count, box, box // 2 + 1), dtype=complex)
    also = np.random.default_rng([seed, 1]).random(count) < elsewhere
    for row in range(count):
        own = [states[row]] * bool(states[row]) if without is None else list(without[states[row]])
        missing = own + [4, 5, 6, 7] * bool(also[row])
        kept = np.delete(points, missing, axis=0)
        places = (kept.reshape(-1, 3) @ turns[row].T)[:, :2] - shifts[row] + box // 2
        phase = np.multiply.outer(kx, places[:, 0]) + np.multiply.outer(ky, places[:, 1])
        spectra[row] = np.exp(-2j * np.pi * phase).sum(axis=-1) * damp
    made = FakeParticles(np.empty((0, box, box)), angles, shifts, defocus, states, bodies)
    ctf = contrast_transfer(made.parameters(), x=kx.ravel() / PIXEL, y=ky.ravel() / PIXEL)
    images = np.fft.irfft2(spectra * ctf.reshape(spectra.shape), s=(box, box))
    noise = np.sqrt(images.var(axis=(1, 2)).mean() / snr)
    images += rng.normal(0, noise, images.shape)
    return replace(made, images=images.astype(np.float32))


def perturbed(
    particles: FakeParticles, *, degrees: float, pixels: float, seed: int
) -> FakeParticles:
    """Return particles whose poses are wrong by so much, as root mean squares."""
    rng = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(
        rng.normal(0, np.deg2rad(degrees) / np.sqrt(3), (len(particles), 3))
    )
    right = Rotation.from_euler("ZYZ", particles.angles, degrees=True)
    angles = (right * turns).as_euler("ZYZ", degrees=True)
    shifts = particles.shifts + rng.normal(0, pixels / np.sqrt(2), particles.shifts.shape)
    return replace(particles, angles=angles, shifts=shifts)


@dataclass(frozen=True)
class FakeSource:
    """Some of the particles as a block, less a map, over the noise of each shell."""

    particles: FakeParticles
    rows: np.ndarray
    mean: object = None
    noise: np.ndarray | None = None

    @property
    def n_particles(self) -> int:
        return len(self.rows)

    def load(self, radius: int) -> ImageBlock:
        own = self.particles
        grid = plan_slices(own.box, radius=radius)
        extent = own.box * PIXEL
        operator = slice_operator(pose_matrices(own.angles[self.rows]), grid)
        slices = image_transforms(own.images[self.rows], grid, shifts=own.shifts[self.rows])
        transfer = contrast_transfer(
            own.parameters()[self.rows], x=grid.x / extent, y=grid.y / extent
        )
        if self.mean is not None:
            slices = slices - operator.project(self.mean(grid)[:, None])[..., 0] * transfer
        if self.noise is not None:
            over = np.where(grid.shell > 0, 1 / self.noise[grid.shell], 0).astype(np.float32)
            slices, transfer = slices * over, transfer * over
        return ImageBlock(operator, slices.astype(np.complex64), transfer)


def fake_sources(
    particles: FakeParticles, *, blocks: int = 3, mean: object = None, noise: object = None
) -> list[FakeSource]:
    """Cut particles into blocks."""
    parts = np.array_split(np.arange(len(particles)), blocks)
    return [FakeSource(particles, rows, mean, noise) for rows in parts]


def write_particles(folder: Path, particles: FakeParticles) -> Path:
    """Write a STAR file with optics, and its stack; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(folder / "images.mrcs", overwrite=True) as file:
        file.set_data(particles.images)
        file.voxel_size = PIXEL
    count = len(particles)
    optics = {
        "rlnOpticsGroupName": ["optics1"],
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
        "rlnImageSize": [particles.box],
        "rlnImageDimensionality": [2],
    }
    rows = {
        "rlnImageName": [f"{row + 1:06d}@images.mrcs" for row in range(count)],
        "rlnOpticsGroup": np.ones(count, dtype=int),
        "rlnDefocusU": particles.defocus,
        "rlnDefocusV": particles.defocus,
        "rlnDefocusAngle": np.zeros(count),
        "rlnAngleRot": particles.angles[:, 0],
        "rlnAngleTilt": particles.angles[:, 1],
        "rlnAnglePsi": particles.angles[:, 2],
        "rlnOriginXAngst": particles.shifts[:, 0] * PIXEL,
        "rlnOriginYAngst": particles.shifts[:, 1] * PIXEL,
    }
    path = folder / "particles.star"
    blocks = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(rows)}
    write_star(path, blocks, version=30001)
    return path
