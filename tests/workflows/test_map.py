"""Every particle on the landscape: the sketch's own coordinates, states, going on after a kill.

Most tests decode with a formula, so that they need neither cryoDRGN nor torch.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emhet_dask import ingest, landscape, open_ensemble
from emhet_dask import map as map_particles
from emhet_dask.errors import InputError
from emhet_dask.formats.cryodrgn import read_indices
from emhet_dask.workflows import map as workflow
from emhet_dask.workflows.stages import map_report
from tests.fake_run import write_run
from tests.smooth_run import BOX, SmoothModel, make_landscape, smooth_decoder_to_map

N = 200


def some_latents(seed=0):
    return np.random.default_rng(seed).standard_normal((N, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory, client):
    """A run, the landscape of 40 of its volumes, and all its particles mapped."""
    folder = tmp_path_factory.mktemp("map")
    run = write_run(folder / "run", some_latents())
    sketch = make_landscape(folder, run, client=client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "_decoder", smooth_decoder_to_map)
        found = map_particles(
            str(run), 3, landscape=str(sketch), output=str(folder / "full"), cluster=client,
            quiet=True, n_bootstrap=10,
        )  # fmt: skip
    return folder, found


def no_pictures(results, energy, path):
    results.stage("energy pictures", parameters={}, after=("energy",), build=lambda workspace: None,
                  replaceable=True)  # fmt: skip


@pytest.fixture
def call(made, tmp_path, client, monkeypatch):
    monkeypatch.setattr(workflow, "_decoder", smooth_decoder_to_map)
    # Pictures take longer than all else; those of `made` are drawn.
    monkeypatch.setattr(map_report, "save_all", lambda *_, **__: None)
    monkeypatch.setattr(workflow, "energy_pictures_stage", no_pictures)
    monkeypatch.setattr(workflow, "energy_sections", lambda *_: [])
    folder = made[0]

    def mapped(run=folder / "run", epoch=3, **options):
        options = {
            "landscape": str(folder / "landscape"),
            "output": str(tmp_path / "out"),
            "cluster": client,
            "quiet": True,
            "n_bootstrap": 10,
        } | options
        return map_particles(str(run), epoch, **options)

    return mapped


def sketch_of(folder):
    store = open_ensemble(str(folder / "e.zarr"))
    table = pd.read_csv(folder / "landscape" / "volume_pcs.csv")
    return store.dataset["decoded_particle"].values, table.filter(like="pc").to_numpy()


def test_the_files_that_scripts_rely_on(made):
    out = made[0] / "full"
    for name in (
        "particle_pcs.csv", "map.json", "run.json", "report.html", "explore.ipynb",
        "landscape.npz", "landscape.png", "landscape.html", "figures/particles_pc1_pc2.png",
        "figures/errors.png", "figures/confidence.png", "states/states.csv",
        "states/state_000_particles.pkl", "results.zarr/scores/zarr.json",
    ):  # fmt: skip
        assert (out / name).exists(), name
    table = pd.read_csv(out / "particle_pcs.csv")
    assert list(table) == [
        "particle", "index", "pc1", "pc2", "pc3", "pc4", "state", "confidence", "outlier"
    ]  # fmt: skip
    assert len(table) == N
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_particles_of_the_sketch_get_the_scores_of_the_sketch(made):
    folder, found = made
    particles, scores = sketch_of(folder)
    spread = scores.std(axis=0)
    np.testing.assert_array_less(np.abs(found.scores[particles] - scores) / spread, 1e-2)
    assert max(found.facts["error"]["sketch"]) < 1e-2
    assert max(found.facts["error"]["fourier"]) < 1e-3


def test_scores_are_those_of_volumes_read_out_by_hand(made):
    folder, found = made
    sketch = landscape_groups(folder)
    volume = next(SmoothModel().volumes(some_latents()[7:8]))
    row = volume.ravel()[sketch["voxel_index"]]
    # The amplitude by least squares over all volumes of the sketch, from their own factors.
    matrix, factor = sketch["matrix"], sketch["factor"]
    coefficients = np.linalg.lstsq(
        matrix @ matrix.T + 1e-9 * np.eye(len(matrix)), factor, rcond=None
    )[0]
    predicted = row @ (matrix.T @ coefficients)
    expected = (row / predicted - sketch["mean"]) @ sketch["components"].T
    np.testing.assert_allclose(
        found.scores[7], expected, atol=0.05 * found.scores.std(axis=0).max()
    )


def landscape_groups(folder):
    from emhet_dask.ensemble.groups import load_group
    from emhet_dask.ensemble.matrix import open_matrix

    pca = load_group(folder / "landscape" / "results.zarr" / "pca")
    matrix = open_matrix(str(folder / "landscape" / "results.zarr" / "matrix"))
    return {
        "matrix": matrix["matrix"].values.astype(np.float64),
        "voxel_index": matrix["voxel_index"].values,
        **{name: pca[name].values for name in ("mean", "components", "factor")},
    }


def test_a_full_decode_gives_the_same(made, call):
    found = call(full_decode=True)
    spread = found.scores.std(axis=0)
    np.testing.assert_array_less(np.abs(found.scores - made[1].scores) / spread, 1e-3)
    assert found.facts["read_out"] == "voxels"


@pytest.mark.parametrize(
    "options",
    [{"clip_negative": True}, {"normalize": False, "weights": False}, {"cosine_edge": 6.0}],
    ids=str,
)
def test_a_landscape_with_other_settings(made, call, tmp_path, client, options):
    folder = made[0]
    sketch = tmp_path / "other"
    landscape(
        str(folder / "e.zarr"), output=str(sketch), cluster=client, quiet=True, n_components=3,
        plot_dim=1, **options,
    )  # fmt: skip
    found = call(landscape=str(sketch))
    scores = pd.read_csv(sketch / "volume_pcs.csv").filter(like="pc").to_numpy()
    apart = np.abs(found.scores[sketch_of(folder)[0]] - scores) / scores.std(axis=0)
    np.testing.assert_array_less(apart, 2e-2)
    assert found.facts["read_out"] == ("voxels" if "clip_negative" in options else "fourier")


def test_states_of_the_sketch_are_those_of_its_particles(made):
    folder, found = made
    particles, _ = sketch_of(folder)
    labels = pd.read_csv(folder / "landscape" / "clusters" / "cluster_labels.csv")["cluster"]
    assert (found.states[particles] == labels).mean() > 0.95
    table = pd.read_csv(folder / "full" / "states" / "states.csv")
    assert table["particles"].sum() == N
    for state in table["cluster"]:
        rows = read_indices(folder / "full" / "states" / f"state_{state:03d}_particles.pkl")
        np.testing.assert_array_equal(rows, np.flatnonzero(found.states == state))


def test_a_sample_predicts_the_rest(made, call):
    exact = made[1].scores
    found = call(sample=80)
    decoded = found.group("particles")["particle_decoded"].values
    assert decoded.sum() == 80
    np.testing.assert_array_equal(found.scores[decoded], exact[decoded])
    # The median: what lies beyond the sample in every direction is predicted worse than claimed.
    error = np.median(np.abs(found.scores - exact)[~decoded], axis=0) / exact.std(axis=0)
    claimed = np.array(found.facts["error"]["regression"])
    assert (error < claimed).all()
    assert (claimed < 0.3).all()
    assert "predicted" in found.describe()
    assert "decoded" in pd.read_csv(found.folder / "particle_pcs.csv")


def test_the_same_call_again_decodes_nothing(made, call, monkeypatch):
    def fail(self, latents):
        raise AssertionError

    shutil.copytree(made[0] / "full", made[0] / "again")
    monkeypatch.setattr(SmoothModel, "volumes", fail)
    monkeypatch.setattr(SmoothModel, "fourier", fail)
    again = call(output=str(made[0] / "again"))
    np.testing.assert_array_equal(again.scores, made[1].scores)


def test_original_rows_and_the_particle_file(made, call, tmp_path):
    index = np.arange(0, 2 * N, 2)
    np.savetxt(tmp_path / "ind.txt", index, fmt="%d")
    rows = "\n".join(f"{row + 1:06d}@stack.mrcs 1" for row in range(2 * N))
    (tmp_path / "particles.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n"
        f"{rows}\n\n"
    )
    found = call(ind=str(tmp_path / "ind.txt"), particles=str(tmp_path / "particles.star"))
    assert found.group("particles").attrs["particle_file"].endswith("particles.star")
    assert (found.folder / "states" / "state_000_particles.star").is_file()
    written = read_indices(found.folder / "states" / "state_000_particles.pkl")
    np.testing.assert_array_equal(written, index[found.states == 0])


def test_a_recut_of_the_landscape_needs_no_decoding(made, call, tmp_path, client, monkeypatch):
    folder = made[0]
    shutil.copytree(folder / "landscape", tmp_path / "landscape")
    first = call(landscape=str(tmp_path / "landscape"))
    landscape(
        str(folder / "e.zarr"), output=str(tmp_path / "landscape"), cluster=client, quiet=True,
        n_components=4, plot_dim=2, n_clusters=3,
    )  # fmt: skip
    monkeypatch.setattr(SmoothModel, "fourier", None)
    again = call(landscape=str(tmp_path / "landscape"), path="none")
    np.testing.assert_array_equal(again.scores, first.scores)
    assert set(again.states) <= {0, 1, 2}


def test_volumes_that_are_not_of_this_model_are_refused(made, call, tmp_path, client):
    folder = made[0]
    other = write_run(tmp_path / "other", some_latents(), epoch=".4")
    with pytest.raises(InputError, match=r"epoch 3 .* other weights"):
        call(run=other, epoch=4)
    # Volumes of which nothing tells where they come from, mirrored.
    store = open_ensemble(str(folder / "e.zarr"))
    from emhet_dask import export

    export(str(folder / "e.zarr"), output=str(tmp_path / "maps"), quiet=True)
    np.savetxt(tmp_path / "z.txt", store.dataset["latent"].values)
    ingest(
        [str(tmp_path / "maps" / "*.mrc")], output=str(tmp_path / "plain.zarr"), cluster=client,
        latents=str(tmp_path / "z.txt"), quiet=True,
    )  # fmt: skip
    landscape(
        str(tmp_path / "plain.zarr"), output=str(tmp_path / "plain"), cluster=client, quiet=True,
        n_components=3, plot_dim=1,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"do not fall where they lie.*--flip"):
        call(landscape=str(tmp_path / "plain"), flip=True)
    assert call(landscape=str(tmp_path / "plain")).facts["n_particles"] == N


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"landscape": "run"}, "--landscape: .* has no run.json"),
        ({"landscape": "full"}, "--landscape: .* holds results of 'emhet map'"),
        ({"axes": "1,9"}, "--axes: got 1,9, but there are 4"),
        ({"output": "landscape"}, "-o: .* is the landscape itself"),
        ({"epoch": 7}, "EPOCH: got 7"),
        ({"particles": "run/config.yaml"}, "config.yaml"),
    ],
    ids=str,
)
def test_bad_input_gets_one_line(made, call, options, words):
    folder = made[0]
    for name in {"landscape", "output", "particles"} & set(options):
        options = options | {name: str(folder / options[name])}
    with pytest.raises(InputError, match=words) as raised:
        call(**options)
    assert "\n" not in str(raised.value)


def test_a_landscape_without_latents_is_refused(made, call, tmp_path, client):
    from emhet_dask import export

    export(str(made[0] / "e.zarr"), output=str(tmp_path / "maps"), quiet=True)
    ingest(
        [str(tmp_path / "maps" / "*.mrc")], output=str(tmp_path / "e.zarr"), cluster=client,
        quiet=True,
    )  # fmt: skip
    landscape(
        str(tmp_path / "e.zarr"), output=str(tmp_path / "l"), cluster=client, quiet=True,
        n_components=2, plot_dim=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="does not know the latents"):
        call(landscape=str(tmp_path / "l"))


def test_a_model_without_sound_weights_is_told(made, call, monkeypatch):
    monkeypatch.setattr(
        SmoothModel,
        "fourier",
        lambda self, latents: np.full((len(latents), len(self.coordinates)), np.nan, np.complex64),
    )
    with pytest.raises(InputError, match="do not fall where they lie"):
        call()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tmp_path):
    script = Path(__file__).with_name("killed_map.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 3


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "cryodrgn")),
    reason='cryoDRGN is not installed: pip install "emhet-dask[cryodrgn]"',
)
def test_a_real_run(shared_data, tmp_path, client):
    from emhet_dask import decode

    run = shared_data / "cryodrgn_run"
    decode(str(run), 3, output=str(tmp_path / "e.zarr"), n=24, cluster=client, quiet=True)
    landscape(
        str(tmp_path / "e.zarr"), output=str(tmp_path / "l"), cluster=client, quiet=True,
        n_components=3, plot_dim=1,
    )  # fmt: skip
    found = map_particles(
        str(run), 3, landscape=str(tmp_path / "l"), output=str(tmp_path / "out"), sample=40,
        cluster=client, quiet=True, n_bootstrap=10, path="none",
    )  # fmt: skip
    facts = json.loads((tmp_path / "out" / "map.json").read_text())
    assert max(facts["error"]["sketch"]) < 1e-2
    assert max(facts["error"]["fourier"]) < 1e-4
    assert found.scores.shape == (6000, 3)
    assert facts["box"] > BOX
