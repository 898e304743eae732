"""The stages of a landscape of particles, and the selection of basins and regions from it."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import emhet_dask
from emhet_dask.ensemble.groups import load_group, save_group
from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import read_indices
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.star import read_particles
from emhet_dask.options.energy import EnergyChoices
from emhet_dask.runtime import Progress, ResultsFolder, read_run
from emhet_dask.workflows.stages.energy import EnergyOptions, Points, energy_stage
from emhet_dask.workflows.stages.energy_path import Render, path_stage
from emhet_dask.workflows.stages.energy_pictures import energy_pictures_stage, energy_sections

N = 3000
CENTRES = np.array([[-3.0, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]])


def points_of(seed=0):
    rng = np.random.default_rng(seed)
    states = np.repeat([0, 1, 2], [N // 2, N // 3, N // 6])
    scores = rng.normal(CENTRES[states], [1.0, 1.0, 0.5, 0.5]).astype(np.float32)
    return Points(
        scores,
        ratios=np.array([0.5, 0.3, 0.1, 0.05]),
        states=states,
        sketch=pd.DataFrame({"name": ["<v>"], "cluster": [0], "pc1": [0.0], "pc2": [0.0]}),
        title="a </script> b",
    )


def rendered(points):
    """Return maps that say which latent they are of."""

    def volumes(latents):
        for latent in latents:
            volume = np.zeros((4, 4, 4), dtype=np.float32)
            volume.ravel()[:4] = latent
            yield volume

    return Render(points.scores, volumes, 2.5)


def run(folder, points, options, *, render=True, more=lambda results: None):
    with ResultsFolder.open(folder, command="map", inputs={"n": 1}) as results:
        results.stage("assignment", parameters={}, build=lambda work: _particles(work, points))
        energy = energy_stage(results, points, options, after=("assignment",))
        path = path_stage(
            results,
            Progress(quiet=True),
            energy,
            render=rendered(points) if render else None,
        )
        energy_pictures_stage(results, energy, path)
        more(results)
    return energy, path


def _particles(work, points):
    """Write what emhet map leaves: rows that begin at 10, of a file of more particles."""
    (work / "results.zarr").mkdir()
    save_group(
        work / "results.zarr" / "scores",
        xr.Dataset({"particle_scores": (("particle", "component"), points.scores)}),
    )
    save_group(
        work / "results.zarr" / "particles",
        xr.Dataset(
            {
                "particle_index": (("particle",), np.arange(N) + 10),
                "particle_state": (("particle",), points.states.astype(np.int32)),
            }
        ),
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("energy") / "full"
    points = points_of()
    energy, path = run(folder, points, EnergyOptions(path_maps=5))
    return folder, points, energy, path


def test_what_is_written(full):
    folder, points, energy, path = full
    basins = pd.read_csv(folder / "basins.csv")
    assert basins.columns.tolist() == [
        *("basin", "particles", "share", "pc1", "pc2", "free_energy_kT", "error_kT"),
        *("depth_kT", "depth_error_kT"),
    ]
    assert len(basins) == 3
    np.testing.assert_allclose(basins[["pc1", "pc2"]], CENTRES[:, :2], atol=0.7)
    saddles = pd.read_csv(folder / "saddles.csv")
    assert {"barrier_from_a_kT", "barrier_error_b_kT"} <= set(saddles.columns)
    with np.load(folder / "landscape.npz") as found:
        assert found["axes"].tolist() == [1, 2]
        shape = (len(found["edges_1"]) - 1, len(found["edges_2"]) - 1)
        for name in ("density", "free_energy", "error", "basin", "weight"):
            assert found[name].shape == shape, name
        inside = np.histogram2d(*points.scores[:, :2].T, [found["edges_1"], found["edges_2"]])[0]
        np.testing.assert_array_equal(found["weight"], inside)
    labels = load_group(folder / "results.zarr" / "energy")["particle_basin"].values
    assert (labels == points.states).mean() > 0.95
    assert (folder / "landscape.png").read_bytes().startswith(b"\x89PNG")
    assert "3 basins over PC1 and PC2; from basin 0 to 1 it is" in energy.sentence()
    assert read_run(folder).stages["energy"].summary["basins"] == 3
    assert len(energy_sections(folder, energy, path)) == 2


def test_maps_along_the_path_are_of_particles_near_it(full):
    folder, points, _, path = full
    frames = pd.read_csv(folder / "paths" / "path_0_1" / "frames.csv")
    assert len(frames) == 5
    np.testing.assert_allclose(np.diff(frames["length"]), frames["length"].iloc[-1] / 4, rtol=1e-4)
    for frame, row in zip(frames["frame"], frames["particle"], strict=True):
        header = read_header(folder / "paths" / "path_0_1" / f"vol_{frame:03d}.mrc")
        assert header.voxel_size_angstrom == 2.5
        np.testing.assert_array_equal(read_volume(header).ravel()[:4], points.scores[row])
    away = frames[["pc1", "pc2"]].to_numpy() - frames[["particle_pc1", "particle_pc2"]].to_numpy()
    assert np.abs(away).max() < 1.0
    script = (folder / "paths" / "path_0_1" / "open.cxc").read_text()
    assert "open vol_*.mrc vseries true" in script
    assert path.ends == ("basin 0", "basin 1")


def test_the_page_holds_everything_and_no_text_breaks_out(full):
    folder, *_ = full
    page = (folder / "landscape.html").read_text()
    assert "a &lt;/script&gt; b" in page
    assert "a </script> b" not in page
    assert '"axes": ["PC1", "PC2"]' in page
    assert "Save region" in page
    assert "%" + "FACTS%" not in page
    # Nothing is fetched.
    assert '<script src="http' not in page
    assert "of which 3,000 are drawn" in page


def test_again_is_done_before_and_gives_the_same(full, tmp_path):
    folder, points, energy, _ = full
    before = (folder / "landscape.npz").stat().st_mtime_ns
    run(folder, points, EnergyOptions(path_maps=5))
    assert (folder / "landscape.npz").stat().st_mtime_ns == before
    again, _ = run(tmp_path / "other", points, EnergyOptions(path_maps=5))
    np.testing.assert_array_equal(again.landscape.error, energy.landscape.error)
    for name in ("basins.csv", "paths/path_0_1/frames.csv", "landscape.png"):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes(), name


def test_other_ends_and_three_axes(tmp_path):
    points = points_of(1)
    options = EnergyOptions(axes=(1, 2, 3), path="state:0-2", path_maps=3, n_bootstrap=10)
    energy, path = run(tmp_path / "full", points, options, render=False)
    assert path.ends == ("state 0", "state 2")
    folder = tmp_path / "full" / "paths" / "path_state_0_state_2"
    assert sorted(file.name for file in folder.iterdir()) == ["frames.csv", "profile.csv"]
    ends = path.profile[["pc1", "pc2", "pc3"]].iloc[[0, -1]].to_numpy()
    np.testing.assert_allclose(ends, CENTRES[[0, 2], :3], atol=1.0)
    assert len(energy.landscape.grid.shape) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("0-7", "--path: 0-7, but there is no basin 7; there is 0 to 2"),
        ("state:9-0", "--path: state:9-0, but there is no state 9; there is 0 to 2"),
        ("1-1", "expected two different basins"),
    ],
)
def test_ends_that_are_none(tmp_path, path, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "full", points_of(), EnergyOptions(path=path, n_bootstrap=10))


def test_one_basin_has_no_path_and_volumes_have_weights(tmp_path):
    rng = np.random.default_rng(3)
    points = Points(
        rng.standard_normal((800, 2)), weights=rng.integers(1, 9, 800), noun="volume", title="maps"
    )
    with ResultsFolder.open(tmp_path / "v", command="landscape", inputs={"n": 1}) as results:
        results.stage("pca", parameters={}, build=lambda work: (work / "x").write_text("") and None)
        options = EnergyOptions(n_bootstrap=10)
        energy = energy_stage(results, points, options, after=("pca",))
        path = path_stage(results, Progress(quiet=True), energy, render=None)
        energy_pictures_stage(results, energy, path)
    assert path is None
    assert energy.sentence().startswith("One basin over PC1 and PC2")
    table = pd.read_csv(tmp_path / "v" / "basins.csv")
    assert table["particles"].sum() == pytest.approx(points.weights.sum(), rel=0.04)
    assert "volume_basin" in load_group(tmp_path / "v" / "results.zarr" / "energy")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"axes": "1"}, "--axes: got '1', expected two or three different components"),
        ({"axes": "1,1"}, "--axes: got '1,1'"),
        ({"axes": (0, 1)}, r"--axes: got \(0, 1\)"),
        ({"path": "0"}, "--path: got '0', expected 0-1"),
        ({"density": "kde"}, "--density: got 'kde', expected one of kernel, histogram"),
    ],
)
def test_options_that_are_wrong(given, message):
    with pytest.raises(InputError, match=message):
        EnergyChoices(**given)


def test_components_that_are_not_there():
    with pytest.raises(InputError, match="--axes: got 1,5, but there are 4 components"):
        EnergyOptions.of(EnergyChoices(axes="1,5"), seed=0).refuse_early(4)


# Selection ----------------------------------------------------------------------------------------


def star_of(path, n):
    rows = "\n".join(f"{row + 1:06d}@p.mrcs 1" for row in range(n))
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 2.0\n\n"
        f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n{rows}\n"
    )
    return str(path)


def test_basins_as_files_of_every_kind(full, tmp_path):
    folder, *_ = full
    labels = load_group(folder / "results.zarr" / "energy")["particle_basin"].values
    rows = np.flatnonzero(np.isin(labels, [1, 2])) + 10
    given = {"basin": "1,2", "particles": star_of(tmp_path / "p.star", N + 10)}
    done = emhet_dask.select(str(folder), output=str(tmp_path / "b.star"), **given)
    assert done.describe() == f"{tmp_path / 'b.star'}: {len(rows)} particles"
    names = read_particles(tmp_path / "b.star").particles["rlnImageName"]
    assert names.tolist() == [f"{row + 1:06d}@p.mrcs" for row in rows]
    for name in ("b.pkl", "b.txt", "b.csv"):
        emhet_dask.select(str(folder), output=str(tmp_path / name), **given)
    np.testing.assert_array_equal(read_indices(tmp_path / "b.pkl"), rows)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "b.txt", dtype=int), rows)
    table = pd.read_csv(tmp_path / "b.csv")
    assert table["index"].tolist() == rows.tolist()
    assert set(table["basin"]) == {1, 2}


def test_a_region_and_states(full, tmp_path):
    folder, points, *_ = full
    (tmp_path / "r.json").write_text(
        json.dumps({"axes": ["PC2", "PC1"], "vertices": [[-9, 0], [9, 0], [9, 9], [-9, 9]]})
    )
    output = str(tmp_path / "i.pkl")
    emhet_dask.select(str(folder), region=str(tmp_path / "r.json"), output=output)
    right = np.flatnonzero((points.scores[:, 0] >= 0) & (np.abs(points.scores[:, 1]) < 9)) + 10
    np.testing.assert_array_equal(read_indices(output), right)
    emhet_dask.select(str(folder), clusters="2", output=output, overwrite=True)
    np.testing.assert_array_equal(read_indices(output), np.flatnonzero(points.states == 2) + 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basin": "3"}, "--basin: .*full has no basin 3; it has 0 to 2"),
        ({"clusters": "5"}, "--clusters: .*full has no state 5; it has 0 to 2"),
        ({"basin": "0", "clusters": "1"}, "got --clusters and --basin, expected one"),
        ({"block": "1"}, "--block or --state: .*full is a map of particles; expected --clusters"),
        ({"clusters": "1", "exclude_outliers": True}, "--exclude-outliers: .*is a map of part"),
        ({"region": "far.json"}, "far.json: no point lies in it over PC1 and PC2"),
        ({"region": "fifth.json"}, "fifth.json is over PC5, but there are 4 components"),
        (
            {"basin": "0", "output": "b.star"},
            r"b\.star: the particle file is not known; give --par",
        ),
        ({"basin": "0", "output": "b.mrc"}, "b.mrc ends in '.mrc', expected .star"),
        ({"basin": "0", "output": "b.star", "particles": "short.star"}, "short.star: 30 particles"),
        ({"basin": "0", "output": "b.cs", "particles": "short.star"}, "a name ending in .star"),
    ],
)
def test_what_cannot_be_selected(full, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far.json").write_text("[[90, 90], [91, 90], [90, 91]]")
    (tmp_path / "fifth.json").write_text('{"axes": [1, 5], "vertices": [[0, 0], [1, 0], [0, 1]]}')
    star_of(tmp_path / "short.star", 30)
    with pytest.raises(InputError, match=message) as refused:
        emhet_dask.select(str(full[0]), **{"output": "b.pkl", **options})
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("b.*"))


def test_a_region_of_a_landscape_selects_volumes(tmp_path):
    folder = tmp_path / "landscape"
    (folder / "clusters").mkdir(parents=True)
    (folder / "results.zarr").mkdir()
    scores = np.array([[0.0, 0.0], [5.0, 5.0], [0.2, 0.1]])
    save_group(
        folder / "results.zarr" / "pca", xr.Dataset({"scores": (("volume", "component"), scores)})
    )
    pd.DataFrame(
        {"volume": [0, 3, 4], "name": ["a", "b", "c"], "cluster": 0, "outlier": [0, 0, 1]}
    ).to_csv(folder / "clusters" / "cluster_labels.csv", index=False)
    (tmp_path / "r.csv").write_text("pc1,pc2\n-1,-1\n1,-1\n1,1\n-1,1\n")
    given = {"region": str(tmp_path / "r.csv"), "output": str(tmp_path / "v.txt")}
    emhet_dask.select(str(folder), **given)
    assert (tmp_path / "v.txt").read_text() == "a\nc\n"
    emhet_dask.select(str(folder), exclude_outliers=True, overwrite=True, **given)
    assert (tmp_path / "v.txt").read_text() == "a\n"
    with pytest.raises(InputError, match=r"--basin: .*landscape holds no mapped particles"):
        emhet_dask.select(str(folder), basin="0", output=str(tmp_path / "x.txt"))
