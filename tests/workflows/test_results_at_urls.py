"""Results at a URL are read there, and every command puts them there or says that it cannot."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import s3fs

import emhet_dask
from emhet_dask.errors import InputError
from emhet_dask.runtime.publishing import STAGING_VARIABLE
from emhet_dask.workflows import map as mapping
from emhet_dask.workflows.stages import block_report, map_report, pictures
from tests.fake_particles import fake_particles, write_particles
from tests.fake_run import write_run
from tests.smooth_run import make_landscape, smooth_decoder_to_map

MRC_HEADER_BYTES = 1024  # has a date
# Say when, how long and where.
OF_THE_RUN = {
    "run.json", "report.html", "explore.ipynb", "map.json", "evidence.json", "verdicts.json",
    "zarr.json",
}  # fmt: skip


@pytest.fixture
def staging(tmp_path, monkeypatch):
    folder = tmp_path / "staging-of-this-machine"
    folder.mkdir()
    monkeypatch.setenv(STAGING_VARIABLE, str(folder))
    return folder


@pytest.fixture
def calm(client, monkeypatch):
    for module in (pictures, block_report, map_report):
        monkeypatch.setattr(module, "save_all", lambda *_, **__: None)
    return {"quiet": True, "cluster": client}


def objects(url):
    """Return the bytes of every object of a place; of maps without their header."""
    files = s3fs.S3FileSystem(use_listings_cache=False)
    root = url.removeprefix("s3://")
    names = [name.removeprefix(f"{root}/") for name in files.find(root)]
    return {name: _body(name, files.cat_file(f"{root}/{name}")) for name in names}


def on_disk(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): _body(p.name, p.read_bytes()) for p in paths}


def _body(name, data):
    return data[MRC_HEADER_BYTES:] if name.endswith(".mrc") else data


def assert_published(url, local, staging):
    """The same files as on a disk, of which none names the folder that they were made in."""
    found, expected = objects(url), on_disk(local)
    assert set(found) == set(expected)
    other = [
        name
        for name, data in found.items()
        if Path(name).name not in OF_THE_RUN and data != expected[name]
    ]
    assert other == []
    assert [name for name, data in found.items() if os.fsencode(staging) in data] == []
    assert list(staging.iterdir()) == []


def assert_same_file(write, there, here, tmp_path, ending):
    one, two = tmp_path / f"there{ending}", tmp_path / f"here{ending}"
    write(there, one)
    write(here, two)
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size > 0


@pytest.mark.slow
def test_states_and_blocks_are_taken_from_results_in_a_bucket(bucket, staging, calm, tmp_path):
    emhet_dask.simulate_assembly(output=str(tmp_path / "maps"), n=40, box=16, seed=3, **calm)
    store = str(tmp_path / "ens.zarr")
    emhet_dask.ingest(str(tmp_path / "maps"), output=store, **calm)
    places = (f"{bucket}/landscape", str(tmp_path / "landscape"))
    for place in places:
        emhet_dask.landscape(store, output=place, n_clusters=3, plot_dim=1, **calm)
    assert_published(*places[:1], Path(places[1]), staging)

    for ending, options in (
        (".csv", {"clusters": "0,2"}),
        (".txt", {"clusters": "1"}),
        (".csv", {"region": str(_region(tmp_path))}),
    ):
        assert_same_file(
            lambda results, output, options=options: emhet_dask.select(
                results, output=str(output), overwrite=True, quiet=True, **options
            ),
            *places,
            tmp_path,
            ending,
        )
    with pytest.raises(InputError, match=rf"^--clusters: {bucket}/landscape has no state 7"):
        emhet_dask.select(places[0], clusters="7", output=str(tmp_path / "x.csv"), quiet=True)

    for number, place in enumerate(places):
        emhet_dask.export(place, output=str(tmp_path / f"maps{number}"), clusters="0,1", **calm)
    exported = on_disk(tmp_path / "maps0")
    assert exported
    assert exported == on_disk(tmp_path / "maps1")

    kept = [
        emhet_dask.landscape(
            store, output=str(tmp_path / f"kept{number}"), keep=f"{place}:0,1", n_clusters=2,
            plot_dim=1, **calm,
        )
        for number, place in enumerate(places)
    ]  # fmt: skip
    np.testing.assert_array_equal(kept[0].scores, kept[1].scores)
    with pytest.raises(InputError, match="is the output itself"):
        emhet_dask.landscape(store, output=places[0], keep=f"{places[0]}/:0,1", **calm)

    blocks = (f"{bucket}/blocks", str(tmp_path / "blocks"))
    for place in blocks:
        emhet_dask.blocks(store, output=place, mask="none", **calm)
    assert_published(*blocks[:1], Path(blocks[1]), staging)
    assert_same_file(
        lambda results, output: emhet_dask.select(
            results, output=str(output), block="1", overwrite=True, quiet=True
        ),
        *blocks,
        tmp_path,
        ".csv",
    )


def _region(folder):
    corners = [[-1e3, -1e3], [1e3, -1e3], [1e3, 1e3], [0, 1e3]]
    path = folder / "region.json"
    path.write_text(json.dumps({"axes": [1, 2], "vertices": corners}))
    return path


@pytest.mark.slow
def test_particles_are_mapped_on_a_landscape_in_a_bucket(
    bucket, staging, calm, tmp_path, monkeypatch
):
    latents = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    run = write_run(tmp_path / "run", latents)
    here = make_landscape(tmp_path, run, client=calm["cluster"])
    there = f"{bucket}/landscape"
    s3fs.S3FileSystem().put(str(here), there, recursive=True)
    monkeypatch.setattr(mapping, "_decoder", smooth_decoder_to_map)
    found = {}
    for sketch, output in ((there, f"{bucket}/map"), (str(here), str(tmp_path / "map"))):
        found[output] = emhet_dask.map(
            str(run), 3, landscape=sketch, output=output, n_bootstrap=10, **calm
        )
    of_url, of_disk = found.values()
    np.testing.assert_array_equal(of_url.scores, of_disk.scores)
    np.testing.assert_array_equal(of_url.states, of_disk.states)
    assert_published(f"{bucket}/map", tmp_path / "map", staging)
    for ending, options in ((".csv", {"basin": "0"}), (".pkl", {"clusters": "0"})):
        assert_same_file(
            lambda results, output, options=options: emhet_dask.select(
                results, output=str(output), overwrite=True, quiet=True, **options
            ),
            *found,
            tmp_path,
            ending,
        )
    with pytest.raises(InputError, match="is the landscape itself"):
        emhet_dask.map(str(run), 3, landscape=there, output=f"{there}/", **calm)


@pytest.mark.slow
def test_classes_and_half_maps_go_to_a_bucket(bucket, staging, calm, tmp_path):
    star = write_particles(tmp_path, fake_particles(240, box=16, snr=0.5, seed=1))
    pd.DataFrame({"particle": np.arange(240), "state": np.arange(240) % 2}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    here = tmp_path / "here"
    run = {"k": 2, "iterations": 2, "components": 2, "restarts": 1}
    for place in (bucket, str(here)):
        labels = str(tmp_path / "labels.csv")
        made = [
            emhet_dask.reconstruct(str(star), output=f"{place}/rec", labels=labels, **calm),
            emhet_dask.class3d_run(str(star), output=f"{place}/one", **run, **calm),
            emhet_dask.class3d_run(str(star), output=f"{place}/two", seed=1, **run, **calm),
        ]
        assert [str(each.folder) for each in made] == [
            f"{place}/{name}" for name in ("rec", "one", "two")
        ]
    jobs = [str(here / "one"), str(here / "two")]
    for place in (bucket, str(here)):
        emhet_dask.class3d_compare(job=jobs, output=f"{place}/compare", quiet=True)
        emhet_dask.class3d_summary(jobs, output=f"{place}/summary", **calm)
    for name in ("rec", "one", "two", "compare", "summary"):
        assert_published(f"{bucket}/{name}", here / name, staging)


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda url: emhet_dask.ingest(url, output="e.zarr"), "SOURCES"),
        (lambda url: emhet_dask.ingest("maps", output="e.zarr", weights=url), "--weights"),
        (lambda url: emhet_dask.landscape("e.zarr", output="o", mask=url), "--mask"),
        (lambda url: emhet_dask.select("o", clusters="0", output=url), "--output"),
        (lambda url: emhet_dask.export("e.zarr", output=url), "--output"),
        (lambda url: emhet_dask.class3d_select("job", classes="1", output=url), "--output"),
        (lambda url: emhet_dask.class3d_run(url, output="o"), "PARTICLES"),
        (lambda url: emhet_dask.reconstruct(url, output="o"), "PARTICLES"),
        (lambda url: emhet_dask.class3d_compare(job=[url], output="o"), "JOB"),
        (lambda url: emhet_dask.simulate_assembly(output=url), "--output"),
    ],
)
def test_what_must_be_on_a_disk_is_said_so(call, option):
    with pytest.raises(InputError) as refused:
        call("s3://key:hunter2@bucket/what")
    told = str(refused.value)
    assert told.startswith(f"{option}: got s3://bucket/what, which is a URL; expected a")
    assert told.endswith(" on a disk")
    assert "hunter2" not in told
