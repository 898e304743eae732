"""Similarity: the right numbers, the files that scripts rely on, names, re-cuts, bad input."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map
from emhet_dask.workflows.stages import pair_tree, pairs

N, BOX, APIX = 40, 24, 8.0


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """Maps of a few states, their store, and the comparison of all."""
    folder = tmp_path_factory.mktemp("similarity")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=24.0, subunits=4,
        seed=5, cluster=client, quiet=True,
    )  # fmt: skip
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        cluster=client,
        quiet=True,
    )
    found = emhet_dask.similarity(
        str(folder / "e.zarr"), output=str(folder / "out"), cluster=client, quiet=True
    )
    return folder, simulated.truth, found


@pytest.fixture
def similarity(client):
    def run(*arguments, **options):
        return emhet_dask.similarity(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


@pytest.fixture
def few(tmp_path):
    """Five maps in a folder, two of them nearly alike."""
    folder = tmp_path / "few"
    folder.mkdir()
    rng = np.random.default_rng(0)
    blobs = rng.random((5, 16, 16, 16)).astype(np.float32) ** 4
    blobs[1] = blobs[0] + 0.05 * rng.random((16, 16, 16), dtype=np.float32)
    for number, blob in enumerate(blobs):
        write_map(folder / f"class{number}.mrc", blob, voxel_size_angstrom=4.0)
    return folder, blobs


def masked(out, volumes):
    with mrcfile.open(out / "mask.mrc") as mask:
        return volumes[:, mask.data > 0].astype(np.float64)


def volumes_of(folder):
    paths = sorted((folder / "maps").glob("vol_*.mrc"))
    return np.stack([read_volume(read_header(path)) for path in paths])


def test_the_files_that_scripts_rely_on(made):
    out = made[0] / "out"
    for name in (
        "similarity.zarr/zarr.json", "similarity_matrix.csv", "similarity_matrix_heatmap.png",
        "dendrogram.png", "cluster_results.csv", "cluster_000_mean.mrc", "cluster_000_3d.png",
        "nearest_maps.csv", "clusters.csv", "evidence.json", "linkage.npy", "mask.mrc",
        "report.html", "open.cxc", "run.json", "figures/histogram.png", "figures/surfaces.png",
        "figures/cluster_000_members.png",
    ):  # fmt: skip
        assert (out / name).exists(), name


def test_correlations_are_those_of_numpy(made):
    folder, _, found = made
    expected = np.corrcoef(masked(folder / "out", volumes_of(folder)))
    table = pd.read_csv(folder / "out/similarity_matrix.csv", index_col=0)
    assert list(table.index) == list(table.columns)
    assert table.index[3] == "vol_00003"
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-5)
    stored = found.pairs["similarity"].values
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    np.testing.assert_array_equal(stored, stored.T)
    assert (np.diag(stored) == 1).all()


def test_the_tree_is_that_of_scipy(made):
    folder, truth, found = made
    distances = 1 - np.corrcoef(masked(folder / "out", volumes_of(folder)))
    condensed = squareform(distances, checks=False)
    expected = hierarchy.linkage(condensed, "average")
    np.testing.assert_allclose(np.load(folder / "out/linkage.npy")[:, 2], expected[:, 2], atol=1e-5)
    assert found.evidence["cophenetic_correlation"] == pytest.approx(
        hierarchy.cophenet(expected, condensed)[0], abs=1e-3
    )
    assert adjusted_rand_score(truth["state"], found.labels) > 0.99
    assert found.evidence["separate_states"] is True


def test_nearest_maps_are_listed_best_first(made):
    folder = made[0]
    matrix = np.corrcoef(masked(folder / "out", volumes_of(folder)))
    np.fill_diagonal(matrix, -2)
    table = pd.read_csv(folder / "out/nearest_maps.csv")
    assert len(table) == 10 * N
    for volume, rows in table.groupby("volume"):
        best = matrix[volume, rows["nearest_volume"].to_numpy()]
        np.testing.assert_allclose(rows["value"], best, atol=1e-5)
        np.testing.assert_allclose(best, np.sort(matrix[volume])[::-1][:10], atol=1e-5)


def test_the_histogram_counts_every_pair_once(made):
    assert made[2].pairs["histogram"].values.sum() == N * (N - 1) // 2


def test_the_same_command_again_changes_nothing(made, similarity):
    folder = made[0]
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    again = similarity(str(folder / "e.zarr"), output=str(folder / "out"))
    np.testing.assert_array_equal(again.labels, made[2].labels)
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.mrc")} == {
        path: stamp for path, stamp in before.items() if path.suffix == ".mrc"
    }


def test_other_cuts_leave_pairs_alone(made, similarity, tmp_path):
    store, out = str(made[0] / "e.zarr"), tmp_path / "out"
    first = similarity(store, output=str(out), n_clusters=2)
    chunks = [path for path in (out / "similarity.zarr").rglob("*") if path.is_file()]
    stamps = [path.stat().st_mtime_ns for path in chunks]
    assert (len(first.clusters), first.evidence["chosen"]) == (2, "by --n-clusters")
    height = float(np.load(out / "linkage.npy")[-2, 2])
    second = similarity(store, output=str(out), distance=height * 0.999)
    assert len(second.clusters) == 3
    third = similarity(store, output=str(out), linkage="ward", n_clusters=2)
    assert third.evidence["linkage"] == "ward"
    assert [path.stat().st_mtime_ns for path in chunks] == stamps
    assert not (out / "cluster_002_mean.mrc").exists()


def test_ward_is_on_the_euclidean_distance(made, similarity, tmp_path):
    folder = made[0]
    similarity(str(folder / "e.zarr"), output=str(tmp_path / "out"), linkage="ward", mask="none")
    rows = volumes_of(folder).reshape(N, -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = hierarchy.linkage(rows, "ward")
    found = np.load(tmp_path / "out/linkage.npy")
    np.testing.assert_allclose(found[:, 2], expected[:, 2], rtol=1e-3, atol=1e-3)


def test_l2_is_the_distance_inside_the_mask(made, similarity, tmp_path):
    folder = made[0]
    found = similarity(str(folder / "e.zarr"), output=str(tmp_path / "out"), metric="l2")
    expected = squareform(pdist(masked(tmp_path / "out", volumes_of(folder))))
    scale = expected.max()
    np.testing.assert_allclose(found.pairs["similarity"].values, expected, atol=2e-3 * scale)


def fsc(a, b):
    """Shells 1 to Nyquist, summed over the whole transform."""
    n = len(a)
    frequency = np.fft.fftfreq(n, 1 / n)
    radius = np.sqrt(sum(np.square(each) for each in np.meshgrid(*[frequency] * 3)))
    shell = np.rint(radius).astype(int)
    f, g = np.fft.fftn(a), np.fft.fftn(b)

    def sums(values):
        return np.bincount(shell.ravel(), values.ravel())[1 : n // 2 + 1]

    cross = sums((f * g.conj()).real)
    return cross / np.sqrt(sums(np.abs(f) ** 2) * sums(np.abs(g) ** 2))


def test_fourier_shells(few, similarity, tmp_path):
    folder, blobs = few
    mean = similarity(
        str(folder), output=str(tmp_path / "mean"), metric="fsc-mean", mask="none", resolution=16.0
    )
    expected = [[fsc(a, b)[:4].mean() for b in blobs] for a in blobs]  # 64 Å / 16 Å is shell 4
    np.testing.assert_allclose(mean.pairs["similarity"].values, expected, atol=1e-5)
    curve = fsc(blobs[0], blobs[1])
    threshold = float(curve[0] + curve.min()) / 2
    reach = similarity(
        str(folder), output=str(tmp_path / "reach"), metric="fsc-resolution", mask="none",
        fsc_threshold=threshold,
    )  # fmt: skip
    last = int(np.argmax(curve < threshold))
    assert last > 0
    shell = last + (curve[last - 1] - threshold) / (curve[last - 1] - curve[last])
    assert reach.pairs["similarity"].values[0, 1] == pytest.approx(64.0 / shell, rel=1e-3)
    assert reach.pairs["similarity"].values[0, 0] == 8.0  # Nyquist


def test_a_folder_with_names(few, similarity, tmp_path):
    folder, _ = few
    rows = "\n".join(f"class{number}{'.mrc' * (number % 2)},Class {number}" for number in range(5))
    (folder / "names.csv").write_text(f"original_filename,customname_1\n{rows}\n")
    similarity(str(folder), output=str(tmp_path / "out"), n_clusters=4)
    table = pd.read_csv(tmp_path / "out/cluster_results.csv")
    assert list(table.columns) == ["Custom_Name", "Cluster_Label"]
    assert table["Custom_Name"].tolist() == [f"Class {number}" for number in range(5)]
    labels = table["Cluster_Label"]
    assert labels[0] == labels[1] == 0
    assert sorted(labels[2:]) == [1, 2, 3]
    assert "Class 3" in pd.read_csv(tmp_path / "out/similarity_matrix.csv").columns


def test_names_for_a_store(made, similarity, tmp_path):
    rows = "\n".join(f"vol_{number:05d},state {number}" for number in range(N))
    (tmp_path / "n.csv").write_text(f"original_filename,custom_name\n{rows}\n")
    out = tmp_path / "out"
    similarity(str(made[0] / "e.zarr"), output=str(out), names=str(tmp_path / "n.csv"))
    assert pd.read_csv(out / "cluster_results.csv")["Custom_Name"][7] == "state 7"


def test_one_map_against_all(made, similarity, tmp_path):
    folder = made[0]
    reference = folder / "maps" / "vol_00006.mrc"
    for metric in ("correlation", "fsc-mean"):
        out = tmp_path / metric
        found = similarity(
            str(folder / "e.zarr"), output=str(out), metric=metric, reference=str(reference)
        )
        table = pd.read_csv(out / "reference.csv")
        assert table["volume"][0] == 6
        assert table["value"].is_monotonic_decreasing
        expected = found.pairs["similarity"].values[6, table["volume"]]
        np.testing.assert_allclose(table["value"], expected, atol=1e-5)
        assert (out / "figures/reference.png").is_file()


def test_a_constant_map_is_in_no_cluster(few, similarity, tmp_path):
    folder, blobs = few
    flat = blobs[4].copy()
    flat[4:12, 4:12, 4:12] = 0.5
    write_map(folder / "class4.mrc", flat, voxel_size_angstrom=4.0)
    mask = np.zeros((16, 16, 16), dtype=np.float32)
    mask[4:12, 4:12, 4:12] = 1
    write_map(tmp_path / "mask.mrc", mask, voxel_size_angstrom=4.0)
    out = tmp_path / "out"
    found = similarity(str(folder), output=str(out), mask=str(tmp_path / "mask.mrc"))
    assert "constant inside the mask, so that nothing is like it: class4" in found.describe()
    assert np.isnan(found.pairs["similarity"].values[4]).all()
    assert np.isfinite(found.pairs["similarity"].values[:4, :4]).all()
    assert found.labels[4] == -1
    assert (found.labels[:4] >= 0).all()
    assert "class4: constant inside the mask" in (out / "report.html").read_text()


def test_a_mask_in_which_hardly_a_map_varies(few, similarity, tmp_path):
    folder, _ = few
    mask = np.zeros((16, 16, 16), dtype=np.float32)
    mask[4, 4, 4] = 1
    write_map(tmp_path / "mask.mrc", mask, voxel_size_angstrom=4.0)
    with pytest.raises(InputError, match="--mask: all but 0 of 5 maps are constant inside it"):
        similarity(str(folder), output=str(tmp_path / "out"), mask=str(tmp_path / "mask.mrc"))


def test_a_reference_leaves_nothing_behind(made, similarity, tmp_path):
    store, out = str(made[0] / "e.zarr"), tmp_path / "out"
    similarity(store, output=str(out), reference=str(made[0] / "maps/vol_00001.mrc"))
    assert (out / "reference.csv").is_file()
    similarity(store, output=str(out))
    assert not (out / "reference.csv").exists()
    assert not (out / "figures/reference.png").exists()


def test_a_reference_that_is_constant(made, similarity, tmp_path):
    flat = np.ones((BOX, BOX, BOX), dtype=np.float32)
    write_map(tmp_path / "flat.mrc", flat, voxel_size_angstrom=APIX)
    with pytest.raises(InputError, match=r"flat\.mrc: is constant inside the mask"):
        similarity(
            str(made[0] / "e.zarr"),
            output=str(tmp_path / "out"),
            reference=str(tmp_path / "flat.mrc"),
        )


def test_names_that_other_programs_stumble_over(few, similarity, tmp_path):
    folder, _ = few
    given = ["NA", "a$_b^$x", "null", "Ünïcode", "with, comma"]
    rows = "\n".join(f'class{number}.mrc,"{name}",' for number, name in enumerate(given))
    (folder / "names.csv").write_text(f"original_filename,custom_name\n{rows}\n", encoding="utf-8")
    (folder / "junk.csv").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "out"
    similarity(str(folder), output=str(out), reference=str(folder / "class3.mrc"))
    table = pd.read_csv(out / "cluster_results.csv", keep_default_na=False)
    assert table["Custom_Name"].tolist() == given
    ranked = pd.read_csv(out / "reference.csv", keep_default_na=False)
    assert ranked["name"][0] == "Ünïcode"


def test_several_sources_from_python(few, similarity, tmp_path):
    folder, _ = few
    paths = [folder / f"class{number}.mrc" for number in range(3)]
    found = similarity(paths, output=str(tmp_path / "out"))
    assert len(found.labels) == 3
    assert "too few to tell states" in found.describe()


def test_a_tree_that_divides_maps_otherwise_shows_no_states(made, similarity, tmp_path):
    # Pairs that are alike to the last shell all merge at one height.
    found = similarity(
        str(made[0] / "e.zarr"), output=str(tmp_path / "out"), metric="fsc-resolution",
        fsc_threshold=0.01,
    )  # fmt: skip
    assert found.evidence["separate_states"] is False
    assert "this tree divides the maps otherwise" in found.evidence["reason"]


def test_more_maps_than_an_exact_tree_may_have(made, similarity, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MOST_WITH_MATRIX", 20)
    monkeypatch.setattr(pair_tree, "MOST_WITH_MATRIX", 20)
    folder, truth, exact = made
    out = tmp_path / "out"
    found = similarity(str(folder / "e.zarr"), output=str(out))
    assert "similarity" not in found.pairs
    assert not (out / "similarity_matrix.csv").exists()
    np.testing.assert_array_equal(found.pairs["histogram"], exact.pairs["histogram"])
    np.testing.assert_array_equal(found.pairs["neighbour"], exact.pairs["neighbour"])
    assert found.evidence["exact_tree"] is False
    assert found.evidence["agreement_with_exact"] > 0.99
    assert found.evidence["compared_maps"] == N
    assert adjusted_rand_score(truth["state"], found.labels) > 0.99
    # Heights are on the scale of the exact tree: means are of distances, not of their squares.
    heights = np.load(out / "linkage.npy")[-3:, 2]
    np.testing.assert_allclose(heights, np.load(folder / "out/linkage.npy")[-3:, 2], rtol=0.2)
    assert (out / "similarity_matrix_heatmap.png").is_file()
    whole = similarity(str(folder / "e.zarr"), output=str(tmp_path / "whole"), full_matrix=True)
    np.testing.assert_array_equal(whole.pairs["similarity"], exact.pairs["similarity"])


def test_the_evidence_is_written(made):
    evidence = json.loads((made[0] / "out/evidence.json").read_text())
    assert evidence["n_clusters"] == len(made[2].clusters) == made[1]["state"].nunique()
    assert evidence["exact_tree"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linkage": "ward", "metric": "fsc-mean"}, "--linkage ward: needs a distance as in space"),
        ({"distance": 0.1, "n_clusters": 3}, "--distance: --n-clusters says where to cut"),
        ({"resolution": 8.0}, "--resolution: correlation compares densities"),
        ({"hand": True}, "--hand: is of --align-to"),
        ({"align_to": "99"}, "--align-to 99: no such volume; there are 0 to 39"),
        ({"align_to": "nothere.mrc"}, r"--align-to nothere\.mrc: no such file"),
        ({"n_clusters": 41}, "--n-clusters: got 41, expected at most 40 for 40 maps"),
        ({"box": 16}, "--box: .* is a store, whose maps are ingested already"),
        ({"metric": "cosine"}, "--metric: got 'cosine', expected one of correlation, l2"),
        ({"mask": "nothere.mrc"}, "--mask: no file nothere.mrc"),
        ({"reference": "nothere.mrc"}, "nothere.mrc: no such file"),
        ({"names": "nothere.csv"}, "nothere.csv: no such file"),
    ],
)
def test_options_that_cannot_be_used(made, similarity, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        similarity(str(made[0] / "e.zarr"), output=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out/similarity.zarr").exists()


def test_one_map_only(few, similarity, tmp_path):
    folder, _ = few
    for number in range(1, 5):
        (folder / f"class{number}.mrc").unlink()
    with pytest.raises(InputError, match="one map, expected at least 2 to compare"):
        similarity(str(folder), output=str(tmp_path / "out"))


def test_maps_of_other_boxes_or_voxel_sizes(few, similarity, tmp_path):
    folder, blobs = few
    write_map(folder / "class9.mrc", blobs[0][:8, :8, :8], voxel_size_angstrom=8.0)
    with pytest.raises(InputError, match="--box"):
        similarity(str(folder), output=str(tmp_path / "out"))
    write_map(folder / "class9.mrc", blobs[0], voxel_size_angstrom=5.0)
    with pytest.raises(InputError, match=r"class9\.mrc.*5 Å|5 Å.*class9\.mrc"):
        similarity(str(folder), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("class0,a\nclass1,b\nclass2,c\nclass3,d\n", "class4"),
        ("class0,a\nclass1,b\nclass2,c\nclass3,d\nclass4,e\nclass4,f\n", "class4"),
        ("class0,a\nclass1,b\nclass2,c\nclass3,d\nclass4,d\n", "'d' is given to more than one"),
    ],
)
def test_names_that_do_not_fit(few, similarity, tmp_path, rows, message):
    (few[0] / "names.csv").write_text("original_filename,custom_name\n" + rows)
    with pytest.raises(InputError, match=message):
        similarity(str(few[0]), output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_two_csv_files_with_names(few, similarity, tmp_path):
    for name in ("a.csv", "b.csv"):
        (few[0] / name).write_text("original_filename,custom_name\nclass0,x\n")
    with pytest.raises(InputError, match=r"2 CSV files with names \(a\.csv, b\.csv\); say which"):
        similarity(str(few[0]), output=str(tmp_path / "out"))


def test_other_results_are_not_replaced(made, similarity):
    folder = made[0]
    with pytest.raises(InputError, match="add --overwrite"):
        similarity(str(folder / "e.zarr"), output=str(folder / "out"), mask="none")
    assert (folder / "out/cluster_results.csv").is_file()


@pytest.mark.shared_data
def test_classes_of_two_relion_jobs(shared_data, similarity, tmp_path):
    jobs = shared_data / "relion_project" / "Class3D" / "job08*"
    found = similarity(str(jobs), output=str(tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out/similarity_matrix.csv", index_col=0)
    assert table.shape == (7, 7)
    assert len(found.labels) == 7
    assert table.index[0].startswith("job085")
