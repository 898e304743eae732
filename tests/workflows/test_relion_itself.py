"""Our particle files in the hands of RELION itself, where it is installed."""

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.star import read_particles
from tests.relion import needs_relion, relion

pytestmark = [pytest.mark.shared_data, needs_relion("star_handler")]


@pytest.fixture
def project(shared_data):
    return shared_data / "relion_project"


def test_relion_selects_the_particles_that_we_select(project, tmp_path):
    job = project / "Class3D/job085"
    emhet_dask.class3d_select(str(job), classes="2,3", output=str(tmp_path / "ours.star"))
    chosen = ("--select", "rlnClassNumber", "--minval", 2, "--maxval", 3)
    data = job / "run_it025_data.star"
    relion("star_handler", "--i", data, "--o", "theirs.star", *chosen, folder=tmp_path)
    relion("star_handler", "--i", "ours.star", "--o", "through.star", *chosen, folder=tmp_path)
    theirs, through = (read_particles(tmp_path / name) for name in ("theirs.star", "through.star"))
    assert len(theirs.particles) == 1874
    pd.testing.assert_frame_equal(through.particles, theirs.particles)
    pd.testing.assert_frame_equal(through.optics, theirs.optics)


def test_relion_finds_the_optics_groups_that_are_left(shared_data, tmp_path):
    source = shared_data / "star_samples/relion31.6opticsgroups.star"
    groups = sorted(read_particles(source).particles["rlnOpticsGroup"].unique())[1:3]
    ours = tmp_path / "ours.star"
    emhet_dask.class3d_select(
        str(source), where=f"OpticsGroup in ({groups[0]}, {groups[1]})", output=str(ours)
    )
    relion("star_handler", "--i", ours, "--o", "through.star", folder=tmp_path)
    before, after = read_particles(ours), read_particles(tmp_path / "through.star")
    assert sorted(before.optics["rlnOpticsGroup"]) == groups
    assert len(after.optics) == 2
    assert list(after.particles["rlnImageName"]) == list(before.particles["rlnImageName"])
    # RELION numbers groups as it likes; their names stay.
    name_of = [
        dict(zip(each.optics["rlnOpticsGroup"], each.optics["rlnOpticsGroupName"], strict=True))
        for each in (before, after)
    ]
    named = [
        each.particles["rlnOpticsGroup"].map(names)
        for each, names in zip((before, after), name_of, strict=True)
    ]
    assert list(named[0]) == list(named[1])


def test_relion_reconstructs_the_class_that_was_selected(project, tmp_path):
    job = project / "Class3D/job085"
    ours = tmp_path / "ours.star"
    emhet_dask.class3d_select(str(job), classes=2, output=str(ours))
    # Paths in the file are relative to the project.
    made = tmp_path / "class2.mrc"
    relion("reconstruct", "--i", ours, "--o", made, "--ctf", "--maxres", 12, folder=project)
    header = read_header(made)
    assert header.voxel_size_angstrom == pytest.approx(3.0)
    inside = ((np.indices(header.shape) - 32) ** 2).sum(axis=0) < 28**2
    found = {
        number: np.corrcoef(
            read_volume(header)[inside],
            read_volume(read_header(job / f"run_it025_class{number:03d}.mrc"))[inside],
        )[0, 1]
        for number in range(1, 5)
    }
    assert max(found, key=found.get) == 2
    assert found[2] > 0.98
