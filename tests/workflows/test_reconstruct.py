"""``emhet reconstruct`` on two states that are known."""

import json

import numpy as np
import pandas as pd
import pytest
import s3fs

import emhet_dask
from emhet_dask.analysis.ctf import CtfParameters, contrast_transfer
from emhet_dask.analysis.projection import images_of, plan_slices, slice_operator, volume_transform
from emhet_dask.analysis.rotations import even_rotations, relion_angles
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.formats.star import read_particles, write_star

BOX, PIXEL, COUNT = 24, 4.0, 240


def molecule(state):
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    found = np.exp(-((x - 3) ** 2 + y**2 + z**2) / 6.0)
    found += np.exp(-((x + 3) ** 2 + (y - 2) ** 2 + z**2) / 6.0)
    return found + state * np.exp(-(x**2 + (y + 4) ** 2 + (z - 2) ** 2) / 6.0)


def simulate(folder):
    rng = np.random.default_rng(0)
    turns = even_rotations(COUNT)[rng.permutation(COUNT)]
    state = np.arange(COUNT) % 2
    grid = plan_slices(BOX)
    volumes = np.stack([volume_transform(molecule(each), grid) for each in (0, 1)], axis=1)
    slices = slice_operator(turns, grid).project(volumes)
    slices = slices[np.arange(COUNT), :, state]
    defocus = rng.uniform(8000, 20000, COUNT)
    ctf = CtfParameters(
        defocus,
        defocus - 300,
        np.full(COUNT, 20.0),
        *(np.full(COUNT, value) for value in (300.0, 2.7, 0.1, 0.0, 0.0, 1.0)),
    )
    extent = BOX * PIXEL
    images = images_of(slices * contrast_transfer(ctf, x=grid.x / extent, y=grid.y / extent), grid)
    images += 0.5 * images.std() * rng.standard_normal(images.shape)
    (folder / "Extract").mkdir(parents=True)
    write_map(folder / "Extract" / "particles.mrcs", images, voxel_size_angstrom=PIXEL)
    angles = np.array([relion_angles(turn) for turn in turns])
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{n + 1:06d}@Extract/particles.mrcs" for n in range(COUNT)],
            "rlnAngleRot": angles[:, 0],
            "rlnAngleTilt": angles[:, 1],
            "rlnAnglePsi": angles[:, 2],
            "rlnDefocusU": ctf.defocus_u_angstrom,
            "rlnDefocusV": ctf.defocus_v_angstrom,
            "rlnDefocusAngle": 20.0,
            "rlnOpticsGroup": 1,
            "rlnClassNumber": state + 1,
        }
    )
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [PIXEL],
    }
    star = folder / "Extract" / "particles.star"
    write_star(star, {"optics": pd.DataFrame(optics), "particles": particles}, version=30001)
    pd.DataFrame({"particle": np.arange(COUNT), "state": state}).to_csv(
        folder / "labels.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("project") / "p")


@pytest.fixture(scope="module")
def star(project):
    return project / "Extract" / "particles.star"


@pytest.fixture(scope="module")
def done(project, star, client):
    return emhet_dask.reconstruct(
        star,
        labels=project / "labels.csv",
        output=project / "out",
        cluster=client,
        quiet=True,
    )


def density(folder, name):
    return read_volume(read_header(folder / f"{name}.mrc"))


def test_each_state_is_its_molecule(done):
    for state in (0, 1):
        found = density(done.folder, f"state_{state:03d}_post")
        scores = [np.corrcoef(found.ravel(), molecule(each).ravel())[0, 1] for each in (0, 1)]
        assert int(np.argmax(scores)) == state
        assert scores[state] > 0.95


def test_tables_and_maps_are_there(done):
    assert list(done.states["state"]) == [0, 1]
    assert list(done.states["particles"]) == [COUNT // 2] * 2
    assert (done.states["resolution_A"] < 14).all()
    assert list(done.fsc.columns) == [
        *("state", "shell", "resolution_A"),
        *("fsc_unmasked", "fsc_masked", "fsc_randomised", "fsc_corrected"),
    ]
    assert len(done.fsc) == 2 * BOX // 2
    header = read_header(done.folder / "state_000_half1.mrc")
    assert header.voxel_size_angstrom == pytest.approx(PIXEL)
    assert (done.folder / "report.html").stat().st_size > 10_000
    assert "state 1: 120 particles" in done.describe()


def test_particles_of_a_state_keep_their_optics(done, star):
    table = read_particles(done.folder / "state_001_particles.star")
    assert set(table.particles["rlnClassNumber"]) == {2}
    assert float(table.optics["rlnVoltage"].iloc[0]) == 300
    assert list(table.particles) == list(read_particles(star).particles)


def test_halves_are_of_different_particles_and_add_up(done):
    first, second, whole = (
        density(done.folder, f"state_000{ending}") for ending in ("_half1", "_half2", "")
    )
    assert np.abs(first - second).max() > 1e-3
    mean = np.corrcoef(((first + second) / 2).ravel(), whole.ravel())[0, 1]
    assert mean > 0.9


@pytest.mark.slow
def test_processes_give_the_same_bytes(done, project, star, tmp_path):
    again = emhet_dask.reconstruct(
        star, labels=project / "labels.csv", output=tmp_path / "o", cluster="local:2", quiet=True
    )
    for path in done.folder.glob("state_*.mrc"):
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_a_second_run_finds_maps_done_and_only_masks_anew(done, project, star, client, capsys):
    stamp = (done.folder / "state_000.mrc").stat().st_mtime_ns
    emhet_dask.reconstruct(
        star, labels=project / "labels.csv", output=done.folder, mask="none", cluster=client
    )
    assert "state_000: done before" in capsys.readouterr().err
    assert (done.folder / "state_000.mrc").stat().st_mtime_ns == stamp
    stages = json.loads((done.folder / "run.json").read_text())["stages"]
    assert stages["fsc"]["parameters"]["mask"] == "none"
    with pytest.raises(InputError, match="--overwrite"):
        emhet_dask.reconstruct(
            star,
            labels=project / "labels.csv",
            output=done.folder,
            symmetry="C2",
            cluster=client,
            quiet=True,
        )


def test_classes_of_the_file_and_chosen_states(star, tmp_path, client):
    found = emhet_dask.reconstruct(
        star,
        labels="class",
        states="2",
        box=16,
        b_factor=-100,
        gridding_iterations=0,
        output=tmp_path / "o",
        cluster=client,
        quiet=True,
    )
    assert list(found.states["name"]) == ["state_002"]
    assert found.states["b_factor_A2"].tolist() == [-100]
    assert read_header(tmp_path / "o" / "state_002.mrc").shape == (16, 16, 16)
    assert any("120 of 240 particles are in none" in note for note in found.notes)


def test_halves_of_a_refinement_are_kept(star, tmp_path, client):
    table = read_particles(star)
    particles = table.particles.assign(rlnRandomSubset=1 + (np.arange(COUNT) >= 200))
    other = star.parent / "halves.star"
    write_star(other, {"optics": table.optics, "particles": particles}, version=30001)
    found = emhet_dask.reconstruct(other, output=tmp_path / "o", cluster=client, quiet=True)
    assert "Halves are those of rlnRandomSubset" in found.notes
    stages = json.loads((tmp_path / "o" / "run.json").read_text())["stages"]
    assert stages["state_000"]["summary"]["half1"] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "class", "states": "7"}, "--states: there is no state 7; there are 1, 2"),
        ({"symmetry": "Q3"}, "--symmetry: got 'Q3'"),
        ({"box": 64}, "--box 64: expected at most 24"),
        ({"labels": "{bad}"}, "has the columns a, b; expected particle or rlnImageName"),
        ({"labels": "{beyond}"}, "particle '999' is none of the 240 particles"),
        ({"labels": "{twice}"}, "lists a particle twice"),
        ({"labels": "{few}"}, "state 5 has 1 particles, not one in each half"),
        ({"labels": "{bad}", "clusters": "x"}, "exclude each other"),
        ({"mask": "{small}"}, "expected a mask as wide as the maps"),
    ],
)
def test_what_cannot_be_is_one_line(star, tmp_path, options, message):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "beyond.csv").write_text("particle,state\n999,0\n")
    (tmp_path / "twice.csv").write_text("particle,state\n1,0\n1,1\n")
    (tmp_path / "few.csv").write_text("particle,state\n1,0\n2,0\n3,5\n")
    write_map(tmp_path / "small.mrc", np.ones((8, 8, 8), np.float32), voxel_size_angstrom=1.5)
    files = {name: tmp_path / f"{name}.csv" for name in ("bad", "beyond", "twice", "few")}
    files["small"] = tmp_path / "small.mrc"
    given = {
        name: value.format(**files) if isinstance(value, str) else value
        for name, value in options.items()
    }
    with pytest.raises(InputError, match=message) as caught:
        emhet_dask.reconstruct(star, output=tmp_path / "o", quiet=True, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_states_of_a_landscape_on_a_disk_or_in_a_bucket(project, star, tmp_path, client, bucket):
    """Volumes of two states that stand for the particles of these."""
    rng = np.random.default_rng(0)
    (tmp_path / "maps").mkdir()
    for number in range(20):
        found = molecule(number % 2) + 0.05 * rng.standard_normal((BOX,) * 3)
        write_map(
            tmp_path / "maps" / f"vol_{number:03d}.mrc",
            found.astype(np.float32),
            voxel_size_angstrom=PIXEL,
        )
    np.save(tmp_path / "labels.npy", np.arange(COUNT) % 20)
    emhet_dask.ingest(
        [tmp_path / "maps"],
        output=tmp_path / "ens.zarr",
        labels=tmp_path / "labels.npy",
        particles=star,
        cluster=client,
        quiet=True,
    )
    landscape = emhet_dask.landscape(
        tmp_path / "ens.zarr", output=tmp_path / "l", n_clusters=2, cluster=client, quiet=True
    )
    assert landscape is not None
    found = emhet_dask.reconstruct(
        star, clusters=tmp_path / "l", output=tmp_path / "o", cluster=client, quiet=True
    )
    assert found.states["particles"].tolist() == [COUNT // 2] * 2
    own = read_particles(tmp_path / "o" / "state_000_particles.star").particles
    assert len(set(own["rlnClassNumber"])) == 1
    s3fs.S3FileSystem().put(str(tmp_path / "l"), f"{bucket}/l", recursive=True)
    there = emhet_dask.reconstruct(
        star, clusters=f"{bucket}/l", output=tmp_path / "there", cluster=client, quiet=True
    )
    pd.testing.assert_frame_equal(there.states, found.states)
