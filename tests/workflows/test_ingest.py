"""Ingest: what goes in is in the store; a kill costs only the shards under way; bad input is one
message and changes nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import zarr

import emhet_dask
from emhet_dask.analysis.fourier import crop_box
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats import star
from emhet_dask.formats.mrc import write_map, write_stack
from emhet_dask.formats.relion import JobFolder
from emhet_dask.workflows import ingest as workflow


def write_maps(folder, volumes, *, apix=3.0, names=None, origin=(0.0, 0.0, 0.0)):
    folder.mkdir(parents=True, exist_ok=True)
    for number, volume in enumerate(volumes):
        name = f"vol_{number:03d}" if names is None else names[number]
        write_map(folder / f"{name}.mrc", volume, voxel_size_angstrom=apix, origin_angstrom=origin)
    return folder


@pytest.fixture
def ingest(client):
    def run(*sources, output, **options):
        return emhet_dask.ingest(
            [str(source) for source in sources],
            output=str(output),
            **{"quiet": True, "cluster": client, **options},
        )

    return run


@pytest.fixture
def volumes():
    return np.random.default_rng(0).standard_normal((5, 16, 16, 16)).astype(np.float32)


@pytest.fixture
def maps(tmp_path, volumes):
    return write_maps(tmp_path / "maps", volumes, origin=(3.0, 6.0, -9.0))


def test_a_folder_of_maps(ingest, tmp_path, maps, volumes):
    report = ingest(maps, output=tmp_path / "e.zarr")
    ensemble = open_ensemble(report.path)
    np.testing.assert_array_equal(ensemble.volumes.compute(), volumes)
    assert ensemble.names.tolist() == [f"vol_{number:03d}" for number in range(5)]
    assert ensemble.voxel_size_angstrom == 3.0
    assert ensemble.origin_angstrom == (3.0, 6.0, -9.0)
    measured = ensemble.dataset
    np.testing.assert_allclose(measured["mean"], volumes.mean(axis=(1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(measured["std"], volumes.std(axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(
        measured["percentile_9999"],
        np.percentile(volumes.reshape(5, -1), 99.99, axis=1),
        rtol=1e-6,
    )
    assert "made_by" in measured.attrs
    assert "5 volumes of 16³ at 3 Å" in report.describe()


def test_natural_order_and_stacks_and_lists(ingest, tmp_path, volumes):
    write_maps(tmp_path / "a", volumes[:3], names=["m10", "m9", "m1"])
    write_stack(tmp_path / "stack.mrc", volumes[3:], voxel_size_angstrom=3.0)
    report = ingest(
        str(tmp_path / "a" / "*.mrc"), tmp_path / "stack.mrc", output=tmp_path / "e.zarr"
    )
    ensemble = open_ensemble(report.path)
    np.testing.assert_array_equal(ensemble.volumes.compute(), volumes[[2, 1, 0, 3, 4]])
    assert ensemble.names.tolist()[:3] == ["m1", "m9", "m10"]
    assert len(set(ensemble.names)) == 5


def test_compressed_stacks_and_what_simulate_leaves_beside(ingest, tmp_path, volumes):
    import gzip

    write_stack(tmp_path / "s.mrc", volumes, voxel_size_angstrom=3.0)
    packed = tmp_path / "maps" / "s.mrc.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((tmp_path / "s.mrc").read_bytes()))
    write_map(tmp_path / "maps" / "truth_blocks.mrc", volumes[0], voxel_size_angstrom=3.0)
    ensemble = open_ensemble(ingest(tmp_path / "maps", output=tmp_path / "e.zarr").path)
    np.testing.assert_array_equal(ensemble.volumes.compute(), volumes)


def test_cropping_changes_box_and_voxel_size_not_the_extent(ingest, tmp_path, maps, volumes):
    report = ingest(maps, output=tmp_path / "e.zarr", box=8)
    ensemble = open_ensemble(report.path)
    assert (ensemble.box, ensemble.voxel_size_angstrom) == (8, 6.0)
    np.testing.assert_allclose(ensemble.volumes.compute(), crop_box(volumes, 8), atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1e-4, 1e6])
def test_half_precision_is_relative_to_each_volume(ingest, tmp_path, volumes, factor):
    maps = write_maps(tmp_path / "maps", volumes * np.float32(factor))
    ensemble = open_ensemble(ingest(maps, output=tmp_path / "e.zarr", dtype="float16").path)
    np.testing.assert_allclose(
        ensemble.volumes.compute(), volumes * np.float32(factor), rtol=2**-11, atol=1e-7 * factor
    )


def test_weights_and_names_from_tables(ingest, tmp_path, maps):
    pd.DataFrame({"name": [f"vol_{n:03d}" for n in range(5)], "weight": range(1, 6)}).to_csv(
        tmp_path / "w.csv", index=False
    )
    pd.DataFrame(
        {
            "original_filename": [f"vol_{n:03d}.mrc" for n in range(5)],
            "custom_name": [f"state {n}" for n in range(5)],
        }
    ).to_csv(tmp_path / "n.csv", index=False)
    ensemble = open_ensemble(
        ingest(
            maps,
            output=tmp_path / "e.zarr",
            weights=str(tmp_path / "w.csv"),
            names=str(tmp_path / "n.csv"),
        ).path
    )
    assert ensemble.weights.tolist() == [1, 2, 3, 4, 5]
    assert ensemble.names.tolist()[4] == "state 4"


def test_records_that_a_kill_at_the_very_end_left_are_swept(ingest, tmp_path, maps):
    ingest(maps, output=tmp_path / "e.zarr")
    before = snapshot(tmp_path / "e.zarr")
    record = tmp_path / "e.zarr" / "ingest_record" / "c" / "0"
    record.mkdir(parents=True)
    (record / "0").write_bytes(b"a row")
    ingest(maps, output=tmp_path / "e.zarr")
    assert snapshot(tmp_path / "e.zarr") == before


def test_the_same_call_again_has_nothing_to_do(ingest, tmp_path, maps):
    ingest(maps, output=tmp_path / "e.zarr")
    before = snapshot(tmp_path / "e.zarr")
    report = ingest(maps, output=tmp_path / "e.zarr")
    assert "nothing was left to do" in report.describe()
    assert snapshot(tmp_path / "e.zarr") == before


def test_other_settings_are_refused_until_overwrite(ingest, tmp_path, maps):
    ingest(maps, output=tmp_path / "e.zarr")
    before = snapshot(tmp_path / "e.zarr")
    with pytest.raises(InputError, match="made from other files, tables or options"):
        ingest(maps, output=tmp_path / "e.zarr", box=8)
    assert snapshot(tmp_path / "e.zarr") == before
    assert ingest(maps, output=tmp_path / "e.zarr", box=8, overwrite=True).box == 8


def test_changed_sources_are_noticed(ingest, tmp_path, maps, volumes):
    ingest(maps, output=tmp_path / "e.zarr")
    write_map(maps / "vol_002.mrc", volumes[0], voxel_size_angstrom=3.0)
    os.utime(maps / "vol_002.mrc", ns=(1, 1))
    with pytest.raises(InputError, match=r"1 of its source files changed .*vol_002.mrc"):
        ingest(maps, output=tmp_path / "e.zarr")


def test_the_fingerprint_follows_the_maps_through_overwrite(ingest, tmp_path, maps, volumes):
    before = open_ensemble(ingest(maps, output=tmp_path / "e.zarr").path)
    ingest(maps, output=tmp_path / "e.zarr", overwrite=True)
    assert open_ensemble(before.path).fingerprint == before.fingerprint
    write_map(maps / "vol_002.mrc", volumes[0], voxel_size_angstrom=3.0)
    ingest(maps, output=tmp_path / "e.zarr", overwrite=True)
    assert open_ensemble(before.path).fingerprint != before.fingerprint


def test_an_edited_table_is_noticed(ingest, tmp_path, maps):
    table = pd.DataFrame({"volume": range(5), "weight": range(1, 6)})
    table.to_csv(tmp_path / "w.csv", index=False)
    given = {"output": tmp_path / "e.zarr", "weights": str(tmp_path / "w.csv")}
    ingest(maps, **given)
    table.assign(weight=7).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(InputError, match="made from other files, tables or options"):
        ingest(maps, **given)


def test_a_zarr_group_of_someone_else_is_never_overwritten(ingest, tmp_path, maps):
    group = zarr.create_group(tmp_path / "thesis.zarr", attributes={"schema": "other"})
    group.create_array("data", data=np.arange(3))
    zarr.create_array(tmp_path / "array.zarr", data=np.arange(3))
    for name in ("thesis.zarr", "array.zarr"):
        before = snapshot(tmp_path / name)
        with pytest.raises(InputError, match="not an ensemble store"):
            ingest(maps, output=tmp_path / name, overwrite=True)
        assert snapshot(tmp_path / name) == before


def test_sources_are_stored_with_absolute_paths(ingest, tmp_path, maps, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ensemble = open_ensemble(ingest("maps", output="e.zarr").path)
    assert ensemble.dataset["source"].values[0] == str(maps / "vol_000.mrc")
    assert "nothing was left to do" in ingest(maps, output=tmp_path / "e.zarr").describe()


def test_a_folder_that_is_no_store_is_never_touched(ingest, tmp_path, maps):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match="not an ensemble store; choose another -o"):
        ingest(maps, output=tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_all_faulty_files_in_one_message_and_nothing_written(ingest, tmp_path, maps):
    (maps / "vol_001.mrc").write_bytes(b"short")
    content = (maps / "vol_003.mrc").read_bytes()
    (maps / "vol_003.mrc").write_bytes(content[:-100])
    with pytest.raises(InputError) as refused:
        ingest(maps, output=tmp_path / "e.zarr")
    message = str(refused.value)
    assert "vol_001.mrc" in message
    assert "vol_003.mrc" in message
    assert "\n" not in message
    assert not (tmp_path / "e.zarr").exists()


def test_skipping_faulty_files_lists_them(ingest, tmp_path, maps, volumes):
    (maps / "vol_001.mrc").write_bytes(b"short")
    bad = volumes[3].copy()
    bad[0, 0, 0] = np.nan
    write_map(maps / "vol_003.mrc", bad, voxel_size_angstrom=3.0)
    report = ingest(maps, output=tmp_path / "e.zarr", on_error="skip")
    assert len(report.skipped) == 2
    ensemble = open_ensemble(report.path)
    assert ensemble.n_volumes == 4
    assert ensemble.dataset["usable"].values.tolist() == [True, True, False, True]
    again = ingest(maps, output=tmp_path / "e.zarr", on_error="skip")
    assert [Path(problem.split(":")[0]).name for problem in again.skipped] == [
        "vol_001.mrc",
        "vol_003.mrc",
    ]


def test_a_continued_ingest_lists_what_the_first_run_skipped(
    ingest, tmp_path, maps, volumes, monkeypatch
):
    write_map(maps / "vol_003.mrc", volumes[3] * 0, voxel_size_angstrom=3.0)

    def stop(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workflow, "finish_store", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(maps, output=tmp_path / "e.zarr", on_error="skip")
    (skipped,) = ingest(maps, output=tmp_path / "e.zarr", on_error="skip").skipped
    assert "vol_003.mrc" in skipped


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda volume: volume * np.nan, "holds NaN or infinite densities"),
        (lambda volume: volume * 0 + 2, "every voxel is 2, expected a map with density"),
    ],
)
def test_nonsense_densities_name_the_file_and_a_mended_file_continues(
    ingest, tmp_path, maps, volumes, spoil, message
):
    write_map(maps / "vol_002.mrc", spoil(volumes[2]), voxel_size_angstrom=3.0)
    with pytest.raises(InputError, match=message) as refused:
        ingest(maps, output=tmp_path / "e.zarr")
    assert "vol_002.mrc" in str(refused.value)
    write_map(maps / "vol_002.mrc", volumes[2], voxel_size_angstrom=3.0)
    ensemble = open_ensemble(ingest(maps, output=tmp_path / "e.zarr").path)
    assert np.isfinite(ensemble.volumes.compute()).all()


def test_mixed_boxes_and_voxel_sizes_say_which_option_would_help(ingest, tmp_path, maps, volumes):
    write_map(maps / "vol_007.mrc", volumes[0][:8, :8, :8].copy(), voxel_size_angstrom=6.0)
    with pytest.raises(InputError, match="--box 8"):
        ingest(maps, output=tmp_path / "e.zarr")
    assert ingest(maps, output=tmp_path / "e.zarr", box=8).box == 8
    other = write_maps(tmp_path / "other", volumes[:2], apix=2.0)
    with pytest.raises(InputError, match="--apix"):
        ingest(write_maps(tmp_path / "three", volumes[:2]), other, output=tmp_path / "f.zarr")


def test_a_header_without_voxel_size_needs_apix(ingest, tmp_path, volumes):
    maps = write_maps(tmp_path / "maps", volumes[:2])
    for path in maps.glob("*.mrc"):
        with mrcfile.open(path, "r+") as opened:
            opened.voxel_size = 0
    with pytest.raises(InputError, match="--apix"):
        ingest(maps, output=tmp_path / "e.zarr")
    assert ingest(maps, output=tmp_path / "e.zarr", apix=1.5).voxel_size_angstrom == 1.5


def test_labels_give_weights_and_particles(ingest, tmp_path, volumes):
    folder = write_maps(tmp_path / "kmeans5", volumes)
    labels = np.asarray([0, 4, 4, 2, 1, 3, 4])
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "ind.npy", np.asarray([1, 2, 3, 5, 8, 9, 11]))
    ensemble = open_ensemble(
        ingest(
            folder,
            output=tmp_path / "e.zarr",
            labels=str(tmp_path / "labels.npy"),
            ind=str(tmp_path / "ind.npy"),
        ).path
    )
    assert ensemble.weights.tolist() == [1, 1, 1, 1, 3]
    assert ensemble.dataset["particle_volume"].values.tolist() == labels.tolist()
    assert ensemble.dataset["particle_index"].values.tolist() == [1, 2, 3, 5, 8, 9, 11]


def test_particles_without_labels_are_refused(ingest, tmp_path, maps):
    (tmp_path / "p.star").write_text("data_particles\n\nloop_\n_rlnImageName #1\n1@a.mrcs\n\n")
    with pytest.raises(InputError, match="give --labels"):
        ingest(maps, output=tmp_path / "e.zarr", particles=str(tmp_path / "p.star"))


def test_latents_of_another_length_are_refused(ingest, tmp_path, maps):
    np.save(tmp_path / "z.npy", np.zeros((7, 4)))
    with pytest.raises(InputError, match="7 rows of latents, expected 5, one per volume"):
        ingest(maps, output=tmp_path / "e.zarr", latents=str(tmp_path / "z.npy"))


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_killed_ingest_continues_and_redoes_nothing(tmp_path, shard_by_shard, after):
    rng = np.random.default_rng(1)
    maps = write_maps(tmp_path / "maps", rng.standard_normal((40, 16, 16, 16), dtype=np.float32))
    whole, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    assert shard_by_shard("ingest", [str(maps)], whole).finish() == 10
    ingest = shard_by_shard("ingest", [str(maps)], killed)
    ingest.kill(after=after)
    (killed / "volumes" / "leftover.abc.partial").parent.mkdir(parents=True, exist_ok=True)
    (killed / "volumes" / "leftover.abc.partial").write_bytes(b"half a shard")
    finished = {
        path: path.stat().st_mtime_ns
        for path in (killed / "ingest_record" / "c").rglob("*")
        if path.is_file()
    }
    shards = {
        path: path.stat().st_mtime_ns
        for path in (killed / "volumes" / "c").rglob("*")
        if path.is_file() and killed / "ingest_record" / "c" / path.parts[-4] / "0" in finished
    }
    assert len(shards) >= after - 1
    assert ingest.finish() == 10 - len(finished)
    for path, changed in shards.items():
        assert path.stat().st_mtime_ns == changed, f"{path} was written again"
    assert not list(killed.rglob("*.partial"))
    np.testing.assert_array_equal(
        open_ensemble(str(killed)).volumes.compute(), open_ensemble(str(whole)).volumes.compute()
    )
    for name in ("name", "std", "source_crc32c", "usable"):
        np.testing.assert_array_equal(
            open_ensemble(str(killed)).dataset[name], open_ensemble(str(whole)).dataset[name]
        )


def test_info_tells_what_is_there_and_what_is_broken(ingest, tmp_path, maps):
    path = ingest(maps, output=tmp_path / "e.zarr").path
    facts = json.loads(emhet_dask.info(path, json=True, quiet=True).describe())
    assert facts["whole"] is True
    assert (facts["n_volumes"], facts["box"]) == (5, 16)
    assert "whole: every shard is there, every checksum right" in emhet_dask.info(path).describe()
    (shard,) = [path for path in Path(path, "volumes", "c").rglob("*") if path.is_file()]
    content = bytearray(shard.read_bytes())
    content[10] ^= 255
    shard.write_bytes(content)
    broken = emhet_dask.info(path, quiet=True)
    assert broken.failed
    assert "is damaged" in broken.describe()
    assert not emhet_dask.info(path, quick=True, quiet=True).failed
    shard.unlink()
    assert "is missing" in emhet_dask.info(path, quick=True, quiet=True).describe()


def test_info_survives_and_tells_damaged_small_arrays(ingest, tmp_path, maps):
    path = ingest(maps, output=tmp_path / "e.zarr").path
    for name in ("usable", "mean"):
        (chunk,) = [path for path in Path(path, name, "c").rglob("*") if path.is_file()]
        chunk.write_bytes(chunk.read_bytes()[:-3])
    broken = emhet_dask.info(path, quiet=True)
    assert broken.failed
    assert "array usable is damaged" in broken.describe()
    assert "array mean is damaged" in broken.describe()


@pytest.mark.shared_data
def test_decoded_ribosomes_with_odd_headers(ingest, tmp_path, shared_data):
    ensemble = open_ensemble(
        ingest(shared_data / "ribosome_ensemble", output=tmp_path / "e.zarr").path
    )
    assert ensemble.n_volumes == 20
    assert ensemble.names[:3].tolist() == ["vol_018", "vol_113", "vol_115"]
    assert ensemble.voxel_size_angstrom == pytest.approx(6.55)
    raw = np.fromfile(
        shared_data / "ribosome_ensemble" / "vol_113.mrc", "<f4", offset=1024
    ).reshape((64,) * 3)
    np.testing.assert_array_equal(ensemble.volumes[1].compute(), raw)


@pytest.mark.shared_data
def test_class_maps_of_a_relion_job_know_their_particles(ingest, tmp_path, shared_data):
    job = shared_data / "relion_project" / "Class3D" / "job085"
    ensemble = open_ensemble(ingest(job, output=tmp_path / "e.zarr").path)
    assert ensemble.n_volumes == 4
    assert ensemble.weights.sum() == 4000
    assert ensemble.dataset["particle_name"].values[0].startswith("000001@")


@pytest.mark.shared_data
def test_particles_of_another_file_are_refused(ingest, tmp_path, shared_data):
    job = shared_data / "relion_project" / "Class3D" / "job085"
    table = star.read_particles(JobFolder.open(job).star_path("data"))
    same, turned = tmp_path / "same.star", tmp_path / "turned.star"
    star.write_particles(same, table)
    star.write_particles(turned, replace(table, particles=table.particles[::-1]))
    with pytest.raises(InputError, match=r"turned\.star: row 0 is .*, but .*_data\.star has"):
        ingest(job, output=tmp_path / "e.zarr", particles=str(turned))
    assert not (tmp_path / "e.zarr").exists()
    ensemble = open_ensemble(ingest(job, output=tmp_path / "e.zarr", particles=str(same)).path)
    assert ensemble.dataset.attrs["particle_file"] == str(same)


def test_plan_is_made_before_anything_is_written(ingest, tmp_path, maps, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("written too early")

    monkeypatch.setattr(workflow, "create_store", refuse)
    with pytest.raises(InputError, match="--box"):
        ingest(maps, output=tmp_path / "e.zarr", box=64)


def test_what_cannot_fit_is_refused_before_the_store_is_replaced(ingest, tmp_path, maps):
    store = tmp_path / "e.zarr"
    before = open_ensemble(ingest(maps, output=store).path).fingerprint
    with pytest.raises(InputError, match="--memory-limit"):
        ingest(maps, output=store, overwrite=True, cluster="local", memory_limit="100MB")
    assert open_ensemble(store).fingerprint == before
