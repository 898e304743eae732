"""Class maps of jobs: fitted onto each other, and gathered into an ensemble."""

import numpy as np
import pandas as pd
import pytest

import emhet_dask
from emhet_dask.formats.mrc import read_header, read_volume
from emhet_dask.formats.mrc_write import write_map
from tests.workflows.class3d_summary.fake_job import BOX, make_job, write_maps


def test_maps_are_fitted_on_request(tmp_path, summarise):
    job = make_job(tmp_path / "job001")
    write_maps(job, 6, 3)
    empty, path = (job / f"run_it006_class{number:03d}.mrc" for number in (1, 2))
    write_map(empty, np.zeros((BOX,) * 3, "f4"), voxel_size_angstrom=4.0)
    # A quarter turn about z and two voxels along x.
    turned = np.roll(np.rot90(read_volume(read_header(path)), axes=(1, 2)), 2, axis=2)
    write_map(path, np.ascontiguousarray(turned), voxel_size_angstrom=4.0)
    aligned = summarise(job, output=tmp_path / "out", align=True).folder / "aligned"
    table = pd.read_csv(aligned / "transforms.csv")
    assert table[["job", "class", "reference"]].to_numpy().tolist() == [
        ["job001", number, 3]
        for number in (1, 2, 3)  # equal resolutions: the largest class
    ]
    assert table["reason"].fillna("").tolist() == ["the map is constant", "", ""]
    second, third = (
        read_volume(read_header(aligned / f"job001_class{number:03d}.mrc")) for number in (2, 3)
    )
    assert np.corrcoef(turned.ravel(), third.ravel())[0, 1] < 0.5
    assert np.corrcoef(second.ravel(), third.ravel())[0, 1] > 0.75  # each lacks a body
    assert read_header(aligned / "job001_class001.mrc").voxel_size_angstrom == pytest.approx(4)


@pytest.mark.slow
def test_class_maps_of_jobs_go_into_an_ensemble_with_their_shares(tmp_path, client):
    jobs = [
        make_job(tmp_path / "job001"),
        make_job(tmp_path / "job002", distribution=[0.1, 0.5, 0.4]),
    ]
    for job in jobs:
        write_maps(job, 6, 3)
    store = tmp_path / "classes.zarr"
    options = {"quiet": True, "cluster": client}
    emhet_dask.ingest([str(job) for job in jobs], output=store, **options)
    ensemble = emhet_dask.open_ensemble(store)
    assert ensemble.names.tolist() == [
        f"{job.name}/run_it006_class{number:03d}" for job in jobs for number in (1, 2, 3)
    ]
    # Shares times the 1,000 particles of each job.
    assert ensemble.weights.tolist() == pytest.approx([250, 300, 450, 100, 500, 400])
    found = emhet_dask.similarity(
        store, output=tmp_path / "alike", mask="none", n_clusters=3, **options
    )
    # Classes of one number have the same bodies, and the same noise.
    labels = pd.read_csv(tmp_path / "alike/cluster_results.csv")["Cluster_Label"].to_numpy()
    assert (labels[:3] == labels[3:]).all()
    assert len(set(labels)) == 3
    assert found.folder == tmp_path / "alike"
    emhet_dask.landscape(
        store, output=tmp_path / "states", mask="none", n_clusters=3, n_components=3, **options
    )
    states = pd.read_csv(tmp_path / "states/clusters/states.csv")
    assert sorted(states["particles"]) == pytest.approx([350, 800, 850])
