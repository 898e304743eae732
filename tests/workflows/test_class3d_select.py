"""Subsets of a classification: the right particles, in order, in a file of the same kind."""

import json

import numpy as np
import pandas as pd
import pytest
import s3fs

import emhet_dask
from emhet_dask.ensemble import open_ensemble
from emhet_dask.errors import InputError
from emhet_dask.formats import cryosparc
from emhet_dask.formats.mrc import write_map
from emhet_dask.formats.star import read_particles, write_star
from emhet_dask.runtime import ResultsFolder

NAMES = ["1@a", "2@a", "3@a", "1@a", "4@a", "2@a"]  # two of them are there twice
TABLE = pd.DataFrame(
    {
        "rlnImageName": NAMES,
        "rlnMicrographName": ["m1", "m1", "m2", "m2", "m3", "m3"],
        "rlnOpticsGroup": [1, 1, 2, 2, 1, 1],
        "rlnDefocusU": [1e4, 2e4, 3e4, 4e4, 5e4, 6e4],
        "rlnClassNumber": [1, 2, 3, 2, 1, 2],
        "rlnMaxValueProbDistribution": [0.9, 0.5, 0.8, 0.85, 0.3, 1.0],
    }
)


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "job085"
    folder.mkdir()
    optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnVoltage": [300.0, 200.0]})
    blocks = {"optics": optics, "particles": TABLE}
    write_star(folder / "run_it025_data.star", blocks, version=30001)
    write_star(folder / "run_it025_model.star", {"model_general": {"rlnNrClasses": 4}})
    return folder


@pytest.fixture
def select(job, tmp_path):
    """Select into a STAR file; return the rows of the job that are in it."""

    def run(source=job, **options):
        output = tmp_path / "out" / "particles.star"
        found = emhet_dask.class3d_select(
            str(source), output=str(output), overwrite=True, quiet=True, **options
        )
        written = read_particles(output)
        rows = TABLE.index[TABLE["rlnDefocusU"].isin(written.particles["rlnDefocusU"])].tolist()
        pd.testing.assert_frame_equal(
            written.particles, TABLE.iloc[rows].reset_index(drop=True), check_dtype=False
        )
        used = sorted(TABLE["rlnOpticsGroup"].iloc[rows].unique())
        assert list(written.optics["rlnOpticsGroup"]) == used
        assert b"\r" not in output.read_bytes()
        assert (found.n_particles, found.n_of) == (len(rows), len(TABLE))
        assert [path.name for path in output.parent.iterdir()] == ["particles.star"]
        return rows

    return run


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"classes": "2,3"}, [1, 2, 3, 5]),
        ({"classes": (2,), "min_pmax": 0.8}, [3, 5]),
        ({"min_pmax": 0.85}, [0, 3, 5]),
        ({"where": "DefocusU > 2.5e4 and ClassNumber == 2"}, [3, 5]),
        ({"where": "'2' in MicrographName", "classes": 2}, [3]),
    ],
)
def test_particles_meet_every_condition(select, options, rows):
    assert select(**options) == rows


def test_a_condition_on_columns_needs_no_classes(tmp_path, job, select):
    other = tmp_path / "plain.star"
    write_star(other, {"images": TABLE.drop(columns="rlnClassNumber")})
    output = tmp_path / "o.star"
    emhet_dask.class3d_select(str(other), where="DefocusU < 15000", output=str(output))
    assert read_particles(output).particles["rlnImageName"].tolist() == ["1@a"]
    with pytest.raises(InputError, match="no column _rlnClassNumber"):
        select(other, classes=1)


def consensus(folder, **columns):
    path = folder / "consensus.csv"
    pd.DataFrame({"rlnImageName": NAMES, **columns}).to_csv(path, index=False)
    return str(path)


def test_classes_of_a_consensus_are_its_own(tmp_path, select):
    path = consensus(
        tmp_path, consensus=[2, 1, 1, 2, 0, 1], confidence=[1.0, 0.6, 1.0, 0.9, 0.2, 0.7]
    )
    assert select(consensus=path) == [0, 1, 2, 3, 4, 5]
    assert select(consensus=path, classes=1) == [1, 2, 5]
    assert select(consensus=path, classes="0,2", min_pmax=0.85) == [0, 3]
    assert select(consensus=path, classes=1, min_confidence=0.7) == [2, 5]
    with pytest.raises(InputError, match=r"--classes: .*consensus\.csv has no class 4; it has 0"):
        select(consensus=path, classes=4)


def test_copies_of_a_consensus_go_by_their_rank(tmp_path, select):
    table = pd.DataFrame(
        {"rlnImageName": NAMES, "copy": [0, 0, 0, 1, 0, 1], "consensus": [1, 1, 1, 2, 2, 2]}
    )
    path = tmp_path / "consensus.csv"
    table[::-1].to_csv(path, index=False)
    assert select(consensus=str(path), classes=2) == [3, 4, 5]
    # A consensus of other jobs may hold fewer names, but no fewer copies.
    table[table["rlnImageName"] != "4@a"].to_csv(path, index=False)
    assert select(consensus=str(path), classes=2) == [3, 5]
    table.iloc[:5].to_csv(path, index=False)
    with pytest.raises(InputError, match="have 1 names a different number of times"):
        select(consensus=str(path), classes=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rlnImageName,class\n1@a,2\n",
            "has columns rlnImageName, class; expected rlnImageName, c",
        ),
        ("uid,consensus\n1,2\n", "has columns uid, consensus; expected rlnImageName"),
        ("rlnImageName,consensus\n1@a,x\n", "cannot be read as a table"),
        ("rlnImageName,consensus\n9@z,1\n", "no particle in common among 1 and 6"),
        ("", "cannot be read as a table"),
    ],
)
def test_tables_that_are_no_consensus_are_refused(tmp_path, select, text, message):
    path = tmp_path / "consensus.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        select(consensus=str(path), classes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--classes, --min-pmax, --where, --consensus or --results: got none of them"),
        ({"classes": 7}, r"--classes: .*job085 has no class 7; it has 1, 2, 3, 4"),
        ({"classes": 4}, r"--classes: no particle of .* is left; it holds for none of its 6"),
        (
            {"classes": 1, "where": "ClassNumber == 2"},
            "--where: no particle of .* is left; it holds for 3, none of the 2 that met",
        ),
        ({"where": "Nothing == 2"}, r"--where 'Nothing == 2': .*data\.star has no column"),
        ({"min_pmax": 1.5}, "--min-pmax: got 1.5, expected a number from 0 to 1"),
        ({"classes": 1, "min_confidence": 0.5}, "--min-confidence: expected --consensus with it"),
        ({"classes": 1, "clusters": 0}, "--clusters: expected --results with it"),
        ({"results": "r"}, "--results: expected --clusters or --block with it, got neither"),
        ({"results": "r", "clusters": 1, "block": 2}, "with it, got both"),
        ({"consensus": "absent.csv"}, r"--consensus: absent\.csv: no such file"),
    ],
)
def test_what_cannot_be_selected_is_refused(select, options, message):
    with pytest.raises(InputError, match=message) as caught:
        select(**options)
    assert "\n" not in str(caught.value)


def test_a_file_without_particles_has_no_classes(select, tmp_path):
    empty = tmp_path / "empty.star"
    write_star(empty, {"particles": TABLE.drop(columns="rlnOpticsGroup").iloc[:0]})
    with pytest.raises(InputError, match=r"empty\.star has no class 2; it has no particles$"):
        select(empty, classes=2)


def test_files_are_not_replaced_unasked_and_stay_where_nothing_is_found(tmp_path, job):
    output = tmp_path / "particles.star"
    output.write_text("mine")
    with pytest.raises(InputError, match=r"particles\.star: exists; --overwrite replaces it"):
        emhet_dask.class3d_select(str(job), classes=1, output=str(output))
    with pytest.raises(InputError, match="no particle"):
        emhet_dask.class3d_select(str(job), classes=4, output=str(output), overwrite=True)
    assert output.read_text() == "mine"
    for name in ("particles", "particles.cs", "particles.pkl"):
        with pytest.raises(InputError, match=r"expected \.star as the particles have it"):
            emhet_dask.class3d_select(str(job), classes=1, output=str(tmp_path / name))


def test_the_particles_may_be_chosen_from_the_file_that_is_replaced(job):
    path = job / "run_it025_data.star"
    emhet_dask.class3d_select(str(path), classes=1, output=str(path), overwrite=True)
    assert read_particles(path).particles["rlnDefocusU"].tolist() == [1e4, 5e4]


def test_lists_of_names_and_classes(tmp_path, job):
    text, table = tmp_path / "names.txt", tmp_path / "names.csv"
    emhet_dask.class3d_select(str(job), classes=2, output=str(text))
    assert text.read_text() == "2@a\n1@a\n2@a\n"
    emhet_dask.class3d_select(str(job), classes=2, output=str(table))
    assert table.read_text() == (
        "row,rlnImageName,class,pmax\n1,2@a,2,0.5\n3,1@a,2,0.85\n5,2@a,2,1.0\n"
    )


def test_cryosparc_particles_stay_cryosparc_particles(tmp_path):
    posterior = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], dtype="f4")
    whole = np.zeros(
        3,
        [
            ("uid", "<u8"),
            ("alignments3D_multi/class_posterior", "<f4", (2,)),
            ("ctf/df1_A", "<f4"),
        ],
    )
    whole["uid"] = [2**63 + 1, 2**63, 5]
    whole["alignments3D_multi/class_posterior"] = posterior
    whole["ctf/df1_A"] = [1, 2, 3]
    particles, more = tmp_path / "J24.cs", tmp_path / "J24_passthrough.cs"
    cryosparc.write_particles(particles, whole[list(whole.dtype.names[:2])])
    cryosparc.write_particles(more, whole[["uid", "ctf/df1_A"]])
    output = tmp_path / "subset.cs"

    def select(**options):
        emhet_dask.class3d_select(
            str(particles), passthrough=[str(more)], output=str(output), overwrite=True, **options
        )
        return cryosparc.read_particles(output)["uid"].tolist()

    assert select(classes=1) == [2**63, 5]
    assert select(classes=1, min_pmax=0.7) == [5]
    assert select(where="ctf/df1_A < 3") == [2**63 + 1, 2**63]
    table = tmp_path / "consensus.csv"
    table.write_text(f"rlnImageName,uid,consensus\na,{2**63},1\nb,{2**63 + 1},2\n")
    assert select(consensus=str(table), classes=1) == [2**63]
    with pytest.raises(InputError, match=r"expected \.cs as the particles have it"):
        emhet_dask.class3d_select(str(particles), min_pmax=0, output=str(tmp_path / "a.star"))


@pytest.fixture
def results(tmp_path, job, client):
    """Two states of the volumes that stand for the particles of the job."""
    for number in range(3):
        volume = np.random.default_rng(number).standard_normal((8, 8, 8))
        write_map(tmp_path / f"vol_{number}.mrc", volume, voxel_size_angstrom=2.0)
    np.save(tmp_path / "labels.npy", [0, 1, 2, 1, 0, 2])
    ensemble = emhet_dask.ingest(
        [str(tmp_path / "vol_*.mrc")],
        output=str(tmp_path / "e.zarr"),
        labels=str(tmp_path / "labels.npy"),
        particles=str(job / "run_it025_data.star"),
        cluster=client,
        quiet=True,
    ).path
    folder = tmp_path / "results"
    given = {"ensemble": str(ensemble), "fingerprint": "of the selection"}
    with ResultsFolder.open(folder, command="landscape", inputs=given, parameters={}):
        pass
    (folder / "clusters").mkdir()
    names = open_ensemble(ensemble).names
    pd.DataFrame({"volume": [0, 1, 2], "name": names, "cluster": [0, 1, 0], "outlier": 0}).to_csv(
        folder / "clusters" / "cluster_labels.csv", index=False
    )
    for file, values in (("presence", [1, 0, 1]), ("occupancy", [0.9, 0.1, 0.8])):
        pd.DataFrame({"volume": [0, 1, 2], "name": names, "block_001": values}).to_csv(
            folder / f"block_{file}.csv", index=False
        )
    pd.DataFrame({"state": [0, 1], "block_001": [0, 1]}).to_csv(
        folder / "block_states.csv", index=False
    )
    return folder


def test_particles_of_states_and_blocks(select, results, job, tmp_path, bucket):
    assert select(results=str(results), clusters=0) == [0, 2, 4, 5]
    assert select(results=str(results), clusters=1, classes=2) == [1, 3]
    assert select(results=str(results), block=1, classes="1,3") == [0, 2, 4]
    with pytest.raises(InputError, match=r"--clusters: .* has no state 5"):
        select(results=str(results), clusters=5)
    s3fs.S3FileSystem().put(str(results), f"{bucket}/results", recursive=True)
    assert select(results=f"{bucket}/results", clusters=0) == [0, 2, 4, 5]
    assert select(results=f"{bucket}/results", block=1, classes="1,3") == [0, 2, 4]
    # A file with other copies of the same particles does not say which are meant.
    write_star(tmp_path / "first.star", {"particles": TABLE.drop(columns="rlnOpticsGroup")[:3]})
    with pytest.raises(InputError, match="knows 1 copies of particles"):
        select(tmp_path / "first.star", results=str(results), clusters=0)


def test_the_record_of_an_ensemble_without_particles_is_refused(select, results, tmp_path, client):
    bare = emhet_dask.ingest(
        [str(tmp_path / "vol_*.mrc")], output=str(tmp_path / "b.zarr"), cluster=client, quiet=True
    ).path
    run = results / "run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"inputs": {"ensemble": str(bare)}}))
    with pytest.raises(InputError, match="does not name its particles; ingest it with --labels"):
        select(results=str(results), clusters=0)


@pytest.mark.shared_data
def test_classes_of_a_real_job(shared_data, tmp_path):
    job = shared_data / "relion_project/Class3D/job085"
    output = tmp_path / "particles.star"
    found = emhet_dask.class3d_select(str(job), classes="2,3", min_pmax=0.99, output=str(output))
    whole = read_particles(job / "run_it025_data.star").particles
    kept = whole[
        whole["rlnClassNumber"].isin([2, 3]) & (whole["rlnMaxValueProbDistribution"] >= 0.99)
    ]
    pd.testing.assert_frame_equal(
        read_particles(output).particles, kept.reset_index(drop=True), check_exact=True
    )
    assert found.describe() == f"{output}: {len(kept)} of 4000 particles"
