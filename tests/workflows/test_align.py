"""emhet align: maps of other frames come into one, with what is known of them; a kill costs only
the shards under way; bad input is one message."""

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.spatial.transform import Rotation

import emhet_dask
from emhet_dask.analysis.phantom import Grid, packed_bodies
from emhet_dask.analysis.rotations import angle_between, matrix_of_angles
from emhet_dask.ensemble import from_array, open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats.mrc import write_map, write_stack
from emhet_dask.runtime import Progress
from emhet_dask.workflows.align import align_ensemble

APIX = 6.0
GRID = Grid(32, APIX, 24.0)
COUNT = 4


@pytest.fixture(scope="module")
def poses():
    """Return the rotation and shift (voxels) of each map; the first one is in place."""
    rng = np.random.default_rng(0)
    turns = Rotation.random(COUNT, rng=rng).as_matrix()
    shifts = rng.uniform(-3, 3, (COUNT, 3))
    turns[0], shifts[0] = np.eye(3), 0
    return turns, shifts


@pytest.fixture(scope="module")
def volumes(poses):
    bodies = packed_bodies(
        np.random.default_rng([0, 0]),
        n_bodies=8,
        radius_angstrom=GRID.radius_angstrom,
        gap_angstrom=24.0,
    )
    atoms = np.concatenate(bodies)[:, ::-1]
    found = []
    for number, (turn, shift) in enumerate(zip(*poses, strict=True)):
        density = GRID.render((atoms @ turn.T + shift * APIX)[:, ::-1])
        noise = GRID.noise(np.random.default_rng([1, number]))
        found.append(density + np.float32(np.sqrt(density.var() / 8)) * noise)
    return np.stack(found)


@pytest.fixture(scope="module")
def store(tmp_path_factory, volumes, client):
    folder = tmp_path_factory.mktemp("align") / "maps"
    folder.mkdir()
    for number, volume in enumerate(volumes):
        path = folder / f"vol_{number:03d}.mrc"
        write_map(path, volume, voxel_size_angstrom=APIX, origin_angstrom=(6, 12, -9))
    np.save(folder.parent / "labels.npy", np.asarray([0, 1, 2, 3, 3, 3]))
    return emhet_dask.ingest(
        [str(folder)],
        output=str(folder.parent / "e.zarr"),
        labels=str(folder.parent / "labels.npy"),
        cluster=client,
        quiet=True,
    ).path


@pytest.fixture
def align(client, store):
    def run(output, *, source=store, to="first", **options):
        return emhet_dask.align(
            source, to=to, output=str(output), cluster=client, quiet=True, **options
        )

    return run


@pytest.fixture(scope="module")
def aligned(client, store, tmp_path_factory):
    output = tmp_path_factory.mktemp("aligned") / "a.zarr"
    return emhet_dask.align(store, to="first", output=str(output), cluster=client, quiet=True)


def test_every_map_comes_into_the_frame_of_the_first(aligned, volumes):
    found = open_ensemble(aligned.path).volumes.compute()
    np.testing.assert_array_equal(found[0], volumes[0])
    before = np.corrcoef(volumes.reshape(COUNT, -1))[0, 1:]
    after = np.corrcoef(found.reshape(COUNT, -1))[0, 1:]
    assert before.max() < 0.7
    assert after.min() > 0.8  # two maps of SNR 8 share 89% of their variance
    assert aligned.flagged == []
    assert "every fit is clearly better than its rivals" in aligned.describe()


def test_the_table_tells_the_motions(aligned, poses):
    table = pd.read_csv(f"{aligned.path}/transforms.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(
        table[["name", "flagged", "mirrored"]], aligned.transforms[["name", "flagged", "mirrored"]]
    )
    for row, turn, shift in zip(table.itertuples(), *poses, strict=True):
        rotation = matrix_of_angles(row.rot, row.tilt, row.psi)
        assert angle_between(rotation, turn.T) < 1.5
        moved = np.array([row.shift_x_angstrom, row.shift_y_angstrom, row.shift_z_angstrom])
        assert np.linalg.norm(moved + turn.T @ shift * APIX) < 0.5 * APIX
        # The same in absolute coordinates: the centre of the particle comes to that of the box.
        centre = np.array([6.0, 12.0, -9.0]) + 16 * APIX
        matrix = np.array(row.chimerax_matrix.split(","), dtype=float).reshape(3, 4)
        landed = matrix[:, :3] @ (centre + shift * APIX) + matrix[:, 3]
        assert np.linalg.norm(landed - centre) < 0.5 * APIX


def test_what_is_known_of_the_maps_is_carried_over(aligned, store):
    before, after = open_ensemble(store), open_ensemble(aligned.path)
    for name in ("name", "source", "weight", "usable", "particle_volume"):
        np.testing.assert_array_equal(after.dataset[name], before.dataset[name])
    assert after.voxel_size_angstrom == APIX
    assert after.origin_angstrom == (6.0, 12.0, -9.0)
    assert after.fingerprint != before.fingerprint
    made_by = after.dataset.attrs["made_by"]
    assert made_by["command"] == "emhet align"
    assert made_by["source"]["fingerprint"] == before.fingerprint
    assert made_by["source_made_by"]["command"] == "emhet ingest"
    assert emhet_dask.info(aligned.path, quiet=True).whole


def test_the_fits_lie_in_the_store_too(aligned, poses):
    stored = zarr.open_group(aligned.path, mode="r")["alignment"]
    columns = stored.attrs["columns"]
    rotations = stored[:, :9].reshape(COUNT, 3, 3)
    assert columns[:9] == ["rxx", "rxy", "rxz", "ryx", "ryy", "ryz", "rzx", "rzy", "rzz"]
    assert angle_between(rotations, poses[0].transpose(0, 2, 1)).max() < 1.5
    np.testing.assert_allclose(
        stored[:, columns.index("correlation")], aligned.transforms["correlation"]
    )


def test_the_same_call_again_has_nothing_to_do(align, aligned):
    again = align(aligned.path)
    assert again.written == 0
    assert "nothing was left to do" in again.describe()
    pd.testing.assert_frame_equal(again.transforms, aligned.transforms)


def test_other_settings_are_refused_until_overwrite(align, tmp_path):
    align(tmp_path / "a.zarr", resolution=30.0)
    with pytest.raises(InputError, match="made from another ensemble, reference or options"):
        align(tmp_path / "a.zarr", to=1)
    replaced = align(tmp_path / "a.zarr", to=1, overwrite=True)
    assert replaced.reference == "volume 1 (vol_001)"
    assert replaced.written == COUNT
    assert emhet_dask.info(replaced.path, quiet=True).whole


def test_a_map_of_the_same_extent_is_a_reference(align, aligned, volumes, tmp_path):
    from emhet_dask.analysis.fourier import crop_box, pad_box

    for box, resample in ((24, crop_box), (40, pad_box)):
        path = tmp_path / f"ref_{box}.mrc"
        write_map(path, resample(volumes[0], box), voxel_size_angstrom=APIX * 32 / box)
        found = align(tmp_path / f"{box}.zarr", to=str(path)).transforms
        assert not found["flagged"].any()
        for name in ("shift_x_angstrom", "shift_y_angstrom", "shift_z_angstrom"):
            np.testing.assert_allclose(found[name], aligned.transforms[name], atol=0.1 * APIX)


def test_the_best_reference_is_one_of_the_maps_and_no_outlier(align, tmp_path, volumes, client):
    junk = GRID.noise(np.random.default_rng(9)) * volumes[0].std()
    write_stack(tmp_path / "s.mrc", np.stack([junk, *volumes[:3]]), voxel_size_angstrom=APIX)
    source = emhet_dask.ingest(
        [str(tmp_path / "s.mrc")], output=str(tmp_path / "e.zarr"), cluster=client, quiet=True
    ).path
    report = align(tmp_path / "a.zarr", source=source, to="best")
    assert "the most typical" in report.reference
    assert not report.reference.startswith("volume 0")
    assert report.flagged == ["s_00000"]
    assert "1 of 4 fits are flagged" in report.describe()
    assert "s_00000" in report.describe()


def test_half_precision_and_unusable_volumes_stay_so(align, tmp_path, volumes, client):
    write_stack(tmp_path / "s.mrc", volumes[:3] * 1e-3, voxel_size_angstrom=APIX)
    spoilt = volumes[3].copy()
    spoilt[0, 0, 0] = np.nan
    write_map(tmp_path / "bad.mrc", spoilt, voxel_size_angstrom=APIX)
    source = emhet_dask.ingest(
        [str(tmp_path / "bad.mrc"), str(tmp_path / "s.mrc")],
        output=str(tmp_path / "e.zarr"),
        dtype="float16",
        on_error="skip",
        cluster=client,
        quiet=True,
    ).path
    report = align(tmp_path / "a.zarr", source=source)
    found = open_ensemble(report.path)
    before = open_ensemble(source)
    usable = before.dataset["usable"].values
    assert usable.sum() == 3
    np.testing.assert_array_equal(found.dataset["usable"], usable)
    assert zarr.open_group(report.path, mode="r")["volumes"].dtype == np.float16
    first = int(np.argmax(usable))
    np.testing.assert_array_equal(found.volumes[first].compute(), before.volumes[first].compute())
    table = report.transforms
    assert table.loc[~usable, "reason"].tolist() == ["the volume is not usable"]
    assert not table.loc[usable, "flagged"].any()
    with pytest.raises(InputError, match="the volume is not usable; name another"):
        align(tmp_path / "b.zarr", source=source, to=int(np.argmin(usable)))


def test_one_volume_fits_itself(align, store, tmp_path):
    part = open_ensemble(store).select([3])
    report = align(tmp_path / "a.zarr", source=part)
    np.testing.assert_array_equal(
        open_ensemble(report.path).volumes.compute(), part.volumes.compute()
    )
    assert open_ensemble(report.path).names.tolist() == ["vol_003"]


def test_other_workflows_align_with_their_own_workers(store, client, tmp_path, aligned):
    report = align_ensemble(
        open_ensemble(store),
        output=str(tmp_path / "a.zarr"),
        to="first",
        client=client,
        progress=Progress(quiet=True),
    )
    assert open_ensemble(report.path).fingerprint == open_ensemble(aligned.path).fingerprint


def spoilt(volume):
    volume = volume.copy()
    volume[3, 4, 5] = np.nan
    return volume


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (None, r"no such file; expected first, best, the number of a volume, or an MRC file"),
        (lambda v: (v[0], 5.0), r"32³ voxels of 5 Å are 160 Å, but the volumes are 192 Å"),
        (lambda v: (v[0][:16], APIX), r"holds 16×32×32 voxels, expected one cubic map"),
        (lambda v: (spoilt(v[0]), APIX), r"holds NaN or infinite densities"),
        (lambda v: (v[0] * 0, APIX), r"the reference is constant"),
    ],
)
def test_references_that_cannot_be_used(align, tmp_path, volumes, make, message):
    path = tmp_path / "ref.mrc"
    if make is not None:
        density, apix = make(volumes)
        write_map(path, np.ascontiguousarray(density), voxel_size_angstrom=apix)
    with pytest.raises(InputError, match=message) as refused:
        align(tmp_path / "a.zarr", to=str(path))
    assert "ref.mrc" in str(refused.value)
    assert not (tmp_path / "a.zarr").exists()


def test_a_stack_is_no_reference(align, tmp_path, volumes):
    write_stack(tmp_path / "s.mrc", volumes[:2], voxel_size_angstrom=APIX)
    with pytest.raises(InputError, match="holds 2 of 32×32×32 voxels, expected one cubic map"):
        align(tmp_path / "a.zarr", to=str(tmp_path / "s.mrc"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": 4}, "--to 4: no such volume in .* it has 0 to 3"),
        ({"to": -1}, "--to: got -1, expected first, best, the number of a volume, or an MRC file"),
        ({"to": 1.5}, "--to: got 1.5"),
        ({"resolution": 100.0}, "--to first: a box of 32 voxels .* holds 1 Fourier shells"),
    ],
)
def test_options_that_cannot_be_used(align, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        align(tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()


def test_the_input_and_what_is_no_ensemble_are_never_overwritten(align, store, tmp_path, volumes):
    with pytest.raises(InputError, match="is the ensemble that is read; choose another -o"):
        align(store, overwrite=True)
    zarr.create_group(tmp_path / "thesis.zarr", attributes={"schema": "other"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "chapter.tex").write_text("x")
    for name in ("thesis.zarr", "folder"):
        with pytest.raises(InputError, match="not an ensemble store; choose another -o"):
            align(tmp_path / name, overwrite=True)
    with pytest.raises(InputError, match="an ensemble in memory, expected a store"):
        align(tmp_path / "a.zarr", source=from_array(volumes, voxel_size_angstrom=APIX))


@pytest.mark.slow
@pytest.mark.parametrize(("after", "to"), [(0, "first"), (2, "best")])
def test_a_killed_alignment_continues_and_redoes_nothing(
    tmp_path, client, store, shard_by_shard, after, to
):
    killed = tmp_path / "a.zarr"
    alignment = shard_by_shard("align", store, killed, to=to)
    alignment.kill(after=after)
    with pytest.raises(InputError, match="not finished; run the same emhet align again"):
        open_ensemble(str(killed))
    records = killed / "ingest_record" / "c"
    finished = [path for path in records.rglob("*") if path.is_file()]
    assert alignment.finish() == COUNT - len(finished)
    assert len(finished) >= after
    assert not list(killed.rglob("*.partial"))
    whole = emhet_dask.align(
        store, to=to, output=str(tmp_path / "whole.zarr"), cluster=client, quiet=True
    )
    assert open_ensemble(str(killed)).fingerprint == open_ensemble(whole.path).fingerprint
    np.testing.assert_array_equal(
        zarr.open_group(killed, mode="r")["alignment"][...],
        zarr.open_group(whole.path, mode="r")["alignment"][...],
    )


def test_similarity_of_maps_in_other_frames(store, tmp_path, client):
    def likeness(name, **options):
        found = emhet_dask.similarity(
            store, output=str(tmp_path / name), mask="none", cluster=client, quiet=True, **options
        )
        matrix = found.pairs["similarity"].values
        return matrix[np.triu_indices(COUNT, 1)]

    assert likeness("apart").max() < 0.75
    assert likeness("aligned", align_to="first").min() > 0.85
    table = pd.read_csv(tmp_path / "aligned/transforms.csv")
    assert len(table) == COUNT
    assert not table["flagged"].any()
    # The same folder with another frame is refused, not mixed up.
    with pytest.raises(InputError, match="add --overwrite"):
        likeness("aligned", align_to="2")
