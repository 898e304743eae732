"""Particle stacks behind STAR files: what is read, and what is refused in one line."""

import numpy as np
import pandas as pd
import pytest

from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.particle_images import find_root, open_images, read_images
from emhet_dask.formats.star import read_particles, write_star

BOX = 8


def columns(names, **more):
    count = len(names)
    return pd.DataFrame(
        {
            "rlnImageName": names,
            "rlnAngleRot": np.arange(count) * 10.0,
            "rlnAngleTilt": 20.0,
            "rlnAnglePsi": 30.0,
            "rlnOriginXAngst": 3.0,
            "rlnOriginYAngst": -6.0,
            "rlnDefocusU": 12000.0 + np.arange(count),
            "rlnDefocusV": 11000.0,
            "rlnDefocusAngle": 45.0,
            "rlnOpticsGroup": 1,
        }
        | more
    )


OPTICS = {
    "rlnOpticsGroup": [1, 2],
    "rlnVoltage": [300.0, 200.0],
    "rlnSphericalAberration": [2.7, 1.4],
    "rlnAmplitudeContrast": [0.1, 0.07],
    "rlnImagePixelSize": [3.0, 3.0],
    "rlnImageSize": [BOX, BOX],
}


@pytest.fixture
def project(tmp_path):
    """Two stacks of five and three images, whose pixels say which image they are of."""
    folder = tmp_path / "project" / "Extract"
    folder.mkdir(parents=True)
    for name, count, first in (("a.mrcs", 5, 0), ("b.mrcs", 3, 100)):
        images = np.zeros((count, BOX, BOX), dtype=np.float32)
        images += first + np.arange(count)[:, None, None]
        write_map(folder / name, images, voxel_size_angstrom=3.0)
    return tmp_path / "project"


def table(project, particles, *, optics=OPTICS, name="particles.star"):
    blocks = {} if optics is None else {"optics": pd.DataFrame(optics)}
    path = project / "Extract" / name
    write_star(path, blocks | {"particles": particles}, version=None if optics is None else 30001)
    return read_particles(path)


NAMES = ["2@Extract/a.mrcs", "000003@Extract/b.mrcs", "1@Extract/a.mrcs", "2@Extract/a.mrcs"]


def test_images_poses_and_ctfs_are_those_of_each_row(project):
    found = open_images(table(project, columns(NAMES, rlnOpticsGroup=[1, 2, 1, 2])))
    assert (found.box, found.pixel_size_angstrom, len(found)) == (BOX, 3.0, 4)
    np.testing.assert_array_equal(read_images(found)[:, 0, 0], [1, 102, 0, 1])
    np.testing.assert_array_equal(found.angles[1], [10, 20, 30])
    np.testing.assert_allclose(found.shifts[0], [1, -2])
    np.testing.assert_array_equal(found.ctf["voltage_kv"], [300, 200, 300, 200])
    np.testing.assert_array_equal(found.ctf["scale"], 1)
    np.testing.assert_array_equal(found.group, [1, 2, 1, 2])
    assert found.subset is None


def test_subsets_are_of_all_arrays(project):
    found = open_images(table(project, columns(NAMES, rlnRandomSubset=[1, 2, 2, 1])))
    some = found[np.array([3, 1])]
    np.testing.assert_array_equal(read_images(some)[:, 0, 0], [1, 102])
    np.testing.assert_array_equal(some.ctf["defocus_u_angstrom"], [12003, 12001])
    np.testing.assert_array_equal(some.subset, [1, 2])
    np.testing.assert_array_equal(found[1:3].angles[:, 0], [10, 20])


def test_a_file_of_relion_3_0(project):
    old = columns(
        NAMES,
        rlnVoltage=300.0,
        rlnSphericalAberration=2.7,
        rlnAmplitudeContrast=0.1,
        rlnDetectorPixelSize=6.0,
        rlnMagnification=20000.0,
        rlnOriginX=1.5,
        rlnOriginY=0.0,
    ).drop(columns=["rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst"])
    found = open_images(table(project, old, optics=None))
    assert found.pixel_size_angstrom == pytest.approx(3.0)
    np.testing.assert_allclose(found.shifts, [[1.5, 0.0]] * 4)


def test_ctfs_are_left_out_where_they_are_not_needed(project):
    bare = columns(NAMES).drop(columns=["rlnDefocusU", "rlnDefocusV"])
    assert open_images(table(project, bare), with_ctf=False).ctf is None


def test_the_project_is_found_above_the_file(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_root(project / "Extract" / "particles.star", "Extract/a.mrcs") == project
    monkeypatch.chdir(project)
    assert str(find_root("Extract/particles.star", "Extract/a.mrcs")) == "."


def test_a_root_may_be_named_and_absolute_paths_below_it(project):
    names = [f"1@{project}/Extract/a.mrcs"]
    found = open_images(table(project, columns(names)), root=project)
    assert read_images(found)[0, 0, 0] == 0
    with pytest.raises(InputError, match="is not below any folder"):
        open_images(table(project, columns(names)), root=project / "Other")


@pytest.mark.parametrize("name", ["1@../secret.mrcs", "1@/etc/passwd", "1@Extract/../../x.mrcs"])
def test_nothing_outside_is_read(project, name):
    with pytest.raises(InputError, match="is not below any folder"):
        open_images(table(project, columns([name])))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (["rlnAngleTilt"], "its particles have no poses; expected the columns _rlnAngleTilt"),
        (["rlnDefocusU", "rlnDefocusV"], "its particles have no CTF; expected the columns"),
    ],
)
def test_missing_columns_are_named(project, without, message):
    with pytest.raises(InputError, match=message):
        open_images(table(project, columns(NAMES).drop(columns=without)))


def test_missing_optics_are_named(project):
    bare = columns(NAMES, rlnImagePixelSize=3.0).drop(columns="rlnOpticsGroup")
    with pytest.raises(InputError, match="neither an optics table nor the columns _rlnVoltage"):
        open_images(table(project, bare, optics=None))
    with pytest.raises(InputError, match="nothing of the pixel size"):
        open_images(table(project, bare.drop(columns="rlnImagePixelSize"), optics=None))


def test_faulty_values_are_named(project):
    with pytest.raises(InputError, match=r"_rlnAngleRot of particle 2 is .*expected a number"):
        open_images(table(project, columns(NAMES, rlnAngleRot=[0.0, np.nan, 0.0, 0.0])))
    with pytest.raises(InputError, match="pixel sizes from 3 to 4 Å, expected one"):
        open_images(
            table(
                project,
                columns(NAMES, rlnOpticsGroup=[1, 2, 1, 1]),
                optics=OPTICS | {"rlnImagePixelSize": [3.0, 4.0]},
            )
        )
    with pytest.raises(InputError, match="amplitude_contrast of particle 1 is 10"):
        open_images(
            table(project, columns(NAMES), optics=OPTICS | {"rlnAmplitudeContrast": [10.0, 0.1]})
        )
    with pytest.raises(InputError, match=r"_rlnImageName of particle 1 is '0@Extract/a.mrcs'"):
        open_images(table(project, columns(["0@Extract/a.mrcs"])))


def test_faulty_stacks_are_named(project):
    with pytest.raises(InputError, match=r"b.mrcs: holds 3 images, but .* lists image 4 of it"):
        open_images(table(project, columns(["4@Extract/b.mrcs"])))
    with pytest.raises(InputError, match=r"c.mrcs: there is no such stack.*--root"):
        open_images(table(project, columns(["4@Extract/c.mrcs"])))
    folder = project / "Extract"
    write_map(folder / "d.mrcs", np.zeros((2, 6, 6), dtype=np.float32), voxel_size_angstrom=3.0)
    with pytest.raises(InputError, match=r"d.mrcs: images of 6 pixels, but those of .*a.mrcs"):
        open_images(table(project, columns([*NAMES, "1@Extract/d.mrcs"])))
    write_map(folder / "e.mrcs", np.zeros((2, 8, 6), dtype=np.float32), voxel_size_angstrom=3.0)
    with pytest.raises(InputError, match="expected square ones"):
        open_images(table(project, columns(["1@Extract/e.mrcs"])))
    (folder / "f.mrcs").write_bytes((folder / "a.mrcs").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"f.mrcs"):
        open_images(table(project, columns(["1@Extract/f.mrcs"])))


def test_an_image_of_nan_is_named(project):
    images = np.zeros((2, BOX, BOX), dtype=np.float32)
    images[1, 3, 3] = np.nan
    write_map(project / "Extract" / "n.mrcs", images, voxel_size_angstrom=3.0)
    found = open_images(table(project, columns(["1@Extract/n.mrcs", "2@Extract/n.mrcs"])))
    with pytest.raises(InputError, match="image 2 holds NaN"):
        read_images(found)


def test_particles_of_relion(shared_data):
    path = shared_data / "relion_project" / "Extract" / "particles.star"
    found = open_images(read_particles(path))
    assert (len(found), found.box, found.pixel_size_angstrom) == (4000, 64, 3.0)
    assert read_images(found[-3:]).std() == pytest.approx(1.05, abs=0.1)
