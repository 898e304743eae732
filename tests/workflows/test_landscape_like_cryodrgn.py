"""With its settings, landscape finds what ``cryodrgn analyze_landscape`` finds on the same maps."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import emhet_dask
from emhet_dask.formats.cryodrgn import read_array, read_indices
from emhet_dask.formats.mrc import read_header, read_volume

N, BOX, EPOCH, STATES = 40, 32, 3, 10
APIX = 8.0
CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cryodrgn():
    """Return a function that runs cryoDRGN, of this environment or of the one of ``make peer``."""
    beside = [Path(sys.executable).parent, CHECKOUT / ".venv-peer" / "bin"]
    command = next((path / "cryodrgn" for path in beside if (path / "cryodrgn").is_file()), None)
    if command is None:
        pytest.skip("cryoDRGN is not installed; pip install 'emhet-dask[cryodrgn]' or make peer")

    def run(*arguments):
        subprocess.run(
            [str(command), *map(str, arguments)],
            check=True,
            capture_output=True,
            env={**os.environ, "MPLBACKEND": "agg"},
        )

    return run


@pytest.fixture(scope="module")
def decoded(cryodrgn, shared_data, tmp_path_factory):
    """The landscape of a trained run as cryoDRGN makes it, decoding included."""
    folder = tmp_path_factory.mktemp("cryodrgn")
    workdir = shutil.copytree(shared_data / "cryodrgn_run", folder / "run")
    sizes = ("-N", N, "-d", BOX, "--Apix", APIX)
    cryodrgn("analyze_landscape", workdir, EPOCH, *sizes, "-o", folder / "landscape")
    return workdir, folder / "landscape"


@pytest.fixture(scope="module", params=["average linkage", "Ward linkage and a wide mask"])
def both(request, cryodrgn, decoded, tmp_path_factory, client):
    """Their landscape and ours of the same maps, and the linkage."""
    workdir, theirs = decoded
    linkage = "average"
    if "wide" in request.param:
        linkage, wide = "ward", theirs.parent / "wide"
        shutil.copytree(theirs / f"kmeans{N}", wide / f"kmeans{N}")
        shutil.copy(theirs / "umap.pkl", wide)
        cryodrgn(
            "analyze_landscape", workdir, EPOCH, "-N", N, "--Apix", APIX, "-o", wide,
            "--skip-vol", "--skip-umap", "--dilate", 24, "--linkage", linkage,
        )  # fmt: skip
        theirs = wide
    folder = tmp_path_factory.mktemp("ours")
    store = str(folder / "e.zarr")
    maps = theirs / f"kmeans{N}"
    emhet_dask.ingest(
        [str(maps / "vol_0*.mrc")],
        output=store,
        labels=str(maps / "labels.pkl"),
        cluster=client,
        quiet=True,
    )
    ours = emhet_dask.landscape(
        store,
        output=str(folder / "out"),
        linkage=linkage,
        n_clusters=STATES,
        feature="voxels",
        normalize=False,
        clip_negative=True,
        weights=False,
        mask=str(theirs / "mask.mrc"),
        cluster=client,
        quiet=True,
    )
    return theirs, ours, linkage


def their_labels(theirs, linkage):
    path = theirs / f"sketch_clustering_{linkage}_{STATES}" / "state_labels.pkl"
    return read_array(path) - 1


def test_the_same_states_up_to_their_names(both):
    theirs, ours, linkage = both
    expected = their_labels(theirs, linkage)
    assert len(set(expected)) == STATES
    assert adjusted_rand_score(expected, ours.labels) == 1.0


def test_the_same_components_up_to_their_sign(both):
    theirs, ours, _ = both
    # scikit-learn's object, of a run that this test made itself
    pca = pickle.loads((theirs / "vol_pca_obj.pkl").read_bytes())
    found = ours.group("pca")
    np.testing.assert_allclose(found["explained_variance"], pca.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(
        found["explained_variance_ratio"], pca.explained_variance_ratio_, rtol=1e-4
    )
    expected = read_array(theirs / f"vol_pca_{N}.pkl")
    signs = np.sign(np.sum(found["scores"].values * expected, axis=0))
    error = np.abs(found["scores"].values * signs - expected).max(axis=0)
    deviation = np.sqrt(pca.explained_variance_)
    # Neighbours among the last components differ little in variance, so that rounding turns them.
    assert np.all(error < 5e-3 * deviation)
    assert np.all(error[:5] < 1e-4 * deviation[:5])
    assert np.all(np.abs(np.sum(found["components"].values * pca.components_, axis=1)) > 1 - 1e-5)
    table = pd.read_csv(ours.folder / "volume_pcs.csv")
    np.testing.assert_allclose(table["pc1"] * signs[0], expected[:, 0], rtol=1e-3, atol=1e-3)


def test_the_same_maps_and_particles_of_each_state(both):
    theirs, ours, linkage = both
    folder = theirs / f"sketch_clustering_{linkage}_{STATES}"
    expected = their_labels(theirs, linkage)
    for state in range(STATES):
        (mine,) = set(ours.labels[expected == state])
        for kind in ("mean", "std"):
            one = read_map(folder / f"state_{state + 1:03d}_{kind}.mrc")
            other = read_map(ours.folder / "clusters" / f"cluster_{mine:03d}_{kind}.mrc")
            np.testing.assert_allclose(other, one, atol=1e-4 * max(one.std(), 1e-3))
        particles = read_indices(folder / f"state_{state + 1:03d}_particle_ind.pkl")
        written = ours.folder / "clusters" / f"cluster_{mine:03d}_particles.pkl"
        np.testing.assert_array_equal(read_indices(written), np.sort(particles))


def read_map(path):
    return read_volume(read_header(path))
