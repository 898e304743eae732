"""Landscape: the files that scripts rely on, the right states, re-cuts, resuming, bad input."""

import json
import subprocess
import sys

import mrcfile
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import read_header, read_volume, write_map

N, BOX, APIX = 60, 32, 6.0


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """An ensemble of four states with particles, and its landscape."""
    folder = tmp_path_factory.mktemp("landscape")
    simulated = emhet_dask.simulate_assembly(
        output=str(folder / "maps"), n=N, box=BOX, apix=APIX, resolution=24.0, subunits=4,
        seed=3, cluster=client, quiet=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(N), rng.integers(0, N, 4 * N)])
    np.save(folder / "labels.npy", labels)
    rows = "\n".join(f"{row + 1:06d}@stack.mrcs 1" for row in range(len(labels)))
    (folder / "particles.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
        f"{rows}\n\n"
    )
    emhet_dask.ingest(
        [str(folder / "maps" / "vol_*.mrc")],
        output=str(folder / "e.zarr"),
        labels=str(folder / "labels.npy"),
        particles=str(folder / "particles.star"),
        cluster=client,
        quiet=True,
    )
    found = emhet_dask.landscape(
        str(folder / "e.zarr"), output=str(folder / "out"), cluster=client, quiet=True
    )
    return folder, simulated.truth, found, labels


@pytest.fixture
def landscape(client):
    def run(*arguments, **options):
        return emhet_dask.landscape(*arguments, **{"cluster": client, "quiet": True, **options})

    return run


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


def test_particles_of_a_state_are_those_of_its_volumes(made):
    folder, _, found, labels = made
    expected = np.flatnonzero(np.isin(labels, np.flatnonzero(found.labels == 1)))
    written = np.load(folder / "out" / "clusters" / "cluster_001_particles.pkl", allow_pickle=True)
    np.testing.assert_array_equal(np.asarray(written), expected)
    star = (folder / "out" / "clusters" / "cluster_001_particles.star").read_text()
    assert star.count("@stack.mrcs") == len(expected)
    assert "data_optics" in star
    assert found.states["particles"].sum() == len(labels)


def test_the_same_call_again_finds_nothing_to_do(made, landscape, capsys):
    folder = made[0]
    before = snapshot(folder / "out")
    landscape(str(folder / "e.zarr"), output=str(folder / "out"), quiet=False)
    said = capsys.readouterr().err
    for stage in ("mask", "matrix", "pca", "trajectories", "tree", "clusters", "report"):
        assert f"{stage}: done before" in said
    assert snapshot(folder / "out") == before


def test_another_cut_keeps_mask_and_pca_and_the_earlier_cut(made, landscape, tmp_path):
    import shutil

    folder, _, found, _ = made
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    upstream = {p: t for p, t in snapshot(out).items() if p.startswith(("mask", "pcs"))}
    again = landscape(str(folder / "e.zarr"), output=str(out), n_clusters=3)
    assert again.n_clusters == 3
    assert again.evidence["chosen"] == "by --n-clusters"
    assert upstream.items() <= snapshot(out).items()
    kept = out / f"clusters_ward_{found.n_clusters}"
    assert len(pd.read_csv(kept / "states.csv")) == found.n_clusters
    assert not (out / "clusters" / "cluster_003_mean.mrc").exists()
    average = landscape(str(folder / "e.zarr"), output=str(out), n_clusters=3, linkage="average")
    assert average.evidence["linkage"] == "average"


def test_another_linkage_keeps_the_earlier_cuts(made, landscape, tmp_path):
    import shutil

    folder, _, found, _ = made
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    landscape(str(folder / "e.zarr"), output=str(out), linkage="average", n_clusters=3)
    landscape(str(folder / "e.zarr"), output=str(out), linkage="average", n_clusters=2)
    back = landscape(str(folder / "e.zarr"), output=str(out))
    np.testing.assert_array_equal(back.labels, found.labels)
    kept = {path.name for path in out.glob("clusters_*")}
    assert {"clusters_average_3", "clusters_average_2"} <= kept


def test_more_or_fewer_components_drawn_change_nothing_else(made, landscape, tmp_path):
    import shutil

    folder = made[0]
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    before = {p: t for p, t in snapshot(out).items() if p.startswith(("clusters/", "volume_pcs"))}
    landscape(str(folder / "e.zarr"), output=str(out), plot_dim=2)
    assert sorted(path.name for path in (out / "pcs").iterdir()) == ["pc1", "pc2"]
    assert before.items() <= snapshot(out).items()


def test_a_reused_mask_is_the_mask_soft_edge_and_all(made, landscape, tmp_path):
    folder = made[0]
    soft = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "soft"), cosine_edge=12.0, n_clusters=3
    )
    part = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "part"), keep=f"{tmp_path / 'soft'}:0,1"
    )
    mask = soft.group("mask")["mask"].values
    assert ((mask > 0) & (mask < 1)).any()
    np.testing.assert_array_equal(part.group("mask")["mask"].values, mask)
    with pytest.raises(InputError, match=r"--dilate: the mask of .* is reused as it is"):
        landscape(
            str(folder / "e.zarr"),
            output=str(tmp_path / "x"),
            keep=f"{tmp_path / 'soft'}:0,1",
            dilate=3.0,
        )


def test_names_that_look_like_numbers_are_names(landscape, tmp_path):
    rng = np.random.default_rng(0)
    volumes = np.zeros((8, 16, 16, 16), np.float32)
    volumes[:, 5:11, 5:11, 5:11] = 1 + 0.3 * rng.random((8, 6, 6, 6))
    names = [f"{number:03d}" for number in (5, 4, 3, 2, 1, 0, 6, 7)]
    ensemble = emhet_dask.from_array(volumes, voxel_size_angstrom=4.0, names=names)
    (tmp_path / "keep.csv").write_text("name\n003\n001\n000\n")
    part = landscape(ensemble, output=str(tmp_path / "p"), keep=str(tmp_path / "keep.csv"))
    assert part.group("pca")["volume_index"].values.tolist() == [2, 4, 5]
    again = landscape(ensemble, output=str(tmp_path / "q"), keep=f"{tmp_path / 'p'}:0")
    labels = pd.read_csv(tmp_path / "q" / "clusters" / "cluster_labels.csv", dtype={"name": str})
    assert set(labels["name"]) <= {"003", "001", "000"}
    assert len(again.labels) >= 2


def test_what_cannot_work_is_refused_before_anything_is_computed(
    made, landscape, tmp_path, monkeypatch
):
    folder = made[0]
    monkeypatch.setitem(sys.modules, "umap", None)
    before = snapshot(folder / "out")
    for options, message in (
        ({"umap": True}, r"--umap needs the package 'umap'.*emhet-dask\[umap\]"),
        ({"n_clusters": N + 1}, "--n-clusters"),
        ({"keep": f"{folder / 'out'}:0,1"}, "is the output itself"),
    ):
        with pytest.raises(InputError, match=message):
            landscape(str(folder / "e.zarr"), output=str(folder / "out"), **options)
        assert snapshot(folder / "out") == before
    with pytest.raises(InputError, match="--umap"):
        landscape(str(folder / "e.zarr"), output=str(tmp_path / "new"), umap=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_same_bits_on_threads_and_on_processes(made, tmp_path):
    folder, _, found, _ = made
    other = emhet_dask.landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "o"), cluster="local:2", quiet=True
    )
    for group in ("mask", "matrix", "pca", "tree", "clusters"):
        for name, expected in found.group(group).items():
            np.testing.assert_array_equal(other.group(group)[name], expected, err_msg=name)


def test_other_upstream_settings_are_refused_and_nothing_is_lost(made, landscape):
    folder = made[0]
    before = snapshot(folder / "out")
    with pytest.raises(InputError, match="--overwrite") as refused:
        landscape(str(folder / "e.zarr"), output=str(folder / "out"), normalize=False)
    assert "normalize" in str(refused.value)
    assert snapshot(folder / "out") == before


def test_part_of_the_volumes_with_the_same_mask(made, landscape, tmp_path):
    folder, _, found, _ = made
    part = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "part"), keep=f"{folder / 'out'}:0,1"
    )
    labels = pd.read_csv(tmp_path / "part" / "clusters" / "cluster_labels.csv")
    assert labels["volume"].tolist() == np.flatnonzero(found.labels <= 1).tolist()
    np.testing.assert_array_equal(
        part.group("mask")["mask"].values, found.group("mask")["mask"].values
    )
    (tmp_path / "names.txt").write_text("vol_00003\nvol_00001\nvol_00002\nvol_00009\n")
    few = landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "few"), keep=str(tmp_path / "names.txt")
    )
    assert few.group("pca")["volume_index"].values.tolist() == [1, 2, 3, 9]


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


def bad_mask(folder, values, apix=APIX):
    write_map(folder / "bad.mrc", values, voxel_size_angstrom=apix)
    return str(folder / "bad.mrc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": N}, rf"--n-components: got {N}, expected at most {N - 1} for {N} vol"),
        ({"n_clusters": N + 1}, rf"--n-clusters: got {N + 1}, expected at most {N}"),
        ({"mask": "absent.mrc"}, "--mask: no file absent.mrc"),
        ({"threshold": 1e9}, "mask is empty: .* densities range from"),
        ({"threshold": -99.0}, "--threshold: -99 lies inside the noise.* expected something near"),
        ({"mask": "none", "dilate": 5}, "--dilate: --mask none is the whole box"),
        ({"keep": "0-99"}, f"--keep: no volume {N}; expected 0 to {N - 1}"),
        ({"keep": "one"}, "--keep: got 'one', expected volume numbers"),
        ({"keep": "4"}, "1 usable volume, expected at least 2"),
        ({"keep": "nowhere:0"}, "--keep: nowhere: .* expected a landscape folder"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing_behind(
    made, landscape, tmp_path, options, message
):
    with pytest.raises(InputError, match=message) as refused:
        landscape(str(made[0] / "e.zarr"), output=str(tmp_path / "new"), **options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new" / "report.html").exists()


def test_bad_options_leave_earlier_results_untouched(made, landscape):
    folder = made[0]
    before = snapshot(folder / "out")
    for options in ({"n_clusters": N + 1}, {"mask": "absent.mrc"}, {"keep": "0-99"}):
        with pytest.raises(InputError):
            landscape(str(folder / "e.zarr"), output=str(folder / "out"), **options)
    assert snapshot(folder / "out") == before


@pytest.mark.parametrize(
    ("shape", "apix", "value", "message"),
    [
        (BOX, APIX, 0.0, r"bad.mrc: the mask is empty at threshold 0.5: .* from 0 to 0"),
        (BOX, APIX, 0.2, r"range from 0 to 0.2; a threshold of 0.1"),
        (BOX, 2 * APIX, 1.0, r"384 Å, but the volumes are 192 Å; expected the same extent"),
        (BOX // 2, APIX, 1.0, r"96 Å, but the volumes are 192 Å"),
    ],
)
def test_masks_that_do_not_fit(made, landscape, tmp_path, shape, apix, value, message):
    values = np.zeros((shape,) * 3, np.float32)
    values[shape // 4 : shape // 2, shape // 4 : shape // 2, shape // 4 : shape // 2] = value
    with pytest.raises(InputError, match=message):
        landscape(
            str(made[0] / "e.zarr"),
            output=str(tmp_path / "o"),
            mask=bad_mask(tmp_path, values, apix),
        )


def test_arrays_and_lists_of_options_work_from_python(landscape, tmp_path):
    from emhet_dask.analysis.simulation import simulate, transition_model

    model = transition_model(box=24, voxel_size_angstrom=8.0, resolution_angstrom=30.0, basins=2)
    data = simulate(model, 24, snr=20.0, seed=1)
    ensemble = emhet_dask.from_array(data["volumes"].values, voxel_size_angstrom=8.0)
    found = landscape(ensemble, output=str(tmp_path / "o"), n_clusters=2)
    assert adjusted_rand_score(data["state"], found.labels) == 1.0
    with pytest.raises(InputError, match="array in memory"):
        emhet_dask.export(str(tmp_path / "o"), output=str(tmp_path / "m"), quiet=True)


def test_a_damaged_store_is_told_in_a_line(made, landscape, tmp_path):
    import shutil

    store = tmp_path / "e.zarr"
    shutil.copytree(made[0] / "e.zarr", store)
    shard = max(path for path in (store / "volumes" / "c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[1000] ^= 255
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged, c/\S+: a checksum is wrong; emhet info"):
        landscape(str(store), output=str(tmp_path / "o"))
    with pytest.raises(InputError, match=r"damaged, c/\S+: a checksum is wrong"):
        emhet_dask.export(str(store), output=str(tmp_path / "m"), quiet=True)
    shard.unlink()
    with pytest.raises(InputError, match=r"1 shards are missing, the first is shard volumes/c/"):
        landscape(str(store), output=str(tmp_path / "p"))


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


def test_select_writes_particles_and_volumes(made, tmp_path):
    folder, _, found, labels = made
    volumes = np.flatnonzero(np.isin(found.labels, [0, 2]))
    expected = np.flatnonzero(np.isin(labels, volumes))
    out = str(folder / "out")
    chosen = emhet_dask.select(out, clusters="0,2", output=str(tmp_path / "p.star"))
    assert chosen.n_particles == len(expected)
    assert (tmp_path / "p.star").read_text().count("@stack.mrcs") == len(expected)
    emhet_dask.select(out, clusters=[0, 2], output=str(tmp_path / "p.pkl"))
    written = np.load(tmp_path / "p.pkl", allow_pickle=True)
    np.testing.assert_array_equal(np.asarray(written), expected)
    emhet_dask.select(out, clusters=(0, 2), output=str(tmp_path / "v.csv"))
    assert pd.read_csv(tmp_path / "v.csv")["volume"].tolist() == volumes.tolist()
    emhet_dask.select(out, clusters=0, output=str(tmp_path / "v.txt"))
    assert (tmp_path / "v.txt").read_text().splitlines()[0].startswith("vol_")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": "77", "output": "a.star"}, "has no state 77; it has 0 to"),
        ({"clusters": "0", "output": "a.txtt"}, "ends in '.txtt', expected .star"),
        ({"clusters": "0", "output": "a.cs"}, "expected a name ending in .star"),
        ({"clusters": "zero", "output": "a.star"}, "--clusters: got 'zero'"),
    ],
)
def test_select_refuses(made, tmp_path, options, message):
    given = {**options, "output": str(tmp_path / options["output"])}
    with pytest.raises(InputError, match=message):
        emhet_dask.select(str(made[0] / "out"), **given)


def test_select_never_replaces_a_file_unasked(made, tmp_path):
    (tmp_path / "p.star").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        emhet_dask.select(str(made[0] / "out"), clusters="0", output=str(tmp_path / "p.star"))
    assert (tmp_path / "p.star").read_text() == "mine"


def test_export_gives_the_maps_back_a_folder_per_state(made, tmp_path, client):
    folder, _, found, _ = made
    exported = emhet_dask.export(
        str(folder / "out"), output=str(tmp_path / "m"), clusters="1", cluster=client, quiet=True
    )
    members = np.flatnonzero(found.labels == 1)
    assert exported.n_volumes == len(members)
    path = tmp_path / "m" / "cluster_001" / f"vol_{members[0]:05d}.mrc"
    original = read_volume(read_header(folder / "maps" / path.name))
    np.testing.assert_array_equal(read_volume(read_header(path)), original)
    assert read_header(path).voxel_size_angstrom == pytest.approx(APIX)
    emhet_dask.export(
        str(folder / "e.zarr"), output=str(tmp_path / "n"), volumes="3-5", cluster=client,
        quiet=True,
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == [
        f"vol_0000{n}.mrc" for n in (3, 4, 5)
    ]
    with pytest.raises(InputError, match="--volumes: no volume 60"):
        emhet_dask.export(
            str(folder / "e.zarr"), output=str(tmp_path / "x"), volumes="60", quiet=True
        )


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


KILLED_LANDSCAPE = """
import os, sys
import emhet_dask
import emhet_dask.workflows.landscape as workflow
from emhet_dask.runtime.results import ResultsFolder

stage, output, store = sys.argv[1:]
run = ResultsFolder.stage

def die(self, name, **options):
    build = options["build"]
    if name == stage:
        def half(workspace):
            build(workspace)
            os._exit(9)
        options["build"] = half
    return run(self, name, **options)

ResultsFolder.stage = die
emhet_dask.landscape(store, output=output, quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["mask", "matrix", "pca", "clusters", "report"])
def test_killed_in_any_stage_the_same_command_gives_the_same(made, landscape, tmp_path, stage):
    folder, _, found, _ = made
    out = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_LANDSCAPE, stage, str(out), str(folder / "e.zarr")],
        check=False,
    )
    assert killed.returncode == 9
    again = landscape(str(folder / "e.zarr"), output=str(out))
    for group in ("mask", "matrix", "pca", "tree", "clusters"):
        for name, expected in found.group(group).items():
            np.testing.assert_array_equal(again.group(group)[name], expected, err_msg=name)
    assert sorted(snapshot(out)) == sorted(snapshot(folder / "out"))
