"""Reconstruction of particles, beside RELION's where it is installed, and its memory."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from benchmarks.measuring import emhet, run_measured
from emhet_dask.analysis.projection import images_of, plan_slices, slice_operator, volume_transform
from emhet_dask.analysis.rotations import even_rotations, relion_angles
from emhet_dask.analysis.shells import plan_shells, shell_rows
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.formats.star import write_star

PIXEL = 3.0


def simulate(folder, *, n, box):
    """Views of a few balls in noise, n particles of a stack of at most 1,000 images."""
    distinct = min(n, 1000)
    turns = even_rotations(distinct)
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.zeros((box,) * 3, dtype=np.float32)
    for at in np.random.default_rng(0).uniform(-box / 5, box / 5, (8, 3)):
        volume += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) / 8.0)
    grid = plan_slices(box)
    spectrum = volume_transform(volume, grid)[:, None]
    rng = np.random.default_rng(1)
    images = np.empty((distinct, box, box), dtype=np.float32)
    for start in range(0, distinct, 50):
        some = slice(start, start + 50)
        images[some] = images_of(slice_operator(turns[some], grid).project(spectrum)[..., 0], grid)
    images += 3 * images.std() * rng.standard_normal(images.shape, dtype=np.float32)
    write_map(folder / "particles.mrcs", images, voxel_size_angstrom=PIXEL)
    angles = np.array([relion_angles(turn) for turn in turns])
    row = np.arange(n) % distinct
    particles = pd.DataFrame(
        {
            "rlnImageName": np.char.add(np.char.zfill((row + 1).astype(str), 6), "@particles.mrcs"),
            "rlnAngleRot": angles[row, 0],
            "rlnAngleTilt": angles[row, 1],
            "rlnAnglePsi": angles[row, 2],
            "rlnDefocusU": rng.uniform(8000, 20000, n),
            "rlnDefocusAngle": 0.0,
            "rlnOpticsGroup": 1,
        }
    )
    particles["rlnDefocusV"] = particles["rlnDefocusU"] - 200
    optics = {
        "rlnOpticsGroupName": ["one"],
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
        "rlnImageSize": [box],
        "rlnImageDimensionality": [2],
    }
    star = folder / "particles.star"
    write_star(star, {"optics": pd.DataFrame(optics), "particles": particles}, version=30001)
    return star


def least_fsc(first, second):
    """Lowest FSC to 90% of Nyquist."""
    shells = plan_shells(first.shape, voxel_size_angstrom=1.0)
    one, two = shell_rows([first, second], None, shells)
    return float(np.add.reduceat(one * two, shells.offset[:-1])[: int(0.9 * shells.n_shells)].min())


@pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None, reason="relion_reconstruct is not on the PATH"
)
def test_beside_relion(benchmark, report, scratch, full):
    folder = scratch / "relion"
    folder.mkdir()
    star = simulate(folder, n=4000 if full else 200, box=64 if full else 24)
    costs = []

    def ours():
        line = [*emhet("reconstruct", star, "--mask", "none", "-o", folder / "o", "-q")]
        costs.append(run_measured(line, cwd=folder))

    benchmark.pedantic(ours, rounds=1)
    began = time.perf_counter()
    for number, subset in enumerate(("_half1", "_half2", "")):
        # RELION makes one map at a time: as many as ours, all of the same particles.
        subprocess.run(
            ["relion_reconstruct", "--i", star, "--o", f"r{number}{subset}.mrc", "--ctf"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    relion_seconds = time.perf_counter() - began
    maps = [read_volume(read_header(folder / name)) for name in ("o/state_000.mrc", "r2.mrc")]
    agreement = least_fsc(*maps)
    assert agreement > (0.99 if full else 0.97)
    report(
        seconds=costs[0].seconds,
        peak_gib=costs[0].peak_gib,
        relion_seconds_three_maps=relion_seconds,
        least_fsc_with_relion=agreement,
    )


def test_memory_does_not_grow_with_particles(benchmark, report, scratch, full):
    counts, box = ((5_000, 40_000), 128) if full else ((400, 1600), 32)
    costs = []
    for count in counts:
        folder = scratch / f"n{count}"
        folder.mkdir()
        star = simulate(folder, n=count, box=box)
        line = emhet(
            "reconstruct",
            star,
            "--mask",
            "none",
            "--gridding-iterations",
            "0",
            "-o",
            folder / "o",
            "-q",
        )

        def ours(line=line, folder=folder):
            costs.append(run_measured([*line], cwd=folder))

        if count == counts[-1]:
            benchmark.pedantic(ours, rounds=1)
        else:
            ours()
    report(
        particles_per_second=counts[-1] / costs[1].seconds,
        seconds=costs[1].seconds,
        peak_gib_of_few=costs[0].peak_gib,
        peak_gib=costs[1].peak_gib,
    )
    if full:
        assert costs[1].peak_gib < 1.5 * costs[0].peak_gib
