"""Projections, CTFs, reconstructions and symmetry beside RELION's own, where it is installed."""

import re

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.projection import (
    images_of,
    plan_slices,
    pose_matrices,
    shift_ramps,
    slice_operator,
    volume_transform,
)
from emhet_dask.analysis.shells import plan_shells, shell_rows
from emhet_dask.analysis.symmetry import symmetry_operators
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.particle_images import open_images
from emhet_dask.formats.star import read_particles, write_star
from tests.relion import needs_relion, relion

pytestmark = [pytest.mark.shared_data, needs_relion("project")]


def least_fsc(first, second, *, share=0.9):
    """Lowest FSC up to a share of Nyquist."""
    shells = plan_shells(first.shape, voxel_size_angstrom=1.0)
    one, two = shell_rows([first, second], None, shells)
    found = np.add.reduceat(one * two, shells.offset[:-1])
    return found[: int(share * shells.n_shells)].min()


@pytest.fixture(scope="module")
def project(shared_data):
    return shared_data / "relion_project"


@pytest.fixture
def odd(project, tmp_path):
    """Particles with everything that a CTF and a pose may have."""
    table = read_particles(project / "Extract" / "particles.star")
    rng = np.random.default_rng(0)
    count = 40
    particles = table.particles.iloc[:count].assign(
        rlnOriginXAngst=rng.normal(0, 5, count).round(3),
        rlnOriginYAngst=rng.normal(0, 5, count).round(3),
        rlnPhaseShift=np.where(np.arange(count) % 3 == 0, 40.0, 0.0),
        rlnCtfBfactor=np.where(np.arange(count) % 2 == 0, 30.0, 0.0),
        rlnCtfScalefactor=np.where(np.arange(count) % 5 == 0, 0.7, 1.0),
        rlnDefocusU=lambda rows: rows["rlnDefocusU"] + rng.uniform(0, 3000, count).round(2),
    )
    write_star(
        tmp_path / "odd.star", {"optics": table.optics, "particles": particles}, version=30001
    )
    return tmp_path / "odd.star"


@pytest.mark.parametrize("how", ["plain", "ctf", "ctf_intact_first_peak"])
def test_projections_are_relions(project, odd, tmp_path, how):
    volume_path = project / "Class3D" / "job085" / "run_it025_class001.mrc"
    flags = {"plain": [], "ctf": ["--ctf"]}.get(how, ["--ctf", f"--{how}"])
    arguments = ["--i", volume_path, "--o", "p", "--ang", odd, "--angpix", 3, *flags]
    relion("project", *arguments, folder=tmp_path)
    expected = np.fromfile(tmp_path / "p.mrcs", dtype="<f4", offset=1024).reshape(-1, 64, 64)
    images = open_images(read_particles(odd), root=project)
    grid = plan_slices(64)
    operator = slice_operator(pose_matrices(images.angles), grid)
    volume = read_volume(read_header(volume_path))
    slices = operator.project(volume_transform(volume, grid)[:, None])[..., 0]
    slices *= shift_ramps(-images.shifts, grid)
    if flags:
        slices *= contrast_transfer(
            CtfParameters(**images.ctf),
            x=grid.x / 192,
            y=grid.y / 192,
            intact_first_peak=len(flags) > 1,
        )
    found = images_of(slices, grid)
    assert np.abs(found - expected).max() < 1e-3 * expected.std()


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"gridding_iterations": 0}, ["--skip_gridding"]),
        ({"gridding_iterations": 0, "symmetry": "D2"}, ["--skip_gridding", "--sym", "D2"]),
        ({"max_resolution": 9.0}, ["--maxres", 9]),
    ],
)
def test_reconstructions_are_relions(project, tmp_path, client, options, flags):
    table = read_particles(project / "Extract" / "particles.star")
    some = {"optics": table.optics, "particles": table.particles.iloc[:500]}
    write_star(tmp_path / "some.star", some, version=30001)
    arguments = ["--i", tmp_path / "some.star", "--o", tmp_path / "r.mrc", "--ctf", *flags]
    relion("reconstruct", *arguments, folder=project)
    emhet_dask.reconstruct(
        tmp_path / "some.star",
        root=project,
        output=tmp_path / "o",
        cluster=client,
        quiet=True,
        mask="none",
        **options,
    )
    found, expected = (
        read_volume(read_header(path))
        for path in (tmp_path / "o" / "state_000.mrc", tmp_path / "r.mrc")
    )
    share = 0.6 if "max_resolution" in options else 0.9
    assert least_fsc(found, expected, share=share) > 0.99
    scale = (found * expected).sum() / (expected**2).sum()
    assert scale == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("group", ["C3", "D7", "T", "O", "I", "I1", "I3", "I4"])
def test_operators_are_relions(group, tmp_path):
    printed = relion("refine", "--sym", group, "--print_symmetry_ops", folder=tmp_path)
    rows = re.findall(r"R\(\d+\)=\s*\n((?:[^\n]*\n){3})", printed)
    expected = np.array([[float(word) for word in row.split()] for row in rows]).reshape(-1, 3, 3)
    found = symmetry_operators(group)
    assert len(found) == len(expected)
    apart = np.abs(found[:, None] - expected).max(axis=(2, 3))
    assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-4


def test_states_of_the_truth(project, tmp_path, client):
    labels = pd.read_csv(project / "Extract" / "truth.csv")
    found = emhet_dask.reconstruct(
        project / "Extract" / "particles.star",
        labels=project / "Extract" / "truth.csv",
        gridding_iterations=0,
        output=tmp_path / "o",
        cluster=client,
        quiet=True,
    )
    assert (
        found.states["particles"].tolist()
        == labels["source_volume"].value_counts(sort=False).sort_index().tolist()
    )
    assert (found.states["resolution_A"] < 10).all()
