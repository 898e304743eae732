"""A landscape is right in states, scores, maps and masks, and has the files scripts rely on."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from tests.workflows.landscape.conftest import APIX, BOX, N


def test_the_files_that_scripts_rely_on(made):
    out = made[0] / "out"
    for name in (
        "mask.mrc", "volume_pcs.csv", "explained_variance.csv", "linkage.npy", "report.html",
        "open.cxc", "run.json", "explore.ipynb", "results.zarr/zarr.json",
        "clusters/cluster_labels.csv", "clusters/evidence.json", "clusters/states.csv",
        "clusters/cluster_000_mean.mrc", "clusters/cluster_000_std.mrc",
        "clusters/cluster_000_particles.star", "clusters/cluster_000_particles.pkl",
        "pcs/pc1/vol_000.mrc", "pcs/pc5/vol_009.mrc",
    ):  # fmt: skip
        assert (out / name).exists(), name
    labels = pd.read_csv(out / "clusters" / "cluster_labels.csv")
    assert list(labels) == ["volume", "name", "cluster", "outlier"]
    assert len(labels) == N
    assert labels["cluster"].min() == 0
    assert list(pd.read_csv(out / "volume_pcs.csv"))[:3] == ["volume", "name", "pc1"]
    evidence = json.loads((out / "clusters" / "evidence.json").read_text())
    assert {"n_clusters", "separate_states", "reason"} <= set(evidence)
    leftovers = [path for path in out.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_the_planted_states_are_found(made):
    _, truth, found, _ = made
    assert found.separate_states
    assert adjusted_rand_score(truth["state"], found.labels) == 1.0


def test_maps_have_the_voxel_size_and_are_weighted_means(made):
    folder, _, found, labels = made
    weights = np.bincount(labels, minlength=N)
    maps = np.stack(
        [read_volume(read_header(folder / "maps" / f"vol_{n:05d}.mrc")) for n in range(N)]
    )
    members = found.labels == 0
    mean = np.average(maps[members], axis=0, weights=weights[members])
    deviation = np.sqrt(np.average((maps[members] - mean) ** 2, axis=0, weights=weights[members]))
    with mrcfile.open(folder / "out" / "clusters" / "cluster_000_mean.mrc") as opened:
        assert opened.voxel_size.x == pytest.approx(APIX)
        np.testing.assert_allclose(opened.data, mean, atol=1e-5)
    with mrcfile.open(folder / "out" / "clusters" / "cluster_000_std.mrc") as opened:
        np.testing.assert_allclose(opened.data, deviation, atol=1e-5)


def test_particles_of_a_state_are_those_of_its_volumes(made):
    folder, _, found, labels = made
    expected = np.flatnonzero(np.isin(labels, np.flatnonzero(found.labels == 1)))
    written = np.load(folder / "out" / "clusters" / "cluster_001_particles.pkl", allow_pickle=True)
    np.testing.assert_array_equal(np.asarray(written), expected)
    star = (folder / "out" / "clusters" / "cluster_001_particles.star").read_text()
    assert star.count("@stack.mrcs") == len(expected)
    assert "data_optics" in star
    assert found.states["particles"].sum() == len(labels)


def test_scores_equal_scikit_learns_on_the_same_voxels(made, landscape, tmp_path):
    folder = made[0]
    landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "plain"), normalize=False, weights=False
    )
    found = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "plain"), normalize=False, weights=False
    )
    matrix = found.group("matrix")["matrix"].values
    expected = PCA(20, svd_solver="full").fit_transform(matrix.astype(np.float64))
    scores = found.scores.values
    signs = np.sign(np.sum(scores * expected, axis=0))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores * signs, expected, atol=2e-4 * scale)


def test_clustering_on_voxels_equals_scikit_learns(made, landscape, tmp_path):
    from sklearn.cluster import AgglomerativeClustering

    folder = made[0]
    found = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "v"), feature="voxels", linkage="average",
        n_clusters=5, normalize=False, clip_negative=True, weights=False,
    )  # fmt: skip
    voxels = np.maximum(found.group("matrix")["matrix"].values, 0)
    expected = AgglomerativeClustering(5, linkage="average").fit_predict(voxels)
    assert adjusted_rand_score(expected, found.labels) == 1.0


def test_masks_from_files(made, landscape, tmp_path):
    folder, _, found, _ = made
    mask = found.group("mask")["mask"].values
    write_map(tmp_path / "same.mrc", mask, voxel_size_angstrom=APIX)
    same = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "same"), mask=str(tmp_path / "same.mrc")
    )
    np.testing.assert_array_equal(same.group("mask")["mask"].values, mask)
    fine = np.kron(mask, np.ones((2, 2, 2), np.float32))
    write_map(tmp_path / "fine.mrc", fine, voxel_size_angstrom=APIX / 2)
    finer = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "fine"), mask=str(tmp_path / "fine.mrc")
    )
    overlap = (finer.group("mask")["mask"].values > 0) & (mask > 0)
    assert overlap.sum() > 0.9 * (mask > 0).sum()
    none = landscape(str(folder / "e.zarr"), output=str(tmp_path / "none"), mask="none")
    assert none.group("matrix").sizes["voxel"] == BOX**3


def test_arrays_and_lists_of_options_work_from_python(landscape, tmp_path):
    from emhet_dask.analysis.simulation import simulate, transition_model

    model = transition_model(box=24, voxel_size_angstrom=8.0, resolution_angstrom=30.0, basins=2)
    data = simulate(model, 24, snr=20.0, seed=1)
    ensemble = emhet_dask.from_array(data["volumes"].values, voxel_size_angstrom=8.0)
    found = landscape(ensemble, output=str(tmp_path / "o"), n_clusters=2)
    assert adjusted_rand_score(data["state"], found.labels) == 1.0
    with pytest.raises(InputError, match="array in memory"):
        emhet_dask.export(str(tmp_path / "o"), output=str(tmp_path / "m"), quiet=True)


def test_junk_is_flagged_and_stops_nothing(landscape, tmp_path):
    from emhet_dask.analysis.simulation import simulate, transition_model

    model = transition_model(box=24, voxel_size_angstrom=8.0, resolution_angstrom=30.0, basins=2)
    volumes = simulate(model, 40, snr=20.0, seed=1)["volumes"].values.copy()
    volumes[7] *= -1  # inverted contrast
    volumes[11] *= 4  # another amplitude
    noise = np.random.default_rng(0).standard_normal(volumes[0].shape)
    volumes[23] = volumes.std() * noise
    ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=8.0)
    found = landscape(ensemble, output=str(tmp_path / "o"))
    assert {7, 11, 23} <= set(np.flatnonzero(found.group("clusters")["outlier"].values))
    assert found.group("clusters")["outlier"].values.sum() <= 4
    labels = pd.read_csv(tmp_path / "o" / "clusters" / "cluster_labels.csv")
    assert (labels["cluster"] >= 0).all()
    without = landscape(ensemble, output=str(tmp_path / "o"), exclude_outliers=True)
    state = int(without.labels[7])
    members = [n for n in np.flatnonzero(without.labels == state) if n not in (7, 11, 23)]
    if members:
        mean = read_volume(
            read_header(tmp_path / "o" / "clusters" / f"cluster_{state:03d}_mean.mrc")
        )
        np.testing.assert_allclose(mean, volumes[members].mean(axis=0), atol=1e-4)
