"""Maps in any orientation come back: how many, how exactly, and seconds per map."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from emhet_dask.analysis.alignment import Fitter, make_reference
from emhet_dask.analysis.phantom import Grid, packed_bodies
from emhet_dask.analysis.rigid import move
from emhet_dask.analysis.rotations import angle_between

CASES = {
    "SNR 1, reference SNR 1": (1.0, 1.0),
    "SNR 0.3, reference SNR 0.3": (0.3, 0.3),
    "SNR 0.1, reference without noise": (0.1, np.inf),
}


def complex_of(seed, grid):
    bodies = packed_bodies(
        np.random.default_rng([seed, 0]),
        n_bodies=8,
        radius_angstrom=grid.radius_angstrom,
        gap_angstrom=grid.resolution_angstrom,
    )
    return np.concatenate(bodies)[:, ::-1]  # x, y, z


def noisy(density, grid, snr, seed):
    if np.isinf(snr):
        return density
    noise = grid.noise(np.random.default_rng([seed, 1]))
    return density + np.float32(np.sqrt(density.var() / snr)) * noise


@pytest.mark.parametrize("case", CASES)
def test_random_poses_come_back(benchmark, report, full, case):
    """Any rotation, shifts of up to 10% of the box along each axis; one thread per fit."""
    snr, reference_snr = CASES[case]
    grid = Grid(64, 3.0, 12.0) if full else Grid(32, 6.0, 24.0)
    trials = 50 if full else 2
    snr, reference_snr = (snr, reference_snr) if full else (8.0 * snr, 8.0 * reference_snr)
    atoms = complex_of(101, grid)
    reference = noisy(grid.render(atoms[:, ::-1]), grid, reference_snr, 999)
    degrees, voxels, fit_seconds, move_seconds, flagged = [], [], [], [], []
    prepared = []

    def ours():
        began = time.perf_counter()
        fitter = Fitter(make_reference(reference, voxel_size_angstrom=grid.voxel_size_angstrom))
        prepared.append(time.perf_counter() - began)
        for seed in range(trials):
            rng = np.random.default_rng([seed, 7])
            turn = Rotation.random(rng=rng).as_matrix()
            shift = rng.uniform(-0.1, 0.1, 3) * grid.box
            moved = atoms @ turn.T + shift * grid.voxel_size_angstrom
            volume = noisy(grid.render(moved[:, ::-1]), grid, snr, seed)
            began = time.perf_counter()
            fit = fitter.fit(volume)
            fit_seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            move(volume, fit.motion)
            move_seconds.append(time.perf_counter() - began)
            back = fit.motion.rotation.T
            degrees.append(float(angle_between(back, turn)))
            voxels.append(float(np.linalg.norm(-back @ fit.motion.shift_voxels - shift)))
            flagged.append(fit.flagged)

    benchmark.pedantic(ours, rounds=1)
    right = (np.asarray(degrees) < 1.5) & (np.asarray(voxels) < 0.5)
    report(
        within_1p5_degrees_and_half_a_voxel=f"{right.sum()} of {trials}",
        wrong_and_not_flagged=int((~right & ~np.asarray(flagged)).sum()),
        right_but_flagged=int((right & np.asarray(flagged)).sum()),
        median_degrees=float(np.median(degrees)),
        median_voxels=float(np.median(voxels)),
        seconds_per_fit=float(np.median(fit_seconds)),
        seconds_per_move=float(np.median(move_seconds)),
        seconds_to_prepare=prepared[0],
    )
    if snr >= 1:
        assert right.mean() >= 0.95


@pytest.mark.parametrize("what", ["noise", "another molecule", "the mirror image"])
def test_what_does_not_fit_is_flagged(benchmark, report, full, what):
    grid = Grid(64, 3.0, 12.0) if full else Grid(32, 6.0, 24.0)
    trials = 10 if full else 1
    flagged, margins = [], []

    def ours():
        for seed in range(trials):
            snr = (np.inf, 1.0)[seed % 2]
            atoms = complex_of(101 + seed, grid)
            reference = noisy(grid.render(atoms[:, ::-1]), grid, snr, 999)
            fitter = Fitter(make_reference(reference, voxel_size_angstrom=grid.voxel_size_angstrom))
            if what == "another molecule":
                atoms = complex_of(501 + seed, grid)
            elif what == "the mirror image":
                atoms = atoms * [-1, 1, 1]
            turn = Rotation.random(rng=np.random.default_rng([seed, 7])).as_matrix()
            volume = noisy(grid.render((atoms @ turn.T)[:, ::-1]), grid, snr, seed)
            if what == "noise":
                volume = grid.noise(np.random.default_rng([seed, 2]))
            fit = fitter.fit(volume)
            flagged.append(fit.flagged)
            margins.append(fit.margin)

    benchmark.pedantic(ours, rounds=1)
    assert len(flagged) == trials
    report(flagged=f"{sum(flagged)} of {trials}", largest_margin=float(max(margins)))
